"""Prompt caches of a simulated provider: their behavior and their costs. Used by ``simulated``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..prices import Price, price_of

UNKNOWN = Price(1.0, 5.0, 0.1, 1.25)
"""The price of a model that is in no table."""


@dataclass(frozen=True)
class PromptCaches:
    """How the prompt caches of a :class:`SimulatedProvider` behave.

    Args:
        time_scale: How many seconds of an entry's life pass in a real second: with 300, five minutes take a second.
            The minutes of ``requests_per_machine`` are scaled too.
        requests_per_machine: Requests per minute with the same prefix that one machine accepts (OpenAI). Beyond that,
            they are spread over further machines, each with entries of its own.
        implicit_hits: The fraction of Gemini's requests, 0.0 to 1.0, that find automatically cached entries; Google
            guarantees none. Explicit caches are always found.
        prices: Prices by model, in addition to those of :mod:`batch_llm.prices`. A model without a price is counted at
            1 dollar per million input tokens, 5 for output, 0.1 for cache reads and 1.25 for cache writes.

    Raises:
        ValueError: If a number is not positive, or ``implicit_hits`` is not between 0 and 1.
    """

    time_scale: float = 1.0
    requests_per_machine: float = 15.0
    implicit_hits: float = 1.0
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("time_scale", "requests_per_machine"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be > 0 (got {value!r})")
        if not 0 <= self.implicit_hits <= 1:
            raise ValueError(f"implicit_hits must be 0.0 to 1.0 (got {self.implicit_hits!r})")

    @property
    def _settings(self) -> tuple[float, float, float]:
        return self.time_scale, self.requests_per_machine, self.implicit_hits


@dataclass(frozen=True)
class PromptCacheStats:
    """Hits and costs of a simulated provider's prompt caches.

    Args:
        possible_hits: Requests that could have read an entry: a prefix of theirs, long enough to be cached, had been
            sent to the same machine before, and an entry for it would not have expired.
        hits: Requests that read an entry.
        possible_tokens: Tokens that could have been read.
        read_tokens: Tokens that were read.
        written_tokens: Tokens that were written, and paid for as cache writes.
        wasted_writes: Entries that were paid for, but never read.
        cost: The cost of all requests, dollars: plain input, reads, writes, storage and output.
        plain_cost: What they would have cost without a cache.
        ideal_cost: What they would have cost if every possible hit had occurred, and each shared prefix had been
            written once.
    """

    possible_hits: int
    hits: int
    possible_tokens: int
    read_tokens: int
    written_tokens: int
    wasted_writes: int
    cost: float
    plain_cost: float
    ideal_cost: float

    @property
    def hit_rate(self) -> float:
        """Hits as a fraction of the possible hits, 0.0 to 1.0; 1.0 if none was possible."""
        return self.hits / self.possible_hits if self.possible_hits else 1.0


def ledger(counts: Mapping[str, Any], caches: PromptCaches) -> PromptCacheStats:
    """Price the counts of the extension."""
    totals = dict.fromkeys(("possible_hits", "hits", "possible", "read", "written", "written_hour"), 0)
    cost = plain_cost = ideal_cost = 0.0
    for model, sums in counts["models"].items():
        price = price_of(model, caches.prices) or UNKNOWN
        for name in totals:
            totals[name] += sums[name]
        output = price.of({"output_tokens": sums["output"]})
        held = (sums["created"] * price.input + sums["stored_hours"] * (price.cache_storage or 0.0)) / 1e6
        written = sums["written"] + sums["written_hour"]
        usage = {
            "input_tokens": sums["input"],
            "cached_input_tokens": sums["read"],
            "cache_write_tokens": written,
            "cache_write_1h_tokens": sums["written_hour"],
        }
        cost += output + held + price.of(usage)
        plain_cost += output + price.of({"input_tokens": sums["input"]})
        # What is written once is not plain then.
        ideal = {
            "input_tokens": sums["input"],
            "cached_input_tokens": sums["possible"],
            "cache_write_tokens": sums["necessary"],
        }
        ideal_cost += output + held + price.of(ideal)
    return PromptCacheStats(
        possible_hits=totals["possible_hits"],
        hits=totals["hits"],
        possible_tokens=totals["possible"],
        read_tokens=totals["read"],
        written_tokens=totals["written"] + totals["written_hour"],
        wasted_writes=counts["wasted_writes"],
        cost=cost,
        plain_cost=plain_cost,
        ideal_cost=ideal_cost,
    )
