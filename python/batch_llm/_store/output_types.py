"""Which classes the outputs of a strategy may have. A file names classes; only those found here are ever made.

They are those that the strategy declares (its response model, the annotations and the code of its function) or has
returned in this process, those given to the store, and the standard library's plain values. Used by ``codec``.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import functools
import inspect
import pathlib
import types
import typing
import uuid
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from .._json_values import name_of
from ..pools import MixedPoolStrategy

_PLAIN = (
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal, pathlib.PurePath,
    pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath,
)  # fmt: skip
_MODELS = ("response_model", "_response_model", "output_type", "_output_type")
_FUNCTIONS = ("response_parser", "_response_parser", "_invoke")
_DEPTH = 16

_SEEN: weakref.WeakKeyDictionary[Any, weakref.WeakValueDictionary[str, type]] = weakref.WeakKeyDictionary()
"""Classes of outputs that were written in this process, by what they are outputs of."""


def remember(strategy: Any, kind: type) -> None:
    """Note that a strategy returns objects of this class."""
    source = _source(strategy)
    # What cannot be referred to weakly is found by its annotations, or not at all.
    with contextlib.suppress(TypeError):
        known = _SEEN.get(source)
        if known is None:
            known = _SEEN[source] = weakref.WeakValueDictionary()
        known[name_of(kind)] = kind


def types_of(strategy: Any, given: Iterable[Any] = ()) -> dict[str, type]:
    """Return the classes that outputs of a strategy may have, by their names.

    Args:
        strategy: The strategy; None: only what else is known.
        given: Further classes, or annotations with classes in them.
    """
    found: dict[str, type] = {name_of(kind): kind for kind in _PLAIN}
    found.update(("pathlib:" + kind.__qualname__, kind) for kind in _PLAIN if kind.__module__.startswith("pathlib"))
    for kind in _declared_by(strategy):
        found[name_of(kind)] = kind
    with contextlib.suppress(TypeError):
        found.update(_SEEN.get(_source(strategy), {}))
    for one in given:
        found.update((name_of(kind), kind) for kind in _classes(one))
    return found


def _source(strategy: Any) -> Any:
    function = strategy.__dict__.get("_invoke") if hasattr(strategy, "__dict__") else None
    return type(strategy) if function is None else getattr(function, "__func__", function)


def _declared_by(strategy: Any) -> Iterator[type]:
    for member in strategy.strategies if isinstance(strategy, MixedPoolStrategy) else ():
        yield from _declared_by(member)
    for name in _MODELS:
        yield from _classes(getattr(strategy, name, None))
        yield from _classes(getattr(getattr(strategy, "agent", None), name, None))
    for base in type(strategy).__mro__:
        for generic in base.__dict__.get("__orig_bases__", ()):
            for argument in typing.get_args(generic):
                yield from _classes(argument)
    functions = [getattr(strategy, name, None) for name in _FUNCTIONS]
    for function in (*functions, getattr(type(strategy), "execute", None)):
        if callable(function):
            yield from _of_function(function)


def _of_function(function: Any) -> Iterator[type]:
    """The classes in a function's annotation, and those that its own code names."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if isinstance(function, type):
        yield from _classes(function)
        return
    if not isinstance(function, types.FunctionType):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - the function of an object
    try:
        function = inspect.unwrap(function)
    except (TypeError, ValueError):
        return
    if not isinstance(function, types.FunctionType):
        return
    # Some names are not there outside of type checking.
    with contextlib.suppress(Exception):
        yield from _classes(typing.get_type_hints(function).get("return"))
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, type):
            yield value


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _classes(annotation: Any, depth: int = 0) -> Iterator[type]:
    """The classes in an annotation: ``list[Invoice] | None`` has one."""
    arguments = typing.get_args(annotation)
    if isinstance(annotation, type) and not arguments:
        yield annotation
    if isinstance(annotation, (list, tuple)) and depth < _DEPTH:
        arguments = tuple(annotation)
    for argument in arguments if depth < _DEPTH else ():
        yield from _classes(argument, depth + 1)
