"""Equal requests of a run: the first is sent, the others share its result. Used by ``run_store``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .._items import LLMWorkItem
    from .._results import WorkItemResult

    Item = LLMWorkItem[Any, Any, Any]
    Result = WorkItemResult[Any, Any]


class EqualRequests:
    """Which requests of a run have a result or are in flight, and which items wait for them."""

    def __init__(self) -> None:
        self._requests: dict[bytes, Result | list[tuple[int, Item]]] = {}
        """By fingerprint, the result, or the items that wait for it."""
        self._first: dict[int, bytes] = {}
        """By item, the request that it is the first to make."""
        self._unplaced: dict[int, list[tuple[int, Item]]] = {}
        """By temporary number, the list in which an item waits."""

    def __contains__(self, key: bytes) -> bool:
        """Whether a request has a result or is in flight."""
        return key in self._requests

    def add_result(self, key: bytes, result: Result) -> None:
        """Add the result of a request that need not be sent."""
        self._requests.setdefault(key, result)

    def join(self, key: bytes, index: int, item: Item) -> Result | Literal["waiting"] | None:
        """Return the result of an equal request; ``"waiting"`` if one is in flight; None if the item is the first."""
        found = self._requests.get(key)
        if found is None:
            self._requests[key], self._first[index] = [], key
        elif isinstance(found, list):
            found.append((index, item))
            if index < 0:
                self._unplaced[index] = found
            return "waiting"
        return found

    def place(self, number: int, index: int) -> None:
        """Set the index of an item that joined under a temporary number."""
        if number in self._first:
            self._first[index] = self._first.pop(number)
        waiting = self._unplaced.pop(number, [])
        waiting[:] = [(index if other == number else other, item) for other, item in waiting]

    def ended(self, index: int, result: Result | None) -> list[tuple[int, Item]]:
        """Return the items that wait for this one. ``result``: what later ones share; None: they are sent."""
        key = self._first.pop(index, None)
        if key is None:
            return []
        waiting = self._requests.pop(key)
        if result is not None:
            self._requests[key] = result
        return waiting if isinstance(waiting, list) else []

    def waiting(self) -> list[tuple[int, Item]]:
        """Return the items that wait for others' results."""
        return [one for found in self._requests.values() if isinstance(found, list) for one in found]
