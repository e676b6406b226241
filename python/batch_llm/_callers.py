"""Tracebacks of errors that are the caller's: they end at the user's line. Used by everything that is public."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ._core import EndsAtCaller

if TYPE_CHECKING:
    from typing_extensions import ParamSpec
else:
    from typing import ParamSpec

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGE = __package__


def ends_at_caller(function: Callable[P, T]) -> Callable[P, T]:
    """Remove our frames from errors for wrong arguments: they do not help the user. Other errors are unchanged."""
    is_coroutine = inspect.iscoroutinefunction(function)
    checked: Any = EndsAtCaller(function, _is_ours, is_coroutine)
    functools.update_wrapper(checked, function)
    # By these `inspect` knows a function, and a coroutine function, that is written in another language.
    for name in ("__code__", "__defaults__", "__kwdefaults__"):
        setattr(checked, name, getattr(function, name))
    made: Callable[P, T] = checked
    return made


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether an error was raised in this package."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return bool(name == _PACKAGE or name.startswith(f"{_PACKAGE}."))
