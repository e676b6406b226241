"""Results of successes: what ``execute()`` returned is checked, its tokens are counted. Used by ``attempts``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .._llm import add, counts_of, is_usage
from .._results import WorkItemResult, succeeded
from .._types import RetryState
from ..errors import ERROR_MESSAGE_LIMIT
from ..llm_strategies import GeminiResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .._core import Flight
    from .._logs import Repeated


@dataclass(frozen=True)
class _Classes:
    """What plain attempts have to know."""

    succeeded: Callable[..., Any] = field(default=succeeded)
    state: type = RetryState
    coroutine: type = CoroutineType
    special: type = GeminiResponse


CLASSES = _Classes()


def checked(answer: Any, strategy: Any, method: str) -> tuple[Any, Any, Any]:
    """Return an answer as (output, usage, metadata), or raise an error that names what came instead."""
    name = f"{type(strategy).__name__}.{method}()"
    if not isinstance(answer, (tuple, list)) or len(answer) not in (2, 3):
        what = f"a {type(answer).__name__} of {len(answer)}" if isinstance(answer, (tuple, list)) else repr(answer)
        raise TypeError(
            f"{name} must return a pair (output, token_usage), or (output, token_usage, metadata), "
            f"not {what:.{ERROR_MESSAGE_LIMIT}}"
        )
    output, usage, metadata = answer if len(answer) == 3 else (*answer, None)
    if usage is not None and not isinstance(usage, dict) and not is_usage(usage):
        raise TypeError(f"{name} must return its token usage as a dict (or None), not {type(usage).__name__}")
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError(f"{name} must return its metadata as a dict (or None), not {type(metadata).__name__}")
    return output, {} if usage is None else usage, metadata


def not_async(returned: Any, strategy: Any, dry_run: bool) -> str:
    """Return what is wrong with a hook that did not return an awaitable."""
    name = f"{type(strategy).__name__}.{'dry_run' if dry_run else 'execute'}()"
    return f"{name} must be async (async def); it returned {type(returned).__name__}, not an awaitable"


def as_coroutine(call: Any, strategy: Any) -> Coroutine[Any, Any, Any]:
    """Return a coroutine around what ``execute()`` returned.

    Raises:
        TypeError: If it cannot be awaited.
    """
    check_awaitable(call, strategy)
    return _await(call)


def check_awaitable(call: Any, strategy: Any, *, dry_run: bool = False) -> None:
    """Raise TypeError if what ``execute()``, or ``dry_run()``, returned cannot be awaited."""
    if type(call) is not CoroutineType and not isawaitable(call):
        raise TypeError(not_async(call, strategy, dry_run))


async def _await(call: Any) -> Any:
    return await call


def counted(usage: Any, flight: Flight, log: Repeated) -> Any:
    """Return token counts by our names: the strategy's own dict if it is one, whatever its values."""
    counts, problem = counts_of(usage)
    if problem is not None:
        log.event(
            logging.DEBUG,
            "usage_unusable",
            "Item %s: unusable token counts in the answer: %s",
            flight.item.item_id,
            problem,
            item_id=flight.item.item_id,
            attempt=flight.attempt,
        )
    if isinstance(usage, dict) and all(
        usage.get(key) == value and type(usage[key]) is int for key, value in counts.items()
    ):
        return usage
    return counts


def success_of(flight: Flight, work: Any, answer: tuple[Any, Any, Any], *, keeps_prompt: bool) -> Any:
    """Make the result of an answer; ``work``: what was sent; ``answer``: output, usage, metadata."""
    output, usage, metadata = answer
    if flight.usage:
        usage = add(flight.usage, usage)
    result: WorkItemResult[Any, Any] = WorkItemResult(
        work.item_id, True, output, None, work.context, usage, None, flight.attempt, metadata=metadata
    )
    if keeps_prompt:
        result.prompt = work.prompt
    if type(output) is GeminiResponse:
        result.gemini_safety_ratings = output.safety_ratings
    elif metadata is not None and "safety_ratings" in metadata:
        result.gemini_safety_ratings = metadata["safety_ratings"]
    return result
