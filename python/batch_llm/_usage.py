"""Reading token counts from wherever providers and SDKs leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import TokenUsage

FAILED_USAGE = "_failed_token_usage"
"""Name of the exception attribute by which a strategy tells what a failed call has cost."""

CORRECTION = "_correction"
"""Name of the exception attribute with a failed answer and what is wrong with it, for the attempt after it."""

_NAMES = {
    "input_tokens": ("request_tokens", "input_tokens"),
    "output_tokens": ("response_tokens", "output_tokens"),
    "total_tokens": ("total_tokens",),
    "cached_input_tokens": ("cached_input_tokens", "cache_read_tokens"),
}


def count(value: Any) -> int:
    """A token count as an int; None and what is not a number are 0."""
    return int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 1e18 else 0


def _get(usage: Any, name: str) -> Any:
    return usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)


def read_counts(usage: Any) -> TokenUsage:
    """Token counts of a usage object or dict, or of a method that gives one, under the names of any SDK version.

    {} when there is none.
    """
    # pydantic-ai's usage was a method, and is now a property whose value can still be called, with a warning.
    if callable(usage) and not any(isinstance(_get(usage, name), int) for names in _NAMES.values() for name in names):
        usage = usage()
    if not usage:
        return {}
    counts: dict[str, int] = {}
    for key, names in _NAMES.items():
        values = (count(_get(usage, name)) for name in names)
        counts[key] = next((value for value in values if value), 0)
    if not counts["cached_input_tokens"]:
        del counts["cached_input_tokens"]
    return counts  # type: ignore[return-value] # the keys are those of TokenUsage


def attach_usage(exception: BaseException, usage: TokenUsage) -> None:
    """Tell with an exception what the failed call has cost."""
    exception.__dict__[FAILED_USAGE] = dict(usage)


def usage_of_failure(exception: BaseException) -> TokenUsage:
    """Tokens that a failed attempt has cost, as far as its exception tells.

    From the first that has any: the agent result on the exception's cause, the exception's own ``usage`` (attribute
    or method), the dict that :func:`attach_usage` left.
    """
    result = getattr(exception.__cause__, "result", None)
    for usage in (getattr(result, "usage", None), getattr(exception, "usage", None)):
        counts = read_counts(usage)
        if any(counts.values()):
            return counts
    return read_counts(exception.__dict__.get(FAILED_USAGE))


def add(first: TokenUsage | None, second: Any) -> TokenUsage:
    """The sum of two usages, with every key that either has."""
    total: dict[str, int] = {}
    for usage in (first, second):
        for key, value in usage.items() if isinstance(usage, dict) else ():
            total[key] = total.get(key, 0) + count(value)
    return total  # type: ignore[return-value] # the keys are those of the summands
