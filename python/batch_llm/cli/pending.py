"""Items of a run without a result: the progress bar counts them, and they fail as not sent if the run ends early."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from .._items import LLMWorkItem
from .._pipeline import KINDS
from .._results import BatchTermination, WorkItemResult

Item = LLMWorkItem[Any, Any, Any]

_CATEGORIES = {kind: category for category, kind in KINDS.items()}


class PendingItems(Iterator[Item]):
    """An iterator of items that knows which of them have no result yet.

    Args:
        items: The items.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._open: dict[int, Item] = {}
        self._count = itertools.count()

    @classmethod
    def of(cls, items: Iterator[Item], total: int | None) -> PendingItems:
        """Return an iterator of the items, with a length if the total is known, for the progress display."""
        return cls(items) if total is None else _Counted(items, total)

    def __next__(self) -> Item:
        item = next(self._items)
        self._open[next(self._count)] = item
        return item

    def answered(self, result: WorkItemResult[Any, Any]) -> bool:
        """Record a result; return whether it is the first one of its item: requeued items get further ones."""
        if result.submission_index is None:
            return True
        return self._open.pop(result.submission_index, None) is not None

    def unreached(self, termination: BatchTermination, *, read_on: bool) -> Iterator[WorkItemResult[Any, Any]]:
        """Return a failed result for each item that has none, in order.

        Args:
            termination: Why the run ended.
            read_on: Whether the rest is read; not of a pipe, which may never end.
        """
        rest = self._items if read_on else iter(())
        for item in itertools.chain([self._open.pop(index) for index in sorted(self._open)], rest):
            yield WorkItemResult(
                item.item_id,
                False,
                error=f"not sent: {termination.reason}",
                context=item.context,
                error_category=_CATEGORIES.get(termination.kind, "batch_aborted"),
            )


class _Counted(PendingItems):
    def __init__(self, items: Iterator[Item], total: int) -> None:
        super().__init__(items)
        self._total = total

    def __len__(self) -> int:
        return self._total
