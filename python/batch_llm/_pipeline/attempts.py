"""The attempts of an item with a strategy: hooks and the call. The pipeline of ``ParallelBatchProcessor``.

What follows when one of them fails is in ``_pipeline.failures``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .._core import PlainAttempts
from .._endings import ends_run
from .._lanes import BatchProgress
from .._llm import KnownStrategies, KnownStrategy
from .._results import WorkItemResult
from .._run import run_settings
from .._types import RetryState
from ..errors import LaneChange
from .caches import OpenCaches
from .conversations import Conversations
from .estimates import Limits
from .events import Events
from .failures import Failures, uncancel
from .middlewares import Middlewares, StopAttempts, skipped
from .pipeline import Pipeline
from .strategy_hooks import StrategyHooks
from .success import CLASSES, as_coroutine, check_awaitable, checked, counted, success_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from .._core import Flight, NativeClient
    from .._items import LLMWorkItem
    from .._jobs import JobRun
    from .._results import BatchTermination
    from .._run import Run, RunPlan
    from ..prices import Price
    from .lanes import Lane


class StrategyPipeline(Pipeline):
    """Attempts with strategies: the strategy's hooks and its call, middlewares, and events for observers.

    Args:
        plan: What the run is to do.
        known: What is known of its strategies.
        on_stop: Called when the run ends early.
    """

    def __init__(self, plan: RunPlan, known: KnownStrategies, on_stop: Callable[[BatchTermination], None]) -> None:
        config = plan.config
        refresh = config.progress_refresh_interval_seconds
        super().__init__(
            plan.hooks, run_settings(plan), config.progress_interval, bar=plan.progress_bar, refresh=refresh
        )
        self._known = known
        self._hooks = StrategyHooks(self, known, dry_run=config.dry_run)
        self._timeout = config.timeout_per_item
        self._dry_run = config.dry_run
        self.keeps_prompts = config.keep_prompts
        self._limits = Limits(config, known)
        self._job = None if config.dry_run else plan.job
        self._job_run: JobRun | None = None
        if plan.persistence is not None and not config.dry_run:
            from .._store import RunStore

            self.run_store = RunStore(plan.persistence, config.guardrails.prices)
        self._caches = OpenCaches()
        self._lane: Lane | None = None
        if plan.lane is not None and not config.dry_run:
            from .lanes import lane_for

            self._lane = lane_for(plan.lane, plan.persistence, config)
            self._limits.lane_of_run = self._lane
        self._cost_function = config.guardrails.cost_function
        if self._cost_function is not None or self.run_store is not None:
            self._quiet = False  # every result is looked at
        self._events = Events(plan, lambda error: self.run.fail(error))
        self._middlewares = Middlewares(self, plan.middlewares)
        self.failures = self._failures = Failures(
            self, plan, known, self._limits, self._events, self._middlewares, on_stop
        )
        self._conversations = Conversations(self, self._limits, self._failures)
        # Whether a successful result needs nothing but to be recorded (and, perhaps, its strategy's cleanup).
        self._plain = not (self._middlewares or self._events.observations or self._events.logs or self._dry_run)

    # The run's beginning and end

    def begin(self, run: Run) -> None:
        """Attach to a run."""
        super().begin(run)
        self._limits.begin(run.engine)
        run.counters.endpoints = self._limits.names
        self._failures.begin(run)
        self._plain_attempts = PlainAttempts(
            pipeline=self,
            run=run,
            timeout=self._timeout,
            classes=CLASSES,
            quiet=self._quiet,
            keep_prompts=self.keeps_prompts,
        )
        run.begin_plain = self._plain_attempts.begin
        if self._lane is not None:
            self._lane.begin(run)
        if self._job is not None:
            self._job.meet_at(self._limits.shared)
            joined = self._job.member().begin(run, self.price, self._failures.job_is_over)
            self._job_run = self._failures.job_run = joined

    def batch_started(self, total: int) -> None:
        """Send observers the start."""
        super().batch_started(total)
        self._events.run_started(total, self.run)

    async def batch_ended(self, limit: float | None = None) -> None:
        """Send observers the end, and wait until all events are delivered."""
        self._events.run_ended(self.run.stats(), self.run.elapsed())
        await super().batch_ended(limit)
        await self._caches.release()
        await self._events.finish(limit)
        if self._job_run is not None:
            await self._job_run.end(limit)

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        super().clear()
        self._events.clear()
        self._middlewares.clear()
        self._failures.clear()
        self._conversations.clear()
        self._hooks.clear()
        if self._job_run is not None:
            self._job_run.forget()
            self._job = self._job_run = None
        self._known = KnownStrategies()
        del self._plain_attempts

    # What items share

    def price(self) -> Price | None:
        """What the run's tokens cost, if they all have one price that is known."""
        return self._limits.one_price()

    @property
    def prices_are_known(self) -> bool:
        """Whether the price of every item so far is known."""
        return self._limits.prices_are_known

    def groups(self, items: Sequence[LLMWorkItem[Any, Any, Any] | None]) -> list[tuple[int, int, int]]:
        """Sort by whose limits items share."""
        if self._lane is not None:
            self._lane.check(items)
            self._lane.expect(self.expected or self.run.total)
        return self._limits.groups(items)

    def place(self, item: LLMWorkItem[Any, Any, Any]) -> tuple[int, int]:
        """Whose limits an item shares, and how soon it is to start."""
        return self._limits.queue(item.strategy), getattr(item, "priority", 0)

    async def estimate(self, items: list[tuple[int, LLMWorkItem[Any, Any, Any]]]) -> None:
        """Tell the engine what these items will use."""
        await self._limits.estimate(items)

    def start(self, flight: Flight) -> Coroutine[Any, Any, None] | None:
        """Start an attempt: most need no Python but their strategy's, native ones none at all."""
        strategy = flight.item.strategy
        known = self._known.get(strategy)
        if self._plain and known.prepared and not (known.is_native or self._limits.members.differ(strategy)):
            self._plain_attempts.remember(strategy, known.must_clean_up)
            return self._plain_attempts.retry(flight, strategy, known.must_clean_up)
        self.run.flights[flight.index] = flight
        if not (self._plain and known.prepared and known.is_native):
            return self._attempt(flight, known)
        if known.converses:
            return self._conversations.start(flight, strategy)
        return self.send(flight, strategy, flight.item.prompt)

    def is_plain(self, strategy: Any) -> bool:
        """Whether attempts with this strategy have no part that is Python's but the strategy itself."""
        return self._plain and self._known.get(strategy).prepared

    def send(self, flight: Flight, strategy: Any, prompt: Any) -> Coroutine[Any, Any, None] | None:
        """Send a native attempt; its answer comes to :meth:`answered`."""
        self.run.direct.use(strategy)
        flight.begin_execution(flight.notes)
        try:
            self.run.launch(flight, strategy, prompt)
        except BaseException as error:
            return self.failed_somehow(flight, error)
        return None

    def is_whole(self, strategy: Any) -> bool | None:
        """Whether a native success needs no parsing, no cleanup, no store and no post-processor."""
        known = self._known.get(strategy)
        if not (self._plain and known.prepared and known.is_native and strategy._fresh_key is None):
            return None
        if strategy._follower is not None:
            return None
        if known.converses:
            # What is recorded of a conversation is looked up before its first request.
            return None if self.run_store is not None else False
        follows = known.must_clean_up or self.run_store is not None or self._post_processor is not None
        if follows or self._limits.members.differ(strategy):
            return False
        if strategy._parses and self._cost_function is None:
            self._plain_attempts.read_answers_of(strategy, strategy._read)
        return not strategy._parses

    def has_heads(self, strategy: Any) -> bool:
        """Whether the provider caches what this strategy's requests begin with alike."""
        if not (self._known.get(strategy).is_native and self.client(strategy).has_heads):
            return False
        self._caches.hold(strategy._client)
        return True

    def client(self, strategy: Any, index: int | None = None) -> NativeClient:
        """What sends the requests of a native strategy; ``index``: of this item, once it has started."""
        return super().client(strategy) if self._lane is None else self._lane.client(strategy, index)

    @property
    def waits_in_batches(self) -> bool:
        """Whether requests wait for hours in batches, which stay when the run is interrupted."""
        return self._lane is not None and self._lane.waits_in_batches

    def batch_progress(self) -> BatchProgress:
        """How far the requests are that wait in batches."""
        return BatchProgress() if self._lane is None else self._lane.batch_progress()

    def sent_live(self) -> dict[str, int]:
        """How many requests were meant for batches and sent one by one, by reason."""
        return {} if self._lane is None else self._lane.sent_live()

    def interrupted(self) -> None:
        """Say what becomes of requests in batches."""
        if self._lane is not None:
            self._lane.interrupted()

    async def stored(self, is_complete: bool) -> None:
        """Let go of batches."""
        if self._lane is not None:
            await self._lane.close(is_complete)

    def take_results(self, most: int) -> int:
        """Publish results of items that started and ended without Python."""
        messages, results, last_id = self._plain_attempts.take_results(most)
        if results and last_id is not None:
            self._report(last_id, results)
        return messages

    # Called by plain attempts, which are in Rust, with attempts that started without the loop

    def take_over(self, flight: Flight, value: Any) -> None:
        """Process an answer of another strategy in the usual way."""
        self.run.flights[flight.index] = flight
        if (coroutine := self.answered(flight, value, True)) is not None:
            self.run.spawn(coroutine, flight)

    def unread(self, flight: Flight, error: BaseException) -> None:
        """Fail an attempt whose answer could not be read."""
        self.run.flights[flight.index] = flight
        self.run.spawn(self.failed_somehow(flight, error), flight)

    def answered(self, flight: Flight, value: Any, success: bool) -> Coroutine[Any, Any, None] | None:
        """Process the answer of a native attempt."""
        flight.executing = False
        if not success:
            return self.failed_somehow(flight, value)
        item = flight.item
        strategy: Any = item.strategy
        known = self._known.get(strategy)
        try:
            if known.converses and flight.conversation is None:
                self._conversations.begin(flight, strategy, item)
            answer = strategy._read(value)
        except BaseException as error:
            return self.failed_somehow(flight, error)
        if known.converses:
            return self._conversations.go_on(flight, strategy, answer)
        result = self._success(flight, item, *answer)
        if known.must_clean_up:
            return self.complete(flight, result)
        return None if self.record_result(flight, result) else self.post_process(flight, result)

    async def _attempt(self, flight: Flight, known: KnownStrategy) -> None:
        """One attempt from preparation to result, or to the decision that there will be another one.

        It contains all errors: what gets out of here is a bug, and ends the run rather than leave it waiting for
        this item.
        """
        item = work = flight.item
        strategy = item.strategy
        engine = self.run.engine
        delayed = False
        try:
            if not known.prepared and not self._dry_run:
                await self._hooks.prepare(known, strategy, flight)
                delayed = True
            if self._events.observations:
                self._events.attempt_started(flight)
            conversation: Any = flight.conversation
            if conversation is not None:
                # Middlewares have seen the item before its first round.
                work = conversation.work
                strategy = work.strategy
                known = self._known.get(strategy)
            elif self._middlewares:
                changed = await self._middlewares.before(item)
                if changed is None:
                    engine.not_sent(flight.index)
                    await self.finish(flight, skipped(item, flight.attempt))
                    return
                work = changed
                delayed = True
                if work.strategy is not strategy:
                    strategy = work.strategy
                    known = await self._hooks.take_over(flight, strategy)
            converses = known.converses and not self._dry_run
            if converses and conversation is None:
                step = self._conversations.begin(flight, strategy, work)
                if step is not None:
                    await self._conversations.resume(flight, strategy, step)
                    return
                conversation = flight.conversation
            if delayed and not engine.executing(flight.index):
                await self._wait_for_gate(flight)
            flight.begin_execution(flight.notes or RetryState())
            call: Any
            if self._dry_run:
                call = strategy.dry_run(work.prompt)
            elif known.is_native:
                prompt = work.prompt if conversation is None else conversation.prompt
                call = self._native(flight, strategy, prompt)
            else:
                call = strategy.execute(work.prompt, flight.attempt, self._timeout, flight.notes)
            check_awaitable(call, strategy, dry_run=self._dry_run)
            if self._events.watchers and not self._dry_run:
                call = self._events.watched(call, flight, strategy, work.prompt)
            answer: Any = await call
            if not flight.returned() and not self._in_time(flight):
                return
            if converses:
                await self._conversations.go_on(flight, strategy, answer)
                return
            output, usage, metadata = checked(answer, strategy, "dry_run" if self._dry_run else "execute")
            result = self._success(flight, work, output, counted(usage, flight, self.log), metadata)
        except BaseException as error:
            await self.failed_somehow(flight, error)
            return
        await self._end(flight, result)

    # Called by flights that are plain attempts, which are in Rust

    def as_coroutine(self, call: Any, strategy: Any) -> Coroutine[Any, Any, Any]:
        """Return a coroutine around what ``execute()`` returned; see :func:`.success.as_coroutine`."""
        return as_coroutine(call, strategy)

    def tell_soon(self) -> None:
        """Schedule the report of successes to the engine."""
        self.run.tell_soon()

    async def look_at(self, flight: Flight, strategy: Any, answer: Any) -> None:
        """Process an answer of an unusual shape."""
        try:
            if not flight.returned() and not self._in_time(flight):
                return
            output, usage, metadata = checked(answer, strategy, "execute")
            result = self._success(flight, flight.item, output, counted(usage, flight, self.log), metadata)
        except Exception as error:
            await self.failed_somehow(flight, error)
            return
        await self.complete(flight, result)

    async def failed_somehow(self, flight: Flight, error: BaseException) -> None:
        """Classify an attempt's exception, and do what follows."""
        flight.executing = False
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._failures.cancelled(flight, error)
            elif isinstance(error, LaneChange) and self._lane is not None:
                await self._change_lane(flight, self._lane, error)
            elif isinstance(error, StopAttempts):
                await self._failures.end_with(flight, error.error)
            elif isinstance(error, Exception):
                await self._failures.failed(flight, error)
            elif ends_run(error):
                self.break_run(error, flight)
                if not self.run.loop.is_closed():
                    await self.clean_up_after(flight)
            else:
                await self._failures.end_with(flight, error)  # an odd one ends its item
        except BaseException as failure:
            self.break_run(failure, flight)

    async def _change_lane(self, flight: Flight, lane: Lane, change: LaneChange) -> None:
        """Send an item by itself that was meant for a batch."""
        lane.changed(flight.index, change)
        flight.attempt_failed(type(change).__name__, "lane_change")
        strategy: Any = flight.item.strategy
        estimate = await self._limits.of_live(flight.item)
        rejection = self.run.engine.transfer(flight.index, self._limits.live_queue(strategy), estimate)
        if rejection is not None and rejection[0]:
            await self._failures.reject(flight, *rejection)

    def break_run(self, error: BaseException, flight: Flight | None = None) -> None:
        """End the run because of an exception that belongs to no item, wherever it was raised."""
        if flight is not None and ends_run(error):
            self.ended_by.setdefault(flight.index, error)
        self.run.fail(error)

    # Ends

    async def end_conversation(self, flight: Flight, work: Any, output: Any, usage: Any, metadata: Any) -> None:
        """Make the result of a conversation of its last answer; ``work``: what was sent."""
        result = self._success(flight, work, output, usage, metadata)
        flight.conversation.tell(result)
        await self._end(flight, result)

    async def _end(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Pass a success to the middlewares, and end its item with what they make of it."""
        try:
            if self._middlewares:
                result = await self._middlewares.after(result)
        except BaseException as error:
            await self.failed_somehow(flight, error)
            return
        await self.complete(flight, result)

    async def complete(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Clean up after an item and record its result, whatever is raised meanwhile."""
        try:
            await self.finish(flight, result)
        except BaseException as error:
            self.break_run(error, flight)

    async def finish(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Clean up after an item and record its result."""
        if flight.abandoned:
            return
        await self.clean_up_after(flight)
        if self._events.observations or self._events.logs:
            self._events.item_ended(flight, result)
        await super().finish(flight, result)

    def record_result(self, flight: Flight, result: WorkItemResult[Any, Any]) -> bool:
        """Count the cost of a success, and record it."""
        if flight.conversation is not None:
            flight.conversation.tell(result)
        self._failures.ended(flight, result)
        return super().record_result(flight, result)

    def record_cancelled(
        self, index: int, item: LLMWorkItem[Any, Any, Any], attempts: int, flight: Flight | None = None
    ) -> None:
        """Send it to observers too."""
        super().record_cancelled(index, item, attempts, flight)
        self._events.item_cancelled(item, attempts)

    def reused(self, results: list[WorkItemResult[Any, Any]]) -> None:
        """Send it to observers too."""
        self._events.reused(results)
        if self._lane is not None and any(result.success and result.reused is not None for result in results):
            self._lane.reused()
        super().reused(results)

    async def clean_up_after(self, flight: Flight) -> None:
        """Call ``cleanup()`` of the item's strategies, where that comes after each item."""
        await self._hooks.clean_up_after(flight)

    def _in_time(self, flight: Flight) -> bool:
        """Whether an answer that came out of the ordinary still counts."""
        if flight.abandoned:
            return False
        if flight.timed_out:
            uncancel()  # it came in time after all: a result is a result
        return True

    # Around the call

    async def _wait_for_gate(self, flight: Flight) -> None:
        """Wait for the end of a cooldown that started after the attempt."""
        while True:
            flight.gate = self.run.loop.create_future()
            await flight.gate
            flight.gate = None
            if self.run.engine.executing(flight.index):
                return

    async def _native(self, flight: Flight, strategy: Any, prompt: Any) -> Any:
        """The answer of a native strategy within an attempt that Python hooks want to see."""
        flight.native = self.run.loop.create_future()
        try:
            self.run.launch(flight, strategy, prompt)
            return strategy._read(await flight.native)
        finally:
            flight.native = None

    def _success(self, flight: Flight, work: Any, output: Any, usage: Any, metadata: Any = None) -> Any:
        return success_of(flight, work, (output, usage, metadata), keeps_prompt=self.keeps_prompts)
