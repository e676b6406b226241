"""Reading token counts from wherever providers and SDKs leave them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._core import Flight
    from .._types import TokenUsage

FAILED_USAGE = "_failed_token_usage"
"""Name of the exception attribute by which a strategy reports the usage of a failed call."""

CORRECTION = "_correction"
"""Name of the exception attribute with a failed answer and what is wrong with it, for the attempt after it."""

_NAMES = {
    "input_tokens": (
        "input_tokens", "prompt_tokens", "request_tokens", "prompt_token_count", "inputTokens",
    ),
    "output_tokens": (
        "output_tokens", "completion_tokens", "response_tokens", "candidates_token_count", "outputTokens",
    ),
    "total_tokens": ("total_tokens", "total_token_count", "totalTokens"),
    "cached_input_tokens": (
        "cached_input_tokens", "cache_read_tokens", "cache_read_input_tokens", "cacheReadInputTokens",
        "cached_content_token_count", "prompt_cache_hit_tokens", "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens", "input_token_details.cache_read",
    ),
    "cache_write_tokens": (
        "cache_write_tokens", "cache_creation_input_tokens", "cacheWriteInputTokens",
        "input_token_details.cache_creation",
    ),
    "cache_write_1h_tokens": (
        "cache_write_1h_tokens", "cache_creation.ephemeral_1h_input_tokens",
    ),
    "cache_storage_token_hours": ("cache_storage_token_hours",),
    "reasoning_tokens": (
        "reasoning_tokens", "thoughts_token_count", "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens", "output_token_details.reasoning",
    ),
}  # fmt: skip
"""How SDKs call the counts. What is of the first three names, or one of ours, makes a usage a usage."""
_ALWAYS = ("input_tokens", "output_tokens", "total_tokens")
_OURS = _NAMES.keys()
_SIGNS = frozenset(_NAMES) | {name for key in _ALWAYS for name in _NAMES[key]}
MOST = 10**18
"""No count is as large."""
_BESIDE = {
    "input_tokens": ("cache_read_input_tokens", "cache_creation_input_tokens"),
    "inputTokens": ("cacheReadInputTokens", "cacheWriteInputTokens"),
    "candidates_token_count": ("thoughts_token_count",),
}
"""Counts that are not in the one of that name: Anthropic's and Bedrock's of the cache, Gemini's of thoughts."""


def count(value: Any) -> int:
    """A token count as an int; None and what is not a number are 0."""
    return int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 1e18 else 0


def _get(usage: Any, name: str) -> Any:
    first, _, rest = name.partition(".")
    value = usage.get(first) if isinstance(usage, Mapping) else getattr(usage, first, None)
    return value if not rest or value is None else _get(value, rest)


def read_counts(usage: Any) -> TokenUsage:
    """Token counts of a usage object or dict, or of a method that gives one, under the names of any SDK version.

    {} when there is none.
    """
    # pydantic-ai's usage was a method, and is now a property whose value can still be called, with a warning.
    if callable(usage) and not any(isinstance(_get(usage, name), int) for name in _SIGNS):
        usage = usage()
    if not usage:
        return {}
    counts: dict[str, int] = dict.fromkeys(_ALWAYS, 0)
    for key, names in _NAMES.items():
        nonzero = [name for name in names if count(_get(usage, name))]
        for name in nonzero[:1] or names:  # those beside may be all there is
            found = sum(count(_get(usage, one)) for one in (name, *_BESIDE.get(name, ())))
            if found:
                counts[key] = found
                break
    return counts  # type: ignore[return-value] # the keys are those of TokenUsage


def is_usage(value: Any) -> bool:
    """Whether a value has token counts: a mapping or an object with one of their names."""
    if isinstance(value, Mapping):
        return not value or any(name in _SIGNS for name in value)
    if value is None or isinstance(value, (str, bytes, int, float, list, tuple, set, frozenset)):
        return False
    try:
        return any(type(getattr(value, name, "")) in (int, type(None)) for name in _SIGNS)
    except Exception:
        return False


