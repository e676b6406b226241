"""Tools that models may call: definitions in, typed calls out; and the calls themselves, where conversations run them.

Used by native strategies and by ``conversations``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

from ._core import SchemaCheck
from ._llm import problem_of, shape_of
from ._secrets import quoted
from ._threads import in_thread
from ._timeouts import TIMEOUT_ERRORS, Deadline
from ._turns import Turns
from ._types import ToolCall as ToolCall
from .errors import StructuredOutputValidationError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Tool", "ToolCall", "ToolContext"]

THREADS = 256
"""Most threads that the plain functions of one strategy run in at the same time."""


@dataclass(frozen=True)
class ToolContext:
    """What a tool may know about its call: passed to a parameter that is annotated with this class.

    Args:
        item_id: The id of the item whose conversation it is.
        context: The item's own context object.
        call_id: The provider's id of the call.
        round: The number of the reply that made the call, from 1.
        idempotency_key: Stays the same if this call runs again, for example because the process was killed before its
            result was stored. Pass it to services that do something only once per key.
    """

    item_id: str
    context: Any
    call_id: str
    round: int
    idempotency_key: str


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call.

    Args:
        name: The name of the tool.
        description: What the tool does, for the model.
        parameters: The arguments: a pydantic model, a dataclass, a TypedDict, or a JSON Schema. Calls then have a value
            of that type (for a schema, a dict).
        function: What runs the tool in a conversation (``rounds=``), sync or async. It gets the arguments by name; if
            ``parameters`` is a model or a dataclass, it gets one object of it. A plain function runs in a thread.
        timeout: Limit of one call, seconds; by default the strategy's ``tool_timeout``.
        shared: Whether calls with the same arguments share one execution within a run.

    Raises:
        TypeError: If the function cannot be called.
        ValueError: If the timeout is not positive.
    """

    name: str
    description: str = ""
    parameters: Any = field(default_factory=lambda: {"type": "object", "properties": {}})
    function: Callable[..., Any] | None = None
    timeout: float | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        if self.function is not None and not callable(self.function):
            raise TypeError(f"tool {quoted(self.name)}: function must be callable, not {quoted(self.function)}")
        if self.timeout is not None and not (isinstance(self.timeout, (int, float)) and 0 < self.timeout < math.inf):
            raise ValueError(
                f"tool {quoted(self.name)}: timeout must be a positive number of seconds, not {quoted(self.timeout)}"
            )

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
    def from_function(cls, function: Callable[..., Any], *, timeout: float | None = None, shared: bool = False) -> Tool:
        """Return a tool with the arguments of a function, and its docstring as description.

        A parameter annotated with :class:`ToolContext` is not shown to the model. ``timeout`` and ``shared`` are those
        of the class.
        """
        from pydantic import create_model

        called = getattr(function, "__name__", None)
        if not isinstance(called, str) or not called.isidentifier():
            raise TypeError(
                f"{quoted(function)} has no name that a model could call; write Tool('name', 'description', "
                "parameters, function=...)"
            )
        fields: dict[str, Any] = {}
        hints = _hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"tool {called!r}: *args and **kwargs are not supported ({name!r}); name every argument"
                )
            if _is_context(hints.get(name)):
                continue
            if name.startswith("_") or name == "model_config":  # which pydantic keeps for itself
                raise TypeError(f"tool {called!r}: an argument cannot be called {name!r}; choose another name")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
        model = create_model(called, **fields)
        tool = cls(called, inspect.getdoc(function) or "", model, function, timeout, shared)
        object.__setattr__(tool, "_is_of_function", True)
        return tool

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process finds the function by its name, but not the model that was made of it.
        if "_is_of_function" in vars(self):
            assert self.function is not None
            return functools.partial(type(self).from_function, timeout=self.timeout, shared=self.shared), (
                self.function,
            )
        return type(self), (
            self.name, self.description, self.parameters, self.function, self.timeout, self.shared,
        )  # fmt: skip

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


@dataclass(frozen=True)
class InvalidCall:
    """What is wrong with a call, in place of its arguments."""

    problem: str


class _Entry:
    """A tool of a strategy, and what reading and running its calls takes."""

    def __init__(self, tool: Tool) -> None:
        place = f"tool {tool.name!r}: parameters"  # as errors call it
        self.tool = tool
        self.shape = shape_of(tool.parameters, place)
        self.check = SchemaCheck(self.shape.schema, place) if self.shape.parse is None else None
        self.context = _context_parameter(tool.function)
        self.is_async = _is_async(tool.function)
        self.fields = tuple(tool.parameters.model_fields) if "_is_of_function" in vars(tool) else None
        self.positional = _positional_only(tool.function)


