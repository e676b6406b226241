"""The items of a batch in memory. Used by ``BatchResult.view`` and ``BatchResult.report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._report import summary_rows
from .._results import over_time_of
from .items import Item

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .._report import Batch
    from ..prices import Price

PAGE = 250
"""Items at a time."""


class BatchItems:
    """The results of a batch; the place of a result is its position.

    Args:
        batch: The batch.
        name: What the page is called.
    """

    def __init__(self, batch: Batch, name: str = "Run report") -> None:
        self._batch, self._name = batch, name
        self._is_new = True
        self._about: dict[str, Any] | None = None

    @property
    def prices(self) -> Mapping[str, Price] | None:
        """The user's own prices."""
        return self._batch.prices

    @property
    def expected(self) -> int:
        """How many items there are."""
        return len(self._batch.results)

    def changed(self) -> str:
        """A batch does not change."""
        is_new, self._is_new = self._is_new, False
        return "more" if is_new else "same"

    def pages(self, after: int | None) -> Iterator[list[Item]]:
        """Iterate over the items after a place."""
        results = self._batch.results
        for first in range(0 if after is None else after + 1, len(results), PAGE):
            last = min(first + PAGE, len(results))
            yield [Item(place, results[place]) for place in range(first, last)]

    def one(self, place: int) -> Item | None:
        """Return the item at a place."""
        results = self._batch.results
        return Item(place, results[place]) if 0 <= place < len(results) else None

    def bound_over_time(self) -> dict[int, dict[str, Any]]:
        """Return what limited the run over time; its number is 0."""
        found = over_time_of(None if self._batch.stats is None else self._batch.stats.bound_over_time)
        return {} if found is None else {0: found}

    def about(self) -> dict[str, Any]:
        """Return what is known of the batch as a whole."""
        if self._about is not None:
            return self._about
        batch = self._batch
        began = None if batch.stats is None else batch.stats.start_time
        limits = [] if batch.stats is None else batch.stats.limits
        self._about = {
            "name": self._name,
            "created_at": began,
            "expected": len(batch.results),
            "runs": 1,
            "summary": summary_rows(batch),
            "limits": [
                {
                    "measure": str(limit.get("measure")).replace("_", " "),
                    "amount": limit.get("amount"),
                    "per": limit.get("per"),
                    "learned": bool(limit.get("learned")),
                }
                for limit in limits
            ],
        }
        return self._about
