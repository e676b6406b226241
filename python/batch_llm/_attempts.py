"""The attempts of an item with a strategy: hooks and the call. The pipeline of ``ParallelBatchProcessor``."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from dataclasses import dataclass
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ._core import PlainAttempts
from ._endings import ends_run
from ._failures import FailureHandling, StopAttempts, uncancel
from ._held_secrets import learn
from ._life import KnownStrategies, KnownStrategy
from ._results import WorkItemResult
from ._types import RetryState
from ._usage import add, counts_of, is_usage
from .errors import ERROR_MESSAGE_LIMIT
from .llm_strategies import GeminiResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ._core import Flight
    from ._items import LLMWorkItem
    from ._plan import RunPlan
    from ._results import BatchTermination
    from ._run import Run


@dataclass(frozen=True)
class _Classes:
    """What plain attempts have to know."""

    result: type = WorkItemResult
    state: type = RetryState
    coroutine: type = CoroutineType
    special: type = GeminiResponse


_CLASSES = _Classes()


class StrategyPipeline(FailureHandling):
    """Attempts with strategies, middlewares, observers, classifiers, cooldowns."""

    def __init__(self, plan: RunPlan, known: KnownStrategies, on_stop: Callable[[BatchTermination], None]) -> None:
        super().__init__(plan, known, on_stop)
        # Whether a successful result needs nothing but to be settled (and, perhaps, its strategy's cleanup).
        self._plain = not (self._middlewares or self._observations or self._logs or self._dry_run)

    # The way of an attempt

    def begin(self, run: Run) -> None:
        """Belong to a run."""
        super().begin(run)
        self._limits.begin(run.handle)
        self._guards.begin(run)
        self._plain_attempts = PlainAttempts(
            pipeline=self,
            run=run,
            timeout=self._timeout,
            classes=_CLASSES,
            quiet=self._quiet,
            keep_prompts=self.keeps_prompts,
        )
        run.begin_plain = self._plain_attempts.begin

    def let_go(self) -> None:
        """Forget everything of the user's."""
        super().let_go()
        del self._plain_attempts

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
            self._plain_attempts.remember(strategy, known.must_clean_up)
            return self._plain_attempts.again(flight, strategy, known.must_clean_up)
        self.run.flights[flight.index] = flight
        if not (self._plain and known.prepared):
            return self._attempt(flight, known)
        self.run.use_directly(strategy)
        flight.begin_execution(flight.notes)
        try:
            strategy._launch(self.run.handle, flight, flight.item.prompt)
        except BaseException as error:
            return self.failed_somehow(flight, error)
        return None

    def is_whole(self, strategy: Any) -> bool | None:
        """Whether a native success needs no parsing, no cleanup, no store and no post-processor."""
        known = self._known.get(strategy)
        if not (self._plain and known.prepared and known.is_native and strategy._fresh_key is None):
            return None
        return not (
            strategy._parses or known.must_clean_up or self.keeping is not None or self._post_processor is not None
        )

    def take_results(self, most: int) -> int:
        """Publish results of items that began and ended without Python."""
        count, last_id = self._plain_attempts.take_results(most)
        if last_id is not None:
            self._report(last_id, count)
        return count

    def answered(self, flight: Flight, value: Any, success: bool) -> Coroutine[Any, Any, None] | None:
        """Go on with the answer to a native attempt."""
        flight.executing = False
        if not success:
            return self.failed_somehow(flight, value)
        item = flight.item
        strategy: Any = item.strategy
        try:
            answer = strategy._read(value)
        except BaseException as error:
            return self.failed_somehow(flight, error)
        result = self._success(flight, item, *answer)
        if self._known.get(strategy).must_clean_up:
            return self.complete(flight, result)
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
            if self._watchers and not self._dry_run:
                call = self._watched(call, flight, strategy, work.prompt)
            answer: Any = await call
            if not flight.returned() and not self._in_time(flight):
                return
            output, usage, metadata = _checked(answer, strategy, "dry_run" if self._dry_run else "execute")
            result = self._success(flight, work, output, self._counts(flight, usage), metadata)
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
            output, usage, metadata = _checked(answer, strategy, "execute")
            result = self._success(flight, flight.item, output, self._counts(flight, usage), metadata)
        except Exception as error:
            await self.failed_somehow(flight, error)
            return
        await self.complete(flight, result)

    async def complete(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Clean up after an item and settle it, whatever is raised on the way."""
        try:
            await self._complete(flight, result)
        except BaseException as error:
            self.break_run(error, flight)

    async def failed_somehow(self, flight: Flight, error: BaseException) -> None:
        """Find out what an attempt's exception is, and do what follows."""
        flight.executing = False
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._cancelled(flight, error)
            elif isinstance(error, StopAttempts):
                await self._give_up(flight, error.error)
            elif isinstance(error, Exception):
                await self._failed(flight, error)
            elif ends_run(error):
                self.break_run(error, flight)
                if not self.run.loop.is_closed():
                    await self._clean_up_after(flight)
            else:
                await self._give_up(flight, error)  # an odd one ends its item
        except BaseException as failure:
            self.break_run(failure, flight)

    def break_run(self, error: BaseException, flight: Flight | None = None) -> None:
        """End the run because of an exception that belongs to no item, wherever it was raised."""
        if flight is not None and ends_run(error):
            self.ended_by.setdefault(flight.index, error)
        self.run.fail(error)

    def _in_time(self, flight: Flight) -> bool:
        """Whether an answer that came out of the ordinary still counts."""
        if flight.abandoned:
            return False
        if flight.timed_out:
            uncancel()  # it came in time after all: a result is a result
        return True

    # Before the call

    async def _prepare(self, known: KnownStrategy, strategy: Any, flight: Flight) -> None:
        try:
            await known.prepare(strategy)
        except BaseException as error:
            self.let_pass(error)
            learn(strategy)
            self._say_hook_failed(flight.item, f"{type(strategy).__name__}.prepare()", error, logging.ERROR)
            flight.usage = {}
            raise StopAttempts(error) from error

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
            except BaseException as error:
                self.let_pass(error)
                self._say_hook_failed(item, f"{name}.before_process()", error, logging.ERROR)
                raise StopAttempts(error) from error
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

    async def _watched(self, call: Any, flight: Flight, strategy: Any, prompt: Any) -> Any:
        """The answer, with those around it who watch attempts."""
        with contextlib.ExitStack() as stack:
            tell = [stack.enter_context(watcher.watch(flight, strategy, prompt)) for watcher in self._watchers]
            answer = await call
            for tell_one in tell:
                tell_one(answer)
        return answer

    # After the call

    def _success(self, flight: Flight, work: Any, output: Any, usage: Any, metadata: Any = None) -> Any:
        if flight.usage:
            usage = add(flight.usage, usage)
        result: WorkItemResult[Any, Any] = WorkItemResult(
            work.item_id, True, output, None, work.context, usage, None, flight.attempt, metadata=metadata
        )
        if self.keeps_prompts:
            result.prompt = work.prompt
        if type(output) is GeminiResponse:
            result.gemini_safety_ratings = output.safety_ratings
        elif metadata is not None and "safety_ratings" in metadata:
            result.gemini_safety_ratings = metadata["safety_ratings"]
        return result

    def _counts(self, flight: Flight, usage: Any) -> Any:
        """Token counts by our names: the very dict that was told where it is one, however odd its values are."""
        counts, problem = counts_of(usage)
        if problem is not None:
            self.log.say(
                logging.DEBUG,
                "usage_unusable",
                "Item %s: its answer tells unusable token counts: %s",
                flight.item.item_id,
                problem,
                item_id=flight.item.item_id,
                attempt=flight.attempt,
            )
        if isinstance(usage, dict) and all(
            usage.get(key) == value and type(usage[key]) is int for key, value in counts.items()
        ):
            return usage
        return counts

    async def _after(self, result: WorkItemResult[Any, Any]) -> WorkItemResult[Any, Any]:
        for middleware in self._reversed:
            name = type(middleware).__name__
            try:
                changed: Any = await middleware.after_process(result)
            except BaseException as error:
                self.let_pass(error)
                self._say_hook_failed(result, f"{name}.after_process()", error)
                continue
            if isinstance(changed, WorkItemResult):
                result = changed
            else:
                problem = TypeError(f"it returned {type(changed).__name__}, not a result, which is left unchanged")
                self._say_hook_failed(result, f"{name}.after_process()", problem)
        return result


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
    if usage is not None and not isinstance(usage, dict) and not is_usage(usage):
        raise TypeError(f"{name} must return its token usage as a dict (or None), not {type(usage).__name__}")
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError(f"{name} must return its metadata as a dict (or None), not {type(metadata).__name__}")
    return output, {} if usage is None else usage, metadata


def _not_async(returned: Any, strategy: Any, dry_run: bool) -> str:
    name = f"{type(strategy).__name__}.{'dry_run' if dry_run else 'execute'}()"
    return f"{name} must be async (async def); it returned {type(returned).__name__} in place of an awaitable"
