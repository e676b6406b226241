"""Parquet: rows out of it, tables into it. Copied columns stay in Arrow, unchanged.

Types of columns are known when every row was seen; until then rows wait. See :mod:`.kinds`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from .._frames import Kind as Declared
from . import texts
from .columns import ID, OUTPUT, Columns, Result, Texts
from .kinds import Kind
from .reading import Row, Source
from .tables import Waiting, answer_columns

PORTION = 1024
"""Rows that are read at a time."""
GROUP, GROUP_SIZE = 65_536, 64 << 20
"""Most rows of a group, and most bytes (or characters of JSON) after which one is written."""
NOTE = b"batch_llm.columns"
"""The metadata key with the columns of answers that were added in place."""
_OTHERS = {
    "input_tokens": Declared("integer"), "output_tokens": Declared("integer"),
}  # fmt: skip


def load() -> Any:
    """Import pyarrow, or raise an error that says how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise click.ClickException("Parquet needs pyarrow. Install it: pip install pyarrow") from error
    return pyarrow


def _opened(path: str, file: Any = None) -> Any:
    arrow = load()
    try:
        return arrow.parquet.ParquetFile(file or path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise click.ClickException(f"{path} cannot be read: {error}") from error


def schema_of(path: str) -> tuple[Any, int]:
    """The Arrow schema of a file, and how many rows it has."""
    with _opened(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def noted(path: str) -> list[str]:
    """The names of columns of answers that earlier runs have added in place."""
    try:
        found = json.loads((schema_of(path)[0].metadata or {}).get(NOTE, b"[]"))
    except ValueError:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def rows(path: str, wanted: set[str] | None) -> Iterator[Row]:
    """Read row by row.

    Args:
        path: The file.
        wanted: The columns that are needed; None: all.
    """
    number = 0
    with _opened(path) as file:
        names = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
        try:
            for batch in file.iter_batches(PORTION, columns=names):
                columns = [_values(batch.column(name)) for name in names]
                for place in range(batch.num_rows):
                    number += 1
                    yield Row([(name, column[place]) for name, column in zip(names, columns, strict=True)], number)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path} cannot be read after row {number}: {error}") from error


def _values(column: Any) -> list[Any]:
    if str(column.type) == "time64[ns]":  # Python's times end with microseconds
        column = column.cast("string")
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, TypeError):  # what Python does not have, such as nanoseconds
        return [_value(one) for one in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, TypeError):
        try:
            return scalar.cast("string").as_py()
        except (ValueError, TypeError, NotImplementedError):
            return repr(scalar)


class _Ours:
    """Kinds of our columns, and their values as Arrow's arrays."""

    def __init__(self, waiting: Waiting, schema: Any) -> None:
        self._waiting = waiting
        self._kinds = {(OUTPUT, part): Kind(kind) for part, kind in answer_columns(schema).items()}

    def look_at(self, new_values: Texts) -> None:
        """Record values."""
        parts = self._waiting.parts(new_values)
        for field, text in new_values.items():
            for part, value in parts.items() if field == OUTPUT else (("", text),):
                self._kind(field, part).add(texts.read(value))

    def _kind(self, field: str, part: str) -> Kind:
        kind = self._kinds.get((field, part))
        if kind is None:
            kind = self._kinds[field, part] = Kind(_OTHERS.get(field))
        return kind

    def fields(self, arrow: Any) -> list[Any]:
        """The columns' fields, when all values were seen."""
        return [arrow.field(name, self._kind(field, part).arrow(arrow)) for name, field, part in self._waiting.ours]

    def arrays(self, arrow: Any, new_values: list[Texts]) -> list[Any]:
        """The columns of some rows."""
        kinds = [self._kind(field, part) for _, field, part in self._waiting.ours]
        values = (
            zip(*(self._waiting.values(one) for one in new_values), strict=True) if new_values else [()] * len(kinds)
        )
        return [
            arrow.array([kind.fit(texts.read(text)) for text in column], kind.arrow(arrow))
            for kind, column in zip(kinds, values, strict=True)
        ]


class Made:
    """A table of rows from other formats.

    Args:
        file: Where it is written.
        columns: Our columns.
        schema: What answers are.
        folder: Where rows wait until the types are known.
    """

    def __init__(self, file: BinaryIO, columns: Columns, schema: Any, folder: Path | None) -> None:
        self._arrow = load()
        self._file, self._columns = file, columns
        self._waiting = Waiting(columns, schema, folder)
        self._ours = _Ours(self._waiting, schema)
        self._kinds: dict[str, Kind] = {}

    def write(self, row: Row, result: Result | None) -> None:
        """Have a row wait, and look at it."""
        columns, new_values = self._columns.record(row, result)
        for name, text in columns.items():
            kind = self._kinds.get(name)
            if kind is None:
                kind = self._kinds[name] = Kind()
            kind.add(texts.read(text))
        self._ours.look_at(new_values)
        self._waiting.put(texts.object_of(list(columns.items())), new_values, columns)

    def close(self) -> None:
        """Write all rows."""
        arrow = self._arrow
        names = self._waiting.columns
        kinds = [self._kinds.get(name) or Kind() for name in names]
        fields = [arrow.field(texts.whole(name), kind.arrow(arrow)) for name, kind in zip(names, kinds, strict=True)]
        schema = arrow.schema([*fields, *self._ours.fields(arrow)])
        with arrow.parquet.ParquetWriter(self._file, schema) as writer:
            for portion in _portions(self._waiting.take()):
                found = [dict(texts.fields(first)) for first, _ in portion]
                arrays = [
                    arrow.array([kind.fit(texts.read(row.get(name, "null"))) for row in found], field.type)
                    for name, kind, field in zip(names, kinds, fields, strict=True)
                ]
                arrays += self._ours.arrays(arrow, [new_values for _, new_values in portion])
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


