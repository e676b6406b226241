"""Rows as CSV, and the columns of tables, which are known when every row was seen.

In place, rows of CSV are copied as they are written, to the letter, and get cells at their end.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from .._frames import Answers, Kind
from . import texts
from .columns import ERROR, ID, OUTPUT, Columns, Result, Texts
from .reading import Row, Source
from .spool import Spool

_BETWEEN = "\x1f"
"""Between the parts of a line that waits; no JSON has it in it."""
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def answer_columns(schema: Any) -> dict[str, Kind]:
    """Return the answer columns of a schema, by what follows the name: a dot and a field, or nothing."""
    kind = None if schema is None else Answers(schema).kind
    if kind is None or kind.name == "json":
        return {}
    return {f".{name}": part for name, part in kind.parts.items()} if kind.name == "struct" else {"": kind}


class Waiting:
    """Rows that wait until all columns are known.

    Args:
        columns: Our columns.
        schema: What answers are, if it is known.
        folder: Where rows wait when they are many.
    """

    def __init__(self, columns: Columns, schema: Any, folder: Path | None) -> None:
        self._columns = columns
        self._spool = Spool(folder)
        self._seen: dict[str, None] = {} if columns.of_requests else dict.fromkeys(columns.known or ())
        self._parts: dict[str, None] = dict.fromkeys(answer_columns(schema))
        self._has_values = not columns.of_requests

    def put(self, first: str, new_values: Texts, seen: Iterable[str] = ()) -> None:
        """Add a row: its columns, a JSON text, and its new values."""
        self._seen.update(dict.fromkeys(seen))
        self._has_values = self._has_values or bool(new_values)
        self._parts.update(dict.fromkeys(self.parts(new_values)))
        self._spool.put(first + _BETWEEN + texts.object_of(list(new_values.items())))

    def parts(self, new_values: Texts) -> Texts:
        """An answer as texts of its columns, by what is put after the name."""
        answer = new_values.get(OUTPUT, "null")
        if self._columns.is_flat and answer.startswith("{") and (fields := texts.fields(answer)):
            return {f".{name}": text for name, text in fields}
        return {} if answer == "null" else {"": answer}

    def take(self) -> Iterator[tuple[str, Texts]]:
        """Take all rows out, in their order."""
        while (line := self._spool.take()) is not None:
            first, _, new_values = line.rpartition(_BETWEEN)
            yield first, dict(texts.fields(new_values))
        self._spool.close()

    @property
    def columns(self) -> list[str]:
        """The columns of the input, as far as they were seen."""
        names = [name for name in self._seen if not self._columns.is_ours(name)]
        if not self._columns.adds_id or self._columns.of_requests:
            return names
        return [ID, *(name for name in names if name != ID)]

    @cached_property
    def names(self) -> Texts:
        """The names of the new columns by field, once all rows were seen."""
        return self._columns.names_among(self._seen)

    @cached_property
    def ours(self) -> list[tuple[str, str, str]]:
        """Our columns, when all rows were seen: name, what is in it, and the part of an answer."""
        if not self._has_values:
            return []
        names = self.names
        answers = [(f"{names[OUTPUT]}{part}", OUTPUT, part) for part in self._parts or ("",)]
        return [*answers, *((names[field], field, "") for field in self._columns.fields if field != OUTPUT)]

    def values(self, new_values: Texts) -> Iterator[str]:
        """The texts of our columns."""
        parts = self.parts(new_values)
        for _, field, part in self.ours:
            yield parts.get(part, "null") if field == OUTPUT else new_values.get(field, "null")


class _Text(Protocol):
    def write(self, text: str) -> None: ...


def encoding_of(columns: Columns, source: Source) -> tuple[str, str, bytes]:
    """Encoding, what is done with what it lacks, and byte order mark of a table: what the input has."""
    if columns.in_place:
        return source.encoding, "strict", source.bom
    return "utf-8", "strict", b"\xef\xbb\xbf" if source.bom and source.kind in ("csv", "tsv") else b""


_QUOTED_ENDS = "\r\n"
"""The csv module quotes cells only for the characters of its own line end: so it gets both, which are replaced."""


class _Echo:
    """What a writer of CSV writes to, to give it back."""

    def write(self, text: str) -> str:
        return text


class Csv:
    """CSV.

    Args:
        file: Where it is written.
        columns: Our columns.
        source: Where rows come from; in place its delimiter, quotes and line endings stay.
        schema: What answers are.
        kind: ``csv`` or ``tsv``.
        folder: Where rows wait until the columns are known.
        escape: Whether cells that look like formulas get an apostrophe.
    """

    def __init__(
        self,
        file: _Text,
        columns: Columns,
        source: Source,
        schema: Any,
        kind: str,
        folder: Path | None,
        *,
        escape: bool,
    ) -> None:
        self._file, self._columns, self._source, self._escape = file, columns, source, escape
        self._waiting = Waiting(columns, schema, folder)
        # Where answers are texts, all columns are known: rows need not wait.
        # Those of a pipe may still turn out to have a row with more cells, and wait where they may.
        is_known = columns.known is not None and (source.is_file or folder is None)
        self._is_straight = is_known and not columns.is_flat and not columns.of_requests
        self._delimiter = source.delimiter if source.kind == kind else "\t" if kind == "tsv" else ","
        self._end = source.header[len(source.header.rstrip("\r\n")) :][:2] or "\n"
        self._has_begun = False

    def write(self, row: Row, result: Result | None) -> None:
        """Write a line, or queue it."""
        columns, new_values = self._columns.record(row, result)
        if not self._is_straight:
            first = texts.of(row.raw) if self._columns.in_place else texts.object_of(list(columns.items()))
            self._waiting.put(first, new_values, () if self._columns.in_place else columns)
            return
        if not self._has_begun:
            self._begin()
        if not self._columns.in_place and (beyond := [name for name in columns if name not in self._names]):
            # A row of a pipe that has more cells than the first one.
            message = f"{texts.read(new_values[ERROR])}; further cells: {', '.join(columns[name] for name in beyond)}"
            new_values = {**new_values, ERROR: texts.of(message)}
        self._write(row.raw if self._columns.in_place else columns, new_values)

    def close(self) -> None:
        """Write the queued lines."""
        if not self._has_begun:
            self._begin()
        for first, new_values in self._waiting.take():
            self._write(texts.read(first) if self._columns.in_place else dict(texts.fields(first)), new_values)
        if self._columns.in_place:
            self._file.write(self._source.trailer)

    def _begin(self) -> None:
        self._has_begun = True
        self._ours = self._waiting.ours
        names = [name for name, _, _ in self._ours]
        if not self._columns.in_place:
            self._names = self._waiting.columns
            self._make = csv.writer(_Echo(), delimiter=self._delimiter, lineterminator=_QUOTED_ENDS)
            self._file.write(self._cells([*self._names, *names]) + self._end)
            return
        written = split(self._source.header, self._delimiter)[0]
        is_quoted = bool(written) and all(cell.lstrip("\r\n").startswith('"') for cell in written)
        self._make = csv.writer(
            _Echo(),
            delimiter=self._delimiter,
            lineterminator=_QUOTED_ENDS,
            quoting=csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL,
        )
        self._kept = [
            place for place, name in enumerate(self._source.names) if not self._columns.is_ours(name)
        ]  # fmt: skip
        if self._source.header:
            self._write_beside(self._source.header, names)

    def _write(self, first: Any, new_values: Texts) -> None:
        ours = [cell(text) for text in self._waiting.values(new_values)]
        if self._columns.in_place:
            self._write_beside(first, ours)
        else:
            cells = self._cells([*(cell(first.get(name, "null")) for name in self._names), *ours])
            self._file.write(cells + self._end)

    def _write_beside(self, raw: str, ours: list[str]) -> None:
        """Write a line as it was written, and cells at its end."""
        written, end = split(raw, self._delimiter)
        written += [""] * (len(self._source.names) - len(written))
        kept = [written[place] for place in self._kept]
        self._file.write(self._delimiter.join([*kept, self._cells(ours)]) + end)

    def _cells(self, values: list[str]) -> str:
        if self._escape:
            values = [harmless(value) for value in values]
        made: Any = self._make.writerow([texts.whole(value) for value in values])
        return str(made).removesuffix(_QUOTED_ENDS)


def cell(text: str) -> str:
    """A JSON text as a cell: texts as they are, nothing where there is nothing, all else as JSON."""
    if text == "null":
        return ""
    return str(json.loads(text)) if text.startswith('"') else text


def harmless(value: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay what they are."""
    if not value.lstrip(" ").startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def split(raw: str, delimiter: str) -> tuple[list[str], str]:
    """A line of CSV as its cells, each as it is written, and the end of the line; blank lines before it stay there."""
    pattern = re.compile(rf'(?:"[^"]*(?:""[^"]*)*")?[^{re.escape(delimiter)}\r\n]*')
    cells, begin = [], 0
    place = len(raw) - len(raw.lstrip("\r\n"))
    while True:
        found = pattern.match(raw, place)
        assert found is not None
        place = found.end()
        cells.append(raw[begin:place])
        if raw[place : place + 1] != delimiter:
            return cells, raw[place:]
        begin = place = place + 1
