"""The items of a run, as the page shows them: where they come from, and what is shown of each. Used within ``_view``.

What an item contains comes from prompts, models and files: it is of any kind and length. Here it becomes texts and
numbers with bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .._values import as_text, clean
from ..prices import Price, price_of

if TYPE_CHECKING:
    from .._results import WorkItemResult

PREVIEW = 240
"""Characters of a prompt or an answer in a list of items."""
LONGEST_TEXT = 200_000
"""Characters of a prompt, an answer or a message that are shown of one item."""
MOST_TURNS = 200
"""Messages of a conversation that are shown."""
MOST_ATTEMPTS = 200
"""Attempts of an item that are shown."""
_LONGEST_NAME = 200
_TRUNCATED = frozenset({"length", "max_tokens", "max_output_tokens", "max_length", "model_length"})
_VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{8,}|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"")
FAILED, SUCCEEDED, NOT_SENT = 0, 1, 2
"""States of an item."""


@dataclass(frozen=True)
class Item:
    """An item of a run.

    Args:
        place: Its place among the items: later ones are larger. Whoever made it finds the item by it.
        result: Its result.
        run: The number of the run that made the result, if its store has several.
        recorded_at: When the result was stored, seconds since 1970.
        cost: What it has cost, if its store knows.
    """

    place: int
    result: WorkItemResult[Any, Any]
    run: int = 0
    recorded_at: float | None = None
    cost: float | None = None


class Items(Protocol):
    """Where the items of a run come from."""

    @property
    def prices(self) -> Mapping[str, Price] | None:
        """The user's own prices."""
        ...

    def pages(self, after: int | None) -> Iterator[list[Item]]:
        """Iterate over the items after a place, some at a time."""
        ...

    def one(self, place: int) -> Item | None:
        """Return the item at a place."""
        ...

    def about(self) -> dict[str, Any]:
        """Return what is known of the run as a whole, as JSON values: ``name``, ``state``, ``summary``, ..."""
        ...

    def bound_over_time(self) -> Mapping[int, dict[str, Any]]:
        """Return what limited its runs over time, by ``Item.run``, as ``ProcessingStats.bound_over_time``."""
        ...

    @property
    def expected(self) -> int:
        """How many items there are, as of the last look."""
        ...

    def changed(self) -> str:
        """Return ``"same"``, ``"more"`` (items were added since the last call), or ``"other"`` (read all of them)."""
        ...


class Pricing:
    """What results cost, by the models that answered.

    Args:
        own: The user's own prices, which go before the list.
    """

    def __init__(self, own: Mapping[str, Price] | None) -> None:
        self._own = own
        self._known: dict[tuple[Any, Any], Price | None] = {}

    def of(self, result: WorkItemResult[Any, Any]) -> float | None:
        """Return the cost of a result; None: it is not known. What was reused has cost nothing."""
        if result.reused is not None:
            return 0.0
        usage = counts_of(result)
        metadata = result.metadata or {}
        model, lane = metadata.get("model"), metadata.get("lane")
        if not any(usage.values()) or not isinstance(model, str) or not isinstance(lane, (str, type(None))):
            return None
        if (model, lane) not in self._known:
            price = price_of(model, self._own)
            self._known[model, lane] = None if price is None else price.in_lane(lane)
        found = self._known[model, lane]
        return None if found is None else found.of(usage)


def counts_of(result: WorkItemResult[Any, Any]) -> dict[str, int]:
    """The token counts of a result that are numbers."""
    usage: Any = result.token_usage or {}
    return {
        str(name): int(count)
        for name, count in usage.items()
        if type(count) is int or (type(count) is float and math.isfinite(count))
    }


def answer_of(result: WorkItemResult[Any, Any]) -> str:
    """The answer as a text, or why there is none."""
    return as_text(result.output) if result.success else clean(str(result.error))


def prompt_of(result: WorkItemResult[Any, Any]) -> str | None:
    """The prompt as a text; None: it is not known."""
    return None if result.prompt is None else as_text(result.prompt)


def one_line(text: str, most: int = PREVIEW) -> str:
    """The beginning of a text, on one line."""
    short = " ".join(text[: 2 * most].split())
    return f"{short[: most - 1]}\u2026" if len(short) > most or len(text) > 2 * most else short


