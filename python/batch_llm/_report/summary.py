"""A batch on one screen of text, and the figures for it. Used by ``BatchResult`` and the report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._results import cache_misses
from .._shown import amount, line
from ..errors import ERROR_MESSAGE_LIMIT
from ..prices import price_of
from ..timing import token_speed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._results import WorkItemResult
    from ..prices import Price
    from .batch import Batch

EXAMPLES = 3
"""Ids that are named for each kind of error."""
KINDS = 8
"""Kinds of errors that are shown; the rest is a number."""

_TOKENS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cached_input_tokens": "cached",
    "cache_write_tokens": "cache write",
    "reasoning_tokens": "reasoning",
}

_SOURCES = {"store": "from the store", "cache": "from the cache", "duplicate": "from identical requests"}


class Costs:
    """What results have cost, by the models that answered.

    Args:
        prices: The user's own, which go before the list.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self.known = self.saved = 0.0
        self.priced = self.unpriced = 0
        """Results whose price is known, and those with tokens whose price is not."""
        self._own = prices
        self._prices: dict[Any, Price | None] = {}

    def add(self, result: WorkItemResult[Any, Any]) -> None:
        """Count a result."""
        usage: Any = result.token_usage or {}
        if not any(usage.values()):
            return
        metadata = result.metadata or {}
        model = metadata.get("model")
        if model not in self._prices:
            self._prices[model] = price_of(model, self._own) if isinstance(model, str) else None
        price = self._prices[model]
        if price is None:
            self.unpriced += 1
        else:
            price = price.in_lane(metadata.get("lane"))
            self.priced += 1
            counts = {name: count or 0 for name, count in usage.items()}
            self.known += price.of(counts)
            self.saved += price.saved(counts)


@dataclass
class ErrorKind:
    """Failures that are alike."""

    category: str
    count: int = 0
    example: str = ""
    ids: list[str] = field(default_factory=list)


@dataclass
class Figures:
    """The figures of a batch. Times in seconds.

    Attempts, tokens, cost and latencies are those of this run: results that were there before have had theirs.
    """

    total: int
    succeeded: int
    failed: int
    not_sent: int
    seconds: float | None
    retried: int
    """Items with a failed attempt that was followed by another one."""
    retries: int
    """Attempts that followed a failed one."""
    conversations: int
    """Items of several rounds."""
    rounds: int
    """Their replies."""
    tokens: dict[str, int]
    cost: float | None
    unpriced: int
    latencies: list[float]
    """How long each result's last attempt took, sorted."""
    first_tokens: list[float]
    """How long the first part of each streamed answer took, sorted."""
    speeds: list[float]
    """Output tokens per second of each streamed answer, sorted."""
    errors: list[ErrorKind]
    reused: dict[str, int] = field(default_factory=dict)
    """Results for which no call was made, by where they come from."""
    saved: float | None = None
    """What the provider's prompt cache has saved, in the currency of ``cost``."""

    @property
    def per_second(self) -> float | None:
        """Results per second, of what was sent."""
        return (self.total - self.not_sent) / self.seconds if self.seconds else None

    def percentile(self, part: float) -> float | None:
        """Return the latency that this share (0 to 1) of the results did not exceed; the nearest rank."""
        return nearest(self.latencies, part) if self.latencies else None


def nearest(values: list[float], part: float) -> float:
    """Return the value that this share (0 to 1) of sorted values did not exceed; the nearest rank."""
    return values[min(int(part * len(values)), len(values) - 1)]


