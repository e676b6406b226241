"""Tracebacks of errors that are the caller's: they end at the user's line. Used by everything that is public."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import ParamSpec
else:
    from typing import ParamSpec

P = ParamSpec("P")
T = TypeVar("T")


def end_at_caller(error: TypeError | ValueError) -> None:
    """Take our frames from the error for a wrong argument: they say nothing to the user. Any other is left as it is.

    It has to be raised by its name then. In a script that line is the one of ours that is still shown, so it is to read
    well: ``raise wrong_argument``.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    if not (name == _PACKAGE or name.startswith(f"{_PACKAGE}.")):
        return  # raised in the user's own code
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        # What IPython asks an exception for, so that not even the function that was called shows.
        error.__dict__["_render_traceback_"] = functools.partial(_rendered, shell, error)
    error.__traceback__ = None


def checks_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Do so for what a constructor raises."""

    @functools.wraps(function)
    def check(*args: P.args, **keywords: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            return function(*args, **keywords)
        except (TypeError, ValueError) as wrong_argument:
            end_at_caller(wrong_argument)
            raise wrong_argument

    return check


_PACKAGE = __package__


def _rendered(shell: Any, error: BaseException) -> Any:
    """The lines of a traceback in IPython, without our frames."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            frames.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    renderer = shell.InteractiveTB
    return renderer.structured_traceback(type(error), error, kept, tb_offset=renderer.tb_offset)
