"""Prices of models: a dated table, and how to override it.

Prices change, and vary by region, tier and contract, so a built-in table may be out of date. If accuracy matters, pass
your own (``GuardrailConfig(prices={"my-model": Price(input=0.25, output=2.0)})``).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ._checks import check_number, reject

__all__ = ["AS_OF", "PRICES", "Price", "price_of"]

AS_OF = datetime.date(2026, 11, 25)
"""When the table was written: public list prices in US dollars, standard tier, as collected by genai-prices 0.2.3.

Longer prompts than those named below cost more with some models: give your own price for them.
"""


HALF = 0.5
"""What batches cost with most providers, as a fraction of the usual price."""


@dataclass(frozen=True)
class Price:
    """The price of one model, per million tokens.

    Args:
        input: Price of prompts.
        output: Price of answers, including reasoning.
        cached_input: Price of prompts read from the provider's cache; by default that of ``input``.
        cache_write: Price of prompts written to the provider's cache; by default that of ``input``.
        max_output_tokens: The model's maximum answer length, tokens; reserved for an attempt if the strategy sets no
            ``max_tokens``.
        cache_write_1h: Price of prompts written to the provider's cache for an hour; by default that of
            ``cache_write``.
        cache_storage: Price per hour of prompts stored in an explicit cache.
        batch: Factor for requests in a batch: 0.5 is half of these prices; None: no discount.
        flex: Factor for requests in the flex tier; None: no discount.
        batch_cached: Factor for prompts that requests in a batch read from the cache; by default that of ``batch``.

    Raises:
        ValueError: If a value is negative or not a number.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    max_output_tokens: int | None = None
    cache_write_1h: float | None = None
    cache_storage: float | None = None
    batch: float | None = None
    flex: float | None = None
    batch_cached: float | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                if value < 0:
                    reject(f"{name} must be >= 0", value, "It is a price per million tokens.")

    def of(self, usage: Mapping[str, int]) -> float:
        """Return the cost of a ``TokenUsage``."""
        cached = usage.get("cached_input_tokens", 0)
        written = usage.get("cache_write_tokens", 0)
        hour = min(usage.get("cache_write_1h_tokens", 0), written)
        plain = max(usage.get("input_tokens", 0) - cached - written, 0)
        inputs, from_cache, into_cache, for_an_hour, outputs, storage = self._per_token
        held = usage.get("cache_storage_token_hours", 0) * storage
        prompt = plain * inputs + cached * from_cache + (written - hour) * into_cache + hour * for_an_hour
        return prompt + held + usage.get("output_tokens", 0) * outputs

    def in_lane(self, lane: str | None) -> Price:
        """Return the price in a lane.

        Args:
            lane: ``"batch"``, ``"flex"``, or anything else for the usual price.
        """
        part = self.batch if lane == "batch" else self.flex if lane == "flex" else None
        if part is None:
            return self
        names = ("input", "output", "cached_input", "cache_write", "cache_write_1h")
        full = {name: getattr(self, name) for name in names}
        if full["cached_input"] is None:
            full["cached_input"] = self.input
        reduced = {name: value * part for name, value in full.items() if value is not None}
        if lane == "batch" and self.batch_cached is not None:
            reduced["cached_input"] = full["cached_input"] * self.batch_cached
        return replace(self, **reduced, batch=None, flex=None, batch_cached=None)

    def saved(self, usage: Mapping[str, int]) -> float:
        """Return what the provider's prompt cache has saved of the cost of a ``TokenUsage``.

        That is the plain price of the tokens that were read, less what reading them cost, and less what writing cost
        more than the plain price. Negative if more was written than ever read.
        """
        prompt = {name: count for name, count in usage.items() if name != "output_tokens"}
        return self.of({"input_tokens": max(usage.get("input_tokens", 0), _cached(usage))}) - self.of(prompt)

    @property
    def _per_token(self) -> tuple[float, float, float, float, float, float]:
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        hour = written if self.cache_write_1h is None else self.cache_write_1h
        held = self.cache_storage or 0.0
        return self.input / 1e6, cached / 1e6, written / 1e6, hour / 1e6, self.output / 1e6, held / 1e6


def _cached(usage: Mapping[str, int]) -> int:
    return usage.get("cached_input_tokens", 0) + usage.get("cache_write_tokens", 0)