def figures(batch: Batch) -> Figures:
    """Count."""
    tokens = dict.fromkeys(_TOKENS, 0)
    latencies: list[float] = []
    first_tokens: list[float] = []
    speeds: list[float] = []
    kinds: dict[str, ErrorKind] = {}
    retried = retries = conversations = rounds = 0
    costs = Costs(batch.prices)
    reused: dict[str, int] = {}
    for result in batch.results:
        if result.not_sent:
            continue
        if not result.success:
            _add_failure(kinds, result)
        if result.reused is not None:
            reused[result.reused] = reused.get(result.reused, 0) + 1
            continue
        usage: Any = result.token_usage or {}
        for name in _TOKENS:
            count = usage.get(name)
            if isinstance(count, int):
                tokens[name] += count
        again = _retries(result)
        retries += again
        retried += again > 0
        if result.rounds is not None:
            conversations += 1
            rounds += result.rounds
        last = _last(result)
        if last is not None:
            latencies.append(last)
            first_token = (result.metadata or {}).get("first_token_seconds")
            if isinstance(first_token, float):
                first_tokens.append(first_token)
                speed = token_speed(usage.get("output_tokens"), last, first_token)
                speeds += () if speed is None else (speed,)
        costs.add(result)
    for values in (latencies, first_tokens, speeds):
        values.sort()
    return Figures(
        batch.total_items,
        batch.succeeded,
        batch.failed,
        batch.not_sent,
        batch.wall_time_seconds,
        retried,
        retries,
        conversations,
        rounds,
        {name: count for name, count in tokens.items() if count},
        costs.known if costs.priced else None,
        costs.unpriced if costs.priced else 0,
        latencies,
        first_tokens,
        speeds,
        sorted(kinds.values(), key=lambda kind: -kind.count),
        reused,
        costs.saved if costs.priced else None,
    )


def _retries(result: WorkItemResult[Any, Any]) -> int:
    """How many attempts of an item followed a failed one."""
    if result.rounds is None:
        return max(result.attempts - 1, 0)
    failed = sum(not attempt.success for attempt in result.timing.attempts)
    return failed if result.success or not failed else failed - 1


def _last(result: WorkItemResult[Any, Any]) -> float | None:
    timing = result._timing
    last = getattr(timing, "last", None)
    if last is not None:
        return round(last()[-1], 6) if result.attempts else None  # as the timing made of it has it
    attempts = result.timing.attempts
    return attempts[-1].execution_seconds if attempts else None


def _add_failure(kinds: dict[str, ErrorKind], result: WorkItemResult[Any, Any]) -> None:
    category = result.error_category or (result.error or "unknown").split(":", 1)[0]
    kind = kinds.setdefault(category, ErrorKind(category))
    kind.count += 1
    if not kind.example:
        kind.example = " ".join((result.error or "").split())
    if len(kind.ids) < EXAMPLES:
        kind.ids.append(result.item_id)


def summarize(batch: Batch) -> str:
    """The text; see ``BatchResult.summary``."""
    found = figures(batch)
    return "\n".join(line(f"{name:<12}{text}") for name, text in rows(batch, found))


def summary_rows(batch: Batch) -> list[tuple[str, str]]:
    """The lines of the text, each with what it is about."""
    return rows(batch, figures(batch))


