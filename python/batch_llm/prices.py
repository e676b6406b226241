"""What models cost: a dated table, and how to say it better.

Prices change, and vary by region, tier and contract. A table inside a package is always of the past: where money
matters, give your own (``GuardrailConfig(prices={"my-model": Price(input=0.25, output=2.0)})``).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from ._checks import check_number, refuse

__all__ = ["AS_OF", "PRICES", "Price", "price_of"]

AS_OF = datetime.date(2025, 10, 1)
"""When the table was right: the providers' public list prices, standard tier, in US dollars."""


@dataclass(frozen=True)
class Price:
    """The price of one model, per million tokens.

    Args:
        input: Of prompts.
        output: Of answers, reasoning included.
        cached_input: Of prompts read from the provider's cache; by default as ``input``.
        cache_write: Of prompts written to the provider's cache; by default as ``input``.
        max_output_tokens: The longest answer that the model can give, tokens; what is reserved for an attempt whose
            strategy sets no ``max_tokens``.

    Raises:
        ValueError: When a value is negative or no number.
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
                    refuse(f"{name} must be >= 0", value, "It is a price per million tokens.")

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
    # OpenAI
    "gpt-5": Price(1.25, 10.0, 0.125, None, 128_000),
    "gpt-5-mini": Price(0.25, 2.0, 0.025, None, 128_000),
    "gpt-5-nano": Price(0.05, 0.40, 0.005, None, 128_000),
    "gpt-4.1": Price(2.0, 8.0, 0.50, None, 32_768),
    "gpt-4.1-mini": Price(0.40, 1.60, 0.10, None, 32_768),
    "gpt-4.1-nano": Price(0.10, 0.40, 0.025, None, 32_768),
    "gpt-4o": Price(2.50, 10.0, 1.25, None, 16_384),
    "gpt-4o-mini": Price(0.15, 0.60, 0.075, None, 16_384),
    "o3": Price(2.0, 8.0, 0.50, None, 100_000),
    "o4-mini": Price(1.10, 4.40, 0.275, None, 100_000),
    "text-embedding-3-small": Price(0.02, 0.0, None, None, 0),
    "text-embedding-3-large": Price(0.13, 0.0, None, None, 0),
    # Anthropic; writes to the cache for five minutes
    "claude-opus-4-1": Price(15.0, 75.0, 1.50, 18.75, 32_000),
    "claude-sonnet-4-5": Price(3.0, 15.0, 0.30, 3.75, 64_000),
    "claude-sonnet-4": Price(3.0, 15.0, 0.30, 3.75, 64_000),
    "claude-haiku-4-5": Price(1.0, 5.0, 0.10, 1.25, 64_000),
    "claude-3-5-haiku": Price(0.80, 4.0, 0.08, 1.0, 8_192),
    # Google; prompts up to 200,000 tokens
    "gemini-2.5-pro": Price(1.25, 10.0, 0.31, None, 65_536),
    "gemini-2.5-flash": Price(0.30, 2.50, 0.075, None, 65_536),
    "gemini-2.5-flash-lite": Price(0.10, 0.40, 0.025, None, 65_536),
}
"""Prices by model name. A dated variant of a model (``gpt-4o-2024-11-20``) has the price of its family."""


def price_of(model: str, prices: Mapping[str, Price] | None = None) -> Price | None:
    """Find the price of a model: in ``prices``, else in the table; else that of the longest name that begins it.

    Args:
        model: The name, with or without ``"provider/"`` or ``"models/"`` before it.
        prices: Your own prices, which go first.
    """
    name = model.removeprefix("models/")
    for table in (prices or {}, PRICES):
        for candidate in (name, name.rpartition("/")[2]):
            if candidate in table:
                return table[candidate]
            # A variant by date or version, not another model: "gpt-5-mini" is no variant of "gpt-5".
            families = [key for key in table if candidate.startswith(f"{key}-") and _is_version(candidate[len(key) :])]
            if families:
                return table[max(families, key=len)]
    return None


def _is_version(rest: str) -> bool:
    return all(part.isdigit() or part in {"latest", "preview"} for part in rest.strip("-").split("-"))
