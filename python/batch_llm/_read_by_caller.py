"""The source of a run that is read in the thread of its caller. Used by ``blocking``."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ._forks import process
from ._source import Source

if TYPE_CHECKING:
    from ._items import LLMWorkItem
    from .blocking import _Caller

WAIT_SECONDS = 0.05
"""How long, in all, a stream waits for results before it asks its source, which may block."""
WAIT_SHARE = 0.02
"""How much more of its time it may wait so."""
LEAST_WAIT_SECONDS = 0.0005


class ReadByCaller(Source):
    """A source that is read in the thread of the caller; what it gives is passed on at once, also if it then waits.

    While it waits no result can be given out. So in a stream those that are there go first, and those that will soon be
    there too: before the source is asked, results are waited for, as long as that does not cost more than a small part
    of the time.
    """

    def __init__(
        self,
        source: Source,
        requests: queue.SimpleQueue[Any],
        loop: asyncio.AbstractEventLoop,
        caller: _Caller,
        *,
        gives: bool,
    ) -> None:
        self._source = source
        self._requests = requests
        self._loop = loop
        self._caller = caller
        self._gives = gives
        self._count = 0
        self._has_yielded = False
        self._began: float | None = None
        self._waited = 0.0
        self._items: deque[LLMWorkItem[Any, Any, Any]] = deque()
        self._failure: BaseException | None = None
        self._is_read = self._has_ended = False
        self._news: asyncio.Future[None] | None = None

    async def read(self, count: int) -> list[LLMWorkItem[Any, Any, Any]]:
        """Return what there is; if nothing, ask the caller's thread and wait."""
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._has_ended:
                return []
            news = self._news = self._loop.create_future()
            if self._items:  # they came in between, when nobody was to be told
                continue
            if not self._is_read:
                self._is_read = True
                self._requests.put(("read", lambda: self._read(count)))
            await news
        return [self._items.popleft() for _ in range(min(count, len(self._items)))]

    def _read(self, count: int) -> tuple[str, Any] | None:
        """In the caller's thread: read so many; fewer if there is something else to do, a result to pass on.

        Returns:
            What else there is to do, if it has been taken from the requests.
        """
        message: tuple[str, Any] | None = None
        failure: BaseException | None = None
        has_ended = False
        here = process()
        try:
            for place in range(count):
                if not self._requests.empty() and (place or (self._gives and not self._has_yielded)):
                    self._has_yielded = True  # not twice for one entry, however many results there are
                    break
                if not self._caller.wants_more:
                    has_ended = True
                    break
                if self._gives:
                    message = self._wait_for_results()
                    if message is not None:
                        break
                self._has_yielded = False
                items = self._source.read_now(1)
                if not items:
                    has_ended = True
                    break
                self._count += 1
                self._items.extend(items)
                news = self._news
                if news is not None:
                    self._news = None
                    self._loop.call_soon_threadsafe(_set, news)
        except BaseException as error:
            if here != process():
                raise  # the source has forked, and this ends the child
            failure = error
        self._loop.call_soon_threadsafe(self._was_read, has_ended, failure)
        return message

    def _wait_for_results(self) -> tuple[str, Any] | None:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        left = WAIT_SECONDS + WAIT_SHARE * (now - self._began) - self._waited
        if left < LEAST_WAIT_SECONDS or not self._caller.waits_for(self._count):
            return None
        try:
            message: tuple[str, Any] = self._requests.get(timeout=min(left, WAIT_SECONDS / 2))
        except queue.Empty:
            return None
        finally:
            self._waited += time.monotonic() - now
        return message

    def _was_read(self, has_ended: bool, failure: BaseException | None) -> None:
        self._is_read, self._has_ended, self._failure = False, has_ended, failure
        if self._news is not None:
            _set(self._news)

    async def close(self) -> None:
        """Nothing to do: it is the caller's."""


def _set(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
