"""The lane of one run: which client sends the requests of a strategy, and what happens to batches meanwhile.

The pipeline has one, unless its requests go the usual way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from .._core import BatchLane as Batches
from .._lanes import check_flex, is_cheaper, rates_of
from .._logs import answer, log_event
from ..errors import ArtifactError, InBatchError
from ..pools import PoolStrategy
from ..prices import price_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core import NativeClient
    from .._lanes import LaneChoice
    from .._run import Engine, Run
    from ..artifacts import Persistence
    from ..core.config import ProcessorConfig
    from ..errors import LaneChange

LOOK_SECONDS = 0.1
"""How often a lane is looked at."""
USUAL_WINDOW = 25.0
"""Requests at once that a rate is estimated with, where the concurrency is found automatically."""
FLEX_SHARE = 0.75
"""After this share of its deadline, a run in the flex lane sends the rest at the usual price."""


def lane_for(choice: LaneChoice, persistence: Persistence | None, config: ProcessorConfig) -> Lane:
    """Make the lane that the user has chosen.

    Raises:
        ArtifactError: If the ledger of batches cannot be opened, such as while another process uses it.
    """
    if choice.lane == "flex":
        return FlexLane(choice)
    assert persistence is not None
    return BatchLane(choice, persistence, config)


class Lane:
    """What both lanes have in common.

    Args:
        choice: What the user wants.
    """

    waits_in_batches = False
    """Whether requests wait for hours in batches, which stay when the run is interrupted."""

    @property
    def price_lane(self) -> str:
        """The lane whose prices are reserved."""
        return "batch" if self._choice.lane == "auto" else self._choice.lane

    def __init__(self, choice: LaneChoice) -> None:
        self._choice = choice
        self._clients: dict[int, tuple[Any, NativeClient]] = {}

    def expect(self, requests: int) -> None:
        """Take note of how many requests there will be, as far as is known."""

    def check(self, items: Iterable[Any]) -> None:
        """Raise what :meth:`client` raises for the strategies of these items."""
        last: Any = None
        for item in items:
            if item is not None and item.strategy is not last:
                last = item.strategy
                self.client(last)

    def client(self, strategy: Any, index: int | None = None) -> NativeClient:
        """The client for the requests of a strategy; ``index``: for those of this item.

        Raises:
            TypeError: If the strategy is not native.
            ValueError: If it cannot take this lane; the message says why.
        """
        known = self._clients.get(id(strategy))
        if known is None:
            own = getattr(strategy, "_client", None)
            if own is None or not hasattr(strategy, "_asks"):
                raise TypeError(
                    f"lane={self._choice.lane!r} needs a native strategy, such as 'openai:gpt-5-mini', "
                    f"not {type(strategy).__name__}"
                )
            if isinstance(strategy, PoolStrategy):
                raise ValueError(f"a pool has no lane={self._choice.lane!r}; use lane='live', or one of its members")
            known = self._clients[id(strategy)] = strategy, self._client(strategy, own)
        return known[1]

    def _client(self, strategy: Any, own: NativeClient) -> NativeClient:
        raise NotImplementedError

    def queue(self, engine: Engine) -> int | None:
        """The engine's queue for requests in this lane; None: the usual ones."""
        return None

    def begin(self, run: Run) -> None:
        """Attach to a run."""

    def changed(self, index: int, change: LaneChange) -> None:
        """Take note that an item goes by itself."""

    def reused(self) -> None:
        """Take note that the store has answers to some items."""

    def in_batches(self) -> int:
        """How many requests wait in batches."""
        return 0

    def sent_live(self) -> dict[str, int]:
        """How many requests were meant for batches and sent one by one, by reason."""
        return {}

    def interrupted(self) -> None:
        """Say what becomes of the requests of a run that is interrupted."""

    async def close(self, is_complete: bool) -> None:
        """Let go of everything; ``is_complete``: all results are stored."""
        self._clients.clear()


class FlexLane(Lane):
    """Requests of the flex tier: half the price, slow, and rejected while the provider is busy."""

    def __init__(self, choice: LaneChoice) -> None:
        super().__init__(choice)
        self._end: float | None = None
        self._loop: asyncio.AbstractEventLoop

    def begin(self, run: Run) -> None:
        """Attach to a run: its deadline counts from now on."""
        self._loop = run.loop
        if self._choice.deadline is not None:
            self._end = run.loop.time() + FLEX_SHARE * self._choice.deadline

    def _client(self, strategy: Any, own: NativeClient) -> NativeClient:
        check_flex(strategy.provider)
        late = own.marked("live", "deadline") if self._choice.deadline is not None else None
        return own.in_tier("flex", late, self._end_in())

    def _end_in(self) -> float | None:
        return None if self._end is None else max(self._end - self._loop.time(), 0.0)