def kind_of(result: WorkItemResult[Any, Any]) -> str:
    """What failures that are alike have in common: the message without numbers and quoted parts."""
    return _VARYING.sub("\u2026", one_line(clean(str(result.error)), 160))


def name_of(value: Any) -> str | None:
    """A name from metadata; None where it is none."""
    if isinstance(value, list) and value:  # of several candidates
        value = value[0]
    return clean(value)[:_LONGEST_NAME] if isinstance(value, str) else None


def is_truncated(finish: str | None) -> bool:
    """Whether an answer ended because it was too long."""
    return finish is not None and finish.lower() in _TRUNCATED


def retries_of(result: WorkItemResult[Any, Any]) -> int:
    """How many attempts followed a failed one."""
    if result.rounds is None:
        return max(result.attempts - 1, 0)
    failed = sum(not attempt.success for attempt in result.timing.attempts)
    return failed if result.success or not failed else failed - 1


def state_of(result: WorkItemResult[Any, Any]) -> int:
    """``FAILED``, ``SUCCEEDED`` or ``NOT_SENT``."""
    return SUCCEEDED if result.success else NOT_SENT if result.not_sent else FAILED


def details(item: Item, pricing: Pricing, longest: int = LONGEST_TEXT) -> dict[str, Any]:
    """All that is shown of one item, as JSON values; ``longest``: characters of a text."""
    result = item.result
    metadata = result.metadata or {}
    more = {
        str(name)[:_LONGEST_NAME]: _cut(as_text(value), 2_000)["text"]
        for name, value in list(metadata.items())[:50]
        if name not in ("raw", "model", "lane", "finish_reason")
    }
    return {
        "place": item.place,
        "id": clean(result.item_id),
        "number": result.submission_index,
        "state": state_of(result),
        "category": name_of(result.error_category),
        "prompt": None if result.prompt is None else _cut(as_text(result.prompt), longest),
        "answer": _cut(answer_of(result), longest),
        "turns": _turns(result),
        "attempts": [
            {
                "start": attempt.started_at,
                "waits": [
                    attempt.retry_backoff_seconds,
                    attempt.cooldown_wait_seconds,
                    attempt.queue_seconds,
                    attempt.quota_wait_seconds,
                    attempt.admission_wait_seconds,
                ],
                "seconds": attempt.execution_seconds,
                "ok": attempt.success,
                "error": name_of(attempt.error_type),
                "category": name_of(attempt.error_category),
                "message": None if attempt.error_message is None else one_line(clean(attempt.error_message), 300),
            }
            for attempt in result.timing.attempts[:MOST_ATTEMPTS]
        ],
        "tried": result.attempts,
        "tokens": {name: count for name, count in counts_of(result).items() if count},
        "cost": item.cost if item.cost is not None else pricing.of(result),
        "model": name_of(metadata.get("model")),
        "lane": name_of(metadata.get("lane")),
        "finish": name_of(metadata.get("finish_reason")),
        "reused": result.reused,
        "run": item.run,
        "recorded_at": item.recorded_at,
        "metadata": more,
    }


def _cut(text: str, most: int = LONGEST_TEXT) -> dict[str, Any]:
    """A text, and how many characters of it are left out."""
    return {"text": text[:most], "left_out": max(len(text) - most, 0)}


def _turns(result: WorkItemResult[Any, Any]) -> list[dict[str, Any]]:
    """Who said what: in a conversation, or in a prompt that is a list of messages."""
    messages: Any = result.messages
    if messages is None:
        messages = result.prompt
        if not isinstance(messages, list) or not all(isinstance(one, dict) and "role" in one for one in messages):
            return []
    turns = []
    for message in messages[:MOST_TURNS]:
        calls = message.get("tool_calls")
        content = message.get("content")
        turns.append(
            {
                "role": name_of(message.get("role")) or "",
                "name": name_of(message.get("name")),
                "text": _cut("" if content is None else as_text(content), 20_000),
                "calls": [
                    {"name": name_of(call.get("name")) or "", "arguments": _cut(as_text(call.get("arguments")), 5_000)}
                    for call in (calls if isinstance(calls, list) else [])[:50]
                    if isinstance(call, dict)
                ],
            }
        )
    if len(messages) > MOST_TURNS:
        turns.append(
            {"role": "", "name": None, "text": _cut(f"{len(messages) - MOST_TURNS:,} more messages"), "calls": []}
        )
    return turns
