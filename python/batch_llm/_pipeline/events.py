"""Events of the items of one run, for observers and the log. Used by the pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from .._logs import log_event, logger
from .._progress import Outlook
from .._shown import Lines
from ..observers.base import ProcessingEvent
from .middlewares import SKIPPED
from .observer_queue import AttemptWatcher, Observation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Flight
    from .._items import LLMWorkItem
    from .._results import ProcessingStats, WorkItemResult
    from .._run import Run, RunPlan


class Events:
    """Emit events; each observer receives them beside the run, in order.

    Args:
        plan: Who observes, and how much is logged.
        fail: Called with an exception that ends the whole run.
    """

    def __init__(self, plan: RunPlan, fail: Callable[[BaseException], None]) -> None:
        config = plan.config
        # With adaptive concurrency, there are no workers to report to observers.
        self._known_workers = 0 if config.concurrency == "auto" else config._workers
        self._level = logging.INFO if config.enable_detailed_logging else logging.DEBUG
        self.logs = logger.isEnabledFor(self._level)
        """Whether each success is a line in the log."""
        limit = plan.hooks.timeouts.observer
        self.observations = [Observation(observer, limit, fail) for observer in plan.observers]
        self.watchers = [observer for observer in plan.observers if isinstance(observer, AttemptWatcher)]
        """Those who are there while an attempt is in flight."""
        self._outlook: Outlook | None = None

    def emit(self, event: ProcessingEvent, **data: Any) -> None:
        """Send an event to observers; each receives its own copy of the data."""
        for observation in self.observations:
            observation.emit(event, dict(data))

    def run_started(self, total: int, run: Run) -> None:
        """Tell them of the start of the run."""
        if self.watchers:
            self._outlook = outlook = Outlook(run)
            for watcher in self.watchers:
                watcher.follow(outlook)
        self.emit(ProcessingEvent.BATCH_STARTED, total=total)
        for worker in range(self._known_workers) if self.observations else ():
            self.emit(ProcessingEvent.WORKER_STARTED, worker_id=worker)

    def run_ended(self, stats: ProcessingStats, seconds: float) -> None:
        """Tell them of its end."""
        for worker in range(self._known_workers) if self.observations else ():
            self.emit(ProcessingEvent.WORKER_STOPPED, worker_id=worker)
        self.emit(ProcessingEvent.BATCH_COMPLETED, total=stats.total, succeeded=stats.succeeded, failed=stats.failed)
        if logger.isEnabledFor(logging.INFO):
            rate = (stats.processed - stats.not_sent) / seconds if seconds > 0 else 0.0
            unsent = f", {stats.not_sent:,} were not sent" if stats.not_sent else ""
            log_event(
                logging.INFO,
                "run_ended",
                "The run ended after %.1f s: %d of %d items succeeded%s, %.1f items/s. What limited it:\n%s",
                seconds,
                stats.succeeded,
                stats.total,
                unsent,
                rate,
                Lines(stats.explain()),
                seconds=seconds,
                total=stats.total,
                succeeded=stats.succeeded,
                failed=stats.failed,
                tokens=stats.total_tokens,
            )

    async def finish(self, limit: float | None) -> None:
        """Wait until all events are delivered, for at most ``limit`` seconds."""
        if not self.observations:
            return
        hearing = {asyncio.ensure_future(observation.finish()) for observation in self.observations}
        _, late = await asyncio.wait(hearing, timeout=limit)
        for waiter in late:
            waiter.cancel()
        for observation in self.observations if late else ():
            observation.cancel()

    def item_cancelled(self, item: LLMWorkItem[Any, Any, Any], attempts: int) -> None:
        """Tell them of an item that did not get to its end."""
        self.emit(ProcessingEvent.ITEM_FAILED, item_id=item.item_id, error_type="CancelledError", attempt=attempts)

    def reused(self, results: list[WorkItemResult[Any, Any]]) -> None:
        """Tell them of items for which no call was made."""
        for result in results if self.observations else ():
            if result.reused is None:
                kind = str(result.error).split(":", 1)[0]
                self.emit(ProcessingEvent.ITEM_FAILED, item_id=result.item_id, error_type=kind, attempt=0)
            else:
                self.emit(
                    ProcessingEvent.ITEM_REPLAYED, item_id=result.item_id, source=result.reused, success=result.success
                )

    def attempt_started(self, flight: Flight) -> None:
        """Tell them of an attempt."""
        self.emit(
            ProcessingEvent.ITEM_STARTED,
            item_id=flight.item.item_id,
            worker_id=flight.worker,
            attempt=flight.attempt,
        )

    async def watched(self, call: Any, flight: Flight, strategy: Any, prompt: Any) -> Any:
        """The answer, with those around it who watch attempts."""
        with contextlib.ExitStack() as stack:
            tell = [stack.enter_context(watcher.watch(flight, strategy, prompt)) for watcher in self.watchers]
            answer = await call
            for tell_one in tell:
                tell_one(answer)
        return answer

    def item_ended(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Tell them of a result."""
        if result.success or result.error is None:
            self.emit(
                ProcessingEvent.ITEM_COMPLETED,
                item_id=result.item_id,
                duration=flight.elapsed(),
                tokens=(result.token_usage or {}).get("total_tokens") or 0,
                attempt=flight.attempt,
            )
            if self.logs:
                log_event(
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
            self.emit(ProcessingEvent.ITEM_FAILED, item_id=result.item_id, error_type=kind, attempt=flight.attempt)

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        outlook, self._outlook = self._outlook, None
        if outlook is not None:
            for watcher in self.watchers:
                watcher.leave(outlook)
        self.observations, self.watchers = [], []