def _anthropic(model_input: float, output: float, cached_input: float, longest: int | None = None) -> Price:
    """A write costs 1.25 times the plain price, and twice that price for an hour (Anthropic's guide to caching).

    Everything costs half in a batch (Anthropic's guide to batch processing).
    """
    return Price(model_input, output, cached_input, model_input * 1.25, longest, model_input * 2, batch=HALF)


def _gemini(
    model_input: float, output: float, cached_input: float, storage: float, longest: int | None = None
) -> Price:
    """Explicit caches are written at the plain price, and cost storage.

    Batches and the flex tier cost half; cached prompts in batches the usual price of cached prompts (Google's guides).
    """
    return Price(
        model_input, output, cached_input, None, longest, None, storage, batch=HALF, flex=HALF, batch_cached=1.0
    )


def _halved(prices: Mapping[str, Price], *, flex: bool = False) -> dict[str, Price]:
    """The same where batches cost half; ``flex``: the flex tier too."""
    return {name: replace(price, batch=HALF, flex=HALF if flex else None) for name, price in prices.items()}


_OPENAI = {
    # Prompts up to 272,000 tokens.
    "gpt-6-astra": Price(10.0, 50.0, 1.0, 12.5),
    "gpt-6-sol": Price(2.0, 10.0, 0.2, 2.5),
    "gpt-6-luna": Price(0.1, 0.5, 0.01, 0.125),
    "gpt-6.1-sol": Price(2.0, 10.0, 0.1, 2.5),
    "gpt-6.1-terra": Price(1.0, 5.0, 0.05, 1.25),
    "gpt-5.6-sol": Price(4.0, 20.0, 0.4, 5.0),
    "gpt-5.6-terra": Price(2.0, 12.0, 0.2, 2.5),
    "gpt-5.6-luna": Price(0.2, 1.2, 0.02, 0.25),
    "gpt-5.5": Price(5.0, 30.0, 0.5),
    "gpt-5.4": Price(2.5, 15.0, 0.25),
    "gpt-5.4-mini": Price(0.75, 4.5, 0.075),
    "gpt-5.4-nano": Price(0.2, 1.25, 0.02),
    "gpt-5.2": Price(1.75, 14.0, 0.175),
    "gpt-5.1": Price(1.25, 10.0, 0.125),
    "gpt-5": Price(1.25, 10.0, 0.125, None, 128_000),
    "gpt-5-mini": Price(0.25, 2.0, 0.025, None, 128_000),
    "gpt-5-nano": Price(0.05, 0.4, 0.005, None, 128_000),
    "gpt-4.1": Price(2.0, 8.0, 0.5, None, 32_768),
    "gpt-4.1-mini": Price(0.4, 1.6, 0.1, None, 32_768),
    "gpt-4.1-nano": Price(0.1, 0.4, 0.025, None, 32_768),
    "gpt-4o": Price(2.5, 10.0, 1.25, None, 16_384),
    "gpt-4o-mini": Price(0.15, 0.6, 0.075, None, 16_384),
    "o3": Price(2.0, 8.0, 0.5, None, 100_000),
    "o4-mini": Price(1.1, 4.4, 0.275, None, 100_000),
    "text-embedding-3-small": Price(0.02, 0.0, None, None, 0),
    "text-embedding-3-large": Price(0.13, 0.0, None, None, 0),
}
_ANTHROPIC = {
    # Prompts up to 100,000 (Haiku 5.5) or 200,000 tokens
    "claude-fable-5-2": _anthropic(8.0, 40.0, 0.2),
    "claude-mythos-5-2": _anthropic(8.0, 40.0, 0.2),
    "claude-opus-5-5": _anthropic(4.0, 20.0, 0.2),
    "claude-opus-5": _anthropic(5.0, 25.0, 0.5),
    "claude-opus-4-8": _anthropic(5.0, 25.0, 0.5),
    "claude-opus-4-5": _anthropic(5.0, 25.0, 0.5),
    "claude-opus-4-1": _anthropic(15.0, 75.0, 1.5, 32_000),
    "claude-sonnet-5-5": _anthropic(2.0, 10.0, 0.1),
    "claude-sonnet-5": _anthropic(2.0, 10.0, 0.2),
    "claude-sonnet-4-6": _anthropic(3.0, 15.0, 0.3),
    "claude-sonnet-4-5": _anthropic(3.0, 15.0, 0.3, 64_000),
    "claude-haiku-5-5": _anthropic(0.1, 0.5, 0.01),
    "claude-haiku-4-5": _anthropic(1.0, 5.0, 0.1, 64_000),
}
_GOOGLE = {
    # Prompts up to 200,000 tokens; storage of explicit caches as Google's guide has it for 2.5
    "gemini-4-argon": _gemini(4.0, 20.0, 0.2, 4.5),
    "gemini-3.8-flash": _gemini(1.5, 7.5, 0.15, 1.0),
    "gemini-3.7-flash": _gemini(1.5, 7.5, 0.15, 1.0),
    "gemini-3.6-flash": _gemini(1.5, 7.5, 0.15, 1.0),
    "gemini-3.5-flash": _gemini(1.5, 9.0, 0.15, 1.0),
    "gemini-3.5-flash-lite": _gemini(0.3, 2.5, 0.03, 1.0),
    "gemini-3.1-pro-preview": _gemini(2.0, 12.0, 0.2, 4.5),
    "gemini-3.1-flash-lite": _gemini(0.25, 1.5, 0.025, 1.0),
    "gemini-2.5-pro": _gemini(1.25, 10.0, 0.125, 4.5, 65_536),
    "gemini-2.5-flash": _gemini(0.3, 2.5, 0.03, 1.0, 65_536),
    "gemini-2.5-flash-lite": _gemini(0.1, 0.4, 0.01, 1.0, 65_536),
    "gemini-embedding-001": Price(0.15, 0.0, None, None, 0, batch=HALF),
}
_DEEPSEEK = {
    "deepseek-v4-pro": Price(1.32, 3.96, 0.044),
    "deepseek-v4-flash": Price(0.3, 1.2, 0.006),
}
_MISTRAL = {
    "mistral-large-4": Price(0.7, 2.1, 0.07),
    "mistral-medium-3-5": Price(1.5, 7.5, 0.15),
    "mistral-small-2603": Price(0.15, 0.6, 0.015),
    "mistral-embed": Price(0.1, 0.1, None, None, 0),
}
_XAI = {
    # Prompts up to 200,000 tokens; the newer ones take no batches, and for the other its replies tell the discount.
    "grok-4.7": Price(2.0, 6.0, 0.5),
    "grok-4.6": Price(2.0, 6.0, 0.5),
    "grok-4.5": Price(2.0, 6.0, 0.3),
    "grok-4.3": Price(1.25, 2.5, 0.2),
}
_GROQ = {
    "gpt-oss-120b": Price(0.15, 0.6, 0.075),
    "gpt-oss-20b": Price(0.075, 0.3, 0.0375),
    "llama-3.3-70b-versatile": Price(0.59, 0.79),
    "llama-3.1-8b-instant": Price(0.05, 0.08),
}

