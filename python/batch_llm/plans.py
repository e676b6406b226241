"""Estimates, before a run, of how many requests would go into which lane: :func:`plan`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._callers import ends_at_caller
from ._checks import check_number
from ._core import format_of, is_cheaper_live, plan_batches
from ._lanes import LANES, LaneName, cache_reads, check_flex, is_cheaper, rates_of, seconds_of
from ._native import NativeStrategy
from ._options import OF_MODEL, split, strategy_with
from ._run import Source
from ._shown import amount
from .prices import Price, price_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import ModelOptions
    from ._run import PromptEntry
    from .prompts import Strategy

__all__ = ["LanePlan", "PlannedLane", "plan"]

LONGEST_BATCH = 86_400.0
"""After how long providers end batches, seconds."""
EXPECTED_OUTPUT = 256
"""Tokens of an answer of unknown length, at least."""
READ = 10_000
USUAL_RATE = 10.0
"""Requests per second, if nothing is known."""


@dataclass(frozen=True)
class PlannedLane:
    """What a run would send in one lane.

    Args:
        lane: ``"live"``, ``"flex"`` or ``"batch"``.
        requests: Number of requests.
        input_tokens: Tokens of their prompts, estimated from their length.
        output_tokens: Tokens of their answers: ``max_tokens`` each, or 256 if it is not set.
        cost: The estimated cost, US dollars by list prices; None: a price is unknown.
        expected_end: When half of the requests are probably answered, seconds from the start; None: unknown.
        latest_end: When all of them should be answered at the latest, seconds from the start; None: unknown.
        why: Why these requests are not in batches (``"price"``, ``"cache"``, ``"deadline"``, ``"fallback"``, ...; see
            the guide "Lanes"); empty if this is the requested lane.
    """

    lane: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    expected_end: float | None
    latest_end: float | None
    why: str = ""


@dataclass(frozen=True)
class LanePlan:
    """How many requests of a run would go into which lane. :func:`plan` returns one.

    Args:
        lanes: The lanes, the cheapest first.
        live_cost: What all requests would cost live, US dollars; None: a price is unknown. Prefixes that the provider
            caches are taken into account where they make live requests cheaper than a batch.
    """

    lanes: tuple[PlannedLane, ...]
    live_cost: float | None

    @property
    def requests(self) -> int:
        """Number of requests in all lanes."""
        return sum(lane.requests for lane in self.lanes)

    @property
    def cost(self) -> float | None:
        """The estimated cost of all lanes together, US dollars; None: a price is unknown."""
        costs = [lane.cost for lane in self.lanes]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def __str__(self) -> str:
        lines = []
        for lane in self.lanes:
            cost = "cost unknown" if lane.cost is None else f"about ${amount(lane.cost)}"
            ends = [
                f"{word} {_time(end)}"
                for word, end in (("half in", lane.expected_end), ("all in", lane.latest_end))
                if end is not None
            ]
            why = f" (reason: {lane.why})" if lane.why else ""
            lines.append(", ".join((f"{lane.lane:<6}{lane.requests:>12,} requests{why}", cost, *ends)))
        if self.live_cost is not None and self.cost is not None:
            lines.append(f"total about ${amount(self.cost)}; all live: ${amount(self.live_cost)}")
        return "\n".join(lines)


@ends_at_caller
def plan(
    strategy: Strategy[Any],
    prompts: Iterable[PromptEntry],
    *,
    lane: LaneName = "auto",
    deadline: float | timedelta | None = None,
    rate: float | None = None,
    store: str | os.PathLike[str] | None = None,
    prices: Mapping[str, Price] | None = None,
    **options: Unpack[ModelOptions],
) -> LanePlan:
    """Estimate how many requests ``run()`` would put into which lane, how long that takes and what it costs.

    Nothing is sent.

    ::

        print(plan("openai:gpt-5-mini", prompts, deadline=8 * 3600, max_tokens=200))

    Args:
        strategy: A native strategy, or a model's name.
        prompts: As for ``run()``; all of them are read.
        lane: The lane of the run.
        deadline: The deadline of the run, seconds or a timedelta.
        rate: How many requests per second can be sent one by one; None: ten. (A run measures it, by sending the first
            eight requests one by one.)
        store: A store whose earlier batches show how long batches of this model take, and what they read from the
            provider's prompt cache.
        prices: Your own prices by model name, which take precedence over ``batch_llm.prices``.
        options: Options of the model, if ``strategy`` is a name.

    Returns:
        The plan; ``print()`` shows it.

    Raises:
        TypeError: If the strategy is not native, or an option is unknown.
        ValueError: If an argument is invalid, or the provider has no such lane.
        ArtifactError: If the store cannot be read.
    """
    _, of_model = split(options, strategy, ("lane", "deadline", "rate", "store", "prices"), OF_MODEL)
    made: Any = strategy_with(strategy, of_model)
    if not isinstance(made, NativeStrategy):
        raise TypeError(f"plan() needs a native strategy, such as 'openai:gpt-5-mini', not {type(made).__name__}")
    if lane not in LANES:
        raise ValueError(f"lane must be one of {', '.join(map(repr, LANES))} (got {lane!r})")
    if rate is not None:
        check_number("rate", rate)
        if rate <= 0:
            raise ValueError(f"rate must be > 0 (got {rate}); it is a number of requests per second")
    price, left = price_of(made.model, prices), seconds_of(deadline)
    answer, rate = made._longest_answer() or EXPECTED_OUTPUT, rate or USUAL_RATE
    weighed = price if lane == "auto" and is_cheaper(price) is not False else None
    cached = _Cached(made, answer, weighed, cache_reads(store, made.provider, made.model))
    tokens: list[float] = []
    source = Source(prompts, made, lambda _: None)
    while items := source.read_now(READ):
        tokens.extend(cached.rest([(item.prompt, made._expect(item.prompt)[0]) for item in items]))
    counted = _counted(lane, made, len(tokens), (left, rate), is_cheaper(price), store)
    lanes, begin = [], 0
    for name, requests, why, ends in counted:
        if requests:
            inputs = round(sum(tokens[begin : begin + requests]))
            outputs = round(requests * answer)
            cost = None if price is None else price.in_lane(name).of({"input_tokens": inputs, "output_tokens": outputs})
            lanes.append(PlannedLane(name, requests, inputs, outputs, cost, *ends, why))
            begin += requests
    usage = Counter(input_tokens=round(sum(tokens)), output_tokens=round(len(tokens) * answer))
    live_cost = None if price is None else price.of(usage) + price.of(cached.usage)
    if cached.requests:
        lanes.append(cached.lane(rate))
    return LanePlan(tuple(lanes), live_cost)


class _Cached:
    """The requests that cost less live than in a batch, because the provider's prompt cache has what they begin with.

    Args:
        strategy: Whose requests they are.
        answer: Tokens of an answer.
        price: The price of the model; None: nothing is weighed.
        reads: What earlier batches have read from the cache, as :func:`cache_reads` says it.
    """

    def __init__(self, strategy: Any, answer: float, price: Price | None, reads: tuple[float, float]) -> None:
        self._client, self._answer, self._price, self._reads = strategy._client, answer, price, reads
        self._rates = rates_of(price) if strategy._client.has_heads else None
        self._written: set[int] = set()
        self.requests, self.usage = 0, Counter[str]()

    def rest(self, prompts: list[tuple[Any, float]]) -> list[float]:
        """Count those of these prompts, of so many tokens, that cost less live; return the tokens of the others."""
        if self._rates is None:
            return [tokens for _, tokens in prompts]
        rest = []
        heads = self._client.heads([prompt for prompt, _ in prompts])
        for head, (_, tokens) in zip(heads, prompts, strict=True):
            size = tokens, 0 if head is None else head[1], self._answer
            if head is None or not is_cheaper_live(self._rates, size, head[4], self._reads):
                rest.append(tokens)
                continue
            # The first one with a head writes it.
            read = "cached_input_tokens" if head[0] in self._written else "cache_write_tokens"
            self._written.add(head[0])
            self.requests += 1
            used = {"input_tokens": round(max(tokens, head[1])), "output_tokens": round(self._answer), read: head[1]}
            self.usage.update(used)
        return rest

    def lane(self, rate: float) -> PlannedLane:
        """What is planned for these; ``rate``: requests per second."""
        cost = None if self._price is None else self._price.of(self.usage)
        ends, usage = self.requests / rate, self.usage
        inputs, outputs = usage["input_tokens"], usage["output_tokens"]
        return PlannedLane("live", self.requests, inputs, outputs, cost, ends / 2, ends, "cache")


Ends = tuple["float | None", "float | None"]


def _counted(
    lane: str, strategy: Any, count: int, pace: tuple[float | None, float], is_cheaper: bool | None, store: Any
) -> list[tuple[str, int, str, Ends]]:
    """Lanes with their requests, why they are not batches, and their ends."""
    left, rate = pace
    if lane == "live":
        return [(lane, count, "", (count / rate / 2, count / rate))]
    if lane == "flex":
        check_flex(strategy.provider)
        return [(lane, count, "", (None, None))]
    known = None if store is None else (os.fspath(store), format_of(os.fspath(store)) or "sqlite")
    # What was asked to be in batches is, until the run ends or whatever it costs.
    until, is_cheaper = (None, True) if lane == "batch" else (left, is_cheaper)
    in_batches, why, median = plan_batches(strategy._client, count, until, rate, is_cheaper, known)
    live = count - in_batches
    latest = LONGEST_BATCH if until is None else until
    live_ends: Ends = (live / rate / 2, live / rate)
    return [("batch", in_batches, "", (median, latest)), ("live", live, why or "", live_ends)]


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