class Toolbox:
    """The tools of one strategy: describes them to the extension, reads calls, and runs them."""

    def __init__(self, tools: Any) -> None:
        self.tools = [Tool.of(tool) for tool in tools or ()]
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"tools: two tools have the name {quoted(twice)}; give each its own: Tool('name', ...)")
        self._known = {tool.name: _Entry(tool) for tool in self.tools}
        self._places = Turns(THREADS)

    @property
    def spec(self) -> list[dict[str, Any]]:
        """The settings as the extension needs them."""
        return [
            {"name": name, "description": known.tool.description, "parameters": known.shape.schema}
            for name, known in self._known.items()
        ]

    def tool(self, name: str) -> Tool:
        """The tool with this name."""
        return self._known[name].tool

    def run(self, call: ToolCall, context: Callable[[], ToolContext], deadline: Deadline) -> Coroutine[Any, Any, Any]:
        """Run a call that was read; the coroutine returns what the function returned.

        Args:
            call: The call.
            context: Makes what the function may know of it.
            deadline: How long the function may take. The wait for a thread does not count.

        Raises:
            Exception: What the function raised; a ``TimeoutError`` if it took too long.
        """
        known, value = self._known[call.name], call.value
        function = known.tool.function
        assert function is not None
        named: dict[str, Any] = {} if known.context is None else {known.context: context()}
        given: list[Any] = []
        if isinstance(value, dict):
            named.update(value)
        elif known.fields is not None:
            for name in known.fields:
                named[name] = getattr(value, name)
        else:
            given.append(value)
        given += [named.pop(name) for name in known.positional if name in named]
        if known.is_async:
            return _in_time(function(*given, **named), deadline)
        return self._run_in_thread(functools.partial(function, *given, **named), deadline)

    async def _run_in_thread(self, function: Callable[[], Any], deadline: Deadline) -> Any:
        place = await self._places.take()

        def work() -> Any:
            try:
                return function()
            finally:
                place.give_back()  # also if nobody waits any more

        try:
            running = in_thread(work)
        except BaseException:
            place.give_back()
            raise
        return await _in_time(running, deadline)

    def explain(self, call: tuple[str, str, str, str | None]) -> ToolCall:
        """Make a typed call; one that cannot be read has an :class:`InvalidCall` as its value."""
        try:
            return self.read(call)
        except StructuredOutputValidationError as error:
            return ToolCall(call[0], call[1], call[2], InvalidCall(error.problem or str(error)), call[3])

    def read(self, call: tuple[str, str, str, str | None]) -> ToolCall:
        """Make a typed call.

        Raises:
            StructuredOutputValidationError: If there is no such tool, or its arguments are not what it takes; the
                attempt is retried.
        """
        call_id, name, arguments, state = call
        if self._known and name not in self._known:
            name = self._meant(name, arguments)
        # Models write null for missing values.
        text = arguments = _unwrapped(arguments)
        text = text or "{}"
        known = self._known.get(name)
        try:
            value = json.loads(text) if known is None or known.shape.parse is None else known.shape.parse(text)
            problem = None if known is None or known.check is None else known.check.problem(text)
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

    def _meant(self, name: str, arguments: str) -> str:
        """Return the tool for an unknown name.

        Kimi writes ``functions.search:0``, Gemini ``default_api.search`` or ``default_api:search``, gpt-oss
        ``search<|channel|>commentary``.
        """
        meant = re.sub(r"(:\d+|<\|.*)$", "", name.strip(), flags=re.DOTALL)
        meant = re.sub(r"^(functions\.|default_api[.:])", "", meant)
        if meant in self._known:
            return meant
        problem = f"there is no tool {name!r}; the tools are {', '.join(self._known)}"
        raise StructuredOutputValidationError(
            f"the model called a tool that does not exist: {problem}",
            category="structured_output_validation_error",
            text=f"{name}({arguments})",
            problem=problem,
        )


def _unwrapped(arguments: str) -> str:
    """Arguments as their object: some servers write null or ``[]`` for none, or the object's JSON in a JSON string."""
    text = arguments.strip()
    if text in ("null", "[]", '""'):
        return "{}"
    if text.startswith('"{'):
        with contextlib.suppress(ValueError):
            inner = json.loads(text)
            json.loads(inner)
            return cast("str", inner)
    return arguments


def _is_async(function: Any) -> bool:
    if isinstance(function, functools.partial):
        return _is_async(function.func)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _context_parameter(function: Callable[..., Any] | None) -> str | None:
    """The name of the parameter that wants the context of the call."""
    if function is None:
        return None
    try:
        hints = _hints(function)
    except TypeError:
        return None  # it has no annotations
    return next((name for name, hint in hints.items() if _is_context(hint)), None)


def _is_context(hint: Any) -> bool:
    """Whether an annotation is the context of a call, perhaps with ``None`` or in ``Annotated``."""
    return hint is ToolContext or any(part is ToolContext for part in get_args(hint))


def _positional_only(function: Callable[..., Any] | None) -> list[str]:
    """The names of the arguments that cannot be given by name."""
    try:
        parameters = inspect.signature(function).parameters.values() if function is not None else ()
    except (TypeError, ValueError):
        return []  # a builtin; it is called by name
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]


async def _in_time(call: Any, deadline: Deadline) -> Any:
    """What a call returns, if it does in time."""
    try:
        with deadline:
            returned = await call
            # Most return a text, and the look at anything else takes longer than the rest.
            return returned if type(returned) is str or not inspect.isawaitable(returned) else await returned
    except TIMEOUT_ERRORS as error:
        if not deadline.expired:
            raise
        raise TimeoutError(f"it did not finish within {deadline.limit:g} s (tool_timeout)") from error


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, without that of what it returns.

    Raises:
        TypeError: If one cannot be evaluated; the message names it and the remedy.
    """
    name = getattr(function, "__name__", type(function).__name__)
    hints: dict[str, Any] = {}
    for parameter, hint in inspect.get_annotations(function).items():
        if parameter == "return":
            continue
        if isinstance(hint, str):
            try:
                hint = eval(hint, getattr(inspect.unwrap(function), "__globals__", {}))  # noqa: S307 - as inspect does
            except Exception as error:
                if hint.rpartition(".")[2] != ToolContext.__name__:
                    raise TypeError(
                        f"tool {name!r}: the annotation {quoted(hint)} of {parameter!r} cannot be evaluated "
                        f"({type(error).__name__}: {error}); import or define it at module level, also at run time"
                    ) from error
                hint = ToolContext
        hints[parameter] = hint
    return hints
