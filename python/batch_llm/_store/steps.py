"""The steps of a conversation in a run's store: what the model said before the last answer, and what tools returned.

A step is recorded before anything follows from it, so a program that was killed continues where it was. Its key is made
of the request's fingerprint and of all steps before. Used by ``run_store``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core import fingerprint
from .._logs import log_event
from ..errors import ArtifactError, ArtifactIOError

if TYPE_CHECKING:
    from .._core import Journal
    from .._types import TokenUsage

Price = tuple[float, float, float, float, float, float]
_REUSABLE = 2


class Writes:
    """Who waits until records are written."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def wait_for(self, number: int) -> asyncio.Future[None]:
        """Return what is done when the record with this number is written, or nothing more can be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((number, future))
        return future

    def written(self, count: int) -> None:
        """So many records are written. Numbers come in order, as records do."""
        while self._waiting and self._waiting[0][0] <= count:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def end(self) -> None:
        """Nothing more is written: nobody waits."""
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


class StoredSteps:
    """The steps of one item.

    Args:
        journal: Where they are.
        writes: Who waits for it.
        key: The request's fingerprint.
        item: The number of the strategy's identity, the item's id, and its index.
        price: What the model's tokens cost.
        to_plain: Converts what JSON does not have.
        failed: Called when nothing more can be stored.
    """

    __slots__ = ("_failed", "_item", "_journal", "_last", "_price", "_request", "_to_plain", "_writes", "key")

    def __init__(
        self,
        journal: Journal,
        writes: Writes,
        key: bytes,
        item: tuple[int, str, int],
        price: Price | None,
        to_plain: Callable[[Any], Any],
        failed: Callable[[str], None],
    ) -> None:
        self._journal, self._writes, self._request, self._item = journal, writes, key, item
        self._price, self._to_plain, self._failed = price, to_plain, failed
        # Not the key of the item's own record.
        self.key = fingerprint("conversation", to_plain, key)
        self._last = 0

    def find(self, key: bytes) -> Any:
        """Return what an earlier run has recorded under a key; None: nothing."""
        found = self._journal.look_up(key, self._item[1], self._request)
        if found is None:
            return None
        try:
            return json.loads(found[0])
        except (ValueError, RecursionError):
            return None  # a damaged record counts as not there

    def keep(self, key: bytes, step: Any, usage: TokenUsage | None = None) -> None:
        """Record a step. ``usage``: what it cost."""
        identity, item_id, index = self._item
        outcome, spending = (True, None, _REUSABLE), (usage or {}, None, self._price, None)
        record: Any = (2, (key, identity, item_id, index), outcome, spending, step, None)
        try:
            self._last = self._journal.append(record, self._to_plain)
        except ArtifactIOError as error:
            self._failed(str(error))
        except (ArtifactError, TypeError, ValueError) as error:
            # An image, for example. If the program is killed, a later run does this step again.
            log_event(
                logging.WARNING,
                "step_not_stored",
                "Item %s: a step of its conversation cannot be stored, so it runs again after a crash: %.200s",
                item_id,
                error,
                item_id=item_id,
            )

    def next_key(self, key: bytes, value: Any) -> bytes:
        """A key that depends on another one and on a value."""
        try:
            return fingerprint(value, self._to_plain, key)
        except (ArtifactError, TypeError, ValueError):
            return fingerprint(repr(value), self._to_plain, key)

    async def written(self) -> None:
        """Wait until what was recorded last is on disk, or cannot be brought there."""
        if self._journal.written < self._last:
            await self._writes.wait_for(self._last)