def rows(batch: Batch, found: Figures) -> list[tuple[str, str]]:
    """The lines of the text, with what they are about."""
    part = f" ({100 * found.succeeded / found.total:.1f}%)" if found.total else ""
    unsent = f", {found.not_sent:,} not sent" if found.not_sent else ""
    lines = [("items", f"{found.total:,}: {found.succeeded:,} succeeded{part}, {found.failed:,} failed{unsent}")]
    if batch.termination.kind != "completed":
        lines.append(("ended", f"{batch.termination.kind}: {batch.termination.reason}"))
    if found.seconds is not None and found.total:
        pace = f", {rate(found.per_second)}" if found.per_second else ""
        lines.append(("time", f"{seconds(found.seconds)}{pace}"))
    if found.reused:
        lines.append(("reused", ", ".join(f"{count:,} {_SOURCES[source]}" for source, count in found.reused.items())))
    if found.conversations:
        lines.append(("rounds", f"{found.rounds:,} in {found.conversations:,} conversations"))
    if found.retried:
        lines.append(("retries", f"{_counted(found.retries, 'further attempt')} for {_counted(found.retried, 'item')}"))
    named = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    if found.latencies:
        times = ", ".join(f"{name} {seconds(found.percentile(part))}" for part, name in named)
        lines.append(("latency", f"{times}, longest {seconds(found.latencies[-1])}"))
    if found.first_tokens:
        times = ", ".join(f"{name} {seconds(nearest(found.first_tokens, part))}" for part, name in named)
        speed = f"; p50 {nearest(found.speeds, 0.5):,.0f} tokens/s per request" if found.speeds else ""
        lines.append(("first token", f"{times}{speed}"))
    if found.tokens:
        counts = ", ".join(f"{count:,} {_TOKENS[name]}" for name, count in found.tokens.items())
        lines.append(("tokens", counts))
    lines.extend(("cache" if not number else "", text) for number, text in enumerate(_cache(batch, found)))
    if found.cost is not None:
        but = f" (excluding {found.unpriced:,} results of models with unknown prices)" if found.unpriced else ""
        whose = "list prices" if batch.prices is None else "your prices, otherwise list prices"
        lines.append(("cost", f"{_money(batch, found.cost)} by {whose}{but}"))
    for kind in found.errors[:KINDS]:
        ids = ", ".join(kind.ids) + (", ..." if kind.count > len(kind.ids) else "")
        example = f"{kind.example:.{ERROR_MESSAGE_LIMIT}}"
        lines.append(("failed", line(f"{kind.count:,} x {kind.category}: {example} [{ids}]")))
    rest = found.errors[KINDS:]
    if rest:
        lines.append(("failed", f"{sum(kind.count for kind in rest):,} more of {len(rest)} other kinds"))
    if found.total and batch.stats is not None and batch.stats.bound_by:
        lines.extend(("bound by" if not number else "", line) for number, line in enumerate(_bounds(batch)))
    return lines


def _cache(batch: Batch, found: Figures) -> list[str]:
    """What the provider's prompt cache has done, and why requests did not find what they begin with."""
    read, written = (found.tokens.get(name, 0) for name in ("cached_input_tokens", "cache_write_tokens"))
    lines = []
    if read or written:
        share = 100 * read / max(found.tokens.get("input_tokens", 0), 1)
        money = ""
        if found.saved is not None:
            money = f", which {'saved' if found.saved >= 0 else 'cost'} {_money(batch, abs(found.saved))}"
        lines.append(f"{share:.1f}% of the input was read from the provider's prompt cache{money}")
    misses = "" if batch.stats is None else cache_misses(batch.stats)
    return lines + ([misses] if misses else [])


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _money(batch: Batch, value: float) -> str:
    """List prices are in US dollars; the user's own may be in anything."""
    return f"{'$' if batch.prices is None else ''}{amount(value)}"


def _bounds(batch: Batch) -> list[str]:
    assert batch.stats is not None
    return [line.strip() for line in batch.stats.explain().splitlines() if line.strip()]


def until(left: float | None) -> str:
    """When a wait ends, by the clock."""
    if left is None:
        return "for an unknown time"
    then = time.localtime(time.time() + left)
    clock = time.strftime("%H:%M:%S" if left < 43_200 else "%Y-%m-%d %H:%M", then)
    return f"until {clock} (for {seconds(left)})"


def seconds(value: float | None) -> str:
    """A time that is easy to read."""
    if value is None:
        return "unknown"
    if value < 0.001:
        return f"{value * 1e6:.3g} us"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def rate(value: float | None) -> str:
    """A rate that is easy to read."""
    if value is None:
        return "rate unknown"
    return f"{value:,.0f}/s" if value >= 10 else f"{value:.2g}/s" if value >= 1 else f"{value * 60:.3g}/min"


def short(value: float) -> str:
    """A number of three digits, and its unit."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
