"""Shapes of answers: from pydantic models, dataclasses, TypedDicts and JSON Schemas. Used by native strategies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._secrets import quoted
from ..errors import ERROR_MESSAGE_LIMIT


@dataclass(frozen=True)
class Shape:
    """What an answer must look like.

    Args:
        name: A name for the provider.
        schema: The JSON Schema that is sent.
        parse: Makes the typed value of an answer's JSON text; None: the extension checks it against the schema.
        wrapped: Whether the value is the field ``value`` of an object, because providers want objects.
    """

    name: str
    schema: dict[str, Any]
    parse: Callable[[str], Any] | None
    wrapped: bool

    @property
    def spec(self) -> dict[str, Any]:
        """The settings as the extension needs them."""
        return {"name": self.name, "schema": self.schema, "check": self.parse is None}


def shape_of(model: Any, argument: str = "response_model") -> Shape:
    """Return the shape of a pydantic model, a dataclass, a TypedDict, another type, or a JSON Schema (a mapping).

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(model, Mapping):
        schema, wrapped = _as_object(dict(model))
        return Shape(_name(str(model.get("title", "Response"))), schema, None, wrapped)
    from pydantic import PydanticUserError, TypeAdapter, create_model
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        adapter: Any = TypeAdapter(model)
        schema, wrapped = _as_object(adapter.json_schema())
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
        raise TypeError(
            f"{argument} must be a pydantic model, a dataclass, a TypedDict or a JSON Schema, "
            f"not {quoted(model)} ({error})"
        ) from error
    name = _name(getattr(model, "__name__", "Response"))
    if not wrapped:
        return Shape(name, schema, adapter.validate_json, False)
    wrapper: Any = TypeAdapter(create_model(name, value=(model, ...)))

    def parse(text: str) -> Any:
        try:
            return wrapper.validate_json(text).value
        except ValueError as error:
            # Where no schema binds the model, it often writes the value alone.
            try:
                return adapter.validate_json(text)
            except ValueError:
                raise error from None

    return Shape(name, schema, parse, True)


def _as_object(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema with an object at its root; and whether it had to be wrapped into one."""
    # What references point at stays at the root.
    definitions: dict[str, Any] = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    root = schema
    place, _, name = str(schema.get("$ref", "")).removeprefix("#/").partition("/")
    if place in definitions and isinstance(definitions[place], Mapping):
        root = {**definitions[place].get(name, {}), **definitions}
    if root.get("type") == "object" or "properties" in root:
        return root, False
    inner = {key: value for key, value in schema.items() if key not in definitions}
    wrapped = {"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": False}
    return {**wrapped, **definitions}, True


def _name(text: str) -> str:
    """A name that providers take: letters, digits, ``_`` and ``-``, 64 at most."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:64] or "Response"


def problem_of(error: Exception) -> str:
    """Return what is wrong with an answer, for the model: place and problem, the first five."""
    errors = getattr(error, "errors", None)
    try:
        problems: Any = errors(include_url=False, include_input=False) if callable(errors) else []
        lines = [f"{'.'.join(map(str, one['loc'])) or 'the answer'}: {one['msg']}" for one in problems[:5]]
    except Exception:
        lines = []
    return "; ".join(lines) or str(error)[:ERROR_MESSAGE_LIMIT]
