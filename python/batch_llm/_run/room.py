"""Who waits for room in a run's queue, in order. Used by ``run``."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """The waiters for room in the queue of a run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def wait(self, *, is_first: bool) -> None:
        """Wait until there is room; ``is_first``: behind all others, because it has not waited before."""
        waiter = self._loop.create_future()
        (self._waiters.append if is_first else self._waiters.appendleft)(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.make()  # the room that was for this one
            raise

    def make(self) -> None:
        """Let the next one in."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def make_for_all(self) -> None:
        """Let all of them in, or see that they need not wait: the run is over."""
        while self._waiters:
            self.make()
