"""Files of prompts as rows: JSON lines, CSV, Parquet, plain lines; from a file or from stdin, row by row.

A row that cannot be read is a row too, with a problem, so that it costs only itself. What is wrong with a file as a
whole (its encoding, its quotes, its columns) is found by :meth:`Source.survey`, before anything is sent.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import click

from . import texts

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "lines",
}
FORMATS = ("jsonl", "csv", "tsv", "parquet", "lines")
TEXT = "text"
"""The column of a plain line."""
LINE = "line"
"""The column with a line that cannot be read."""
EXTRA = "extra_cells"
"""The column with the extra cells of a CSV row, as a list."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings that would write a byte order mark; an existing one is stored separately.
_WITHOUT_BOM = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}
_NOT_DECODED = re.compile("[\udc80-\udcff]")


class Row(dict[str, Any]):
    """A row: its columns with their values.

    Attributes:
        number: Its place among the rows, from 1.
        item_id: What it is called.
        problem: Why it cannot be sent, if that is known.
        is_grave: Whether the problem concerns the whole file.
        raw: How it is written, in a file of text.
    """

    __slots__ = ("_texts", "is_grave", "item_id", "number", "problem", "raw")

    def __init__(
        self, values: Iterable[tuple[str, Any]], number: int, raw: str = "", problem: str | None = None
    ) -> None:
        super().__init__(values)
        self.number, self.raw, self.problem = number, raw, problem
        self.item_id, self.is_grave = f"row-{number}", False
        self._texts: dict[str, str] | None = None

    def _to_shelf(self) -> tuple[Any, ...]:
        """What it consists of, for a run that keeps it out of memory."""
        attributes = self.number, self.raw, self.problem, self.item_id, self.is_grave, self._texts
        return list(self.items()), attributes

    @classmethod
    def _from_shelf(cls, parts: Any) -> Row:
        values, attributes = parts
        row = cls(values, 0)
        row.number, row.raw, row.problem, row.item_id, row.is_grave, row._texts = attributes
        return row

    def texts(self) -> dict[str, str]:
        """The columns as JSON texts, as they were written."""
        if self._texts is None:
            self._texts = {name: texts.of(value) for name, value in self.items()}
        return self._texts

    def with_texts(self, written: dict[str, str]) -> Row:
        """Have these texts."""
        self._texts = written
        return self


class _JsonRow(Row):
    """A row that is an object of JSON; it is looked at again when it is written."""

    __slots__ = ()

    def texts(self) -> dict[str, str]:
        """The columns as JSON texts, as they were written."""
        if self._texts is None:
            self._texts = dict(texts.fields(self.raw))
        return self._texts


@dataclass
class Survey:
    """What is known of a file before anything is sent.

    Args:
        rows: How many rows it has.
        columns: The columns that any row has; None: unknown.
        first: The columns of the first row, where no more is known.
        is_of_requests: Whether its first row is a request of OpenAI's Batch API.
        too_long: The problem of the first CSV row with more cells than columns.
    """

    rows: int = 0
    columns: dict[str, None] | None = None
    first: dict[str, None] = field(default_factory=dict)
    is_of_requests: bool = False
    too_long: str | None = None


def format_of(path: str, given: str | None) -> str:
    """Return the format of a file: the given one, otherwise from its name; stdin is JSON Lines."""
    if given is not None:
        return given
    if path == "-":
        return "jsonl"
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise click.UsageError(
            f"{path}: unknown file type; use a name that ends in {', '.join(SUFFIXES)}, or set --format"
        )
    return SUFFIXES[suffix]


