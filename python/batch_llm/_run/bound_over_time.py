"""Writes what bounded a run over time into its store, now and then. Used by ``run``.

The engine keeps it, in a bounded number of intervals (``src/engine/bound_over_time.rs``). In a store, what is written
takes the place of what was written before. But text journals and segments only grow, so it is written each time that
the run has become longer by a part of its length: a hundred times in a month.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._results import ProcessingStats
    from .._store import RunStore

FIRST_SECONDS = 10.0
"""When it is written for the first time, after the beginning of a run."""
GROWTH = 1.125
"""The length of a run when it is written next, as a multiple of that when it was written last."""


class BoundOverTime:
    """What bounded a run over time, for its store.

    Args:
        store: The store of the run, if it has one.
        stats: Returns the counters of the run.
    """

    def __init__(self, store: RunStore | None, stats: Callable[[], ProcessingStats]) -> None:
        self._store, self._stats = store, stats
        self._next = 0.0

    def look(self, elapsed: float) -> None:
        """Write it, if it is time; ``elapsed``: the length of the run, seconds."""
        if elapsed >= self._next:
            self._next = max(elapsed * GROWTH, FIRST_SECONDS)
            self.write()

    def write(self) -> None:
        """Write it."""
        if self._store is None:
            return
        stats = self._stats()
        if stats.bound_over_time:
            text = json.dumps({"began_at": stats.start_time, **stats.bound_over_time}, separators=(",", ":"))
            self._store.note_bound_over_time(text)
