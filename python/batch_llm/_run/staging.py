"""First attempts of native strategies that start, and mostly end, without the event loop. Twin of ``src/dispatch/``.

Used by ``_run.Run``: it stages the requests of the next items, so that the engine can send them as soon as it starts
them. Results come back in batches; an attempt with any other outcome is adopted, and continues as usual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocols import ItemPipeline
    from .run import Run

LEAST = 2048
"""How many requests may be staged, at least; more with many workers. They bridge pauses of the loop's thread: a full
garbage collection, with a hundred thousand results, takes 20 ms, in which 800 requests start."""


class Direct:
    """Stages the items of a run.

    Args:
        run: The run.
        pipeline: Knows which strategies need no Python.
    """

    def __init__(self, run: Run, pipeline: ItemPipeline) -> None:
        self._run, self._pipeline = run, pipeline
        self._most = max(LEAST, 2 * pipeline.settings.max_workers)
        self._strategy: Any = None
        self._whole = False
        self.next = 0
        """The first item that has not been looked at."""

    def use(self, strategy: Any) -> None:
        """Stage items of this strategy from now on, if its attempts need no Python to start."""
        if strategy is not self._strategy:
            whole = self._pipeline.is_whole(strategy)
            if whole is not None:
                self._strategy, self._whole = strategy, whole

    def stage(self, end: int) -> None:
        """Stage the next items up to ``end``, as far as there is room."""
        strategy, first = self._strategy, self.next
        if strategy is None or first >= end:
            return
        handle, most = self._run.handle, self._most
        room = handle.room(most)
        if room * 4 < most:
            return  # not for every single item
        items = self._run.waiting.between(first, min(end, first + room))
        self.next += handle.stage(first, items, strategy, strategy._client, self._whole)

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        self._strategy = None
