"""Ctrl-C, and the interrupt of a notebook, for current runs: the first stops them gracefully, the second at once.

Only where the interpreter's own handler is in charge, or one of asyncio, anyio or ipykernel: a program that handles the
signal itself is left alone.
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

from .._endings import PARTIAL
from .._forks import in_child
from .source import is_reading

if TYPE_CHECKING:
    from .session import LiveRun

_OURS_TO_REPLACE = ("asyncio", "anyio", "ipykernel", "uvloop", "batch_llm")

_watched: list[tuple[LiveRun, asyncio.AbstractEventLoop]] = []
_tasks: dict[LiveRun, asyncio.Task[Any]] = {}
"""The tasks that have started them; a run without one has a thread that waits for it."""
_previous: Any = None
_times = 0


def watch(live: LiveRun, loop: asyncio.AbstractEventLoop) -> bool:
    """Have a run interrupted by the signal from now on; whether that is possible here: in the main thread only.

    Where the signal is ignored, as in a shell's background job, only :func:`interrupt` does.
    """
    global _previous, _times
    if threading.current_thread() is not threading.main_thread():
        return False
    present = signal.getsignal(signal.SIGINT)
    # Also where others are watched: each cell of a notebook installs its own handler.
    if present is not _on_signal:
        if present == signal.SIG_IGN:
            present = signal.default_int_handler
        elif not _is_replaceable(present):
            return False
        else:
            try:
                signal.signal(signal.SIGINT, _on_signal)
            except ValueError:  # a sub-interpreter
                return False
        _previous = present
    if not _watched or present is not _on_signal:
        _times = 0
    if (task := _task_on(loop)) is not None:
        _tasks[live] = task
    _watched.append((live, loop))
    return True


def unwatch(live: LiveRun) -> None:
    """Forget a run; when none is left, restore the previous handler."""
    global _previous
    _tasks.pop(live, None)
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


class CaughtInterrupts:
    """Records the signal, and leaves it to the previous handler: for a run that this cancels."""

    def __init__(self) -> None:
        global _then
        self.is_so = False
        """Whether there was one."""
        self.error: BaseException | None = None
        """The exception for it, if one has been raised already: finished results are returned with that one."""
        if threading.current_thread() is not threading.main_thread():
            return
        present = signal.getsignal(signal.SIGINT)
        if callable(present) and present not in (_note, _on_signal) and _is_replaceable(present):
            with contextlib.suppress(ValueError):  # a sub-interpreter
                signal.signal(signal.SIGINT, _note)
                _then = present
        _listening.add(self)

    def raised(self, error: BaseException) -> None:
        """Set the exception that reports it; other runs interrupted by the same signal need no exception.

        The signal is left to its handler again, before that is replaced, for example by ``asyncio.run()``.
        """
        for heard in _listening:
            heard.error = error
        _listening.clear()
        self.end()

    def end(self) -> None:
        """Stop recording."""
        global _previous
        _listening.discard(self)
        if _listening or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is _note:
            signal.signal(signal.SIGINT, _then)
        elif _previous is _note:
            _previous = _then


_listening: set[CaughtInterrupts] = set()
_then: Any = signal.default_int_handler


def _note(number: int, frame: FrameType | None) -> None:
    for heard in _listening:
        heard.is_so = True
    try:
        _then(number, frame)
    except KeyboardInterrupt as error:  # Python 3.10, where asyncio.run() has no handler; or the second one
        for heard in _listening:
            heard.error = error
        raise


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _times
    meant = _watched if _kernel() is None else [(live, loop) for live, loop in _watched if _is_in_front(live, loop)]
    _times += bool(meant)
    if (_times > 2 or not meant) and callable(_previous):
        _previous(number, frame)
        return
    together = [live for live, _ in meant]
    for live, loop in list(meant):
        live.interrupted = True
        try:
            loop.call_soon_threadsafe(live.interrupt, together)
        except RuntimeError:  # the loop is closed
            unwatch(live)
    if is_reading(frame):
        # It may block for ever, and Python would go on with its system call when this returns.
        raise KeyboardInterrupt


def _forget() -> None:
    """A child has none of these runs."""
    global _previous
    _watched.clear()
    _tasks.clear()
    _listening.clear()
    if _previous is not None and signal.getsignal(signal.SIGINT) is _on_signal:
        # The thread that forked is the child's main thread.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, _previous)
    _previous = None


in_child(_forget)


class TaskInterrupt(KeyboardInterrupt, asyncio.CancelledError):
    """A ``KeyboardInterrupt`` that may leave a task of a notebook's kernel.

    A task re-raises ``KeyboardInterrupt`` out of the event loop, which would end the kernel. One that is a cancellation
    too stays in the task, and its awaiter gets this object (before Python 3.11 a new ``CancelledError``).
    """

    def __reduce__(self) -> Any:
        return KeyboardInterrupt, self.args, self.__dict__


# What notebooks show, and what users know.
TaskInterrupt.__name__ = TaskInterrupt.__qualname__ = "KeyboardInterrupt"


_KERNELS = ("ipykernel", "tornado", "anyio", "IPython")


def is_in_background() -> bool:
    """Whether the current task is one of a notebook's kernel, but none of its cells.

    A plain ``KeyboardInterrupt`` out of it would end the kernel; see :class:`TaskInterrupt`.
    """
    return _kernel() is not None and not _is_of_kernel(asyncio.current_task())


def _kernel() -> Any:
    """The kernel of a notebook, if this process is one."""
    ipython = sys.modules.get("IPython")
    return getattr(None if ipython is None else ipython.get_ipython(), "kernel", None)


def _is_of_kernel(task: asyncio.Task[Any] | None) -> bool:
    frame = getattr(None if task is None else task.get_coro(), "cr_frame", None)
    module = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    return module.split(".")[0] in _KERNELS


def _is_in_front(live: LiveRun, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the running cell of a notebook waits for this run: an interrupt is for the cell.

    What the cell waits for is followed through tasks, ``gather()`` and task groups.
    """
    wanted = _tasks.get(live)
    if wanted is None:
        return True
    futures: list[Any] = [task for task in asyncio.all_tasks(loop) if _is_of_kernel(task)]
    groups: dict[Any, list[Any]] = {}
    for task in asyncio.all_tasks(loop):
        for callback, _ in getattr(task, "_callbacks", None) or ():
            parent = getattr(getattr(callback, "__self__", None), "_parent_task", None)
            groups.setdefault(parent, []).append(task)
    seen = set()
    while futures:
        future = futures.pop()
        if future is wanted:
            return True
        if future in seen:
            continue
        seen.add(future)
        waits_for = getattr(future, "_fut_waiter", None)
        futures += [] if waits_for is None else [waits_for]
        futures += [*(getattr(future, "_children", None) or ()), *groups.get(future, ())]
    return False