class BatchLane(Lane):
    """Requests in batches, or where it is left to the lane, what of them is worth it.

    Args:
        choice: What the user wants.
        persistence: The run's store, which is open.
        config: The configuration of the run.
    """

    waits_in_batches = True

    def __init__(self, choice: LaneChoice, persistence: Persistence, config: ProcessorConfig) -> None:
        super().__init__(choice)
        store = persistence.store
        assert store is not None
        assert store._format is not None
        self._store, self._prices = store.path, config.guardrails.prices
        self._timeout = config.guardrails.batch_timeout
        how = choice.settings._for_extension()
        if choice.lane == "auto":
            how["auto"] = _auto(choice, config)
        self._batches = Batches(store.path, store._format, store, how)
        self._live: dict[int, str] = {}
        self._live_clients: dict[tuple[int, str], NativeClient] = {}
        self._queue: int | None = None
        self._watching: asyncio.Task[None] | None = None

    def client(self, strategy: Any, index: int | None = None) -> NativeClient:
        """The client for the requests of a strategy; ``index``: for those of this item."""
        client = super().client(strategy)
        why = None if index is None else self._live.get(index)
        if why is None:
            return client
        place = id(strategy), why
        live = self._live_clients.get(place)
        if live is None:
            live = self._live_clients[place] = self._batches.live_client(strategy._client, why)
        return live

    def _client(self, strategy: Any, own: NativeClient) -> NativeClient:
        if strategy._fresh_key is not None:
            raise ValueError(
                f"lane={self._choice.lane!r} needs a fixed api_key, not a function: batches can only be found again "
                "with the key that created them"
            )
        price = price_of(strategy.model, self._prices)
        return self._batches.client(own, is_cheaper(price), rates_of(price))

    def expect(self, requests: int) -> None:
        """Take note of how many requests there will be, as far as is known."""
        self._batches.expect(requests)

    def reused(self) -> None:
        """Take note that the store has answers to some items: such requests are answered."""
        self._batches.proven()

    def queue(self, engine: Engine) -> int | None:
        """The engine's queue for requests in batches."""
        if self._queue is None:
            self._queue = engine.unbounded_queue()
        return self._queue

    def changed(self, index: int, change: LaneChange) -> None:
        """Take note that an item goes by itself."""
        self._live[index] = change.text or ""

    def begin(self, run: Run) -> None:
        """Watch over the batches of a run until :meth:`close`."""
        self._watching = run.loop.create_task(self._watch(run), name="batch-llm lane")

    async def _watch(self, run: Run) -> None:
        # A batch in flight may take a day: the run's time-out leaves it where it is, as a deadline does.
        limits = (
            {self._choice.deadline: "deadline", self._timeout: "batch_timeout"} if self._choice.lane == "batch" else {}
        )
        ends = min((limit for limit in limits if limit is not None), default=None)
        end = None if ends is None else run.loop.time() + ends
        try:
            while not run.closing:
                await asyncio.sleep(LOOK_SECONDS)
                self._tell()
                if self._choice.lane == "auto":
                    await self._batches.look_at_time()
                if end is not None and run.loop.time() >= end:
                    self._leave(run, f"the {limits[ends]} ({ends:g} s) has passed")
                    return
                if not self._is_complete(run):
                    continue
                # No request will come unless one of these fails.
                self._batches.flush()
                if not self._choice.wait:
                    await self._batches.submitted()
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
        waiting = self.in_batches()
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

    def in_batches(self) -> int:
        """How many requests wait in batches."""
        return self._batches.counts()[5]

    def sent_live(self) -> dict[str, int]:
        """How many requests were meant for batches and sent one by one, by reason."""
        return dict(self._batches.reasons())

    def interrupted(self) -> None:
        """Say what becomes of the batches of a run that is interrupted."""
        waiting = self.in_batches()
        if waiting:
            answer(
                "left_in_batches",
                "%s requests stay in batches at the provider; run the same program again to collect the results, or: "
                "batch-llm collect %s. To cancel them: batch-llm batches %s --cancel",
                f"{waiting:,}",
                self._store,
                self._store,
            )

    def _tell(self) -> None:
        for note in self._batches.take_notes():
            log_event(logging.WARNING, "batch", "%s", note)

    async def close(self, is_complete: bool) -> None:
        """Leave batches where they are, and forget those whose results are stored."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._batches.at_rest()
        self._tell()
        self._live_clients.clear()
        await super().close(is_complete)
        try:
            self._batches.close(is_complete)
        except ArtifactError as error:
            log_event(logging.WARNING, "store_failed", "%s", error)


def _auto(choice: LaneChoice, config: ProcessorConfig) -> dict[str, Any]:
    """What the choice between batches and single requests goes by."""
    rate = choice.settings.live_rate
    per_second = [amount / seconds for measure, amount, seconds in config._limits() if measure == "requests"]
    if rate is None and per_second:
        rate = min(per_second)
    window = USUAL_WINDOW if config.concurrency == "auto" else float(config._workers)
    return {
        "deadline": choice.deadline,
        "rate": rate,
        "concurrency": window,
        "cancel_time": choice.settings.cancel_time,
    }
