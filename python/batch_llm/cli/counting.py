"""How many rows there are, for the progress bar; and which of them were not reached when a run ended early."""

from __future__ import annotations

import csv
import itertools
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from .._guards import _KINDS
from ..base import LLMWorkItem, WorkItemResult
from ..results import BatchTermination

Item = LLMWorkItem[Any, Any, Any]

COUNTING_SECONDS = 5.0
"""How long rows are counted at most; what takes longer has no total."""
_LOOK_EACH = 4096
_CATEGORIES = {kind: category for category, kind in _KINDS.items()}


def was_not_sent(result: WorkItemResult[Any, Any]) -> bool:
    """Whether the run ended before it came to an item: that is no failure of the item."""
    return not result.success and not result.attempts and result.error_category in _KINDS


def count_rows(path: str, kind: str, limit: int | None = None) -> int | None:
    """Count the rows of a file, without making anything of them.

    Args:
        path: The file; ``-`` is stdin.
        kind: What it is, one of ``reading.FORMATS``.
        limit: Most rows that are read.

    Returns:
        The number; None when it cannot be known: of a pipe, of a file that is not what it should be, or so large that
        counting would take long.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        if kind == "parquet":
            import pyarrow.parquet as parquet

            count: int | None = parquet.read_metadata(path).num_rows
        else:
            count = _count(_records(path, kind), limit)
    except (OSError, ValueError, ImportError, csv.Error):  # whoever reads the rows says what is wrong
        return None
    return count if count is None or limit is None else min(count, limit)


def _records(path: str, kind: str) -> Iterator[Any]:
    """What is not empty of lines, or of records of a CSV file."""
    if kind in ("csv", "tsv"):
        # Every byte is a character: what is counted has the same bytes in all encodings that CSV files have.
        with open(path, encoding="latin-1", newline="") as file:
            rows = csv.reader(file, delimiter="\t" if kind == "tsv" else ",")
            yield from itertools.islice(filter(None, rows), 1, None)
    else:
        with open(path, "rb") as lines:
            yield from filter(bytes.strip, lines)


def _count(records: Iterator[Any], limit: int | None) -> int | None:
    end = time.monotonic() + COUNTING_SECONDS
    count = 0
    while limit is None or count < limit:
        found = sum(1 for _ in itertools.islice(records, _LOOK_EACH))
        count += found
        if found < _LOOK_EACH:
            break
        if time.monotonic() > end:
            return None
    return count


class Asked(Iterator[Item]):
    """Items on their way into a run. It knows which have no result yet.

    Args:
        items: The items; the first is read at once, so that its mistakes are found before anything is opened.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        first = list(itertools.islice(items, 1))
        self._items = itertools.chain(first, items)
        self._open: dict[int, Item] = {}
        self._count = itertools.count()

    @classmethod
    def of(cls, items: Iterator[Item], total: int | None) -> Asked:
        """Make one; the progress display asks for its length if that is known."""
        return cls(items) if total is None else _Counted(items, total)

    def __next__(self) -> Item:
        item = next(self._items)
        self._open[next(self._count)] = item
        return item

    def answered(self, result: WorkItemResult[Any, Any]) -> None:
        """Take note of a result."""
        if result.submission_index is not None:
            self._open.pop(result.submission_index, None)

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


class _Counted(Asked):
    def __init__(self, items: Iterator[Item], total: int) -> None:
        super().__init__(items)
        self._total = total

    def __len__(self) -> int:
        return self._total
