"""Prices of models: a dated table, and how to override it.

Prices change, and vary by region, tier and contract, so a built-in table may be out of date. If accuracy matters, pass
your own (``GuardrailConfig(prices={"my-model": Price(input=0.25, output=2.0)})``).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from ._checks import check_number, reject

__all__ = ["AS_OF", "PRICES", "Price", "price_of"]

AS_OF = datetime.date(2026, 11, 25)
"""When the table was written: public list prices in US dollars, standard tier, as collected by genai-prices 0.2.3.

Longer prompts than those named below cost more with some models: give your own price for them.
"""


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

    Raises:
        ValueError: If a value is negative or not a number.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    max_output_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "cache_write", "max_output_tokens"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                if value < 0:
                    reject(f"{name} must be >= 0", value, "It is a price per million tokens.")

    def of(self, usage: Mapping[str, int]) -> float:
        """Return the cost of a ``TokenUsage``."""
        cached = usage.get("cached_input_tokens", 0)
        written = usage.get("cache_write_tokens", 0)
        plain = max(usage.get("input_tokens", 0) - cached - written, 0)
        inputs, from_cache, into_cache, outputs = self._per_token
        return plain * inputs + cached * from_cache + written * into_cache + usage.get("output_tokens", 0) * outputs

    @property
    def _per_token(self) -> tuple[float, float, float, float]:
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        return self.input / 1e6, cached / 1e6, written / 1e6, self.output / 1e6


PRICES: Mapping[str, Price] = {
    # OpenAI; prompts up to 272,000 tokens
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
    # Anthropic; writes to the cache for five minutes; prompts up to 100,000 (Haiku 5.5) or 200,000 tokens
    "claude-fable-5-2": Price(8.0, 40.0, 0.2, 10.0),
    "claude-mythos-5-2": Price(8.0, 40.0, 0.2, 10.0),
    "claude-opus-5-5": Price(4.0, 20.0, 0.2, 5.0),
    "claude-opus-5": Price(5.0, 25.0, 0.5, 6.25),
    "claude-opus-4-8": Price(5.0, 25.0, 0.5, 6.25),
    "claude-opus-4-5": Price(5.0, 25.0, 0.5, 6.25),
    "claude-opus-4-1": Price(15.0, 75.0, 1.5, 18.75, 32_000),
    "claude-sonnet-5-5": Price(2.0, 10.0, 0.1, 2.5),
    "claude-sonnet-5": Price(2.0, 10.0, 0.2, 2.5),
    "claude-sonnet-4-6": Price(3.0, 15.0, 0.3, 3.75),
    "claude-sonnet-4-5": Price(3.0, 15.0, 0.3, 3.75, 64_000),
    "claude-haiku-5-5": Price(0.1, 0.5, 0.01, 0.125),
    "claude-haiku-4-5": Price(1.0, 5.0, 0.1, 1.25, 64_000),
    # Google; prompts up to 200,000 tokens
    "gemini-4-argon": Price(4.0, 20.0, 0.2),
    "gemini-3.8-flash": Price(1.5, 7.5, 0.15),
    "gemini-3.7-flash": Price(1.5, 7.5, 0.15),
    "gemini-3.6-flash": Price(1.5, 7.5, 0.15),
    "gemini-3.5-flash": Price(1.5, 9.0, 0.15),
    "gemini-3.5-flash-lite": Price(0.3, 2.5, 0.03),
    "gemini-3.1-pro-preview": Price(2.0, 12.0, 0.2),
    "gemini-3.1-flash-lite": Price(0.25, 1.5, 0.025),
    "gemini-2.5-pro": Price(1.25, 10.0, 0.125, None, 65_536),
    "gemini-2.5-flash": Price(0.3, 2.5, 0.03, None, 65_536),
    "gemini-2.5-flash-lite": Price(0.1, 0.4, 0.01, None, 65_536),
    "gemini-embedding-001": Price(0.15, 0.0, None, None, 0),
    # DeepSeek
    "deepseek-v4-pro": Price(1.32, 3.96, 0.044),
    "deepseek-v4-flash": Price(0.3, 1.2, 0.006),
    # Mistral
    "mistral-large-4": Price(0.7, 2.1, 0.07),
    "mistral-medium-3-5": Price(1.5, 7.5, 0.15),
    "mistral-small-2603": Price(0.15, 0.6, 0.015),
    "mistral-embed": Price(0.1, 0.1, None, None, 0),
    # xAI; prompts up to 200,000 tokens
    "grok-4.7": Price(2.0, 6.0, 0.5),
    "grok-4.6": Price(2.0, 6.0, 0.5),
    "grok-4.5": Price(2.0, 6.0, 0.3),
    "grok-4.3": Price(1.25, 2.5, 0.2),
    # Groq
    "gpt-oss-120b": Price(0.15, 0.6, 0.075),
    "gpt-oss-20b": Price(0.075, 0.3, 0.0375),
    "llama-3.3-70b-versatile": Price(0.59, 0.79),
    "llama-3.1-8b-instant": Price(0.05, 0.08),
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
