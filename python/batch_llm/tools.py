"""Tools that models may call: definitions in, typed calls out. The package never runs a tool."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._core import SchemaCheck
from ._llm import problem_of, shape_of
from ._secrets import quoted
from ._types import ToolCall as ToolCall
from .errors import StructuredOutputValidationError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Tool", "ToolCall"]


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call.

    Args:
        name: The name of the tool.
        description: What the tool does, for the model.
        parameters: The arguments: a pydantic model, a dataclass, a TypedDict, or a JSON Schema. Calls then have a value
            of that type (for a schema, a dict).
    """

    name: str
    description: str = ""
    parameters: Any = field(default_factory=lambda: {"type": "object", "properties": {}})

    @classmethod
    def of(cls, given: Any) -> Tool:
        """Return a tool for a :class:`Tool`, a function (its signature and docstring), or a dict.

        A dict is ``{"name", "description", "parameters"}``, or OpenAI's ``{"type": "function", "function": {...}}``.

        Raises:
            TypeError: If it is none of these.
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
        raise TypeError(f"a tool must be a Tool, a function, or a dict with a name, not {quoted(given)}")

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> Tool:
        """Return a tool with the arguments of a function, and its docstring as description."""
        from pydantic import create_model

        fields: dict[str, Any] = {}
        hints = inspect.get_annotations(function, eval_str=True)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"tool {function.__name__!r}: *{name} is not supported; name every argument")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
        model = create_model(function.__name__, **fields)
        tool = cls(function.__name__, inspect.getdoc(function) or "", model)
        object.__setattr__(tool, "_function", function)
        return tool

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process finds the function by its name, but not the model that was made of it.
        if "_function" in vars(self):
            return type(self).from_function, (vars(self)["_function"],)
        return type(self), (self.name, self.description, self.parameters)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Toolbox:
    """The tools of one strategy: describes them to the extension, and reads calls."""

    def __init__(self, tools: Any) -> None:
        self.tools = [Tool.of(tool) for tool in tools or ()]
        self._shapes = {tool.name: shape_of(tool.parameters, _place(tool.name)) for tool in self.tools}
        self._checks = {
            name: SchemaCheck(shape.schema, _place(name)) for name, shape in self._shapes.items() if shape.parse is None
        }

    @property
    def spec(self) -> list[dict[str, Any]]:
        """The settings as the extension needs them."""
        return [
            {"name": tool.name, "description": tool.description, "parameters": self._shapes[tool.name].schema}
            for tool in self.tools
        ]

    def read(self, call: tuple[str, str, str, str | None]) -> ToolCall:
        """Make a typed call.

        Raises:
            StructuredOutputValidationError: If there is no such tool, or its arguments are not what it takes; the
                attempt is retried.
        """
        call_id, name, arguments, state = call
        if self._shapes and name not in self._shapes:
            name = self._known(name, arguments)
        # Models write null for missing values.
        text = arguments = "{}" if arguments.strip() == "null" else arguments
        text = text or "{}"
        shape, check = self._shapes.get(name), self._checks.get(name)
        try:
            value = json.loads(text) if shape is None or shape.parse is None else shape.parse(text)
            problem = None if check is None else check.problem(text)
        except Exception as error:
            value, problem = None, problem_of(error)
        if problem is not None:
            raise StructuredOutputValidationError(
                f"the arguments of a call of {name!r} do not match its schema: {problem}",
                category="structured_output_validation_error",
                text=f"{name}({arguments})",
                problem=f"the arguments of the call of {name} do not match its schema: {problem}",
            )
        return ToolCall(call_id, name, arguments, value, state)

    def _known(self, name: str, arguments: str) -> str:
        """Return the tool for an unknown name; Kimi writes ``functions.search:0``."""
        meant = re.sub(r":\d+$", "", name).removeprefix("functions.")
        if meant in self._shapes:
            return meant
        problem = f"there is no tool {name!r}; the tools are {', '.join(self._shapes)}"
        raise StructuredOutputValidationError(
            f"the model called a tool that does not exist: {problem}",
            category="structured_output_validation_error",
            text=f"{name}({arguments})",
            problem=problem,
        )


def _place(name: str) -> str:
    """What errors call the parameters of a tool."""
    return f"tool {name!r}: parameters"
