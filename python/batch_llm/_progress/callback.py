"""The user's progress callback. Used by a run; nothing here can block it."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from .._endings import ends_run
from .._logs import logger_of
from .._threads import in_thread
from .._timeouts import TIMEOUT_ERRORS, timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._items import ProgressCallbackFunc

logger = logger_of("batch_llm.base")

UNLIMITED_CALLBACK_GRACE = 5.0
"""How long the end of a run waits for a callback that has no time limit, seconds."""


class ProgressReporter:
    """Call a progress callback: at most one call at a time, with the newest numbers.

    Async callbacks run in a task, sync ones in a thread, so that neither blocks the run. A callback that cannot
    keep up misses numbers in between, never the last ones.

    Args:
        callback: The callback.
        limit: The limit of one call, seconds; None = none.
        patience: How long a cancelled call may take to end, seconds.
        fail: Called with an exception that ends the whole run.
    """

    def __init__(
        self,
        callback: ProgressCallbackFunc,
        limit: float | None,
        patience: float,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._callback = callback
        self._limit = limit
        self._patience = patience
        self._fail = fail
        self._newest: tuple[int, int, str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: asyncio.Future[Any] | None = None
        self._is_async = inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004 - to see whether calling it gives a coroutine
        )

    def report(self, completed: int, total: int, item_id: str) -> None:
        """Have the callback called with these numbers soon."""
        self._newest = (completed, total, item_id)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._deliver(), name="batch-llm progress")

    async def finish(self) -> None:
        """Let the calls that are due end, each within its time limit."""
        if self._task is None or self._task.done():
            return
        # Two calls may be due: the running one, and one with the newest numbers.
        longest = 2 * (self._limit if self._limit is not None else UNLIMITED_CALLBACK_GRACE) + 1.0
        await asyncio.wait({self._task}, timeout=longest)
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel a running call."""
        self._newest = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=self._patience)

    async def _deliver(self) -> None:
        while self._newest is not None:
            numbers, self._newest = self._newest, None
            try:
                await (self._call_async(numbers) if self._is_async else self._call_in_thread(numbers))
            except TIMEOUT_ERRORS:
                logger.warning("Progress callback exceeded timeout of %s s; no longer waiting for it", self._limit)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if ends_run(error):
                    self._fail(error)
                    return
                logger.warning("Progress callback failed: %s: %s", type(error).__name__, error)

    async def _call_async(self, numbers: tuple[int, int, str]) -> None:
        async with timeout(self._limit):
            outcome = self._callback(*numbers)
            if inspect.isawaitable(outcome):
                await outcome

    async def _call_in_thread(self, numbers: tuple[int, int, str]) -> None:
        if self._thread is not None and not self._thread.done():
            # A thread cannot be stopped. A second one beside it would only pile up.
            await asyncio.wait({self._thread}, timeout=self._limit)
            if not self._thread.done():
                raise TimeoutError
        self._thread = in_thread(self._callback, *numbers)
        self._thread.add_done_callback(_retrieve)
        async with timeout(self._limit):
            outcome = await asyncio.shield(self._thread)
            if inspect.isawaitable(outcome):
                await outcome


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve an exception, so that a late one is not reported as lost."""
    if not future.cancelled():
        future.exception()
