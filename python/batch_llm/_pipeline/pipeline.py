"""What a run does with an item: the part that all processors share. Called by ``_run.Run`` on the loop's thread.

A pipeline starts attempts and sees each item to its result: recorded, counted, reported, post-processed. Nothing
that a user's callback raises gets past it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from .._contexts import ContextCheck
from .._endings import ends_run
from .._error_text import describe
from .._lanes import BatchProgress
from .._llm import paid_now
from .._logs import Repeated, log_event, logger
from .._progress import ProgressReporter, Ticker, display_for
from .._results import WorkItemResult, as_result
from .._run import RunSettings
from .._timeouts import TIMEOUT_ERRORS, timeout
from .._types import ProgressDisplay
from ..errors import ArtifactIOError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from .._core import Flight, NativeClient
    from .._items import LLMWorkItem
    from .._run import FailurePolicy, Hooks, Overseer, Run
    from .._store import RunStore
    from ..prices import Price


LOG_SECONDS = 1.0
"""Least time between two lines about progress in the log."""


class Pipeline:
    """Runs items to their results; a subclass defines an attempt."""

    def __init__(
        self,
        hooks: Hooks,
        settings: RunSettings,
        interval: int,
        *,
        bar: ProgressDisplay = False,
        refresh: float = 0.1,
    ) -> None:
        self.settings = settings
        self.failures: FailurePolicy | None = None
        """What follows when attempts fail or are not made; None: their items end."""
        self.run: Run
        self._timeouts = hooks.timeouts
        self._post_processor = hooks.post_processor
        self._interval = interval
        callback = hooks.progress_callback
        self._reporter: ProgressReporter | None = None
        if callback is not None:
            self._reporter = ProgressReporter(
                callback, hooks.progress_callback_timeout, hooks.timeouts.progress, lambda error: self.run.fail(error)
            )
        self._display = display_for(bar)
        self._refresh = refresh
        self._ticker: Ticker | None = None
        self.expected: int | None = None
        """How many items there will be, if that is known before they are there."""
        self._reports = self._reporter is not None or logger.isEnabledFor(logging.INFO)
        # Whether nothing is called with single results.
        self._quiet = not (self._reports or self._post_processor is not None)
        self.keeps_prompts = True
        """Whether results have their prompts."""
        self.overseer: Overseer | None = None
        """What the run is controlled by from outside, if anything."""
        self.run_store: RunStore | None = None
        """The run's store and cache, if there are any."""
        self.reused_successes = 0
        """Of the successes, those for which no call was made."""
        self.log = Repeated()
        self.ended_by: dict[int, BaseException] = {}
        """By item, what it raised that ends the run."""
        # A dict, for the garbage collector never walks through one of strings; a set it does, each time.
        self._ids: dict[str, None] | None = {}
        self._contexts = ContextCheck()
        self._last_id = ""
        self._completed = 0
        self._logged = 0.0

    # Called by the run

    def begin(self, run: Run) -> None:
        """Attach to a run; called before anything else."""
        self.run = run
        if self.run_store is not None:
            self.run_store.begin(run.attach, self.log)

    def accepted(self, items: Sequence[LLMWorkItem[Any, Any, Any] | None]) -> None:
        """Register items of the run; warn once about a duplicate id, or a circular context."""
        self._contexts.look_at(items)
        if self._ids is None:
            return
        ids = [item.item_id for item in items if item is not None]
        before = len(self._ids)
        if before:
            self._ids.update(dict.fromkeys(ids))
        else:
            self._ids = dict.fromkeys(ids)
        if len(self._ids) < before + len(ids):
            self._ids = None
            log_event(
                logging.WARNING,
                "duplicate_id",
                "Item id %r is used more than once in this run; all are processed, but their results cannot be "
                "distinguished by id (further duplicates are not reported)",
                next((item_id for item_id, times in Counter(ids).items() if times > 1), ids[0]),
            )

    def forget_ids(self) -> None:
        """Do not check for duplicate ids: an endless run would store all of them."""
        self._ids = None

    def batch_started(self, total: int) -> None:
        """Called before the first item."""
        if self._display is not None:
            self._ticker = Ticker(self.run, self._display, self._refresh, self.expected, self.price)

    def start(self, flight: Flight) -> Coroutine[Any, Any, None] | None:
        """Start an attempt: return the coroutine for its task, or None if it runs without one."""
        raise NotImplementedError

    def answered(self, flight: Flight, value: Any, success: bool) -> Coroutine[Any, Any, None] | None:
        """Process the answer of an attempt that runs without a task."""
        raise NotImplementedError

    def is_whole(self, strategy: Any) -> bool | None:
        """Whether a success with this strategy is a result without Python; None: its attempts need Python to start."""
        return None

    def has_heads(self, strategy: Any) -> bool:
        """Whether the provider caches what this strategy's requests begin with alike."""
        return False

    def client(self, strategy: Any, index: int | None = None) -> NativeClient:
        """What sends the requests of a native strategy; ``index``: of this item, once it has started."""
        client: NativeClient = strategy._client
        return client

    @property
    def waits_in_batches(self) -> bool:
        """Whether requests wait for hours in batches, which stay when the run is interrupted."""
        return False

    def batch_progress(self) -> BatchProgress:
        """How far the requests are that wait in batches."""
        return BatchProgress()

    def sent_live(self) -> dict[str, int]:
        """How many requests were meant for batches and sent one by one, by reason."""
        return {}

    def interrupted(self) -> None:
        """Called when the run is interrupted, before anything ends because of it."""

    async def stored(self, is_complete: bool) -> None:
        """Called at the end of the run, after the store; ``is_complete``: all results are in it."""

    def take_results(self, most: int) -> int:
        """Publish results of items that are counted already, ``most`` at most; return how many there were."""
        return 0

    def groups(self, items: Sequence[LLMWorkItem[Any, Any, Any] | None]) -> list[tuple[int, int, int]]:
        """Items in order of submission as ``(queue, priority, count)``."""
        return [(0, 0, len(items))] if items else []

    def place(self, item: LLMWorkItem[Any, Any, Any]) -> tuple[int, int]:
        """The queue and priority of an item that joins the run."""
        return 0, 0

    def price(self) -> Price | None:
        """What the run's tokens cost, if they all have one price that is known."""
        return None

    @property
    def prices_are_known(self) -> bool:
        """Whether the price of every item so far is known."""
        return False

    async def estimate(self, items: list[tuple[int, LLMWorkItem[Any, Any, Any]]]) -> None:
        """Tell the engine what these items will use."""

    async def batch_ended(self, limit: float | None = None) -> None:
        """Called after the last item; ``limit`` bounds the wait, seconds, if the run was cancelled."""
        if self._ticker is not None:
            self._ticker.close()
        if self._reporter is not None:
            if limit is None:
                if self._completed % self._interval:
                    self._reporter.report(self._completed, self.run.total, self._last_id)
                await self._reporter.finish()
            else:
                await self._reporter.cancel()

    def record_cancelled(
        self, index: int, item: LLMWorkItem[Any, Any, Any], attempts: int, flight: Flight | None = None
    ) -> None:
        """Record a result for an item that did not finish in a cancelled run; ``flight``: if it was in work."""
        began = "while the item was in flight" if attempts else "before the item started"
        category: str | None = "cancelled"
        error: BaseException = asyncio.CancelledError(f"the run was cancelled {began}")
        if index in self.ended_by:
            error, category = self.ended_by[index], None
        # What failed attempts, and the rounds of a conversation, have used so far.
        usage = None if flight is None else flight.usage
        result: WorkItemResult[Any, Any] = self.failure(item, error, usage or {}, attempts, category)
        result.submission_index = index
        if flight is not None and flight.conversation is not None:
            flight.conversation.tell(result)
        self.run.publish(result)
        with contextlib.suppress(RuntimeError):  # an engine that has failed counts nothing any more
            paid = None if flight is None or usage is None else paid_now(flight, usage)
            self.run.engine.record(index, False, type(error).__name__, paid)
            self.run.counters.count_not_sent(result)

    def clear(self) -> None:
        """Drop all references to the user's objects; the run is over."""
        self.run_store = self.overseer = None
        self.ended_by = {}
        self._post_processor = self._reporter = self._ticker = self._display = None

    # For subclasses

    def failure(
        self, item: LLMWorkItem[Any, Any, Any], error: BaseException, usage: Any, attempts: int, category: str | None
    ) -> WorkItemResult[Any, Any]:
        """Return a failed result with its reason."""
        words: dict[str, Any] = {}
        if isinstance(error, ProviderError):
            words = {"finish_reason": error.finish_reason, "native_finish_reason": error.native_finish_reason}
        result: WorkItemResult[Any, Any] = WorkItemResult(
            item.item_id,
            False,
            None,
            describe(error),
            item.context,
            usage,
            attempts=attempts,
            exception=error,
            error_category=category,
            metadata={name: word for name, word in words.items() if word is not None} or None,
            prompt=item.prompt if self.keeps_prompts else None,
        )
        self.run.counters.failed(error, result)
        return result

    def record_result(self, flight: Flight, result: WorkItemResult[Any, Any]) -> bool:
        """Record an item's result; whether that is all (else :meth:`post_process` is to follow)."""
        if flight.abandoned:
            return True
        result.submission_index, result.timing = flight.index, flight.timing
        if self.overseer is not None and not result.success:
            self.overseer.failed(flight.item, flight.index, result)
        if self.keeps_prompts and result.prompt is None:
            result.prompt = flight.item.prompt
        if self.run_store is not None:
            try:
                if self.run_store.keep(flight, result):
                    # It is published when the store has it; the provider is free for others now.
                    paid = paid_now(flight, result.token_usage)
                    self.run.engine.answered(flight.index, bool(result.success), paid, self.run_store.frees_workers)
                    return True
            except ArtifactIOError as error:
                self.unwritten(str(error))
        return self._publish(flight, result)

    def _publish(self, flight: Flight, result: WorkItemResult[Any, Any]) -> bool:
        """Show an item's result, and count it; whether that is all."""
        success, error = bool(result.success), result._error_name
        self.run.publish(result)
        flight.recorded = True
        self.answer_others(flight.index, result)
        paid = paid_now(flight, result.token_usage)
        if self._post_processor is None:
            self.run.finish(flight, success, error, paid)
        else:
            self.run.engine.record(flight.index, success, error, paid)
        if not success:
            self.run.counters.count_not_sent(result)
        self._report(flight.item.item_id)
        return self._post_processor is None

    # Results that are stored, or come from the store

    def written(self, count: int) -> None:
        """Publish the results that the store has now."""
        assert self.run_store is not None
        ready = self.run_store.written(count)
        if self._reports or self._post_processor is not None or self.run_store.dedupe:
            self._publish_all(ready)
        else:
            self.run.finish_all(ready)

    def unwritten(self, problem: str) -> None:
        """End the run: its results cannot be stored any more. Those that are there are published all the same."""
        assert self.run_store is not None
        if self.run_store.failure is None:
            unwritten = self.run_store.fail(problem)
            # First, or the items that they make room for would start.
            self.run.end_early(cancel=False, category="artifact_error")
            self._publish_all(unwritten)

    def _publish_all(self, ready: list[tuple[Flight, WorkItemResult[Any, Any]]]) -> None:
        for flight, result in ready:
            if not self._publish(flight, result):
                self.run.spawn(self.post_process(flight, result), flight)

    def publish_stored(self) -> None:
        """Wait for the store, and publish everything that waited for it, in a cancelled run."""
        for flight, result in self.run_store.flush() if self.run_store is not None else ():
            with contextlib.suppress(RuntimeError):  # an engine that has failed counts nothing any more
                self._publish(flight, result)

    def reused(self, results: list[WorkItemResult[Any, Any]]) -> None:
        """Publish results of items that were not sent."""
        for result in results:
            self.run.publish(result)
        if not results:
            return
        if self._post_processor is None or self.run.closing:
            self._count_reused(results)
        else:
            self.run.spawn(self._post_process_reused(results))

    async def _post_process_reused(self, results: list[WorkItemResult[Any, Any]]) -> None:
        for result in results:
            if not await self.call_post_processor(result):
                return
            self._count_reused([result])

    def _count_reused(self, results: list[WorkItemResult[Any, Any]]) -> None:
        engine = self.run.engine
        reused = [result for result in results if result.reused is not None]
        succeeded = sum(1 for result in reused if result.success)
        self.reused_successes += succeeded
        engine.record_reused(succeeded, len(reused) - succeeded)
        for result in results:
            if result.reused is None:
                engine.record_rejected(1, result._error_name or "unknown")
                self.run.counters.count_not_sent(result)
        self._report(results[-1].item_id, len(results))

    def answer_others(self, index: int, result: WorkItemResult[Any, Any]) -> None:
        """Share the result with equal requests."""
        if self.run_store is not None:
            self.reused(self.run_store.answered(index, result))

    def record_rejected(self, results: list[WorkItemResult[Any, Any]]) -> None:
        """Count items (at least one) that never started and ended for the same reason; their results are in place."""
        for result in results:
            self.run.counters.count_not_sent(result)
        self.run.engine.record_rejected(len(results), results[0]._error_name or "unknown")
        self._report(results[-1].item_id, len(results))

    async def finish(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Record an item's result, and post-process it."""
        if not self.record_result(flight, result):
            await self.post_process(flight, result)

    async def clean_up_after(self, flight: Flight) -> None:
        """Clean up after the attempts of an item."""

    @property
    def has_post_processor(self) -> bool:
        """Whether results are post-processed."""
        return self._post_processor is not None

    async def post_process(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Call the post-processor; the item is done afterwards, whatever comes of it."""
        if await self.call_post_processor(result):
            self.run.release(flight)

    async def call_post_processor(self, result: WorkItemResult[Any, Any]) -> bool:
        """Call the post-processor and contain what it raises; False: the run was cancelled meanwhile."""
        try:
            assert self._post_processor is not None
            outcome = self._post_processor(as_result(result))
            if inspect.isawaitable(outcome):
                async with timeout(self._timeouts.post_processor):
                    await outcome
        except TIMEOUT_ERRORS as error:
            problem = TimeoutError(f"it timed out (limit: {self._timeouts.post_processor:g} s)")
            problem.__cause__ = error
            self.hook_failed(result, "the post-processor", problem, logging.ERROR)
        except asyncio.CancelledError as error:
            if self.run.closing:
                return False
            self.hook_failed(result, "the post-processor", error, logging.ERROR)
        except BaseException as error:
            if ends_run(error):
                self.run.fail(error)
                return False
            self.hook_failed(result, "the post-processor", error, logging.ERROR, exc_info=error)
        return True

    def let_pass(self, error: BaseException) -> None:
        """Raise what a hook raised once more, if it is not for the hook alone: it ends the run, or the run is over."""
        if ends_run(error) or (isinstance(error, asyncio.CancelledError) and self.run.closing):
            raise error

    def hook_failed(
        self, subject: Any, hook: str, error: BaseException, level: int = logging.WARNING, **fields: Any
    ) -> None:
        """Log that something of the user's failed; ``subject``: the item or result."""
        self.log.event(
            level,
            "hook_failed",
            "Item %s: %s failed: %s",
            subject.item_id,
            hook,
            describe(error),
            item_id=subject.item_id,
            hook=hook,
            error_type=type(error).__name__,
            **fields,
        )

    def _report(self, item_id: str, count: int = 1) -> None:
        """Count results, of which this is the last, and report progress at intervals."""
        if self._reports:
            self._last_id = item_id
            before = self._completed
            self._completed = completed = before + count
            if completed // self._interval > before // self._interval:
                self._progress(completed, item_id)

    def _progress(self, processed: int, item_id: str) -> None:
        total = self.run.total
        if self._reporter is not None:
            self._reporter.report(processed, total, item_id)
        seconds = self.run.elapsed()
        if seconds - self._logged >= LOG_SECONDS and logger.isEnabledFor(logging.INFO):
            self._logged = seconds
            stats = self.run.stats()
            log_event(
                logging.INFO,
                "progress",
                "%d of %d items (%.0f%%), %d failed, %.1f items/s, %d tokens",
                processed,
                total,
                100 * processed / max(total, 1),
                stats.failed,
                processed / seconds if seconds > 0 else 0.0,
                stats.total_tokens,
                processed=processed,
                total=total,
                failed=stats.failed,
                tokens=stats.total_tokens,
            )


class SingleCall(Pipeline):
    """One call of ``_process_item`` per item: the pipeline of subclasses of ``BatchProcessor``."""

    def __init__(
        self, process: Callable[[LLMWorkItem[Any, Any, Any]], Awaitable[Any]], hooks: Hooks, settings: RunSettings
    ) -> None:
        super().__init__(hooks, settings, interval=1)
        self._process: Callable[[LLMWorkItem[Any, Any, Any]], Awaitable[Any]] | None = process

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        super().clear()
        self._process = None

    def start(self, flight: Flight) -> Coroutine[Any, Any, None] | None:
        """Begin the one attempt."""
        self.run.flights[flight.index] = flight
        return self._attempt(flight)

    async def _attempt(self, flight: Flight) -> None:
        try:
            assert self._process is not None
            result: Any = await self._process(flight.item)
            if not isinstance(result, WorkItemResult):
                raise TypeError(f"_process_item() must return a WorkItemResult, not {type(result).__name__}")
        except BaseException as error:
            if ends_run(error):
                self.ended_by[flight.index] = error
                self.run.fail(error)
            if self.run.closing or ends_run(error):
                return
            result = self.failure(flight.item, error, {}, flight.attempt, None)
        if not self.record_result(flight, result):
            await self.post_process(flight, result)
