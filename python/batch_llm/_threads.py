"""Threads that the user's plain functions run in. Used by strategies that are functions, and for progress callbacks.

A thread that has nothing to do takes the next call, and ends after a while. They are daemons: a function that never
returns blocks neither its run nor the end of the process. Nothing here takes a lock, so it works in a forked child.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import queue
import threading
from collections.abc import Callable
from typing import Any

from ._forks import in_child

IDLE_SECONDS = 5.0
"""How long a thread waits for its next call."""
MOST_LOST = 1024
"""Maximum number of threads of a process that abandoned calls may block."""


class NoThreadError(RuntimeError):
    """No thread is available for a function."""


class _Call:
    """A call of a function."""

    __slots__ = ("answer", "function", "has_ended", "loop")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function, self.loop = function, loop
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.has_ended = False
        self.answer.add_done_callback(self._note_end)

    def do(self) -> None:
        """Call the function in a separate thread."""
        value: Any = None
        failure: BaseException | None = None
        try:
            value = self.function()
        except (StopIteration, StopAsyncIteration) as error:
            # As in a coroutine: it would end whatever awaits it, in place of failing it.
            failure = RuntimeError(f"the function raised {type(error).__name__}")
            failure.__cause__ = error
        except BaseException as error:
            failure = error
        self.has_ended = True
        _lost.discard(self)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._set_result, value, failure)

    def _set_result(self, value: Any, failure: BaseException | None) -> None:
        if self.answer.done():
            return
        if failure is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(failure)

    def _note_end(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            answer.exception()  # if it is not awaited any more, it is not reported as lost
            return
        _lost.add(self)
        if self.has_ended:  # meanwhile
            _lost.discard(self)


class _Worker:
    """A thread."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"batch-llm function {next(_numbers)}", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                call = self.calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # it was just taken by a call
                    call = self.calls.get()
                else:
                    return
            call.do()
            del call
            _idle.append(self)


_numbers = itertools.count(1)
_idle: list[_Worker] = []
_lost: set[_Call] = set()
"""Abandoned calls that have not returned."""


def in_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> asyncio.Future[Any]:
    """Call a function in a thread, with the context variables of the caller.

    Whoever cancels what is returned waits no more; the function runs on to its end.

    Raises:
        NoThreadError: If the operating system gives no more threads, or too many functions have not returned.
    """
    if len(_lost) >= MOST_LOST:
        raise NoThreadError(
            f"{len(_lost):,} threads are blocked by functions that timed out or were cancelled and have not returned; "
            "make sure that the function returns, for example by giving its client a timeout"
        )
    variables = contextvars.copy_context()
    try:
        worker = _idle.pop()
    except IndexError:
        try:
            worker = _Worker()
        except RuntimeError as error:
            raise NoThreadError(f"the operating system cannot start more threads ({error})") from error
    call = _Call(lambda: variables.run(function, *arguments, **named), asyncio.get_running_loop())
    worker.calls.put(call)
    return call.answer


def _forget() -> None:
    """A child of a fork has none of these threads."""
    _idle.clear()
    _lost.clear()


in_child(_forget)
