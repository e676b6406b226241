"""Ctrl-C, and the interrupt of a notebook, for runs that are on: the first one gently, the second at once.

Only where the interpreter's own handler is in charge, or one of asyncio, anyio or ipykernel: a program that handles the
signal itself knows what it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from ._forks import in_child
from ._source import is_reading

if TYPE_CHECKING:
    from ._live import LiveRun

_OURS_TO_REPLACE = ("asyncio", "anyio", "ipykernel", "uvloop")

_watched: list[tuple[LiveRun, asyncio.AbstractEventLoop]] = []
_previous: Any = None
_times = 0


def watch(live: LiveRun, loop: asyncio.AbstractEventLoop) -> bool:
    """Have a run interrupted by the signal from now on; whether that is possible here: in the main thread only.

    Where the signal is ignored, as in a shell's background job, only :func:`interrupt` does.
    """
    global _previous, _times
    if threading.current_thread() is not threading.main_thread():
        return False
    if not _watched:
        present = signal.getsignal(signal.SIGINT)
        if present == signal.SIG_IGN:
            present = signal.default_int_handler
        elif not _is_replaceable(present):
            return False
        else:
            try:
                signal.signal(signal.SIGINT, _on_signal)
            except ValueError:  # a sub-interpreter
                return False
        _previous, _times = present, 0
    _watched.append((live, loop))
    return True


def unwatch(live: LiveRun) -> None:
    """Forget a run; whoever handled the signal before does again when none is left."""
    global _previous
    _watched[:] = [(other, loop) for other, loop in _watched if other is not live]
    if not _watched and _previous is not None and threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is _on_signal:
            signal.signal(signal.SIGINT, _previous)
        _previous = None


def interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does, also where SIGINT is ignored; a handler of other signals that end a program."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.raise_signal(signal.SIGINT)
    elif _watched:
        _on_signal(signal.SIGINT, frame)
    else:
        signal.default_int_handler(signal.SIGINT, frame)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _times
    _times += 1
    if (_times > 2 or not _watched) and callable(_previous):
        _previous(number, frame)
        return
    for live, loop in _watched[:]:
        live.interrupted = True
        try:
            loop.call_soon_threadsafe(live.interrupt)
        except RuntimeError:  # the loop is closed
            unwatch(live)
    if is_reading(frame):
        # It may block for ever, and Python would go on with its system call when this returns.
        raise KeyboardInterrupt


def _forget() -> None:
    """A child has none of these runs."""
    global _previous
    _watched.clear()
    if _previous is not None and signal.getsignal(signal.SIGINT) is _on_signal:
        # The thread that forked is the child's main thread.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, _previous)
    _previous = None


in_child(_forget)


_KERNELS = ("ipykernel", "tornado", "anyio", "IPython")


def is_in_background() -> bool:
    """Whether the current task is one of a notebook's kernel, but none of its cells.

    ``KeyboardInterrupt`` leaves the loop of a task that does not catch it, and so would end the kernel.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return False
    task = asyncio.current_task()
    frame = getattr(None if task is None else task.get_coro(), "cr_frame", None)
    module = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    return module.split(".")[0] not in _KERNELS


def _is_replaceable(handler: Any) -> bool:
    if handler is _on_signal or handler is signal.default_int_handler:
        return True
    while isinstance(handler, functools.partial):
        handler = handler.func
    module = getattr(handler, "__module__", None) or type(getattr(handler, "__self__", None)).__module__
    return str(module).split(".")[0] in _OURS_TO_REPLACE
