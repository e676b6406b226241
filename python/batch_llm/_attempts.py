"""The attempts of an item with a strategy: hooks, the call, its failure. The pipeline of ``ParallelBatchProcessor``."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from dataclasses import dataclass
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from . import _messages as message
from . import parallel
from ._core import PlainAttempts
from ._guards import Guards
from ._life import STRATEGY_CLEANUP_TIMEOUT, KnownStrategies, KnownStrategy
from ._limits import Limits
from ._observing import Observation
from ._pauses import Pauses
from ._pipeline import ERROR_MESSAGE_LIMIT, Pipeline, describe
from ._run import RunSettings
from ._timeouts import timeout
from ._usage import CORRECTION, add, usage_of_failure
from .base import RetryState, WorkItemResult
from .core.guardrails import AbortMode
from .errors import GuardrailError
from .llm_strategies import GeminiResponse
from .observers.base import ProcessingEvent
from .strategies.errors import DEFAULT_RATE_LIMIT_WAIT, ErrorInfo, FrameworkTimeoutError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from ._core import Flight
    from ._run import Run
    from .base import LLMWorkItem
    from .core.config import ProcessorConfig
    from .parallel import ParallelBatchProcessor

logger = logging.getLogger("batch_llm.parallel")

SKIPPED = "Skipped by middleware"


_OVERLOADED = frozenset({"server_overload"})
_ASKED_AGAIN_AT_ONCE = frozenset({"validation_error", "structured_output_validation_error"})


@dataclass(frozen=True)
class _Classes:
    """What plain attempts have to know."""

    result: type = WorkItemResult
    state: type = RetryState
    coroutine: type = CoroutineType
    special: type = GeminiResponse


_CLASSES = _Classes()


class _StopAttempts(Exception):  # noqa: N818 - a signal, not an error
    """Carries an error that ends an item at once: a middleware failed, and must not be passed over."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class StrategyPipeline(Pipeline):
    """Attempts with strategies, middlewares, observers, classifiers, cooldowns."""

    def __init__(self, processor: ParallelBatchProcessor[Any, Any, Any], known: KnownStrategies, *, bar: bool) -> None:
        config = processor.config
        retry, guardrails, ramp = config.retry, config.guardrails, config.startup_ramp
        settings = RunSettings(
            max_workers=config._workers,
            max_queue_size=config.max_queue_size,
            attempt_timeout=None if config.dry_run else config.timeout_per_item,
            max_attempts=retry.max_attempts,
            max_rate_limit_retries=retry.max_rate_limit_retries,
            initial_wait=retry.initial_wait,
            max_wait=retry.max_wait,
            exponential_base=retry.exponential_base,
            jitter=retry.jitter,
            limits=[] if config.dry_run else config._limits(),
            burst=config.quota_burst_seconds,
            adaptive=_adaptive(config, processor._has_default_rate_limit_strategy),
            ramp=None if ramp is None else ramp._steps,
            item_timeout=guardrails.total_timeout_per_item,
            run_timeout=guardrails.batch_timeout,
            cancel_on_stop=AbortMode(guardrails.abort_mode) is AbortMode.CANCEL_ACTIVE,
            max_tokens=None if config.dry_run else guardrails.max_total_tokens,
            max_cost=None if config.dry_run else guardrails.max_total_cost,
        )
        super().__init__(processor, settings, config.progress_interval, bar=bar)
        self._timeout = config.timeout_per_item
        # With a number that is found out, there are no workers to tell observers of.
        self._known_workers = 0 if config.concurrency == "auto" else config._workers
        self._dry_run = config.dry_run
        self._level = logging.INFO if config.enable_detailed_logging else logging.DEBUG
        self._logs = logger.isEnabledFor(self._level)
        self._known = known
        self._middlewares = list(processor.middlewares)
        self._reversed = self._middlewares[::-1]
        self._classifier = processor.error_classifier
        self._limits = Limits(config, known)
        self._guards = Guards(guardrails)
        if guardrails.cost_function is not None:
            self._quiet = False  # every result is looked at
        self._pauses = Pauses(processor.rate_limit_strategy, processor._has_default_rate_limit_strategy)
        # Whether a successful result needs nothing but to be settled (and, perhaps, its strategy's cleanup).
        self._plain = not (self._middlewares or processor.observers or self._logs or self._dry_run)
        self._observations = [
            Observation(observer, lambda: parallel.OBSERVER_CALLBACK_TIMEOUT) for observer in processor.observers
        ]

    # The way of an attempt

    def begin(self, run: Run) -> None:
        """Belong to a run."""
        super().begin(run)
        self._limits.begin(run.handle)
        self._guards.begin(run)
        self._plain_attempts = PlainAttempts(
            pipeline=self,
            handle=run.handle,
            results=run.results,
            flights=run.flights,
            timeout=self._timeout,
            classes=_CLASSES,
            quiet=self._quiet,
        )

    def groups(self, items: Sequence[LLMWorkItem[Any, Any, Any] | None]) -> list[tuple[int, int, int]]:
        """Sort by whose limits items share."""
        return self._limits.groups(items)

    def place(self, item: LLMWorkItem[Any, Any, Any]) -> tuple[int, int]:
        """Whose limits an item shares, and how soon it is to start."""
        return self._limits.lane(item.strategy), getattr(item, "priority", 0)

    async def estimate(self, items: list[tuple[int, LLMWorkItem[Any, Any, Any]]]) -> None:
        """Tell the engine what these items will use."""
        await self._limits.estimate(items)

    def start(self, flight: Flight) -> Coroutine[Any, Any, None] | None:
        """Begin an attempt: most need no Python but their strategy's, native ones none at all."""
        strategy = flight.item.strategy
        known = self._known.get(strategy)
        if self._plain and known.prepared and not known.is_native:
            return flight.plain(self._plain_attempts, strategy, known.must_clean_up)
        self.run.flights[flight.index] = flight
        if not (self._plain and known.prepared):
            return self._attempt(flight, known)
        flight.begin_execution(flight.notes)
        try:
            strategy._launch(self.run.handle, flight, flight.item.prompt)
        except Exception as error:
            return self._failed(flight, error)
        return None

    def answered(self, flight: Flight, value: Any, success: bool) -> Coroutine[Any, Any, None] | None:
        """Go on with the answer to a native attempt."""
        flight.executing = False
        if not success:
            return self._failed(flight, value)
        item = flight.item
        strategy: Any = item.strategy
        try:
            answer = strategy._read(value)
        except Exception as error:
            return self._failed(flight, error)
        result = self._success(flight, item, *answer)
        if self._known.get(strategy).must_clean_up:
            return self._complete(flight, result)
        return None if self.settle(flight, result) else self.post_process(flight, result)

    async def _attempt(self, flight: Flight, known: KnownStrategy) -> None:
        """One attempt from preparation to result, or to the decision that there will be another one.

        It contains all errors: what gets out of here is a bug, and ends the run rather than leave it waiting for
        this item.
        """
        item = work = flight.item
        strategy = item.strategy
        handle = self.run.handle
        delayed = False
        try:
            if not known.prepared and not self._dry_run:
                await self._prepare(known, strategy, flight)
                delayed = True
            if self._observations:
                self._note_start(flight)
            if self._middlewares:
                changed = await self._before(item)
                if changed is None:
                    handle.not_sent(flight.index)
                    await self._skip(flight)
                    return
                work = changed
                delayed = True
                if work.strategy is not strategy:
                    strategy = work.strategy
                    known = await self._take_over(flight, strategy)
            if delayed and not handle.executing(flight.index):
                await self._wait_for_gate(flight)
            flight.begin_execution(flight.notes or RetryState())
            call: Any
            if self._dry_run:
                call = strategy.dry_run(work.prompt)
            elif known.is_native:
                call = self._native(flight, strategy, work.prompt)
            else:
                call = strategy.execute(work.prompt, flight.attempt, self._timeout, flight.notes)
            if type(call) is not CoroutineType and not isawaitable(call):
                raise TypeError(_not_async(call, strategy, self._dry_run))
            answer: Any = await call
            if not flight.returned() and not self._in_time(flight):
                return
            answer = _checked(answer, strategy, "dry_run" if self._dry_run else "execute")
            result = self._success(flight, work, *answer)
            if self._middlewares:
                result = await self._after(result)
        except BaseException as error:
            await self.failed_somehow(flight, error)
            return
        await self.complete(flight, result)

    # Called by flights that are plain attempts, which are in Rust

    def as_coroutine(self, call: Any, strategy: Any) -> Coroutine[Any, Any, Any]:
        """Wrap what ``execute()`` returned if it can be awaited; else say what is wrong."""
        if not isawaitable(call):
            raise TypeError(_not_async(call, strategy, False))
        return _await(call)

    def tell_soon(self) -> None:
        """See to it that the engine hears of successes."""
        self.run.tell_soon()

    async def look_at(self, flight: Flight, strategy: Any, answer: Any) -> None:
        """Go on with an answer that is odd in any way."""
        try:
            if not flight.returned() and not self._in_time(flight):
                return
            result = self._success(flight, flight.item, *_checked(answer, strategy, "execute"))
        except Exception as error:
            await self.failed_somehow(flight, error)
            return
        await self.complete(flight, result)

    async def complete(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Clean up after an item and settle it, whatever is raised on the way."""
        try:
            await self._complete(flight, result)
        except BaseException as error:
            self.break_run(error)

    async def failed_somehow(self, flight: Flight, error: BaseException) -> None:
        """Find out what an attempt's exception is, and do what follows."""
        flight.executing = False
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._cancelled(flight, error)
            elif isinstance(error, _StopAttempts):
                await self._give_up(flight, error.error)
            elif isinstance(error, Exception):
                await self._failed(flight, error)
            elif isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                # Meant for the program or the interpreter.
                raise error
            else:
                await self._give_up(flight, error)  # an odd one ends its item
        except BaseException as failure:
            self.break_run(failure)

    def break_run(self, error: BaseException) -> None:
        """End the run because of an error that belongs to no item."""
        if isinstance(error, GeneratorExit):
            raise error
        self.run.fail(error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error

    async def timed_out(self, flight: Flight, cause: BaseException | None = None) -> None:
        """Fail an attempt because its time is over, or its item's, or its run's."""
        limit = self.run.cut.pop(flight.index, None)
        if limit is not None:
            await self._failed(flight, self._guards.error(limit, flight.item, cause=cause))
            return
        elapsed = max(flight.elapsed(), self._timeout)
        error = FrameworkTimeoutError(
            f"Framework timeout after {elapsed:.1f}s (limit: {self._timeout}s)",
            item_id=flight.item.item_id,
            elapsed=elapsed,
            timeout_limit=self._timeout,
        )
        error.__cause__ = cause if cause is not None else TimeoutError()
        logger.error("Item %s, attempt %d: %s", flight.item.item_id, flight.attempt, error)
        await self._failed(flight, error)

    def _in_time(self, flight: Flight) -> bool:
        """Whether an answer that came out of the ordinary still counts."""
        if flight.abandoned:
            return False
        if flight.timed_out:
            _uncancel()  # it came in time after all: a result is a result
        return True

    # Before the call

    async def _prepare(self, known: KnownStrategy, strategy: Any, flight: Flight) -> None:
        try:
            await known.prepare(strategy)
        except Exception as error:
            logger.error("Item %s: its strategy could not be prepared: %s", flight.item.item_id, describe(error))
            flight.usage = {}
            raise _StopAttempts(error) from error

    async def _take_over(self, flight: Flight, strategy: Any) -> KnownStrategy:
        """Use a strategy that a middleware put in place of the item's own."""
        known = self._known.get(strategy)
        if not (known.prepared or self._dry_run):
            await self._prepare(known, strategy, flight)
        flight.used = [other for other in flight.used or () if other is not strategy] + [strategy]
        return known

    async def _before(self, item: LLMWorkItem[Any, Any, Any]) -> LLMWorkItem[Any, Any, Any] | None:
        """The item as the middlewares want it; None to skip it."""
        work: Any = copy.copy(item)
        for middleware in self._middlewares:
            name = type(middleware).__name__
            try:
                work = await middleware.before_process(work)
                if work is None:
                    return None
                if not (hasattr(work, "strategy") and hasattr(work, "prompt")):
                    raise TypeError(
                        f"{name}.before_process() must return a work item or None, not {type(work).__name__}"
                    )
            except Exception as error:
                logger.error("Item %s: %s.before_process() failed: %s", item.item_id, name, describe(error))
                raise _StopAttempts(error) from error
        return work  # type: ignore[no-any-return] # a work item, or something like one

    async def _wait_for_gate(self, flight: Flight) -> None:
        """Wait out a cooldown that has begun since the attempt was started."""
        while True:
            flight.gate = self.run.loop.create_future()
            await flight.gate
            flight.gate = None
            if self.run.handle.executing(flight.index):
                return

    async def _native(self, flight: Flight, strategy: Any, prompt: Any) -> Any:
        """The answer of a native strategy within an attempt that Python hooks want to see."""
        flight.native = self.run.loop.create_future()
        try:
            strategy._launch(self.run.handle, flight, prompt)
            return strategy._read(await flight.native)
        finally:
            flight.native = None

    # After the call

    def _success(self, flight: Flight, work: Any, output: Any, usage: Any, metadata: Any = None) -> Any:
        if flight.usage:
            usage = add(flight.usage, usage)
        result: WorkItemResult[Any, Any] = WorkItemResult(
            work.item_id, True, output, None, work.context, usage, None, flight.attempt, metadata
        )
        if type(output) is GeminiResponse:
            result.gemini_safety_ratings = output.safety_ratings
        elif metadata is not None and "safety_ratings" in metadata:
            result.gemini_safety_ratings = metadata["safety_ratings"]
        return result

    async def _after(self, result: WorkItemResult[Any, Any]) -> WorkItemResult[Any, Any]:
        for middleware in self._reversed:
            name = type(middleware).__name__
            try:
                changed: Any = await middleware.after_process(result)
            except Exception as error:
                logger.warning("Item %s: %s.after_process() failed: %s", result.item_id, name, describe(error))
                continue
            if isinstance(changed, WorkItemResult):
                result = changed
            else:
                logger.warning(
                    "Item %s: %s.after_process() returned %s, not a result; it is left unchanged",
                    result.item_id,
                    name,
                    type(changed).__name__,
                )
        return result

    async def _complete(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Clean up after an item and settle it."""
        if flight.abandoned:
            return
        if not self._dry_run:
            for strategy in (flight.item.strategy, *(flight.used or ())):
                if self._known.get(strategy).must_clean_up:
                    await self._clean_up(flight, strategy)
        if self._observations or self._logs:
            self._note_end(flight, result)
        if not self.settle(flight, result):
            await self.post_process(flight, result)

    async def _clean_up(self, flight: Flight, strategy: Any) -> None:
        try:
            async with timeout(STRATEGY_CLEANUP_TIMEOUT):
                await strategy.cleanup()
        except asyncio.CancelledError as error:
            if self.run.closing:
                raise
            logger.warning("Item %s: cleanup() was cancelled from inside: %s", flight.item.item_id, describe(error))
        except Exception as error:
            logger.warning("Item %s: cleanup() failed: %s", flight.item.item_id, describe(error))

    # Failures

    async def _cancelled(self, flight: Flight, error: asyncio.CancelledError) -> None:
        """Find out whose cancellation it is: the time-out's, the run's, or the strategy's own."""
        if flight.abandoned:
            return
        if flight.timed_out:
            _uncancel()
            await self.timed_out(flight, error)
        elif self.run.closing:
            _uncancel()
            if not self._dry_run:
                for strategy in (flight.item.strategy, *(flight.used or ())):
                    await self._clean_up(flight, strategy)
        else:
            await self._give_up(flight, error)

    async def _failed(self, flight: Flight, error: Exception) -> None:
        """Ask everybody about a failed attempt, and the engine what to do."""
        if flight.abandoned:
            return
        flight.executing = False
        item = flight.item
        strategy: Any = flight.used[-1] if flight.used else item.strategy
        _drop_own_frame(error)
        if flight.timed_out and not isinstance(error, (FrameworkTimeoutError, GuardrailError)):
            # The strategy turned its cancellation into an error of its own; the time-out is what happened.
            _uncancel()
            await self.timed_out(flight, error)
            return
        if self._known.get(strategy).hears_errors:
            try:
                await strategy.on_error(error, flight.attempt, flight.notes)
            except Exception as failure:
                logger.warning("Item %s: the strategy's on_error() failed: %s", item.item_id, describe(failure))
        try:
            usage = usage_of_failure(error)
            flight.usage = add(flight.usage, usage) or None
            self._guards.spend(flight, usage, False)
        except Exception as failure:
            logger.debug("Item %s: no token counts in %s: %s", item.item_id, describe(error), describe(failure))
        error, info = self._classify(error)
        if info.is_rate_limit:
            self._emit(ProcessingEvent.RATE_LIMIT_HIT, item_id=item.item_id, worker_id=flight.worker)
        kind, at_least, told = self._judge(error, info)
        attempt = flight.attempt
        flight.correction = getattr(error, CORRECTION, None)
        self._guards.failed(flight, error)
        again, refused = self.run.handle.failed(flight.index, kind, at_least, told, flight.usage)
        if again:
            # From here on the engine may have started the next attempt.
            logger.warning("Item %s: attempt %d failed and will be repeated: %.200s", item.item_id, attempt, error)
        elif refused is not None:
            await self.refuse(flight, refused, "")
        else:
            await self._give_up(flight, error, info.error_category)

    async def refuse(self, flight: Flight, category: str, detail: str) -> None:
        """End an item that waits for an attempt it will not get."""
        await self._give_up(flight, self._guards.error(category, flight.item, detail, flight.index), category)

    async def refuse_fresh(self, first: int, count: int, category: str, detail: str) -> None:
        """End items that never started."""
        for index in range(first, first + count):
            item = self.run.take_item(index)
            if item is None:
                continue
            estimation = self._limits.failures.pop(index, None)
            error = self._guards.error(category, item, detail, cause=estimation)
            result = self.failure(item, error, {}, 0, category)
            self.run.results.append(result)
            self._emit(ProcessingEvent.ITEM_FAILED, item_id=item.item_id, error_type=type(error).__name__, attempt=0)
            if self._post_processor is not None and not await self.call_post_processor(result):
                return
            self.settle_refused(result)
            if index % 256 == 255:
                await asyncio.sleep(0)

    def stopped(self, category: str) -> None:
        """Take note that the run ends early."""
        termination = self._guards.stopped(category)
        if self._processor is not None:
            self._processor._termination = termination
        logger.warning("The run ends early: %s", termination.reason)
        self._emit(
            ProcessingEvent.BATCH_ABORTED,
            kind=termination.kind,
            reason=termination.reason,
            error_category=termination.error_category,
            triggering_item_id=termination.triggering_item_id,
        )

    def settle(self, flight: Flight, result: WorkItemResult[Any, Any]) -> bool:
        """Count the cost of a success, and record it."""
        self._guards.ended(flight, result)
        return super().settle(flight, result)

    def _classify(self, error: Exception) -> tuple[Exception, ErrorInfo]:
        """The meaning of an error; an error of the classifier takes its place."""
        if isinstance(error, GuardrailError):
            return error, ErrorInfo(False, False, isinstance(error, TimeoutError), error.category)
        for _ in range(2):
            try:
                info = self._classifier.classify(error)
                _ = info.is_rate_limit, info.is_retryable, info.error_category
                return error, info
            except Exception as failure:
                logger.warning("The error classifier failed on %s: %s", describe(error), describe(failure))
                error = failure
        return error, ErrorInfo(False, False, False, "classifier_error")

    def _judge(self, error: Exception, info: ErrorInfo) -> tuple[int, float, bool]:
        """How the engine is to take a classified failure, the least wait in seconds, and whether the server said so."""
        if isinstance(error, GuardrailError):
            return message.CUT, 0.0, False
        wait = getattr(info, "suggested_wait", None)
        from_provider = getattr(info, "wait_is_from_provider", False)
        if not isinstance(wait, (int, float)) or not math.isfinite(wait) or wait < 0:
            wait = 0.0
        if info.is_rate_limit:
            if wait == DEFAULT_RATE_LIMIT_WAIT and not from_provider:
                wait = 0.0  # the placeholder for "the server did not say"
            return message.RATE_LIMIT, wait, bool(from_provider)
        if not info.is_retryable:
            return message.PERMANENT, 0.0, False
        if info.error_category in _ASKED_AGAIN_AT_ONCE:
            return message.RETRY_AT_ONCE, wait, False
        overloaded = info.error_category in _OVERLOADED
        return message.OVERLOADED if overloaded else message.RETRY_WITH_BACKOFF, wait, False

    async def _give_up(self, flight: Flight, error: BaseException, category: str | None = None) -> None:
        """End an item that failed: a middleware may know better, else it gets a failed result."""
        item = flight.item
        result: Any = None
        for middleware in self._middlewares if isinstance(error, Exception) else ():
            try:
                result = await middleware.on_error(item, error)  # type: ignore[arg-type] # checked in the line above
            except Exception as failure:
                name = type(middleware).__name__
                logger.warning("Item %s: %s.on_error() failed: %s", item.item_id, name, describe(failure))
                continue
            if isinstance(result, WorkItemResult):
                break
            if result is not None:
                logger.warning("Item %s: a middleware's on_error() returned no result; ignored", item.item_id)
                result = None
        if result is None:
            logger.error("Item %s failed after %d attempts: %s", item.item_id, flight.attempt, describe(error))
            usage = flight.usage
            if usage is None or (usage and not any(usage.values())):
                usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
            result = self.failure(item, error, usage, flight.attempt, category)
            self._guards.item_failed(result)
        await self._complete(flight, result)

    async def _skip(self, flight: Flight) -> None:
        item = flight.item
        result: WorkItemResult[Any, Any] = WorkItemResult(
            item.item_id, False, None, SKIPPED, item.context, attempts=flight.attempt
        )
        await self._complete(flight, result)

    # Rate limits

    async def cool_down(self, worker: int, consecutive: int, lane: int, told: bool) -> None:
        """Ask the rate limit strategy for the pause, and for the first delays after it."""
        pause = await self._pauses.pause(worker, consecutive, told)
        planned = self.run.handle.decide_cooldown(lane, pause, *self._pauses.delays(0))
        self._emit(ProcessingEvent.COOLDOWN_STARTED, worker_id=worker, duration=planned, consecutive=consecutive)
        logger.warning("Rate limit: all workers pause for %.1f s (no. %d in a row)", planned, consecutive)

    def slow_start_from(self, lane: int, number: int) -> None:
        """Tell the engine the next portion of delays."""
        self.run.handle.extend_slow_start(lane, *self._pauses.delays(number))

    def cooldown_ended(self, lasted: float) -> None:
        """Take note of the end of a pause."""
        error = {} if self._pauses.error is None else {"error": self._pauses.error}
        self._emit(ProcessingEvent.COOLDOWN_ENDED, duration=lasted, **error)
        logger.info("The pause of %.1f s is over", lasted)

    # Events

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

    def let_go(self) -> None:
        """Forget everything of the user's."""
        super().let_go()
        self._middlewares, self._reversed, self._observations = [], [], []
        self._known = KnownStrategies()

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
                logger.log(self._level, "Item %s completed: %.200r", result.item_id, result.output)
        else:
            kind = "Skipped" if result.error == SKIPPED else str(result.error).split(":", 1)[0]
            self._emit(ProcessingEvent.ITEM_FAILED, item_id=result.item_id, error_type=kind, attempt=flight.attempt)

    def _emit(self, event: ProcessingEvent, **data: Any) -> None:
        for observation in self._observations:
            observation.emit(event, dict(data))


def _adaptive(config: ProcessorConfig, default_strategy: bool) -> tuple[bool, bool]:
    """Whether the pace is found out, and whether the concurrency is: asked for by the new name of the number.

    ``max_workers`` keeps 0.3.0's pauses after rate limits, and so does a rate limit strategy of the user's own.
    """
    if config.concurrency is None or config.dry_run:
        return False, False
    return default_strategy, config.concurrency == "auto"


async def _await(call: Any) -> Any:
    return await call


def _checked(answer: Any, strategy: Any, method: str) -> tuple[Any, Any, Any]:
    """An answer in its right shape, or an error that says what came instead."""
    name = f"{type(strategy).__name__}.{method}()"
    if not isinstance(answer, (tuple, list)) or len(answer) not in (2, 3):
        what = f"a {type(answer).__name__} of {len(answer)}" if isinstance(answer, (tuple, list)) else repr(answer)
        raise TypeError(
            f"{name} must return a pair (output, token_usage), or these and metadata, not {what:.{ERROR_MESSAGE_LIMIT}}"
        )
    output, usage, metadata = answer if len(answer) == 3 else (*answer, None)
    if usage is not None and not isinstance(usage, dict):
        raise TypeError(f"{name} must return its token usage as a dict (or None), not {type(usage).__name__}")
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError(f"{name} must return its metadata as a dict (or None), not {type(metadata).__name__}")
    return output, {} if usage is None else usage, metadata


def _not_async(returned: Any, strategy: Any, dry_run: bool) -> str:
    name = f"{type(strategy).__name__}.{'dry_run' if dry_run else 'execute'}()"
    return f"{name} must be async (async def); it returned {type(returned).__name__} in place of an awaitable"


def _uncancel() -> None:
    """Take back a cancellation that has been dealt with, so that what the task awaits next is not confused by it."""
    task: Any = asyncio.current_task()
    if hasattr(task, "uncancel"):  # Python 3.11
        task.uncancel()


def _drop_own_frame(error: BaseException) -> None:
    """Cut our own frame off a traceback that results keep: it would keep the whole run alive."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        error.__traceback__ = trace.tb_next
