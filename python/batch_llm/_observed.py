"""A pipeline that tells observers, and the log, what happens to items.

The pipelines of ``_failures`` and ``_attempts`` stand on it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ._logs import logger, say
from ._observing import AttemptWatcher, Observation
from ._pipeline import Pipeline
from ._plan import run_settings
from ._shown import Lines
from .observers.base import ProcessingEvent

if TYPE_CHECKING:
    from ._core import Flight
    from ._items import LLMWorkItem
    from ._plan import RunPlan
    from ._results import WorkItemResult


SKIPPED = "Skipped by middleware"


class ObservedPipeline(Pipeline):
    """Emits events; each observer gets them beside the run, in order."""

    def __init__(self, plan: RunPlan) -> None:
        config = plan.config
        refresh = config.progress_refresh_interval_seconds
        super().__init__(
            plan.hooks, run_settings(plan), config.progress_interval, bar=plan.progress_bar, refresh=refresh
        )
        # With a number that is found out, there are no workers to tell observers of.
        self._known_workers = 0 if config.concurrency == "auto" else config._workers
        self._level = logging.INFO if config.enable_detailed_logging else logging.DEBUG
        self._logs = logger.isEnabledFor(self._level)
        self._observations = [
            Observation(observer, plan.hooks.timeouts.observer, lambda error: self.run.fail(error))
            for observer in plan.observers
        ]
        self._watchers = [observer for observer in plan.observers if isinstance(observer, AttemptWatcher)]

    def batch_started(self, total: int) -> None:
        """Tell observers of the start."""
        super().batch_started(total)
        self._emit(ProcessingEvent.BATCH_STARTED, total=total)
        for worker in range(self._known_workers) if self._observations else ():
            self._emit(ProcessingEvent.WORKER_STARTED, worker_id=worker)

    async def batch_ended(self, limit: float | None = None) -> None:
        """Tell observers of the end, and let them hear everything."""
        for worker in range(self._known_workers) if self._observations else ():
            self._emit(ProcessingEvent.WORKER_STOPPED, worker_id=worker)
        stats = self.run.stats()
        self._emit(ProcessingEvent.BATCH_COMPLETED, total=stats.total, succeeded=stats.succeeded, failed=stats.failed)
        if logger.isEnabledFor(logging.INFO):
            seconds = self.run.elapsed()
            rate = stats.processed / seconds if seconds > 0 else 0.0
            say(
                logging.INFO,
                "run_ended",
                "The run ended after %.1f s: %d of %d items succeeded, %.1f items/s. What bound it:\n%s",
                seconds,
                stats.succeeded,
                stats.total,
                rate,
                Lines(stats.explain()),
                seconds=seconds,
                total=stats.total,
                succeeded=stats.succeeded,
                failed=stats.failed,
                tokens=stats.total_tokens,
            )
        await super().batch_ended(limit)
        if self._observations:
            hearing = {asyncio.ensure_future(observation.finish()) for observation in self._observations}
            _, late = await asyncio.wait(hearing, timeout=limit)
            for waiter in late:
                waiter.cancel()
            for observation in self._observations if late else ():
                observation.cancel()

    def record_cancelled(self, index: int, item: LLMWorkItem[Any, Any, Any], attempts: int) -> None:
        """Tell observers too."""
        super().record_cancelled(index, item, attempts)
        self._emit(ProcessingEvent.ITEM_FAILED, item_id=item.item_id, error_type="CancelledError", attempt=attempts)

    def reused(self, results: list[WorkItemResult[Any, Any]]) -> None:
        """Tell observers too."""
        for result in results if self._observations else ():
            if result.reused is None:
                kind = str(result.error).split(":", 1)[0]
                self._emit(ProcessingEvent.ITEM_FAILED, item_id=result.item_id, error_type=kind, attempt=0)
            else:
                self._emit(
                    ProcessingEvent.ITEM_REPLAYED, item_id=result.item_id, source=result.reused, success=result.success
                )
        super().reused(results)

    def let_go(self) -> None:
        """Forget everything of the user's."""
        super().let_go()
        self._observations = []
        self._watchers = []

    def _note_start(self, flight: Flight) -> None:
        self._emit(
            ProcessingEvent.ITEM_STARTED,
            item_id=flight.item.item_id,
            worker_id=flight.worker,
            attempt=flight.attempt,
        )

    def _note_end(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        if result.success or result.error is None:
            self._emit(
                ProcessingEvent.ITEM_COMPLETED,
                item_id=result.item_id,
                duration=flight.elapsed(),
                tokens=(result.token_usage or {}).get("total_tokens") or 0,
                attempt=flight.attempt,
            )
            if self._logs:
                say(
                    self._level,
                    "item_succeeded",
                    "Item %s completed: %.200r",
                    result.item_id,
                    result.output,
                    item_id=result.item_id,
                    attempt=flight.attempt,
                )
        else:
            kind = "Skipped" if result.error == SKIPPED else str(result.error).split(":", 1)[0]
            self._emit(ProcessingEvent.ITEM_FAILED, item_id=result.item_id, error_type=kind, attempt=flight.attempt)

    def _emit(self, event: ProcessingEvent, **data: Any) -> None:
        for observation in self._observations:
            observation.emit(event, dict(data))
