"""Answers as columns, each with the kind of its values. Used by ``frames``.

What a column holds is read from the JSON Schema of the answers where they have a model, else from the answers. Values
of no kind of their own are JSON text, so that no answer is lost.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._secrets import quoted
from .._values import as_text, is_vector, shown, simple

EXACT = 2**53
"""Whole numbers up to here are exact as floats."""
LARGEST = 2**63 - 1
"""The largest integer of a column."""
LONGEST_SHOWN = 500
"""Longest part of an odd value that an error shows, characters."""


@dataclass(frozen=True)
class Kind:
    """What a column holds.

    Args:
        name: ``text``, ``integer``, ``number``, ``boolean``, ``date``, ``datetime`` (in UTC), ``naive`` (a datetime
            without a zone), ``bytes``, ``category``, ``list``, ``struct``; or ``json``: anything, as JSON text.
        values: Of a category.
        parts: The kind of the values of a list (its only one), or of the fields of a struct.
    """

    name: str
    values: tuple[str, ...] = ()
    parts: dict[str, Kind] = field(default_factory=dict)


Column = tuple[str, Kind, list[Any]]
TEXT, JSON, NAIVE = Kind("text"), Kind("json"), Kind("naive")
_SIMPLE = {"string": TEXT, "integer": Kind("integer"), "number": Kind("number"), "boolean": Kind("boolean")}
INTEGER, NUMBER, BOOLEAN = _SIMPLE["integer"], _SIMPLE["number"], _SIMPLE["boolean"]
_DATES = {"date": Kind("date"), "date-time": Kind("datetime")}
_PYTHON = {
    str: TEXT,
    int: _SIMPLE["integer"],
    float: _SIMPLE["number"],
    bool: _SIMPLE["boolean"],
    datetime.date: _DATES["date"],
    datetime.datetime: _DATES["date-time"],
    bytes: Kind("bytes"),
}


class Answers:
    """The columns that answers make, and the answers as values of these.

    Args:
        model: The type of the answers, as for ``response_model``; None: unknown until they arrive.

    Raises:
        TypeError: If it is not a model.
    """

    def __init__(self, model: Any) -> None:
        self._dump: Callable[[Any], Any] = _as_it_is
        self.kind: Kind | None = None
        if isinstance(model, Mapping):
            self.kind = _kind_of(dict(model), {}, typed=False)
        elif model is not None:
            from pydantic import PydanticUserError, TypeAdapter

            try:
                adapter: Any = TypeAdapter(model)
            except PydanticUserError as error:
                raise TypeError(f"response_model cannot be {quoted(model)}: {error.message}") from error
            # What no schema can describe is seen when it is there.
            with contextlib.suppress(PydanticUserError):
                schema = adapter.json_schema(mode="serialization")
                self.kind = _kind_of(schema, schema.get("$defs", {}), typed=True)
            self._dump = lambda output: adapter.dump_python(output, by_alias=True, warnings=False)

    def plain(self, output: Any) -> Any:
        """An answer without its classes; never raises."""
        if output is None:
            return None
        try:
            return simple(self._dump(output))
        except Exception:  # an answer that does not match its model, or contains itself: it is kept anyway
            try:
                return simple(output)
            except Exception:
                return shown(output)

    def names(self, name: str | None) -> list[str] | None:
        """The names of the columns, where they are known before the answers are; else None."""
        return None if self.kind is None else list(_named(self.kind, name))

    def columns(
        self,
        values: Sequence[Any],
        name: str | None,
        taken: Collection[str] = (),
        *,
        fixed: bool = False,
        apart: bool = True,
    ) -> tuple[list[Column], dict[int, str]]:
        """Name, kind and values of each column; and, by place, what of an answer does not fit into them.

        Args:
            values: Plain answers; None where there is none.
            name: Of the column of answers that have no fields, and before a dot and the fields' names; None: fields
                have their own names only.
            taken: Names that other columns have. A field whose own name is one is called as if ``name`` were
                ``"output"``; a number after it distinguishes the rest.
            fixed: Whether the columns were announced before, so that unknown fields have none.
            apart: Whether fields outside of the model have their own columns; otherwise answers are JSON text.
        """
        kind = _inferred(values) if self.kind is None else self.kind if fixed else _widened(self.kind, values)
        if self.kind is None and kind.name == "struct" and not apart:
            kind = JSON
        columns: list[Column] = []
        problems: dict[int, list[str]] = {}
        taken = set(taken)
        for called, (part, held) in _named(kind, name).items():
            free = _free(called, part, taken)
            taken.add(free)
            cells: list[Any] = []
            for place, value in enumerate(values):
                cell = value
                if part is not None:
                    cell = value.get(part) if isinstance(value, dict) else None
                try:
                    cells.append(_cell(cell, held))
                except Misfit as misfit:
                    cells.append(None)
                    where = f", in {_short(cell)}" if isinstance(cell, (dict, list)) else ""
                    problems.setdefault(place, []).append(f"{free}: {misfit}{where}")
            columns.append((free, held, cells))
        if kind.name == "struct":
            for place, value in enumerate(values):
                problem = _beside(value, kind)
                if problem is not None:
                    problems.setdefault(place, []).append(problem)
        return columns, {place: "; ".join(texts) for place, texts in problems.items()}


def _as_it_is(output: Any) -> Any:
    return output


def _named(kind: Kind, name: str | None) -> dict[str, tuple[str | None, Kind]]:
    """What answers' columns are called, with the field that each holds (None: the whole answer) and its kind."""
    if kind.name != "struct":
        return {name or "output": (None, kind)}
    return {part if name is None else f"{name}.{part}": (part, held) for part, held in kind.parts.items()}


