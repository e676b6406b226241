"""The source of a run that is read in the thread of its caller. Used by ``blocking``."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

from ._run import ReadElsewhere

if TYPE_CHECKING:
    from ._items import LLMWorkItem
    from ._run import Source
    from .blocking import _Caller

WAIT_SECONDS = 0.05
"""How long, in all, a stream waits for results before it reads its source, which may block."""
WAIT_SHARE = 0.02
"""How much more of its time it may wait so."""
LEAST_WAIT_SECONDS = 0.0005


class ReadByCaller(ReadElsewhere):
    """A source that is read in the thread of the caller, as a database cursor must be.

    While it blocks, no result can be yielded. So in a stream, results that are ready go first, and those that will soon
    be ready too: before the source is read, the stream waits for results, as long as that costs only a small share
    of the time.
    """

    def __init__(self, source: Source, requests: queue.SimpleQueue[Any], caller: _Caller, *, gives: bool) -> None:
        super().__init__(source)
        self._requests = requests
        self._caller = caller
        self._gives = gives
        self._count = 0
        self._has_yielded = False
        self._began: float | None = None
        self._waited = 0.0
        self._message: tuple[str, Any] | None = None

    def _ask(self, count: int) -> None:
        self._requests.put(("read", lambda: self._serve(count)))

    def _serve(self, count: int) -> tuple[str, Any] | None:
        """In the caller's thread: read up to this many; fewer if there is something else to do, a result to pass on.

        Returns:
            What else there is to do, if it has been taken from the requests.
        """
        self._message = None
        self._read(count)
        return self._message

    def _next(self, place: int) -> list[LLMWorkItem[Any, Any, Any]] | None:
        if not self._requests.empty() and (place or (self._gives and not self._has_yielded)):
            self._has_yielded = True  # not twice for one entry, however many results there are
            return None
        if not self._caller.wants_more:
            return []
        if self._gives:
            self._message = self._wait_for_results()
            if self._message is not None:
                return None
        self._has_yielded = False
        items = self._source.read_now(1)
        self._count += len(items)
        return items

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
