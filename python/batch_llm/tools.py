"""Tools that models may call: definitions in, typed calls out. Nothing here runs a tool."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._structured import shape_of

__all__ = ["Tool", "ToolCall"]


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call.

    Args:
        name: Its name.
        description: What it does, for the model.
        parameters: Its arguments: a pydantic model, a dataclass, a TypedDict, or a JSON Schema. Calls then carry a
            value of that type (for a schema, a dict).
    """

    name: str
    description: str = ""
    parameters: Any = field(default_factory=lambda: {"type": "object", "properties": {}})

    @classmethod
    def of(cls, given: Any) -> Tool:
        """Return a tool for a :class:`Tool`, a function (its signature and docstring), or a dict.

        A dict is ``{"name", "description", "parameters"}``, or OpenAI's ``{"type": "function", "function": {...}}``.

        Raises:
            TypeError: When it is none of these.
        """
        if isinstance(given, Tool):
            return given
        if isinstance(given, Mapping):
            inner = given.get("function", given)
            if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
                empty = {"type": "object", "properties": {}}
                return cls(inner["name"], inner.get("description") or "", inner.get("parameters") or empty)
        elif inspect.isroutine(given):
            return cls.from_function(given)
        raise TypeError(f"a tool must be a Tool, a function, or a dict with a name, not {given!r:.100}")

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> Tool:
        """Return a tool whose arguments are those of a function, with its docstring as description."""
        from pydantic import create_model

        fields: dict[str, Any] = {}
        hints = inspect.get_annotations(function, eval_str=True)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"tool {function.__name__!r}: *{name} cannot be described; name every argument")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
        model = create_model(function.__name__, **fields)
        return cls(function.__name__, inspect.getdoc(function) or "", model)


@dataclass(frozen=True)
class ToolCall:
    """A call that the model wants made; in ``result.tool_calls``.

    Args:
        id: The provider's name of the call; give it back with the tool's result.
        name: The tool.
        arguments: Its arguments, JSON text.
        value: The same as an object of the tool's ``parameters`` type, or a dict.
    """

    id: str
    name: str
    arguments: str
    value: Any = None


class Toolbox:
    """The tools of one strategy: tells the extension of them, and reads calls."""

    def __init__(self, tools: Any) -> None:
        self.tools = [Tool.of(tool) for tool in tools or ()]
        self._shapes = {tool.name: shape_of(tool.parameters, f"tool {tool.name!r}: parameters") for tool in self.tools}

    @property
    def spec(self) -> list[dict[str, Any]]:
        """What the extension is told."""
        return [
            {"name": tool.name, "description": tool.description, "parameters": self._shapes[tool.name].schema}
            for tool in self.tools
        ]

    def read(self, call: tuple[str, str, str]) -> ToolCall:
        """Make a typed call.

        Raises:
            ValueError: When its arguments are not what the tool takes.
        """
        shape = self._shapes.get(call[1])
        parse = json.loads if shape is None or shape.parse is None else shape.parse
        return ToolCall(*call, value=parse(call[2] or "{}"))
