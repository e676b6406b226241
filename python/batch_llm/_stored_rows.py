"""The items of a store, with what its records say besides their results, for the command line to show and export.

Not for a process in which a run writes to the same SQLite store: two copies of SQLite in one process do not see each
other's locks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ._core import format_of
from ._results import over_time_of
from ._view import Item
from .inspection import Inspection, StoredRow, inspect
from .prices import Price

PAGE = 250
"""Records read at a time."""

Prompts = Callable[[str], Any]
"""Returns the prompt of an item by its id; None: it is not known."""


class StoredItems:
    """The last result of every item of a store, in order.

    Args:
        path: The file, folder or URL.
        prompts: Has the prompts that the store does not have.
        status: Returns what is known of the run that writes to it, as JSON values.

    Raises:
        FileNotFoundError: If there is no store.
        ArtifactError: If it cannot be read, or is not a store.
    """

    def __init__(
        self, path: str, prompts: Prompts | None = None, status: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        self.path, self._prompts, self._status = path, prompts, status
        self._inspection: Inspection | None = inspect(path)
        self._signature = self._sign()
        self._is_new = True
        self._grows = format_of(path) == "sqlite"
        """Whether places stay what they are while records are added."""
        self._runs: dict[int, int] = {}
        self._unreadable = 0

    @property
    def inspection(self) -> Inspection:
        """What the store has, as of the last look."""
        if self._inspection is None:
            self._inspection = inspect(self.path)
        return self._inspection

    @property
    def prices(self) -> Mapping[str, Price] | None:
        """None: the store has the cost of its records."""
        return None

    @property
    def expected(self) -> int:
        """How many items there are, without those whose records cannot be read."""
        return self.inspection.items - self._unreadable

    def changed(self) -> str:
        """Look at the store again. Return ``"same"``, ``"more"`` or ``"other"``."""
        if self._is_new:
            self._is_new = False
            return "more"
        signature = self._sign()
        if signature is not None and signature == self._signature:
            return "same"
        before, found = self.inspection, inspect(self.path)
        self._inspection, self._signature = found, signature
        if (found.records, found.updated_at) == (before.records, before.updated_at):
            return "same"
        if self._grows:
            return "more"
        self._unreadable = 0
        self._runs.clear()
        return "other"

    def _sign(self) -> tuple[Any, ...] | None:
        """What differs when the file has changed; None: it is not a file."""
        if "://" in self.path or os.path.isdir(self.path):
            return None
        found: list[tuple[int, int] | None] = []
        for name in (self.path, f"{self.path}-wal"):
            try:
                status = os.stat(name)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_size, status.st_mtime_ns))
        return tuple(found)

    def pages(self, after: int | None) -> Iterator[list[Item]]:
        """Iterate over the items after a place."""
        lost = 0 if after is None else self._unreadable
        for page in self.inspection._pages(after, PAGE):
            if not page:
                lost += 1
                continue
            yield [self._item(row) for row in page]
        self._unreadable = lost

    def one(self, place: int) -> Item | None:
        """Return the item at a place."""
        for page in self.inspection._pages(place - 1 if place > 0 else None, 1):
            if page and page[0].place == place:
                return self._item(page[0])
            break
        return None

    def find(self, item_id: str) -> list[Item]:
        """Return the items with an id."""
        found = []
        for page in self.inspection._pages(None, PAGE, item_id=item_id):
            found += [self._item(row) for row in page]
        return found

    def _item(self, row: StoredRow) -> Item:
        place, result, run, at, cost = row
        if result.prompt is None and self._prompts is not None:
            result.prompt = self._prompts(result.item_id)
        # Numbers of a file may be anything.
        if not self._grows:  # segments have large numbers, which are in no order
            run = self._runs.setdefault(run, len(self._runs) + 1)
        has_cost = cost is not None and math.isfinite(cost)
        return Item(place, result, run, at if math.isfinite(at) else None, cost if has_cost else None)

    def about(self) -> dict[str, Any]:
        """Return what is known of the store as a whole."""
        found = self.inspection
        about: dict[str, Any] = {
            "name": self.path if "://" in self.path else Path(self.path).name,
            "path": self.path if "://" in self.path else str(Path(self.path).absolute()),
            "created_at": found.created_at.timestamp(),
            "updated_at": found.updated_at.timestamp(),
            "expected": found.items,
            "runs": found.runs,
            "spent": found.cost if found.cost or not found.records_without_cost else None,
            "failed_attempts": found.failed_attempts,
            "damaged": found.damaged_records,
            "unreadable": self._unreadable,
        }
        if self._status is not None:
            about |= {name: value for name, value in self._status().items() if name != "bound_over_time"}
        return about

    def bound_over_time(self) -> dict[int, dict[str, Any]]:
        """Return what limited its runs over time, by the number of the run; that of a running one as it is now."""
        found = self.inspection.bound_over_time
        if not self._grows:
            found = {self._runs[run]: one for run, one in found.items() if run in self._runs}
        live = over_time_of(self._status().get("bound_over_time")) if self._status is not None else None
        if live is None or "began_at" not in live:
            return found
        return {run: live if one.get("began_at") == live["began_at"] else one for run, one in found.items()}
