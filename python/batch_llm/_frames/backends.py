"""The three libraries of data frames: their rows as Python's values, and columns added.

Used by ``frames`` and ``_report.tables``.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from .._values import as_text
from .columns import Column, Kind

PORTION = 1024
"""Rows that are taken out of an Arrow table at a time."""


class Frame(ABC):
    """A data frame of one of the libraries.

    Args:
        frame: The frame.
        keys: What its columns are called.
    """

    def __init__(self, frame: Any, keys: Iterable[Any]) -> None:
        self.frame = frame
        self.keys = list(keys)
        self.names = [_name(key) for key in self.keys]
        """The same as texts."""

    def __len__(self) -> int:
        return len(self.frame)

    @abstractmethod
    def rows(self, places: Sequence[int]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row; None is what is missing."""

    def without(self, names: Collection[str]) -> Frame:
        """The frame without columns of these names."""
        kept = [place for place, name in enumerate(self.names) if name not in names]
        return self if len(kept) == len(self.names) else self._only(kept)

    @abstractmethod
    def _only(self, places: list[int]) -> Frame: ...

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


def load(name: str) -> Any:
    """Import a library, or raise an error that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is required for this. Install it: pip install {name}") from error


def _name(key: Any) -> str:
    """What a column is called in a template; of several levels the first, if the others are empty."""
    if isinstance(key, tuple) and key and all(isinstance(part, str) and not part for part in key[1:]):
        key = key[0]
    return str(key)


def _texts(values: Sequence[Any]) -> list[Any]:
    """Values that do not fit their column after all."""
    return [None if value is None else as_text(value) for value in values]


_PANDAS_TYPES = {
    "text": "string", "json": "string", "integer": "Int64", "boolean": "boolean", "naive": "datetime64[us]",
    "datetime": "datetime64[us, UTC]", "date": "datetime64[s]",
}  # fmt: skip


class PandasFrame(Frame):
    """pandas; new columns have the types that know missing values."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame, frame.columns)

    def rows(self, places: Sequence[int]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row."""
        return zip(*(self._objects(self.frame.iloc[:, place]) for place in places), strict=True)

    @staticmethod
    def _objects(series: Any) -> Iterator[Any]:
        return (None if gone else value for value, gone in zip(series, series.isna(), strict=True))

    def _only(self, places: list[int]) -> Frame:
        return PandasFrame(self.frame.iloc[:, places])

    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A shallow copy with more columns."""
        frame = self.frame.copy(deep=False)
        arrays = [(name, pandas_array(kind, values)) for name, kind, values in columns]
        before = frame.columns
        if before.nlevels == 1 and all(isinstance(key, str) for key in self.keys) and before.dtype != "category":
            for name, array in arrays:
                frame[name] = array
            return frame
        # By number: an index of numbers, dates or several levels may not take a text.
        keys = list(self.keys)
        frame.columns = range(len(keys))
        for name, array in arrays:
            if name in self.names:
                frame.isetitem(self.names.index(name), array)
            else:
                frame.insert(len(keys), len(keys), array)
                keys.append(name if before.nlevels == 1 else (name, *[""] * (before.nlevels - 1)))
        index = load("pandas").Index
        frame.columns = index(keys, dtype=object, name=before.name, tupleize_cols=False)
        if before.nlevels > 1:
            frame.columns = load("pandas").MultiIndex.from_tuples(keys, names=before.names)
        return frame


def pandas_array(kind: Kind, values: list[Any]) -> Any:
    """The values of a column of pandas."""
    pandas = load("pandas")
    try:
        if kind.name == "category":
            return pandas.Categorical(values, categories=kind.values)
        if kind.name == "number":
            # As it is read of lists, NaN would be no answer at all.
            numbers = [0.0 if value is None else value for value in values]
            numpy = load("numpy")
            gone = numpy.array([value is None for value in values], dtype=bool)
            return pandas.arrays.FloatingArray(numpy.array(numbers, dtype=float), gone)
        if kind.name in _PANDAS_TYPES:
            return pandas.array(values, dtype=_PANDAS_TYPES[kind.name])
    except (TypeError, ValueError, OverflowError):
        return pandas.array(_texts(values), dtype="string")
    return objects(values)


def objects(values: Sequence[Any]) -> Any:
    """Values as they are, for a column of pandas."""
    made = load("numpy").empty(len(values), dtype=object)
    for place, value in enumerate(values):
        made[place] = value  # one by one: numpy would make rows of lists
    return made


class PolarsFrame(Frame):
    """Polars."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame, frame.columns)

    def rows(self, places: Sequence[int]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row."""
        rows: Iterable[Sequence[Any]] = self.frame[:, list(places)].iter_rows()
        return rows

    def _only(self, places: list[int]) -> Frame:
        return PolarsFrame(self.frame[:, places])

    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A frame with more columns."""
        return self.frame.with_columns([polars_series(*column) for column in columns])


def polars_series(name: str, kind: Kind, values: list[Any]) -> Any:
    """A column of Polars."""
    polars = load("polars")
    try:
        return polars.Series(name, values, dtype=_polars_type(kind))
    except (TypeError, ValueError, OverflowError, polars.exceptions.PolarsError):
        return polars.Series(name, _texts(values), dtype=polars.String)


def _polars_type(kind: Kind) -> Any:
    polars = load("polars")
    if kind.name == "category":
        return polars.Enum(kind.values)
    if kind.name == "list":
        return polars.List(_polars_type(kind.parts[""]))
    if kind.name == "struct":
        return polars.Struct({name: _polars_type(part) for name, part in kind.parts.items()})
    return {
        "integer": polars.Int64,
        "number": polars.Float64,
        "boolean": polars.Boolean,
        "date": polars.Date,
        "datetime": polars.Datetime("us", "UTC"),
        "naive": polars.Datetime("us"),
        "bytes": polars.Binary,
    }.get(kind.name, polars.String)


class ArrowFrame(Frame):
    """An Arrow table."""

    def __init__(self, frame: Any) -> None:
        super().__init__(frame, frame.column_names)

    def rows(self, places: Sequence[int]) -> Iterable[Sequence[Any]]:
        """The values of some columns, row by row."""
        for start in range(0, len(self), PORTION):
            portion = self.frame.slice(start, PORTION)
            yield from zip(*(_pylist(portion.column(place)) for place in places), strict=True)

    def _only(self, places: list[int]) -> Frame:
        return ArrowFrame(self.frame.select(places))

    def with_columns(self, columns: Iterable[Column]) -> Any:
        """A table with more columns."""
        frame = self.frame
        for name, kind, values in columns:
            made = arrow_array(kind, values)
            if name in self.names:
                frame = frame.set_column(self.names.index(name), name, made)
            else:
                frame = frame.append_column(name, made)
        return frame


def _pylist(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except ValueError:  # nanoseconds, for which Python has no type
        arrow = load("pyarrow")
        values = column.cast(arrow.string()).to_pylist()
    return values


def arrow_array(kind: Kind, values: list[Any]) -> Any:
    """The values of a column of Arrow."""
    arrow = load("pyarrow")
    try:
        return arrow.array(values, _arrow_type(kind))
    except (TypeError, ValueError, OverflowError):  # pyarrow's errors are these too
        return arrow.array(_texts(values), arrow.string())


def _arrow_type(kind: Kind) -> Any:
    """The type of a column; categories are texts, as engines do not unify dictionaries."""
    arrow = load("pyarrow")
    if kind.name == "list":
        return arrow.list_(_arrow_type(kind.parts[""]))
    if kind.name == "struct":
        return arrow.struct([(name, _arrow_type(part)) for name, part in kind.parts.items()])
    return {
        "integer": arrow.int64(),
        "number": arrow.float64(),
        "boolean": arrow.bool_(),
        "date": arrow.date32(),
        "datetime": arrow.timestamp("us", "UTC"),
        "naive": arrow.timestamp("us"),
        "bytes": arrow.binary(),
    }.get(kind.name, arrow.string())
