"""The items of one run that have not started, by index. Used by ``_run.Run`` and, in Rust, its plain attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._items import LLMWorkItem
    from .._store import RunStore
    from .deferred import Deferred

    Item = LLMWorkItem[Any, Any, Any]


class Waiting:
    """Items by index: the first ones in a list, those that came later in a dict.

    Args:
        items: The items that are there from the start; they have the indexes from 0 on.
    """

    def __init__(self, items: list[Item]) -> None:
        self.first: list[Item | None] = list(items)
        """The items that were there from the start; None for what has started."""
        self.later: dict[int, Item] = {}
        """The others."""
        self.on_start: Callable[[], None] | None = None
        """Called when an item that came later leaves."""
        self._first_ones = len(items)

    def come_later(self) -> None:
        """Treat the first items as if they had come later, so that any of them may be taken out."""
        self.later.update((index, item) for index, item in enumerate(self.first) if item is not None)
        self.first.clear()
        self._first_ones = 0

    def take(self, index: int) -> Item | None:
        """Take an item out, if it is there."""
        if index >= self._first_ones:
            item = self.later.pop(index, None)
            if self.on_start is not None:
                self.on_start()
            return item
        item, self.first[index] = self.first[index], None
        return item

    def look_at(self, index: int) -> Item | None:
        """Return an item, if it is there."""
        return self.later.get(index) if index >= self._first_ones else self.first[index]

    def between(self, first: int, end: int) -> list[Item | None]:
        """Return what is there of the items from ``first`` to ``end``, and None for the others."""
        if end <= self._first_ones:
            return self.first[first:end]
        return [self.look_at(index) for index in range(first, end)]

    def all(self) -> Iterator[tuple[int, Item]]:
        """Go through all items, by index."""
        for index, item in (*enumerate(self.first), *self.later.items()):
            if item is not None:
                yield index, item

    def index_of(self, item_id: str) -> int | None:
        """Return the index of an item, if it is there."""
        return next((index for index, item in self.all() if item.item_id == item_id), None)

    def clear(self) -> None:
        """Forget all items."""
        self.first.clear()
        self.later.clear()


def unstarted(
    waiting: Waiting, interrupted: set[int], deferred: Deferred, run_store: RunStore | None
) -> Iterator[tuple[int, Item, int]]:
    """Take out all items without a flight, each with its index and number of attempts. ``interrupted``: had one."""
    for index, item in waiting.all():
        yield index, item, int(index in interrupted)
    for index, item in deferred.take_all():
        yield index, item, 1
    for index, item in run_store.unanswered() if run_store is not None else ():
        yield index, item, 0
