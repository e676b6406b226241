"""Items whose requests wait in batches, perhaps for hours, and of which nothing needs to be in memory meanwhile.

Used by ``_run.Run``. What such an item consists of is written to a file without a name beside the store, and read again
when there is something to do with it. What cannot be written without becoming another object, such as a context of the
user's own, stays as it is. A class of ours says with ``_to_shelf()`` that its objects may be replaced, and by what.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from .._core import Shelf
from .._items import LLMWorkItem

if TYPE_CHECKING:
    from collections.abc import Iterator

    Item = LLMWorkItem[Any, Any, Any]

MOST = 16
"""Strategies, and classes of contexts, that are remembered."""
_UNCHANGEABLE = frozenset({type(None), str, int, float, bool, bytes})
"""Contexts that may be replaced by an equal one: a result has its item's context by reference."""


class Deferred:
    """Items by index, outside of memory.

    Args:
        path: A file on the disk where they may be written; None: they stay in memory.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._shelf: Shelf | None = None
        self._kept: dict[int, Item] = {}
        self._strategies: list[Any] = []
        self._classes: list[Any] = []

    def put(self, index: int, item: Item) -> None:
        """Store an item."""
        if not self._write(index, item):
            self._kept[index] = item

    def _write(self, index: int, item: Item) -> bool:
        if self._path is None or type(item) is not LLMWorkItem:
            return False
        context: Any = item.context
        kind, class_place = type(context), None
        if kind not in _UNCHANGEABLE:
            class_place = _place_in(self._classes, kind) if hasattr(kind, "_to_shelf") else None
            if class_place is None:
                return False
            context = context._to_shelf()
        place = _place_in(self._strategies, item.strategy)
        if place is None:
            return False
        try:
            # Nothing but exact builtin types, so what is read is equal.
            data = marshal.dumps((item.item_id, place, item.prompt, class_place, context, item.priority, item.sample))
            if self._shelf is None:
                self._shelf = Shelf(self._path)
            self._shelf.put(index, data)
        except (ValueError, OSError):
            return False
        return True

    def take(self, index: int) -> Item | None:
        """Take an item out, if it is there.

        Raises:
            OSError: If it cannot be read.
        """
        data = None if self._shelf is None else self._shelf.take(index)
        if data is None:
            return self._kept.pop(index, None)
        item_id, place, prompt, class_place, context, priority, sample = marshal.loads(data)  # noqa: S302 - of this process
        item: Item = object.__new__(LLMWorkItem)
        item.item_id, item.strategy, item.prompt = item_id, self._strategies[place], prompt
        item.context = context if class_place is None else self._classes[class_place]._from_shelf(context)
        item.priority, item.sample = priority, sample
        return item

    def take_all(self) -> Iterator[tuple[int, Item]]:
        """Take all items out, by index."""
        on_disk = [] if self._shelf is None else self._shelf.items()
        for index in sorted([*on_disk, *self._kept]):
            item = self.take(index)
            if item is not None:
                yield index, item

    def clear(self) -> None:
        """Forget all items."""
        self._shelf = None
        self._kept.clear()
        self._strategies.clear()


def _place_in(known: list[Any], one: Any) -> int | None:
    """The place of an object; None: there are too many, which would be held for as long as the run lasts."""
    for place, other in enumerate(known):
        if other is one:
            return place
    if len(known) >= MOST:
        return None
    known.append(one)
    return len(known) - 1