class Copied:
    """A table from a table: its columns are copied, whatever their types, and the new ones are added.

    Args:
        file: Where it is written.
        columns: Our columns.
        source: The table.
        schema: What answers are.
        folder: Where answers wait until their types are known.
    """

    def __init__(self, file: BinaryIO, columns: Columns, source: Source, schema: Any, folder: Path | None) -> None:
        self._arrow = load()
        self._file, self._columns, self._source = file, columns, source
        # Kept open: if another file replaces it meanwhile, this is still the one that was sent.
        self._table, self._before = self._arrow.OSFile(source.path), _state(source.path)
        self._waiting = Waiting(columns, schema, folder)
        self._ours = _Ours(self._waiting, schema)

    def write(self, row: Row, result: Result | None) -> None:
        """Queue the new values of a row. Rows come in the order of the table."""
        new_values = self._columns.new_values(row, result)
        self._ours.look_at(new_values)
        self._waiting.put(f"{row.number} {row.item_id if self._columns.adds_id else ''}", new_values)

    def close(self) -> None:
        """Write the table."""
        arrow = self._arrow
        path = self._source.path
        now = _state(path)
        if now[:2] == self._before[:2] and now != self._before:
            raise click.ClickException(
                f"{path} changed while it was being read. Run the command again; it sends only what is not in the store"
            )
        with _opened(path, self._table) as file:
            schema, codec = self._schema(file.schema_arrow), _codec(file)
            with arrow.parquet.ParquetWriter(self._file, schema, compression=codec) as writer:
                tables: list[Any] = []
                for table in self._tables(file, schema):
                    tables.append(table)
                    if sum(map(len, tables)) >= GROUP or sum(one.nbytes for one in tables) >= GROUP_SIZE:
                        writer.write_table(arrow.concat_tables(tables))
                        tables = []
                if tables:
                    writer.write_table(arrow.concat_tables(tables))

    def _schema(self, before: Any) -> Any:
        arrow = self._arrow
        fields = [field for field in before if not self._columns.is_ours(field.name)]
        if self._columns.adds_id:
            fields.insert(0, arrow.field(ID, arrow.string()))
        ours = self._ours.fields(arrow)
        metadata = dict(before.metadata or {})
        if self._columns.in_place:
            names = dict.fromkeys([*self._columns.before, self._columns.names[OUTPUT]])
            metadata[NOTE] = json.dumps(list(names)).encode()
        if b"pandas" in metadata:
            metadata[b"pandas"] = _for_pandas(metadata[b"pandas"], [field.name for field in fields], ours)
        return arrow.schema([*fields, *ours], metadata)

    def _tables(self, file: Any, schema: Any) -> Iterator[Any]:
        arrow = self._arrow
        waiting = self._waiting.take()
        following = next(waiting, None)
        begin = 0
        for batch in file.iter_batches(PORTION * 8):
            end = begin + batch.num_rows
            places, ids, new_values = [], [], []
            while following is not None and (number := int(following[0].partition(" ")[0])) <= end:
                places.append(number - begin - 1)
                ids.append(following[0].partition(" ")[2])
                new_values.append(following[1])
                following = next(waiting, None)
            begin = end
            if not places:
                continue
            if len(places) < batch.num_rows:
                batch = batch.take(arrow.array(places))
            columns = [
                column for name, column in zip(batch.schema.names, batch.columns, strict=True)
                if not self._columns.is_ours(name)
            ]  # fmt: skip
            if self._columns.adds_id:
                columns.insert(0, arrow.array(ids, arrow.string()))
            yield arrow.Table.from_arrays([*columns, *self._ours.arrays(arrow, new_values)], schema=schema)


def _portions(lines: Iterator[tuple[str, Texts]]) -> Iterator[list[tuple[str, Texts]]]:
    portion: list[tuple[str, Texts]] = []
    size = 0
    for line in lines:
        portion.append(line)
        size += len(line[0]) + sum(map(len, line[1].values()))
        if len(portion) >= GROUP or size >= GROUP_SIZE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _state(path: str) -> tuple[int, ...]:
    """Which file it is, and what changes when it does."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _codec(file: Any) -> str:
    """How a file is compressed."""
    if not file.metadata.num_row_groups or not file.metadata.num_columns:
        return "snappy"
    codec = str(file.metadata.row_group(0).column(0).compression).lower()
    return {"uncompressed": "none", "lz4_raw": "lz4"}.get(codec, codec)


_PANDAS_TYPES = {
    "string": ("unicode", "object"), "int64": ("int64", "Int64"), "double": ("float64", "float64"),
    "bool": ("bool", "object"), "uint64": ("uint64", "UInt64"),
}  # fmt: skip


def _for_pandas(written: bytes, names: list[str], ours: list[Any]) -> bytes:
    """What pandas wants to know of a table, with our columns."""
    try:
        known = json.loads(written)
        columns = [column for column in known["columns"] if column.get("field_name", column.get("name")) in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        return written
    for field in ours:
        kind, numpy = _PANDAS_TYPES.get(str(field.type), ("object", "object"))
        columns.append(
            {"name": field.name, "field_name": field.name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        )
    return json.dumps({**known, "columns": columns}).encode()
