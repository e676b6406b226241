"""What follows when an attempt fails, or is not made: which hooks are called, what is retried, how items end.

Used by the pipeline of ``_pipeline.attempts``; ``_run.Run`` calls what ``_run.protocols.FailurePolicy`` names.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

from .._endings import FAILURES
from .._error_text import describe, short_message
from .._held_secrets import learn
from .._llm import CORRECTION, KnownStrategies, add, usage_of_failure
from .._logs import log_event, logger
from .._report import until
from .._results import WorkItemResult, cause_of
from .._run import messages as message
from ..errors import (
    BatchInterruptedError,
    GuardrailError,
    InBatchError,
    ItemCancelledError,
    ProviderResponseError,
)
from ..observers.base import ProcessingEvent
from ..strategies.errors import DEFAULT_RATE_LIMIT_WAIT, ErrorInfo, FrameworkTimeoutError
from .cooldown import Pauses
from .fail_early import FailEarly
from .guardrails import Guards
from .outages import Outages, sign_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Flight
    from .._jobs import JobRun
    from .._results import BatchTermination
    from .._run import Run, RunPlan
    from ..strategies.errors import ErrorClassifier
    from .estimates import Limits
    from .events import Events
    from .middlewares import Middlewares
    from .pipeline import Pipeline


ENDED_AT_ONCE = 256
"""Items that are ended before the loop may do something else."""
_OVERLOADED = frozenset({"server_overload"})
_RETRIED_AT_ONCE = frozenset({"validation_error", "structured_output_validation_error"})


class Failures:
    """Failed attempts, rejected items, rate limits and outages of one run.

    Args:
        pipeline: Sees items to their results.
        plan: What the run is to do.
        known: What is known of its strategies.
        limits: Which limits items share.
        events: Hears of what happens.
        middlewares: May know better than a failure.
        on_stop: Called when the run ends early.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        plan: RunPlan,
        known: KnownStrategies,
        limits: Limits,
        events: Events,
        middlewares: Middlewares,
        on_stop: Callable[[BatchTermination], None],
    ) -> None:
        config = plan.config
        self._pipeline, self._known, self._limits, self._events = pipeline, known, limits, events
        self._middlewares = middlewares
        self.run: Run
        self._on_stop: Callable[[BatchTermination], None] | None = on_stop
        self._timeout = config.timeout_per_item
        self._classifier = plan.error_classifier
        self._uses_strategies_classifiers = plan.uses_strategies_classifiers
        self._outages = Outages(plan.persistence is not None and not config.dry_run)
        self._early = FailEarly(
            enabled=config.guardrails.fail_early and plan.fails_early and not config.dry_run,
            turned_off_by=config.guardrails._fail_early_off,
        )
        job = None if config.dry_run else plan.job
        self._guards = Guards(config.guardrails, self._outages, self._early, job, config.interrupt_grace_seconds)
        self._max_server_wait = config.retry.max_server_wait
        self._workers = config._workers
        self._pauses = Pauses(plan.rate_limit_strategy, plan.has_default_rate_limit_strategy)

    def begin(self, run: Run) -> None:
        """Attach to a run."""
        self.run = run
        self._guards.begin(run)

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        self._on_stop = None
        self._known = KnownStrategies()
        self._outages.clear()

    @property
    def job_run(self) -> JobRun | None:
        """The run, as its job knows it."""
        return self._guards.job_run

    @job_run.setter
    def job_run(self, job_run: JobRun) -> None:
        self._guards.job_run = job_run

    def job_is_over(self, category: str) -> None:
        """End the run, because its job is over; ``category``: why."""
        self._guards.job_is_over(category)

    def ended(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Record what an item cost, and forget its failures."""
        self._limits.members.book(flight, result, self.run.engine)
        self._guards.ended(flight, result)
        self._outages.ended(flight.index)

    async def timed_out(self, flight: Flight, cause: BaseException | None = None) -> None:
        """Fail an attempt because its time is over, or its item's, or its run's."""
        limit = self.run.cut.pop(flight.index, None)
        if limit is not None:
            await self.failed(flight, self._guards.error(limit, flight.item, cause=cause))
            return
        elapsed = max(flight.elapsed() - self.run.waits.pop(flight.index, 0.0), self._timeout)
        error = FrameworkTimeoutError(
            f"Framework timeout after {elapsed:.1f}s (limit: {self._timeout}s)",
            item_id=flight.item.item_id,
            elapsed=elapsed,
            timeout_limit=self._timeout,
        )
        error.__cause__ = cause if cause is not None else TimeoutError()
        self._pipeline.log.event(
            logging.INFO,  # that it is retried, or that its item has failed, is logged at another level
            "attempt_timed_out",
            "Item %s, attempt %d: %s",
            flight.item.item_id,
            flight.attempt,
            error,
            item_id=flight.item.item_id,
            attempt=flight.attempt,
            seconds=elapsed,
        )
        await self.failed(flight, error)

    # Failures

    async def cancelled(self, flight: Flight, error: asyncio.CancelledError) -> None:
        """Find out whose cancellation it is: the timeout's, the run's, or the strategy's own."""
        if flight.abandoned:
            return
        if flight.timed_out:
            uncancel()
            await self.timed_out(flight, error)
        elif self.run.closing:
            uncancel()
            await self._pipeline.clean_up_after(flight)
        else:
            await self.end_with(flight, error)

    async def failed(self, flight: Flight, error: Exception) -> None:
        """Call the hooks for a failed attempt, and let the engine decide what follows."""
        if flight.abandoned:
            return
        flight.executing = False
        item = flight.item
        strategy: Any = flight.used[-1] if flight.used else item.strategy
        drop_own_frames(error)
        learn(strategy)
        if flight.timed_out and not isinstance(error, (FrameworkTimeoutError, GuardrailError)):
            # The strategy turned its cancellation into an error of its own; the timeout is what happened.
            uncancel()
            await self.timed_out(flight, error)
            return
        if self._known.get(strategy).hears_errors:
            try:
                await strategy.on_error(error, flight.attempt, flight.notes)
            except BaseException as failure:
                self._pipeline.let_pass(failure)
                self._pipeline.hook_failed(item, "the strategy's on_error()", failure)
        usage: Any = None
        try:
            usage = usage_of_failure(error)
            flight.usage = add(flight.usage, usage) or None
            self._guards.spend(flight, usage, False)
        except Exception as failure:
            logger.debug("Item %s: no token counts in %s: %s", item.item_id, describe(error), describe(failure))
        error, info = self._classify(error, strategy)
        if info.is_rate_limit:
            self._events.emit(ProcessingEvent.RATE_LIMIT_HIT, item_id=item.item_id, worker_id=flight.worker)
        if self._pipeline.run_store is not None:
            self._pipeline.run_store.attempt_failed(flight, usage, info.error_category)
        kind, at_least, set_by_server = self._judge(error, info)
        if isinstance(error, ProviderResponseError):
            # The provider was paid for it; another reply that cannot be read is likely to follow.
            if flight.unreadable and kind == message.RETRY_WITH_BACKOFF:
                kind = message.PERMANENT
            flight.unreadable = True
        sign = sign_of(error, info)
        if sign >= message.AWAY:
            self._outages.lost(flight.index, error, info.error_category, self._limits.queue(item.strategy), strategy)
        together = 1
        if sign >= message.AWAY and self._known.get(strategy).is_native:
            together = min(getattr(strategy, "_pack", 1), self._workers)
        if kind == message.PERMANENT and self._early.undecided and not self._guards.is_fatal(info.error_category):
            await self._early.failed(item, strategy, error, info)
            if self.run.closing:
                return
        attempt = flight.attempt
        flight.correction = getattr(error, CORRECTION, None)
        self._guards.failed(flight, error)
        flight.attempt_failed(type(error).__name__, info.error_category, short_message(error))
        again, rejection = self.run.engine.failed(
            flight.index, kind, at_least, set_by_server, flight.usage, sign, together
        )
        if again:
            # From here on the engine may have started the next attempt.
            self._pipeline.log.event(
                logging.WARNING,
                "attempt_failed",
                "Item %s: attempt %d failed and will be retried: %.200s",
                item.item_id,
                attempt,
                error,
                item_id=item.item_id,
                attempt=attempt,
                error_type=type(error).__name__,
                error_category=info.error_category,
            )
        elif rejection is not None:
            await self.reject(flight, rejection, "")
        else:
            await self.end_with(flight, error, info.error_category)

    async def reject(self, flight: Flight, category: str, detail: str) -> None:
        """End an item that waits for an attempt it will not get."""
        lost = self._outages.error_of(flight.index)
        cause = None if lost is None else lost[0]
        error = self._guards.error(category, flight.item, detail, flight.index, cause, self._queue_of(flight.item))
        await self.end_with(flight, error, category)

    async def fail_waiting(self, flight: Flight) -> None:
        """End an item whose last attempt has failed for good, which was not certain before."""
        lost = self._outages.error_of(flight.index)
        assert lost is not None  # it waited because of that
        await self.end_with(flight, *lost)

    def _queue_of(self, item: Any) -> int:
        return self._limits.queue(item.strategy)

    async def reject_new(self, first: int, count: int, category: str, detail: str) -> None:
        """End items that never started."""
        for begin in range(first, first + count, ENDED_AT_ONCE):
            if begin > first:
                await asyncio.sleep(0)
            ended = []
            for index in range(begin, min(begin + ENDED_AT_ONCE, first + count)):
                item = self.run.waiting.take(index)
                if item is not None:
                    ended.append(self._ended(index, item, category, detail))
            self.run.publish_all(ended)
            for result in ended:
                self._pipeline.answer_others(result.submission_index or 0, result)
                if self._pipeline.has_post_processor and not await self._pipeline.call_post_processor(result):
                    return
            if ended:
                self._pipeline.record_rejected(ended)

    def _ended(self, index: int, item: Any, category: str, detail: str) -> WorkItemResult[Any, Any]:
        estimation = self._limits.failures.pop(index, None)
        error = self._guards.error(category, item, detail, cause=estimation, queue=self._queue_of(item))
        result = self._pipeline.failure(item, error, {}, 0, category)
        result.submission_index = index
        if self._events.observations:
            set_by_server = {"item_id": item.item_id, "error_type": type(error).__name__, "attempt": 0}
            self._events.emit(ProcessingEvent.ITEM_FAILED, **set_by_server, not_sent=result.not_sent)
        return result

    def stopped(self, category: str) -> None:
        """Record that the run ends early."""
        self._early.stopped()
        termination = self._guards.stopped(category)
        self.run.counters.ends_early(termination)
        if self._on_stop is not None:
            self._on_stop(termination)
        log_event(
            logging.WARNING,
            "run_ends_early",
            "The run ends early: %s",
            termination.reason,
            termination=termination.kind,
            error_category=termination.error_category,
            item_id=termination.triggering_item_id,
        )
        self._events.emit(
            ProcessingEvent.BATCH_ABORTED,
            kind=termination.kind,
            reason=termination.reason,
            error_category=termination.error_category,
            triggering_item_id=termination.triggering_item_id,
        )

    def _classify(self, error: Exception, strategy: Any) -> tuple[Exception, ErrorInfo]:
        """The meaning of an error; an error of the classifier takes its place."""
        classifier: ErrorClassifier = self._classifier
        if self._uses_strategies_classifiers:
            classifier = self._known.get(strategy).classifier or classifier
        if isinstance(error, GuardrailError):
            return error, ErrorInfo(False, False, isinstance(error, TimeoutError), error.category)
        for _ in range(2):
            try:
                info = classifier.classify(error)
                _ = info.is_rate_limit, info.is_retryable, info.error_category
                return error, info
            except FAILURES as raised:
                failure = raised if isinstance(raised, Exception) else RuntimeError(describe(raised))
                self._pipeline.log.event(
                    logging.WARNING,
                    "hook_failed",
                    "The error classifier failed on %s: %s",
                    describe(error),
                    describe(failure),
                    hook="classify",
                    error_type=type(failure).__name__,
                )
                error = failure
        return error, ErrorInfo(False, False, False, "classifier_error")

    def _judge(self, error: Exception, info: ErrorInfo) -> tuple[int, float, bool]:
        """Return a failure's kind for the engine, the minimum wait in seconds, and whether the server set it."""
        if isinstance(error, GuardrailError):
            return message.CUT, 0.0, False
        wait = getattr(info, "suggested_wait", None)
        from_provider = getattr(info, "wait_is_from_provider", False)
        if not isinstance(wait, (int, float)) or not math.isfinite(wait) or wait < 0:
            wait = 0.0
        if from_provider and wait > self._max_server_wait and (info.is_rate_limit or info.is_retryable):
            _add(
                error,
                f"the server requested a wait of {wait:,.0f} s, longer than RetryConfig.max_server_wait "
                f"({self._max_server_wait:,g} s)",
            )
            return message.PERMANENT, 0.0, False
        if info.is_rate_limit:
            if wait == DEFAULT_RATE_LIMIT_WAIT and not from_provider:
                wait = 0.0  # the placeholder for a missing Retry-After
            return message.RATE_LIMIT, wait, bool(from_provider)
        if not info.is_retryable:
            return message.PERMANENT, 0.0, False
        if info.error_category in _RETRIED_AT_ONCE:
            return message.RETRY_AT_ONCE, wait, False
        overloaded = info.error_category in _OVERLOADED
        return message.OVERLOADED if overloaded else message.RETRY_WITH_BACKOFF, wait, False

    async def end_with(self, flight: Flight, error: BaseException, category: str | None = None) -> None:
        """End an item that failed: a middleware may know better, else it gets a failed result."""
        item = flight.item
        result: Any = None
        if isinstance(error, Exception):
            result = await self._middlewares.on_error(item, error)
        if result is None:
            # What the user has ended is no news.
            is_news = not isinstance(error, (BatchInterruptedError, InBatchError, ItemCancelledError))
            level = logging.ERROR if is_news else logging.DEBUG
            self._pipeline.log.event(
                level,
                "item_failed",
                "Item %s failed after attempt %d: %s",
                item.item_id,
                flight.attempt,
                describe(error),
                item_id=item.item_id,
                attempt=flight.attempt,
                error_type=type(error).__name__,
                error_category=category or type(error).__name__,
            )
            usage = flight.usage
            if usage is None or (usage and not any(usage.values())):
                usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
            result = self._pipeline.failure(item, error, usage, flight.attempt, category)
            self._guards.item_failed(result)
        await self._pipeline.finish(flight, result)

    # Rate limits

    async def cool_down(self, worker: int, consecutive: int, queue: int, set_by_server: bool) -> None:
        """Get the cooldown, and the first delays after it, from the rate limit strategy."""
        pause = await self._pauses.pause(worker, consecutive, set_by_server)
        planned = self.run.engine.decide_cooldown(queue, pause, *self._pauses.delays(0))
        self._events.emit(ProcessingEvent.COOLDOWN_STARTED, worker_id=worker, duration=planned, consecutive=consecutive)
        log_event(
            logging.WARNING,
            "cooldown_started",
            "Rate limit: all workers pause for %.1f s (consecutive cooldown %d)",
            planned,
            consecutive,
            seconds=planned,
            consecutive=consecutive,
        )

    def slow_start_from(self, queue: int, number: int) -> None:
        """Send the engine the next portion of delays."""
        self.run.engine.extend_slow_start(queue, *self._pauses.delays(number))

    # Outages and stalls

    def outage_began(self, queue: int, since: float, patience: float) -> None:
        """Record that an outage has started."""
        self._outages.begins(queue, since, patience)

    def outage_ended(self, queue: int, lasted: float) -> None:
        """Record that an outage is over."""
        self._outages.ends(queue, lasted)

    def board_changed(self, problem: str | None) -> None:
        """Log that shared limits are renewed no more, or again: once, however many scopes there are."""
        self._outages.board_changed(problem)

    def stands_still(self, bound: str, left: float | None) -> None:
        """Log why the run is stalled."""
        self._pipeline.log.event(
            logging.WARNING,
            "standstill",
            "The run is stalled %s: %s",
            until(left),
            cause_of(bound),
            bound=bound,
            seconds=left,
        )

    def cooldown_ended(self, lasted: float) -> None:
        """Record the end of a cooldown."""
        error = {} if self._pauses.error is None else {"error": self._pauses.error}
        self._events.emit(ProcessingEvent.COOLDOWN_ENDED, duration=lasted, **error)
        log_event(logging.INFO, "cooldown_ended", "The cooldown of %.1f s is over", lasted, seconds=lasted)


def uncancel() -> None:
    """Undo a cancellation that has been handled, so that the task's next await is not affected by it."""
    task: Any = asyncio.current_task()
    if hasattr(task, "uncancel"):  # Python 3.11
        task.uncancel()


def _add(error: Exception, text: str) -> None:
    """Add to an error's message, if its text can be changed."""
    if len(error.args) == 1 and isinstance(error.args[0], str) and str(error) == error.args[0]:
        error.args = (f"{error.args[0]} ({text})",)


def drop_own_frames(error: BaseException) -> None:
    """Remove our own frames from a traceback in a result: they would keep the whole run alive."""
    trace = error.__traceback__
    while (
        trace is not None and trace.tb_next is not None and trace.tb_frame.f_globals.get("__package__") == __package__
    ):
        trace = trace.tb_next
    error.__traceback__ = trace
