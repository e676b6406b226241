"""The items of a store, with what its records say besides their results, for the command line to show and export.

Not for a process in which a run writes to the same SQLite store: two copies of SQLite in one process do not see each
other's locks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ._core import format_of
from ._view import Item
from .inspection import Inspection, inspect
from .prices import Price

PAGE = 250
"""Records read at a time."""
PATIENCE = 5.0
"""How long to wait for a lock of the database, seconds."""

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
        self._heads = _Heads(path) if format_of(path) == "sqlite" else None
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
        if self._heads is not None:
            return "more"
        self._unreadable = 0
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
            heads = {} if self._heads is None else self._heads.between(page[0][0], page[-1][0])
            yield [self._item(place, result, heads.get(place)) for place, result in page]
        self._unreadable = lost

    def one(self, place: int) -> Item | None:
        """Return the item at a place."""
        for page in self.inspection._pages(place - 1 if place > 0 else None, 1):
            if page and page[0][0] == place:
                heads = {} if self._heads is None else self._heads.between(place, place)
                return self._item(place, page[0][1], heads.get(place))
            break
        return None

    def find(self, item_id: str) -> list[Item]:
        """Return the items with an id."""
        found = []
        for page in self.inspection._pages(None, PAGE, item_id=item_id):
            for place, result in page:
                heads = {} if self._heads is None else self._heads.between(place, place)
                found.append(self._item(place, result, heads.get(place)))
        return found

    def _item(self, place: int, result: Any, head: tuple[int, float, float | None] | None) -> Item:
        if result.prompt is None and self._prompts is not None:
            result.prompt = self._prompts(result.item_id)
        run, at, cost = head or (0, None, None)
        return Item(place, result, run, at, cost)

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
            about |= self._status()
        return about


class _Heads:
    """What the records of an SQLite store say of runs, times and cost. Without them, a page shows less."""

    def __init__(self, path: str) -> None:
        self._path = path

    def between(self, first: int, last: int) -> dict[int, tuple[int, float, float | None]]:
        """Return the run, the time and the cost of records, by place."""
        sql = "SELECT id, run, recorded_at, cost FROM records WHERE id BETWEEN ? AND ?"
        try:
            with contextlib.closing(self._opened()) as database:
                rows = database.execute(sql, (first, last)).fetchall()
        except sqlite3.Error:
            return {}
        return {
            place: (run, at, cost)
            for place, run, at, cost in rows
            if type(run) is int and type(at) in (int, float) and (cost is None or type(cost) in (int, float))
        }

    def _opened(self) -> sqlite3.Connection:
        address = Path(self._path).absolute().as_uri()
        for mode in ("mode=ro", "mode=ro&immutable=1"):  # the second: in a folder that cannot be written
            database = sqlite3.connect(f"{address}?{mode}", uri=True, timeout=PATIENCE)
            try:
                # The file may come from anybody: nothing in its schema runs.
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA query_only = ON")
                database.execute("SELECT 1 FROM records LIMIT 1")
            except sqlite3.OperationalError:
                database.close()
                if mode != "mode=ro":
                    raise
            except BaseException:
                database.close()
                raise
            else:
                return database
        raise AssertionError