def _task_on(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """The task that runs now, if it does so on this loop."""
    try:
        return asyncio.current_task() if asyncio.get_running_loop() is loop else None
    except RuntimeError:
        return None


def _is_replaceable(handler: Any) -> bool:
    if handler in (_on_signal, _note) or handler is signal.default_int_handler:
        return True
    while isinstance(handler, functools.partial):
        handler = handler.func
    module = getattr(handler, "__module__", None) or type(getattr(handler, "__self__", None)).__module__
    return str(module).split(".")[0] in _OURS_TO_REPLACE


_last_interrupted: Any = None


def last_interrupted() -> Any:
    """Return the finished results of the last run in this process that ended with ``KeyboardInterrupt``, or None.

    This is the exception's ``partial_result``. For ``run()`` and ``process_prompts()``, it is a
    :class:`~batch_llm.BatchResult`; for ``run_frame()`` and ``process_frame()``, a frame; for a stream, which has
    already yielded its results, a batch of the prompts that were not sent; for a processor's ``process_all()``, its
    ``partial_result()``. If several runs were interrupted together, it is that of the last to end.
    """
    return _last_interrupted


def interruption(
    partial: Any, what: str, *, is_users_task: bool, on_its_way: BaseException | None = None
) -> BaseException:
    """Return the exception of an interrupted run.

    Args:
        partial: Its ``partial_result``.
        what: What that is, in words, with a verb.
        is_users_task: Whether it is raised in a task of the user's, and not in a thread that waits.
        on_its_way: One that was raised already for the same signal; it gets the message.
    """
    text = interrupted(what)
    if on_its_way is not None:
        error, on_its_way.args = on_its_way, (text,)
    elif is_users_task and is_in_background():
        error = TaskInterrupt(text)
    else:
        error = KeyboardInterrupt(text)
    remember(error, partial)
    return error


def interrupted(what: str) -> str:
    """The message for a run that was interrupted."""
    return (
        f"the run was interrupted; {what} in batch_llm.last_interrupted(), and in this exception's attribute {PARTIAL}"
    )


def remember(error: BaseException, partial: Any) -> None:
    """Store the results of an interrupted run."""
    global _last_interrupted
    _last_interrupted = partial
    setattr(error, PARTIAL, partial)
