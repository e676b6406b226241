"""Results as rows of files: JSON Lines, CSV, Parquet; beside the input columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import click

from . import texts
from .columns import Columns, Result, Texts
from .reading import SUFFIXES, Row, Source
from .tables import Waiting


class Writer(Protocol):
    """Takes rows and their results."""

    def write(self, row: Row, result: Result | None) -> None:
        """Add a row; without a result it is an invalid one."""

    def close(self) -> None:
        """Write the rest."""


Make = Callable[[BinaryIO, Path | None], Writer]
"""Makes a writer for a file, given the folder for what does not fit into memory."""


def format_of(path: str, given: str | None, *, is_stream: bool) -> str:
    """Return the output format: the given one, otherwise from the name; for stdout, devices and pipes JSON Lines."""
    kind = given or SUFFIXES.get(Path(path).suffix.lower())
    if is_stream:
        if kind == "parquet":
            raise click.UsageError("Parquet can be written to files only; give -o FILE")
        return given or "jsonl"
    if given is not None:
        return given
    if kind is None or kind == "lines":
        raise click.UsageError(
            f"{path}: unknown file type; use a name that ends in .jsonl, .csv or .parquet, or set --output-format"
        )
    return kind


class Text:
    """Text into a binary file."""

    def __init__(self, file: BinaryIO, encoding: str = "utf-8", errors: str = "strict", bom: bytes = b"") -> None:
        self._file, self._encoding, self._errors = file, encoding, errors
        if bom:
            file.write(bom)

    def write(self, text: str) -> None:
        """Write it."""
        self._file.write(text.encode(self._encoding, self._errors))


class JsonLines:
    """JSON Lines. In place, the file keeps its byte order mark and its line endings.

    Rows from a pipe wait until all were seen, so that the new columns have the same name in all of them. Rows written
    into a pipe do not wait.
    """

    def __init__(self, file: BinaryIO, columns: Columns, source: Source, folder: Path | None) -> None:
        in_place = columns.in_place
        encoding, bom = (source.encoding, source.bom) if in_place else ("utf-8", b"")
        # Halves of surrogate pairs become what they are in JSON: escapes.
        self._file = Text(file, encoding, "backslashreplace", bom)
        self._columns, self._in_place = columns, in_place
        waits = columns.known is None and folder is not None and not columns.of_requests
        self._waiting = Waiting(columns, None, folder) if waits else None

    def write(self, row: Row, result: Result | None) -> None:
        """Write a line, or queue it."""
        columns, new_values = self._columns.record(row, result)
        if self._waiting is not None:
            self._waiting.put(texts.object_of(list(columns.items())), new_values, columns)
            return
        end = row.raw[len(row.raw.rstrip("\r\n")) :] if self._in_place else "\n"
        self._write(list(columns.items()), new_values, self._columns.names_among(columns, row.number), end)

    def close(self) -> None:
        """Write the queued lines."""
        if self._waiting is None:
            return
        names = self._waiting.names
        for first, new_values in self._waiting.take():
            self._write(texts.fields(first), new_values, names, "\n")

    def _write(self, columns: list[tuple[str, str]], new_values: Texts, names: Texts, end: str) -> None:
        named = [(names[field], text) for field, text in new_values.items()]
        self._file.write(texts.object_of([*columns, *named]) + end)


def maker(kind: str, columns: Columns, source: Source, schema: Any, *, escape: bool) -> Make:
    """Return the writer of a format.

    Args:
        kind: The kind.
        columns: Our columns.
        source: Where rows come from.
        schema: The JSON Schema of answers, if there is one.
        escape: Whether CSV cells that look like formulas are escaped.
    """
    from . import parquet, tables

    if kind == "jsonl":
        return lambda file, folder: JsonLines(file, columns, source, folder)
    if kind != "parquet":
        return lambda file, folder: tables.Csv(
            Text(file, *tables.encoding_of(columns, source)), columns, source, schema, kind, folder, escape=escape
        )
    if source.kind == "parquet" and not columns.of_requests:
        return lambda file, folder: parquet.Copied(file, columns, source, schema, folder)
    return lambda file, folder: parquet.Made(file, columns, schema, folder)