class Source:
    """A file of prompts, or stdin.

    Args:
        path: The file; ``-`` is stdin.
        kind: One of :data:`FORMATS`.
        encoding: How its text is encoded, unless a byte order mark says it.
        delimiter: What is between the cells of CSV; by default a comma, or a tab in TSV.
        limit: Maximum number of rows.

    Attributes:
        header: The first line of CSV as it is written, once it was read.
        trailer: The blank lines at the end of CSV, once all was read.
        names: The columns of CSV and Parquet, once they were read.
        bom: The byte order mark.
    """

    def __init__(
        self, path: str, kind: str, encoding: str | None = None, delimiter: str | None = None, limit: int | None = None
    ) -> None:
        self.path, self.kind, self.limit = path, kind, limit
        self.name = "stdin" if path == "-" else path
        self.delimiter = delimiter or ("\t" if kind == "tsv" else ",")
        self.encoding, self.bom = _WITHOUT_BOM.get(encoding or "", encoding or "utf-8"), b""
        self.header, self.trailer, self.names = "", "", list[str]()
        self.wanted: set[str] | None = None
        """The columns of Parquet that are needed; None: all."""
        if path == "-" and kind == "parquet":
            raise click.UsageError("Parquet cannot be read from stdin; give a file")

    @property
    def is_file(self) -> bool:
        """Whether it can be read twice."""
        return self.path != "-" and os.path.isfile(self.path)

    def rows(self) -> Iterator[Row]:
        """Read row by row."""
        return itertools.islice(self._rows(), self.limit)

    def _rows(self) -> Iterator[Row]:
        if self.kind == "parquet":
            from .parquet import rows

            yield from rows(self.path, self.wanted)
            return
        with self._opened() as file:
            lines = self._lines(file)
            if self.kind == "jsonl":
                yield from self._json_lines(lines)
            elif self.kind == "lines":
                yield from self._plain_lines(lines)
            else:
                yield from self._csv(lines)

    def survey(self) -> Survey:
        """Look through a file.

        Raises:
            click.ClickException: If it is not what it should be; names the file and the line.
        """
        if self.kind == "parquet":
            from .parquet import schema_of

            schema, count = schema_of(self.path)
            self.names = list(schema.names)
            self._check_names()
            return Survey(count if self.limit is None else min(count, self.limit), dict.fromkeys(self.names))
        found = Survey()
        columns: dict[str, None] = {}
        problem: str | None = None
        readable = 0
        for row in self.rows():
            if row.is_grave:
                raise click.ClickException(f"{row.problem}")
            found.rows += 1
            if row.problem is None:
                readable += 1
                if readable == 1:
                    found.is_of_requests = is_request(row)
            problem = problem or row.problem
            if self.names and len(row) > len(self.names):
                found.too_long = found.too_long or row.problem
            if row.keys() - columns.keys():
                columns.update(dict.fromkeys(row))
        found.columns = {**dict.fromkeys(self.names), **columns}
        if problem is not None and not readable and self.kind == "jsonl":
            raise click.ClickException(f"{problem}. The file has no valid row")
        return found

    def started(self) -> tuple[Survey, Iterator[Row]]:
        """Read the first row of what can be read only once. Returns what is known then, and all rows."""
        rows = self.rows()
        first = list(itertools.islice(rows, 1))
        columns = [TEXT] if self.kind == "lines" else self.names
        found = Survey(len(first), dict.fromkeys(columns) if self.kind != "jsonl" else None)
        found.first = dict.fromkeys(name for row in first for name in row)
        found.is_of_requests = bool(first) and is_request(first[0])
        return found, itertools.chain(first, rows)

    def _opened(self) -> IO[str]:
        if self.path == "-":
            if sys.stdin is None:
                raise click.ClickException("stdin cannot be read: it is closed")
            binary: Any = sys.stdin.buffer
            if not hasattr(binary, "peek"):
                binary = io.BufferedReader(binary)
            self._find_bom(binary.peek(4)[:4])
            binary.read(len(self.bom))
        else:
            try:
                binary = open(self.path, "rb")  # noqa: SIM115 - its reader closes it
                self._find_bom(binary.peek(4)[:4])
                binary.read(len(self.bom))
            except OSError as error:
                raise click.FileError(self.path, error.strerror or str(error)) from error
        return io.TextIOWrapper(binary, encoding=self.encoding, errors="surrogateescape", newline="")

    def _find_bom(self, first: bytes) -> None:
        for bom, encoding in _BOMS:
            if first.startswith(bom):
                self.bom, self.encoding = bom, encoding
                return

    def _lines(self, file: IO[str]) -> Iterator[str]:
        number = 0
        try:
            for number, line in enumerate(file, 1):  # noqa: B007 - it is used below
                yield line
        except UnicodeError as error:
            raise click.ClickException(
                f"{self.name}, after line {number}: it is not {self.encoding} ({error})"
            ) from None

    def _not_decoded(self, line: str, number: int) -> str | None:
        """What is wrong with the bytes of a line."""
        if line.isascii() or (found := _NOT_DECODED.search(line)) is None:
            return None
        another = "cp1252" if self.encoding == "utf-8" else "utf-8"
        return (
            f"{self.name}, line {number} is not {self.encoding.upper()}: byte 0x{ord(found[0]) - 0xDC00:02x} at "
            f"character {found.start() + 1}. Set its encoding, for example --encoding {another}"
        )

    def _undecoded(self, number: int, problem: str) -> Row:
        row = Row((), number, problem=problem)
        row.is_grave = True
        return row

    def _plain_lines(self, lines: Iterator[str]) -> Iterator[Row]:
        count = 0
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            count += 1
            problem = self._not_decoded(line, number)
            yield Row([(TEXT, text)], count, line) if problem is None else self._undecoded(count, problem)

    def _json_lines(self, lines: Iterator[str]) -> Iterator[Row]:
        count = 0
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            count += 1
            problem = self._not_decoded(line, number)
            if problem is not None:
                yield self._undecoded(count, problem)
                continue
            yield self._of_json(line, count, f"{self.name}, line {number}")

    def _of_json(self, line: str, count: int, where: str) -> Row:
        try:
            value = texts.read(line)
        except ValueError as error:
            return _unreadable(line, count, f"{where} is not JSON: {_json_message(error)}")
        if isinstance(value, str):
            return Row([(TEXT, value)], count, line)
        if not isinstance(value, dict):
            kind = type(value).__name__
            return _unreadable(
                line, count, f"{where} must be a JSON object or string, not {kind}: {line.strip()[:80]!r}"
            )
        if isinstance(value, texts.Ambiguous):
            twice = Counter(name for name, _ in texts.fields(line)).most_common(1)[0][0]
            return _unreadable(line, count, f"{where} has the key {twice!r} more than once")
        return _JsonRow(value.items(), count, line)

    def _csv(self, lines: Iterator[str]) -> Iterator[Row]:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # what it takes everywhere
        taken: list[str] = []

        def remembered() -> Iterator[str]:
            for line in lines:
                taken.append(line)
                yield line

        reader = csv.reader(remembered(), delimiter=self.delimiter, strict=True)
        count, names = 0, list[str]()
        while True:
            number = reader.line_num + 1
            problem = None
            try:
                cells = next(reader, None)
            except csv.Error as error:
                cells, problem = [], f"{self.name}, line {number}: {_message(error, reader.line_num > number)}"
            if cells is None:
                self.trailer = "".join(taken)
                return
            if not cells and problem is None:
                continue  # a blank line belongs to the line after it
            raw = "".join(taken)
            taken.clear()
            problem = problem or self._not_decoded(raw, number)
            if not names:
                if problem is not None:
                    raise click.ClickException(problem)
                self.header, self.names = raw, cells
                names = cells
                self._check_names()
                continue
            count += 1
            if problem is not None:
                yield self._undecoded(count, problem)
                continue
            row = Row(zip(names, cells, strict=False), count, raw)
            if len(cells) > len(names):
                row[free_name(EXTRA, names)] = cells[len(names) :]
            if len(cells) != len(names):
                has = f"{len(cells)} cells" if len(cells) > 1 else "one cell"
                row.problem = f"{self.name}, line {number} has {has}, the first line has {len(names)}"
            yield row

    def _check_names(self) -> None:
        for name, count in Counter(self.names).items():
            if count > 1:
                what = f"columns {name!r}" if name else "columns without a name"
                raise click.ClickException(f"{self.name} has {count} {what}; give each column its own name")


def free_name(name: str, names: Collection[str]) -> str:
    """The name, or with a number where there is a column of this name."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in names)


def _unreadable(line: str, count: int, problem: str) -> Row:
    return Row([(LINE, line.strip("\r\n"))], count, line, problem)


def _json_message(error: ValueError) -> str:
    """Return what is wrong with a line, without a line number."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    return f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"


def _message(error: csv.Error, is_long: bool) -> str:
    words = str(error)
    return f"{words}; a quote that opens there may not be closed" if is_long else words


def is_request(row: Row) -> bool:
    """Whether a row is a request of OpenAI's Batch API."""
    if "custom_id" not in row or "body" not in row:
        return False
    return isinstance(row["body"], dict) or ("url" in row and "method" in row)