PRICES: Mapping[str, Price] = {
    **_halved(_OPENAI, flex=True),
    **_ANTHROPIC,
    **_GOOGLE,
    **_DEEPSEEK,
    **_halved(_MISTRAL),
    **_XAI,
    **_halved(_GROQ),
}
"""Prices by model name. A dated variant of a model (``gpt-4o-2024-11-20``) has the price of its family."""


def price_of(model: str, prices: Mapping[str, Price] | None = None) -> Price | None:
    """Return the price of a model, from ``prices`` or the table.

    If neither lists it, the price of the longest name that is a prefix of it is used.

    Args:
        model: The model name, with or without a prefix ``"provider/"`` or ``"models/"``.
        prices: Your own prices, which take precedence.
    """
    name = model.removeprefix("models/")
    for table in (prices or {}, PRICES):
        for candidate in (name, name.rpartition("/")[2]):
            if candidate in table:
                return table[candidate]
            # A variant by date or version, not another model: "gpt-5-mini" is no variant of "gpt-5". Looked up by ever
            # shorter names, because this is called for each item of a stream.
            family = candidate
            while "-" in family:
                family = family.rpartition("-")[0]
                if family in table and _is_version(candidate[len(family) :]):
                    return table[family]
    return None


def _is_version(rest: str) -> bool:
    parts = rest.strip("-").split("-")
    # A number of one or two digits is another model: "opus-5-5" is no variant of "opus-5".
    return len(parts[0]) >= 3 and all(part.isdigit() or part in {"latest", "preview"} for part in parts)
