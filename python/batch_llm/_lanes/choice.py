"""Which lane a run takes, as its user says it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .._checks import check_number, reject
from .._secrets import quoted

if TYPE_CHECKING:
    from ..artifacts import Persistence
    from ..prices import Price

LaneName = Literal["live", "flex", "batch", "auto"]
LANES: tuple[str, ...] = ("live", "flex", "batch", "auto")
FLEX_PROVIDERS = ("openai", "gemini")


class LaneOptions(TypedDict, total=False):
    """How requests reach their provider; see :class:`~batch_llm.ParallelBatchProcessor`."""

    lane: LaneName
    deadline: float | timedelta | None
    wait: bool
    batches: BatchSettings | None


@dataclass(frozen=True)
class BatchSettings:
    """How batches are created and polled. The defaults suit the providers; shorter times are useful in tests.

    Args:
        size: Maximum number of requests in a batch, >= 1; the provider's own maximum may be lower. Smaller batches come
            back sooner.
        linger: How long a batch that is not full waits for another request before it is sent, seconds, >= 0.
        first_poll: How long after its creation a batch is polled for the first time, seconds, > 0. The intervals grow
            from there.
        longest_poll: Maximum interval between polls, seconds, >= ``first_poll``; None: 75, and 300 after the first
            hour. Azure is polled no more often than every 60 seconds, as its documentation asks, unless this is less.
        queue_wait: How long to wait before the next try while the provider's batch queue is full, seconds, > 0. When
            another batch ends, the wait ends too.
        live_rate: For ``lane="auto"`` with a deadline: how many requests per second can be sent one by one; None: from
            ``max_requests_per_minute``, or from the latency of the first eight requests.
        cancel_time: For ``lane="auto"`` with a deadline: how long a batch takes to end after it is cancelled, seconds;
            None: what the provider needs (5 to 12 minutes).
        list_delays: When the request that creates a batch got no reply, the provider's list of batches is read several
            times. These are the waits before each reading, seconds. If the batch is not in the last list either, it is
            created again. None: 4 minutes in all; 15 for Anthropic and OpenRouter.
        probe: Whether the first request of each model is sent live before the first batch is created, so that a wrong
            key, model or parameter shows in seconds. It costs what a live request does, and its answer is the item's.
            There is none if the store has answers, or batches of the model that were answered.
    """

    size: int = 5000
    linger: float = 5.0
    first_poll: float = 1.0
    longest_poll: float | None = None
    queue_wait: float = 120.0
    live_rate: float | None = None
    cancel_time: float | None = None
    list_delays: Sequence[float] | None = None
    probe: bool = True

    def __post_init__(self) -> None:
        check_number("size", self.size, integer=True)
        if self.size < 1:
            reject("size must be >= 1", self.size, "It is a number of requests.")
        for name in ("linger", "first_poll", "queue_wait"):
            value = getattr(self, name)
            check_number(name, value)
            if value < 0 or (value == 0 and name != "linger"):
                reject(f"{name} must be > 0", value, "It is a number of seconds.")
        if self.longest_poll is not None:
            check_number("longest_poll", self.longest_poll)
            if self.longest_poll < self.first_poll:
                reject("longest_poll must be >= first_poll", self.longest_poll, "Intervals grow.")
        for name in ("live_rate", "cancel_time"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                if value < 0 or (value == 0 and name == "live_rate"):
                    reject(f"{name} must be > 0", value, "Use None for the default.")
        if not isinstance(self.probe, bool):
            raise TypeError(f"probe must be True or False, not {type(self.probe).__name__}")
        if self.list_delays is not None:
            if not self.list_delays:
                reject("list_delays must have at least one pause", self.list_delays, "For example (0, 15, 60, 180).")
            for pause in self.list_delays:
                check_number("list_delays", pause)
                if pause < 0:
                    reject("list_delays must be >= 0", pause, "They are numbers of seconds.")

    def _for_extension(self) -> dict[str, Any]:
        names = ("size", "linger", "first_poll", "longest_poll", "queue_wait", "probe")
        given = {name: getattr(self, name) for name in names}
        given["list_delays"] = None if self.list_delays is None else list(self.list_delays)
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class LaneChoice:
    """What a run does with its requests.

    Args:
        lane: Its lane; not ``"live"``.
        deadline: Seconds from the start of the run: for ``"batch"``, when the run ends and leaves the rest in batches;
            for ``"auto"`` and ``"flex"``, by when all items should be answered. None: no deadline.
        wait: Whether the run waits for batches to end.
        settings: How they are created.
    """

    lane: LaneName
    deadline: float | None
    wait: bool
    settings: BatchSettings


def lane_of(options: Mapping[str, Any], persistence: Persistence | None) -> LaneChoice | None:
    """The lane that options choose; None: the usual one.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If one cannot be used; the message says what to do.
    """
    lane: Any = options.get("lane") or "live"
    if lane not in LANES:
        raise ValueError(f"lane must be one of {', '.join(map(repr, LANES))} (got {quoted(lane)})")
    deadline, wait, settings = options.get("deadline"), options.get("wait"), options.get("batches")
    if lane == "live":
        for name, value in (("deadline", deadline), ("wait", wait), ("batches", settings)):
            if value is not None and value is not True:
                if name == "deadline":
                    raise ValueError(
                        "deadline needs lane='batch', 'auto' or 'flex'; for the live lane, use "
                        "GuardrailConfig(batch_timeout=...)"
                    )
                raise ValueError(f"{name} needs lane='batch' or lane='auto'")
        return None
    if settings is not None and not isinstance(settings, BatchSettings):
        raise TypeError(f"batches must be a BatchSettings, not {type(settings).__name__}")
    if lane == "flex":
        if wait is False or settings is not None:
            raise ValueError("wait and batches need lane='batch' or lane='auto'")
        return LaneChoice(lane, seconds_of(deadline), True, BatchSettings())
    if persistence is None or persistence.store is None:
        raise ValueError(
            f"lane={lane!r} needs a store, which finds batches again after a crash, so that none is paid for twice: "
            "store='runs/name.db'"
        )
    if persistence.store._format == "segments":
        raise ValueError(f"lane={lane!r} needs a store in one file, not a folder or bucket: store='runs/name.db'")
    return LaneChoice(lane, seconds_of(deadline), True if wait is None else bool(wait), settings or BatchSettings())


def check_flex(provider: str) -> None:
    """Check that a provider has a flex tier.

    Raises:
        ValueError: If it has none.
    """
    if provider not in FLEX_PROVIDERS:
        raise ValueError(f"{provider} has no flex tier; lane='flex' works with {' and '.join(FLEX_PROVIDERS)}")


def is_cheaper(price: Price | None) -> bool | None:
    """Whether batches cost less than live requests, by a price; None: it does not say."""
    return None if price is None or price.batch is None else price.batch < 1.0


Rates = tuple[float, float, float]


def rates_of(price: Price | None) -> tuple[Rates, Rates] | None:
    """What tokens cost live and in batches: of prompts, of what is read from the cache, of answers.

    None: there is no price, or none of its own for what is read from the cache.
    """
    if price is None or price.cached_input is None:
        return None
    batch = price.in_lane("batch")
    cached = price.cached_input if batch.cached_input is None else batch.cached_input
    return (price.input, price.cached_input, price.output), (batch.input, cached, batch.output)


def seconds_of(deadline: Any) -> float | None:
    """A deadline in seconds.

    Raises:
        ValueError: If it is not one.
    """
    if deadline is None:
        return None
    if isinstance(deadline, timedelta):
        deadline = deadline.total_seconds()
    check_number("deadline", deadline)
    if deadline <= 0 or not math.isfinite(deadline):
        reject("deadline must be > 0", deadline, "It is a number of seconds from the start of the run.")
    return float(deadline)
