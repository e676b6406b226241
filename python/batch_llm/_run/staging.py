"""First attempts of native strategies that start, and mostly end, without the event loop. Twin of ``src/dispatch/``.

Used by ``_run.Run``: it stages the requests of the next items, so that the engine can send them as soon as it starts
them. Results come back in batches; an attempt with any other outcome is adopted, and continues as usual.

Staging also tells the engine what requests begin with alike, so that one of them can write the provider's prompt cache
before the others start. It must know that before it accepts the items. Where attempts need Python to start, because of
hooks for instance, the items' prompts are read for that alone; middlewares that change prompts make it wrong, which
costs a wait of one request, or a cache entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._core import Timing
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
        self._whole: bool | None = None
        self.next = 0
        """The first item that has not been looked at."""

    def use(self, strategy: Any) -> None:
        """Stage items of this strategy from now on, if its attempts need no Python to start, or it has heads."""
        if strategy is not self._strategy:
            whole, has_heads = self._pipeline.is_whole(strategy), self._pipeline.has_heads(strategy)
            if whole is not None or has_heads:
                self._strategy, self._whole = strategy, whole

    def stage(self, end: int) -> None:
        """Stage the next items up to ``end``, as far as there is room."""
        strategy, first = self._strategy, self.next
        if strategy is None or first >= end:
            return
        handle, most = self._run.handle, self._most
        room = handle.room(most) if self._whole is not None else most - self._ahead()
        if room * 4 < most:
            return  # not for every single item
        items = self._run.waiting.between(first, min(end, first + room))
        self.next += handle.stage(first, items, strategy, self._pipeline.client(strategy), self._whole)

    def begin(self, index: int, item: Any, timing: Timing) -> bool:
        """Send an item that started before it was staged, as if it had been; return whether that was done."""
        if self._pipeline.is_whole(item.strategy) is None:
            return False
        try:
            self._run.handle.begin(index, self._pipeline.client(item.strategy), item.prompt, timing)
        except (TypeError, ValueError):
            return False  # the usual way says so
        self._run.waiting.later[index] = item
        return True

    def begin_deferred(self, index: int, item: Any) -> None:
        """Start an item anew that was deferred: it was not answered, and has cost nothing."""
        self._run.waiting.later[index] = item
        if item.strategy is self._strategy and self._whole is not None:
            self._run.handle.stage(index, [item], item.strategy, self._pipeline.client(item.strategy), self._whole)
        self._run.handle.requeue(index, item.priority)

    def _ahead(self) -> int:
        """How many items have been looked at and have not started; about, where priorities differ."""
        return self.next - (self._run.accepted - self._run.gauges()[0])

    def tell(self, index: int, item: Any) -> None:
        """Tell the engine what the request of an item begins with that is about to be accepted by itself."""
        strategy = item.strategy
        if self._pipeline.has_heads(strategy):
            self._run.handle.stage(index, [item], strategy, self._pipeline.client(strategy), None)

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        self._strategy = None
