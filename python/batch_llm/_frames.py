"""The three libraries of data frames: their rows as Python's values, and columns added. Used by ``frames``."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ._columns import Kind, as_text
from ._tables import load

Column = tuple[str, Kind, list[Any]]
PORTION = 1024
"""Rows that are taken out of an Arrow table at a time."""


class Frame(ABC):
    """A data frame of one of the libraries."""

    def __init__(self, frame: Any, names: Iterable[Any]) -> None:
        self.frame = frame
        self.names = [str(name) for name in names]

    def __len__(self) -> int:
        return len(self.frame)

    @abstractmethod
    def rows(self, names: Sequence[str]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row; None is what is missing."""

    @abstractmethod
    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A frame with more columns, or others in place of those of the same names."""


def frame_of(frame: Any) -> Frame | None:
    """A frame of a library; None when it is none."""
    for library, name, kind in (
        ("pandas", "DataFrame", PandasFrame),
        ("polars", "DataFrame", PolarsFrame),
        ("pyarrow", "Table", ArrowFrame),
    ):
        if is_a(frame, library, name):
            return kind(frame)
    return None


def is_a(value: Any, library: str, name: str) -> bool:
    """Whether a value is of a class of a library, which is not imported for the question."""
    found = getattr(sys.modules.get(library), name, None)
    return found is not None and isinstance(value, found)


def _texts(values: Sequence[Any]) -> list[Any]:
    """Values that do not fit their column."""
    return [None if value is None else as_text(value) for value in values]


_PANDAS_TYPES = {"text": "string", "json": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean"}


class PandasFrame(Frame):
    """pandas; new columns have the types that know missing values."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame, frame.columns)

    def rows(self, names: Sequence[str]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row."""
        for name in names:
            if self.names.count(name) > 1:
                raise ValueError(f"there is more than one column {name!r}; rename one")
        return zip(*(self._objects(self.frame.iloc[:, self.names.index(name)]) for name in names), strict=True)

    @staticmethod
    def _objects(series: Any) -> Iterator[Any]:
        return (None if gone else value for value, gone in zip(series, series.isna(), strict=True))

    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A shallow copy with more columns."""
        frame = self.frame.copy(deep=False)
        for name, kind, values in columns:
            frame[name] = self._array(kind, values)
        return frame

    def _array(self, kind: Kind, values: list[Any]) -> Any:
        pandas = load("pandas")
        try:
            if kind.name == "category" and set(values) <= {None, *kind.values}:
                return pandas.Categorical(values, categories=kind.values)
            if kind.name in ("date", "datetime"):
                return pandas.array(pandas.to_datetime(values, utc=kind.name == "datetime"))
            if kind.name not in ("list", "struct"):
                return pandas.array(values, dtype=_PANDAS_TYPES.get(kind.name, "string"))
        except (TypeError, ValueError, OverflowError):
            return pandas.array(_texts(values), dtype="string")
        objects = pandas.Series([None] * len(values), dtype=object)
        for place, value in enumerate(values):
            objects.iat[place] = value
        return objects.array


class PolarsFrame(Frame):
    """Polars."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame, frame.columns)

    def rows(self, names: Sequence[str]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row."""
        rows: Iterable[Sequence[Any]] = self.frame.select(names).iter_rows()
        return rows

    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A frame with more columns."""
        return self.frame.with_columns([self._series(*column) for column in columns])

    def _series(self, name: str, kind: Kind, values: list[Any]) -> Any:
        polars = load("polars")
        try:
            return polars.Series(name, values, dtype=self.type_of(kind))
        except (TypeError, ValueError, OverflowError, polars.exceptions.PolarsError):
            return polars.Series(name, _texts(values), dtype=polars.String)

    def type_of(self, kind: Kind) -> Any:
        """The type of a column."""
        polars = load("polars")
        if kind.name == "category":
            return polars.Enum(kind.values)
        if kind.name == "list":
            return polars.List(self.type_of(kind.parts[""]))
        if kind.name == "struct":
            return polars.Struct({name: self.type_of(part) for name, part in kind.parts.items()})
        return {
            "integer": polars.Int64,
            "number": polars.Float64,
            "boolean": polars.Boolean,
            "date": polars.Date,
            "datetime": polars.Datetime("us", "UTC"),
        }.get(kind.name, polars.String)


class ArrowFrame(Frame):
    """An Arrow table.

    Args:
        frame: The table.
        strict: Whether values that do not fit their column are an error, because its type has been told already.
    """

    def __init__(self, frame: Any, *, strict: bool = False) -> None:
        super().__init__(frame, frame.column_names)
        self._strict = strict

    def rows(self, names: Sequence[str]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row."""
        for start in range(0, len(self), PORTION):
            portion = self.frame.slice(start, PORTION)
            yield from zip(*(portion.column(name).to_pylist() for name in names), strict=True)

    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A table with more columns."""
        frame = self.frame
        for name, kind, values in columns:
            made = self._array(kind, values)
            if name in frame.column_names:
                frame = frame.set_column(frame.column_names.index(name), name, made)
            else:
                frame = frame.append_column(name, made)
        return frame

    def _array(self, kind: Kind, values: list[Any]) -> Any:
        arrow = load("pyarrow")
        try:
            if kind.name == "category":
                return arrow.array(values, arrow.string()).dictionary_encode()
            return arrow.array(values, self.type_of(kind))
        except (TypeError, ValueError, OverflowError):  # pyarrow's errors are these too
            if self._strict:
                raise
            return arrow.array(_texts(values), arrow.string())

    def type_of(self, kind: Kind) -> Any:
        """The type of a column; that of values within a list or an object, for which categories are texts."""
        arrow = load("pyarrow")
        if kind.name == "list":
            return arrow.list_(self.type_of(kind.parts[""]))
        if kind.name == "struct":
            return arrow.struct([(name, self.type_of(part)) for name, part in kind.parts.items()])
        return {
            "integer": arrow.int64(),
            "number": arrow.float64(),
            "boolean": arrow.bool_(),
            "date": arrow.date32(),
            "datetime": arrow.timestamp("us", "UTC"),
        }.get(kind.name, arrow.string())
