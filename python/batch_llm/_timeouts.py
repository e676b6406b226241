"""Time limits for blocks, on every supported Python."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any

from .strategies.errors import TIMEOUT_ERRORS

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["TIMEOUT_ERRORS", "Deadline", "Deadlines", "expired", "timeout"]


def expired(deadline: Any) -> bool:
    """Whether a time limit is what ended its block; a method in asyncio, a property in its back-port."""
    reached = deadline.expired
    return bool(reached() if callable(reached) else reached)


class Deadlines:
    """Time limits of blocks that run at the same time on one loop, with one timer for all that are equally long.

    ``asyncio.timeout`` has a timer for each, which is nearly always cancelled: beside a thousand others, that takes
    longer than a short block.
    """

    def __init__(self) -> None:
        # By limit, those that are running, in the order of their ends.
        self._running: dict[float, dict[Deadline, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def within(self, limit: float) -> Deadline:
        """Return a context manager that cancels its block after so many seconds, as ``asyncio.timeout`` does."""
        return Deadline(self, limit)

    def close(self) -> None:
        """Cancel no more blocks."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _begin(self, deadline: Deadline) -> None:
        loop, limit = asyncio.get_running_loop(), deadline.limit
        running = self._running.setdefault(limit, {})
        running[deadline] = end = loop.time() + limit
        if limit not in self._timers:
            self._timers[limit] = loop.call_at(end, self._look, loop, limit)

    def _end(self, deadline: Deadline) -> None:
        self._running[deadline.limit].pop(deadline, None)

    def _look(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        running = self._running[limit]
        while running:
            deadline, end = next(iter(running.items()))
            if end > loop.time():
                self._timers[limit] = loop.call_at(end, self._look, loop, limit)
                return
            del running[deadline]
            deadline._expire()
        del self._timers[limit]


class Deadline:
    """One of them, for one block."""

    __slots__ = ("_all", "_cancelling", "_task", "expired", "limit")

    def __init__(self, all_of_them: Deadlines, limit: float) -> None:
        self._all = all_of_them
        self.limit = limit
        """Seconds."""
        self.expired = False
        """Whether the block was cancelled because its time was over."""

    def __enter__(self) -> None:
        task: Any = asyncio.current_task()
        # How often somebody else has cancelled the task; Python 3.10 does not know.
        self._task, self._cancelling = task, task.cancelling() if _COUNTS_CANCELLATIONS else 0
        self._all._begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.expired:
            self._all._end(self)
            return
        is_last = not _COUNTS_CANCELLATIONS or self._task.uncancel() <= self._cancelling
        if is_last and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


_COUNTS_CANCELLATIONS = sys.version_info >= (3, 11)
