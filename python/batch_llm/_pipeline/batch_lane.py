"""The batch lane of one run: gives each strategy a client whose requests wait in batches, and watches over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from .._core import BatchLane as Lane
from .._logs import log_event
from ..errors import ArtifactError, InBatchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core import NativeClient
    from .._lanes import LaneChoice
    from .._run import Run
    from ..artifacts import Persistence

LOOK_SECONDS = 0.1
"""How often the lane is looked at."""


class BatchLane:
    """See the module.

    Args:
        choice: What the user wants.
        persistence: The run's store, which is open.

    Raises:
        ArtifactError: If the ledger of batches cannot be opened, such as while another process uses it.
    """

    def __init__(self, choice: LaneChoice, persistence: Persistence) -> None:
        store = persistence.store
        assert store is not None
        assert store._format is not None
        self._choice, self._store = choice, store.path
        self._lane = Lane(store.path, store._format, store, choice.settings._for_extension())
        self._clients: dict[int, tuple[Any, NativeClient]] = {}
        self._watching: asyncio.Task[None] | None = None

    def check(self, items: Iterable[Any]) -> None:
        """Raise what :meth:`client` raises for the strategies of these items."""
        last: Any = None
        for item in items:
            if item is not None and item.strategy is not last:
                last = item.strategy
                self.client(last)

    def client(self, strategy: Any) -> NativeClient:
        """The client for the requests of a strategy.

        Raises:
            TypeError: If the strategy is not native.
            ValueError: If its provider has no batches, or earlier batches are another account's.
        """
        known = self._clients.get(id(strategy))
        if known is None:
            own = getattr(strategy, "_client", None)
            if not hasattr(strategy, "_asks") or own is None:
                raise TypeError(
                    f"lane={self._choice.lane!r} is for native strategies, such as 'openai:gpt-5-mini', "
                    f"not {type(strategy).__name__}"
                )
            if strategy._fresh_key is not None:
                raise ValueError(
                    f"lane={self._choice.lane!r} needs a fixed api_key: batches are found again by the account they "
                    "were sent with, not with a function that gives keys"
                )
            known = self._clients[id(strategy)] = strategy, self._lane.client(own)
        return known[1]

    def begin(self, run: Run) -> None:
        """Watch over the batches of a run until :meth:`close`."""
        self._watching = run.loop.create_task(self._watch(run), name="batch-llm lane")

    async def _watch(self, run: Run) -> None:
        end = None if self._choice.deadline is None else run.loop.time() + self._choice.deadline
        try:
            while not run.closing:
                await asyncio.sleep(LOOK_SECONDS)
                self._tell()
                if end is not None and run.loop.time() >= end:
                    self._leave(run, f"its deadline ({self._choice.deadline:g} s) is over")
                    return
                if not self._is_complete(run):
                    continue
                # No request will come unless one of these fails.
                self._lane.flush()
                if not self._choice.wait:
                    await self._lane.submitted()
                    if self._is_complete(run):
                        self._leave(run, "all requests are in batches (wait=False)")
                        return
        except Exception as error:
            run.fail(error)

    def _is_complete(self, run: Run) -> bool:
        """Whether all items that the run has, and will have, wait for their batches."""
        if run.is_open or run.closing:
            return False
        queued, in_flight, retrying, *_ = run.gauges()
        waiting = self._lane.counts()[5]
        return queued == 0 and retrying == 0 and waiting > 0 and waiting == in_flight

    def _leave(self, run: Run, why: str) -> None:
        log_event(
            logging.INFO,
            "left_in_batches",
            "%s; run the same program again to collect the results, or: batch-llm collect %s",
            why[0].upper() + why[1:],
            self._store,
        )
        run.end_early(cancel=True, category=InBatchError.category)

    def interrupted(self) -> None:
        """Say what becomes of the batches of a run that is interrupted."""
        counts = self._lane.counts()
        if counts[5]:
            log_event(
                logging.WARNING,
                "left_in_batches",
                "%s requests stay in batches; run the same program again to collect the results, or: batch-llm collect "
                "%s. To cancel them: batch-llm batches %s --cancel",
                f"{counts[5]:,}",
                self._store,
                self._store,
            )

    def _tell(self) -> None:
        for note in self._lane.take_notes():
            log_event(logging.WARNING, "batch", "%s", note)

    async def close(self) -> None:
        """Leave batches where they are, and forget those whose results are stored."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._lane.at_rest()
        self._tell()
        self._clients.clear()
        try:
            self._lane.close()
        except ArtifactError as error:
            log_event(logging.WARNING, "store_failed", "%s", error)