def _free(name: str, part: str | None, taken: Collection[str]) -> str:
    if name not in taken:
        return name
    if part == name:  # it has no prefix yet
        name = f"output.{part}"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _beside(value: Any, kind: Kind) -> str | None:
    """What of an answer has no place in the columns of its fields."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return f"the answer has no fields: {_short(value)}"
    more = {part: held for part, held in value.items() if part not in kind.parts}
    return f"the answer has extra fields: {_short(more)}" if more else None


def column_of(name: str, values: Sequence[Any], kind: Kind | None = None) -> Column:
    """Return a column of plain values; its kind is inferred if unknown, or if the values do not fit."""
    for tried in ((kind or _inferred(values)), JSON):
        try:
            return name, tried, [_cell(value, tried) for value in values]
        except Misfit:
            pass
    raise AssertionError("any value fits into text")


def _short(value: Any) -> str:
    text = as_text(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text):,} characters)"


def _kind_of(schema: Any, definitions: Mapping[str, Any], *, typed: bool, within: tuple[str, ...] = ()) -> Kind:
    """Return the kind of a JSON Schema; ``typed``: whether values are Python's, with dates that are dates."""
    if not isinstance(schema, dict):
        return JSON
    definitions = schema.get("$defs", definitions)

    def kind_of(part: Any, within: tuple[str, ...] = within) -> Kind:
        return _kind_of(part, definitions, typed=typed, within=within)

    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rsplit("/", 1)[-1]
        # A value that contains itself has no columns.
        return JSON if name in within else kind_of(definitions.get(name), (*within, name))
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        real = [option for option in options if option != {"type": "null"}]
        return kind_of(real[0]) if len(real) == 1 else JSON
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        return _kind_of_choice([value for value in values if value is not None])
    kind = schema.get("type")
    if isinstance(kind, list):
        real = [one for one in kind if one != "null"]
        kind = real[0] if len(real) == 1 else None
    if kind == "string" and typed and schema.get("format") in _DATES:
        return _DATES[schema["format"]]
    if kind == "array":
        return Kind("list", parts={"": kind_of(schema.get("items"))})
    if kind == "object" and schema.get("properties"):
        return Kind("struct", parts={name: kind_of(part) for name, part in schema["properties"].items()})
    return _SIMPLE.get(kind, JSON) if isinstance(kind, str) else JSON


def _kind_of_choice(values: Sequence[Any]) -> Kind:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return Kind("category", tuple(dict.fromkeys(values)))
    return _PYTHON.get(kinds.pop(), JSON) if len(kinds) == 1 else JSON


def _inferred(values: Sequence[Any]) -> Kind:
    """Return the kind of values without a model."""
    there = [value for value in values if value is not None]
    kinds = {type(value) for value in there}
    if not there or kinds == {str}:
        return TEXT
    if kinds <= {int, float}:
        return _kind_of_numbers(there, kinds)
    if kinds == {dict}:
        names = dict.fromkeys(name for value in there for name in value)
        parts = {name: _inferred([value.get(name) for value in there]) for name in names}
        return Kind("struct", parts=parts) if parts else JSON
    if kinds == {list} or any(is_vector(value) for value in there):
        return _kind_of_lists(there)
    if kinds == {datetime.datetime}:
        zones = {value.tzinfo is not None for value in there}
        return JSON if len(zones) > 1 else _DATES["date-time"] if zones == {True} else NAIVE
    return _PYTHON.get(kinds.pop(), JSON) if len(kinds) == 1 else JSON


