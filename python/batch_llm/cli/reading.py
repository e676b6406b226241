"""Files of prompts as rows: JSON lines, CSV, Parquet, plain lines; from a file or from stdin, row by row."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

Row = dict[str, Any]

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


def format_of(path: str, given: str | None) -> str:
    """What a file is: as was said, else by its name; stdin is JSON lines."""
    if given is not None:
        return given
    if path == "-":
        return "jsonl"
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise click.UsageError(
            f"{path}: its name does not say what it is; name it {', '.join(SUFFIXES)}, or say it with --format"
        )
    return SUFFIXES[suffix]


def rows(path: str, kind: str) -> Iterator[Row]:
    """Read row by row.

    Raises:
        click.ClickException: When a row is not what it should be; names the file and the line.
    """
    if kind == "parquet":
        yield from _parquet(path)
        return
    with _opened(path) as file:
        if kind == "jsonl":
            yield from _json_lines(path, file)
        elif kind == "lines":
            yield from ({TEXT: line.rstrip("\n")} for line in file if line.strip())
        else:
            yield from _csv(path, file, "\t" if kind == "tsv" else ",")


def _opened(path: str) -> IO[str]:
    if path == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise click.FileError(path, error.strerror or str(error)) from error


def _json_lines(path: str, file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise click.ClickException(f"{path}, line {number} is not JSON: {error}") from error
        if isinstance(row, str):
            row = {TEXT: row}
        if not isinstance(row, dict):
            raise click.ClickException(
                f"{path}, line {number} must be an object or a text, not {type(row).__name__}: {line[:80]!r}"
            )
        yield row


def _csv(path: str, file: IO[str], delimiter: str) -> Iterator[Row]:
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise click.ClickException(f"{path}, line {reader.line_num} has other columns than the first line")
            yield dict(row)
    except csv.Error as error:
        raise click.ClickException(f"{path}, line {reader.line_num}: {error}") from error


def _parquet(path: str) -> Iterator[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise click.ClickException("Parquet needs pyarrow. Install it: pip install pyarrow") from error
    if path == "-":
        raise click.UsageError("Parquet cannot be read from stdin; give a file")
    try:
        file = parquet.ParquetFile(path)
        for batch in file.iter_batches(1024):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise click.ClickException(f"{path} cannot be read: {error}") from error


def schema_of(path: str) -> Any:
    """The columns of a Parquet file with their types, an Arrow schema."""
    import pyarrow.parquet as parquet

    return parquet.read_schema(path)
