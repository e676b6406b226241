"""The tasks of one run on the caller's loop. Used by ``_run.Run``."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

from .._core import Runner
from .._logs import log_event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .._core import Flight

_EAGER = sys.version_info >= (3, 12)
_Task: Any = asyncio.Task  # whose `eager_start` type checkers do not see from 3.10


def _is_nested() -> bool:
    """Whether loops run within loops, as ``nest_asyncio`` makes them do.

    The function that starts tasks would then be re-entered while one of them, started inside of it, waits.
    """
    return hasattr(asyncio, "_nest_patched")


class Tasks:
    """Start tasks, know which are running, and end them.

    Args:
        loop: The caller's loop.
        flights: The attempts in flight, by item; most tasks are theirs.
        fail: Called with the error of a task that must not fail.
        patience: How long cancelled tasks may take to end, seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flights: dict[int, Flight],
        fail: Callable[[BaseException], None],
        patience: float,
    ) -> None:
        self._patience = patience
        self._loop, self._flights, self._fail = loop, flights, fail
        self.eager = _EAGER and loop.get_task_factory() is None and not _is_nested()
        """Whether tasks start eagerly (Python 3.12)."""
        # Those without a flight: calls of the rate limit strategy, abandoned attempts.
        self._others: set[asyncio.Task[None]] = set()
        self._beginning = False  # inside the first, eager step of a task

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, eagerly where possible."""
        if self.eager and not _is_nested():
            before, self._beginning = self._beginning, True
            try:
                task: asyncio.Task[None] = _Task(coroutine, loop=self._loop, eager_start=True)
                return task
            finally:
                self._beginning = before
        return self._loop.create_task(coroutine)

    def spawn(self, coroutine: Coroutine[Any, Any, None], flight: Flight | None = None) -> None:
        """Run a coroutine in a task, that of ``flight`` if there is one; if it fails, so does the run."""
        task = self.begin(self._contained(coroutine))
        if flight is not None:
            flight.task = task
        if task.done():
            self._reap(task)
        else:
            self.keep(task)
            if not self.eager or _is_nested():
                task.add_done_callback(lambda _: coroutine.close())  # it may have been cancelled before it started

    async def _contained(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let nothing out of a task but its cancellation: ``SystemExit`` would end the loop before the run."""
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Count a task among the run's, whether it has a flight or not."""
        self._others.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._others.discard(task)
        if task.cancelled():
            self._fail(asyncio.CancelledError("a task of the run was cancelled from outside"))
        else:
            error = task.exception()
            if error is not None:
                self._fail(error)

    def is_inside(self) -> bool:
        """Whether the caller is part of the run: a strategy, a middleware, a post-processor."""
        if self._beginning:
            return True
        task = asyncio.current_task()
        if task is None:
            return False
        # Known by its coroutine: what a task goes on with is no flight of the run before it awaits something.
        coroutine: Any = task.get_coro()
        return (isinstance(coroutine, Runner) and coroutine.flights is self._flights) or task in self._on()

    def _on(self) -> set[asyncio.Task[None]]:
        flying = {flight.task for flight in self._flights.values() if flight.task is not None}
        return {task for task in flying | self._others if not task.done()}

    async def cancel(self) -> None:
        """Cancel all tasks and wait for them, for a limited time."""
        tasks = self._on()
        for task in tasks:
            task.cancel()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=self._patience)
        if tasks:
            log_event(
                logging.WARNING,
                "attempts_abandoned",
                "%d attempts ignored their cancellation and are abandoned. "
                "A strategy must not swallow asyncio.CancelledError",
                len(tasks),
                attempts=len(tasks),
            )
