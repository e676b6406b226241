"""Results as rows of files: JSON lines, CSV, Parquet; beside what was asked."""

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
    """Takes rows and what came of them."""

    def write(self, row: Row, result: Result | None) -> None:
        """Add one; without a result it is a row that was not asked about."""

    def close(self) -> None:
        """Put down what is left."""


Make = Callable[[BinaryIO, Path | None], Writer]
"""Makes a writer into a file, given the folder for what does not fit into memory."""


def format_of(path: str, given: str | None, *, is_stream: bool) -> str:
    """What is to be written: as was said, else by the name; to stdout, devices and pipes JSON lines."""
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
        file.write(bom)

    def write(self, text: str) -> None:
        """Write it."""
        self._file.write(text.encode(self._encoding, self._errors))


class JsonLines:
    """JSON lines. In place, the file keeps its byte order mark and the ends of its lines.

    Rows of a pipe wait until all were seen, so that our columns have one name in all of them. Those that are written
    into a pipe do not wait.
    """

    def __init__(self, file: BinaryIO, columns: Columns, source: Source, folder: Path | None) -> None:
        is_kept = columns.in_place
        encoding, bom = (source.encoding, source.bom) if is_kept else ("utf-8", b"")
        # Halves of surrogate pairs become what they are in JSON: escapes.
        self._file = Text(file, encoding, "backslashreplace", bom)
        self._columns, self._is_kept = columns, is_kept
        waits = columns.known is None and folder is not None and not columns.of_requests
        self._waiting = Waiting(columns, None, folder) if waits else None

    def write(self, row: Row, result: Result | None) -> None:
        """Write a line, or have it wait."""
        columns, told = self._columns.record(row, result)
        if self._waiting is not None:
            self._waiting.put(texts.object_of(list(columns.items())), told, columns)
            return
        end = row.raw[len(row.raw.rstrip("\r\n")) :] if self._is_kept else "\n"
        self._write(list(columns.items()), told, self._columns.names_among(columns, row.number), end)

    def close(self) -> None:
        """Write what has waited."""
        if self._waiting is None:
            return
        names = self._waiting.names
        for first, told in self._waiting.take():
            self._write(texts.fields(first), told, names, "\n")

    def _write(self, columns: list[tuple[str, str]], told: Texts, names: Texts, end: str) -> None:
        named = [(names[field], text) for field, text in told.items()]
        self._file.write(texts.object_of([*columns, *named]) + end)


def maker(kind: str, columns: Columns, source: Source, schema: Any, *, escape: bool) -> Make:
    """What writes a kind of file.

    Args:
        kind: The kind.
        columns: Our columns.
        source: Where rows come from.
        schema: The JSON Schema of answers, if there is one.
        escape: Whether cells of CSV that a spreadsheet would take for a formula are escaped.
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