def _kind_of_numbers(there: Sequence[Any], kinds: set[type]) -> Kind:
    if kinds == {float}:
        return _SIMPLE["number"]
    if kinds == {int}:
        return _SIMPLE["integer"] if min(there) >= -LARGEST - 1 and max(there) <= LARGEST else JSON
    # A float has no room for all digits of larger ones.
    exact = all(abs(value) <= EXACT for value in there if type(value) is int)
    return _SIMPLE["number"] if exact else JSON


def _kind_of_lists(there: Sequence[Any]) -> Kind:
    """Of lists, and of arrays of numbers, which are not looked into."""
    found = set()
    parts: list[Any] = []
    for value in there:
        if type(value) is list:
            if set(map(type, value)) <= {float}:
                found.update(["number"] if value else [])
            else:
                parts.extend(value)
        elif is_vector(value):
            kind = value.typecode in "fd" if type(value) is array else getattr(value.dtype, "kind", "f") == "f"
            found.add("number" if kind else "integer")
        else:
            return JSON
    if parts or not found:
        inner = _inferred([*parts, *(0.5 if name == "number" else 1 for name in found)])
        return JSON if inner is JSON and found else Kind("list", parts={"": inner})
    return Kind("list", parts={"": _SIMPLE["number" if "number" in found else "integer"]})


def _widened(kind: Kind, values: Sequence[Any]) -> Kind:
    """A kind with the fields that values have beyond it."""
    if kind.name == "list":
        inner = kind.parts[""]
        if inner.name not in ("list", "struct"):
            return kind
        return Kind("list", parts={"": _widened(inner, [one for v in values if isinstance(v, list) for one in v])})
    if kind.name != "struct":
        return kind
    there = [value for value in values if isinstance(value, dict)]
    names = dict.fromkeys(name for value in there for name in value)
    parts = {name: _widened(part, [value.get(name) for value in there]) for name, part in kind.parts.items()}
    parts |= {name: _inferred([value.get(name) for value in there]) for name in names if name not in parts}
    return kind if parts == kind.parts else Kind("struct", parts=parts)


class Misfit(ValueError):  # noqa: N818 - a signal
    """A value that its column cannot store, with the reason."""

    def __init__(self, value: Any, kind: Kind, why: str = "") -> None:
        super().__init__(f"{_short(value)} is not a valid {_WORDS.get(kind.name, kind.name)}{why}")


_WORDS = {
    "integer": "64-bit integer", "number": "number", "boolean": "boolean", "date": "date",
    "datetime": "datetime", "category": "category", "struct": "object", "bytes": "bytes",
}  # fmt: skip


def _cell(value: Any, kind: Kind) -> Any:
    """Return a value as a column of the kind stores it.

    Raises:
        Misfit: When it cannot.
    """
    if value is None:
        return None
    if isinstance(value, enum.Enum):
        value = value.value
    name, of = kind.name, type(value)
    if name in ("text", "json"):
        return as_text(value)
    if name == "number":
        if of is float:
            return value
        if of is int:
            if abs(value) <= EXACT:
                return float(value)
            raise Misfit(value, kind, " (a column of floats cannot store it exactly)")
    elif name == "integer":
        if of is float and value.is_integer() and abs(value) <= EXACT:
            return int(value)
        if of is int and -LARGEST - 1 <= value <= LARGEST:
            return value
    elif name == "category":
        if value in kind.values:
            return value
    elif name in ("datetime", "naive"):
        if of is datetime.datetime:
            return _instant(value, kind)
    elif name == "list":
        if is_vector(value):
            value = value.tolist()
        if isinstance(value, list):
            inner = kind.parts[""]
            # Embeddings are long.
            if inner.name == "number" and set(map(type, value)) <= {float}:
                return value
            return [_cell(one, inner) for one in value]
    elif name == "struct":
        if isinstance(value, dict):
            return {part: _cell(value.get(part), held) for part, held in kind.parts.items()}
    elif of is {"boolean": bool, "date": datetime.date, "bytes": bytes}[name]:
        return value
    raise Misfit(value, kind)


def _instant(value: datetime.datetime, kind: Kind) -> datetime.datetime:
    if kind.name == "naive":
        return value
    # Columns have one time zone; a time without one is taken for UTC.
    try:
        return (value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)).astimezone(
            datetime.timezone.utc
        )
    except OverflowError:  # at either end of time
        raise Misfit(value, kind, " in UTC") from None
