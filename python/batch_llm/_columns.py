"""Answers as columns, each with the kind of its values. Used by ``frames``.

What a column holds is read from the JSON Schema of the answers where they have a model, else from the answers. Values
of no kind of their own are JSON text, so that no answer is lost.
"""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._tables import simple


@dataclass(frozen=True)
class Kind:
    """What a column holds.

    Args:
        name: ``text``, ``integer``, ``number``, ``boolean``, ``date``, ``datetime``, ``category``, ``list``,
            ``struct``; or ``json``: anything, as JSON text.
        values: Of a category.
        parts: The kind of the values of a list (its only one), or of the fields of a struct.
    """

    name: str
    values: tuple[str, ...] = ()
    parts: dict[str, Kind] = field(default_factory=dict)


TEXT, JSON = Kind("text"), Kind("json")
_SIMPLE = {"string": TEXT, "integer": Kind("integer"), "number": Kind("number"), "boolean": Kind("boolean")}
_DATES = {"date": Kind("date"), "date-time": Kind("datetime")}
_PYTHON = {
    str: TEXT,
    int: _SIMPLE["integer"],
    float: _SIMPLE["number"],
    bool: _SIMPLE["boolean"],
    datetime.date: _DATES["date"],
    datetime.datetime: _DATES["date-time"],
}


class Answers:
    """The columns that answers make, and the answers as values of these.

    Args:
        model: What answers are: what ``response_model`` takes; None: nobody knows before they are there.
    """

    def __init__(self, model: Any) -> None:
        self._dump: Callable[[Any], Any] = simple
        self.kind: Kind | None = None
        if isinstance(model, Mapping):
            self.kind = _kind_of(dict(model), {}, typed=False)
        elif model is not None:
            from pydantic import TypeAdapter

            adapter: Any = TypeAdapter(model)
            schema = adapter.json_schema(mode="serialization")
            self.kind = _kind_of(schema, schema.get("$defs", {}), typed=True)
            self._dump = lambda output: adapter.dump_python(output, by_alias=True)

    def plain(self, output: Any) -> Any:
        """An answer without its classes."""
        if output is None:
            return None
        try:
            return self._dump(output)
        except Exception:  # an answer that is not what its model says: it is kept all the same
            return simple(output)

    def columns(self, values: Sequence[Any], name: str | None) -> list[tuple[str, Kind, list[Any]]]:
        """Name, kind and values of each column.

        Args:
            values: Plain answers; None where there is none.
            name: Of the column of answers that have no fields, and before a dot and the fields' names; None: fields
                have their own names only.
        """
        kind = self.kind or _inferred(values)
        if kind.name != "struct":
            return [(name or "output", kind, [_cell(value, kind) for value in values])]
        return [
            (
                part if name is None else f"{name}.{part}",
                held,
                [_cell(value.get(part), held) if isinstance(value, dict) else None for value in values],
            )
            for part, held in kind.parts.items()
        ]


def _kind_of(schema: Any, definitions: Mapping[str, Any], *, typed: bool, within: tuple[str, ...] = ()) -> Kind:
    """What a JSON Schema says; ``typed``: whether values are Python's, with dates that are dates."""
    if not isinstance(schema, dict):
        return JSON
    definitions = schema.get("$defs", definitions)

    def kind_of(part: Any, within: tuple[str, ...] = within) -> Kind:
        return _kind_of(part, definitions, typed=typed, within=within)

    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rsplit("/", 1)[-1]
        # What holds itself has no columns.
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
    """What values are that nobody has described."""
    there = [value for value in values if value is not None]
    kinds = {type(value) for value in there}
    if not there or kinds == {str}:
        return TEXT
    if kinds == {int, float}:
        return _SIMPLE["number"]
    if kinds == {dict}:
        names = dict.fromkeys(name for value in there for name in value)
        return Kind("struct", parts={name: _inferred([value.get(name) for value in there]) for name in names})
    if kinds == {list}:
        return Kind("list", parts={"": _inferred([one for value in there for one in value])})
    return _PYTHON.get(kinds.pop(), JSON) if len(kinds) == 1 else JSON


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON; whatever it holds, for it is an answer that has been paid for."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(simple(value), ensure_ascii=False, default=str)
    except (TypeError, ValueError):  # keys that JSON does not have, or a value that holds itself
        return str(value)


def _cell(value: Any, kind: Kind) -> Any:
    """A value as a column of the kind holds it."""
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None:
        return None
    if kind.name in ("text", "json"):
        return as_text(value)
    if kind.name == "number" and not isinstance(value, bool):
        return float(value)
    if kind.name == "datetime" and isinstance(value, datetime.datetime):
        # Columns have one time zone; a time without one is taken for UTC.
        return (value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)).astimezone(
            datetime.timezone.utc
        )
    if kind.name == "list" and isinstance(value, (list, tuple, set, frozenset)):
        return [_cell(one, kind.parts[""]) for one in value]
    if kind.name == "struct" and isinstance(value, dict):
        return {name: _cell(value.get(name), part) for name, part in kind.parts.items()}
    return value