def counts_of(usage: Any) -> tuple[dict[str, int], str | None]:
    """Return token counts of any SDK by our names, as far as there are any, and what is unusable.

    Args:
        usage: A value accepted by :func:`is_usage`, or anything else; None: no counts.
    """
    if usage is None or (isinstance(usage, Mapping) and not usage):
        return {}, None
    # Most are like this, and the search below takes longer than all else that is done for an item.
    if (
        type(usage) is dict
        and usage.keys() <= _OURS
        and all(type(value) is int and 0 <= value < MOST for value in usage.values())
    ):
        return usage.copy(), None
    counts: dict[str, int] = {}
    problems = []
    for key, names in _NAMES.items():
        for name in names:
            value, problem = _whole(usage, name)
            if problem is not None:
                problems.append(problem)
            if value is not None:
                counts[key] = value + _beside(usage, name)
                break
        else:
            # For example only thoughts.
            beside = next((found for name in names if (found := _beside(usage, name))), 0)
            if beside:
                counts[key] = beside
    if not (counts or problems or is_usage(usage)):
        kind = f"its keys are {list(usage)}" if isinstance(usage, Mapping) else f"it is {type(usage).__name__}"
        problems.append(f"there are no counts ({kind:.80}); known names: {', '.join(_NAMES)}")
    return counts, "; ".join(problems) or None


def _beside(usage: Any, name: str) -> int:
    return sum(_whole(usage, other)[0] or 0 for other in _BESIDE.get(name, ()))


def _whole(usage: Any, name: str) -> tuple[int | None, str | None]:
    """A count, or what is wrong with it."""
    try:
        value = _get(usage, name)
        if value is None or (type(value) is int and 0 <= value < MOST):
            return value, None
        if not isinstance(value, bool) and hasattr(value, "__int__") and 0 <= value < MOST and value % 1 == 0:
            return int(value), None
        return None, f"{name}={value!r:.80} is not an integer >= 0"
    except Exception as error:
        return None, f"{name} cannot be read ({type(error).__name__})"


def attach_usage(exception: BaseException, usage: TokenUsage) -> None:
    """Tell with an exception what the failed call has cost."""
    exception.__dict__[FAILED_USAGE] = dict(usage)


def usage_of_failure(exception: BaseException) -> TokenUsage:
    """Return the tokens that a failed attempt used, as far as its exception reports them.

    From the first that has any: the agent result on the exception's cause, the exception's own ``usage`` (attribute
    or method), the dict that :func:`attach_usage` left.
    """
    result = getattr(exception.__cause__, "result", None)
    for usage in (getattr(result, "usage", None), getattr(exception, "usage", None)):
        counts = read_counts(usage)
        if any(counts.values()):
            return counts
    return read_counts(exception.__dict__.get(FAILED_USAGE))


def minus(usage: Any, before: TokenUsage) -> TokenUsage:
    """A usage without what was there before; no count is below 0."""
    left: Any = {key: max(0, count(value) - count(before.get(key))) for key, value in (usage or {}).items()}
    kept: TokenUsage = left
    return kept


def paid_now(flight: Flight, usage: Any) -> Any:
    """Token counts of an item without those of rounds of its conversation that earlier runs have paid for."""
    conversation = flight.conversation
    before = None if conversation is None else conversation.paid_before
    return minus(usage, before) if before else usage


def add(first: TokenUsage | None, second: Any) -> TokenUsage:
    """The sum of two usages, with every key that either has."""
    total: dict[str, int] = {}
    for usage in (first, second):
        for key, value in usage.items() if isinstance(usage, dict) else ():
            # Nearly all are counts as they should be.
            number = value if type(value) is int and value >= 0 else count(value)
            total[key] = total[key] + number if key in total else number
    return total  # type: ignore[return-value] # the keys are those of the summands
