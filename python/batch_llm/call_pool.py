"""A pool of calls for services: many callers share one strategy, its limits and its cooldowns."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal

from ._callers import ends_at_caller
from ._endings import attach, ends_run
from ._error_text import describe
from ._forks import process
from ._items import LLMWorkItem
from ._options import OF_POOLS, configured, split, strategy_with
from ._results import Result, WorkItemResult, as_result
from ._run import LiveRun
from .calls import output_of
from .core.config import ProcessorConfig
from .errors import BatchAbortedError, PoolClosedError, PoolError, PoolSaturated, SubmitTimeout
from .parallel import ParallelBatchProcessor
from .prompts import TAnswer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._options import PoolOptions
    from .prompts import Strategy

__all__ = ["LLMCallPool", "PoolStats"]


@dataclass(frozen=True)
class PoolStats:
    """The current state and counters of a pool.

    Args:
        running: Calls with an attempt in flight.
        waiting: Calls waiting for a slot, a limit, or their next attempt.
        paused_for: Remaining time of the cooldown after a rate limit, seconds.
        succeeded: Calls that succeeded so far.
        failed: Calls that failed so far.
        total_tokens: Tokens of all calls so far.
    """

    running: int = 0
    waiting: int = 0
    paused_for: float = 0.0
    succeeded: int = 0
    failed: int = 0
    total_tokens: int = 0


class _Call:
    """A caller that waits."""

    __slots__ = ("answer", "timer", "variables")

    def __init__(self, answer: asyncio.Future[Result[Any, Any]]) -> None:
        self.answer = answer
        self.variables = contextvars.copy_context()
        self.timer: asyncio.TimerHandle | None = None


class LLMCallPool(Generic[TAnswer]):
    """Answers single prompts for many callers that share one strategy, its limits and its cooldowns.

    ::

        async with LLMCallPool("openai:gpt-5-mini") as pool:
            ...  # in each request handler:
            answer = await pool.submit(prompt)

    Calls are served in FIFO order. A pool belongs to the event loop of its first call. The strategy sees the context
    variables of the caller.

    Args:
        strategy: What answers the prompts; see :func:`~batch_llm.process_prompts`.
        config: The configuration; by default, ``concurrency="auto"``.
        error_classifier: Classifies errors.
        observers: Receive the events of the pool.
        max_pending: Maximum number of waiting calls, in addition to those running, >= 0; None = unlimited.
        submit_timeout: Timeout of one call, including its wait, seconds, > 0; None = none.
        store: Where results are stored; see :class:`~batch_llm.ParallelBatchProcessor`. Each stored result is used for
            one of several identical prompts; to reuse it for all of them, use a cache.
        resume: See :class:`~batch_llm.ParallelBatchProcessor`.
        cache: Where answers are cached; see :class:`~batch_llm.ParallelBatchProcessor`.
        dedupe: Whether identical prompts share one call.
        options: With a model name, the options of :func:`~batch_llm.llm`: ``temperature``, ``response_model``, ...

    Raises:
        TypeError: If an argument has the wrong type, or an option is unknown; the message suggests the closest match.
        ValueError: If an argument is invalid.
    """

    _fails_early = False
    """A pool outlives an outage, and a key that is put right; each caller has its own error."""

    @ends_at_caller
    def __init__(
        self,
        strategy: Strategy[TAnswer],
        *,
        config: ProcessorConfig | None = None,
        max_pending: int | None = None,
        submit_timeout: float | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        of_processor, of_model = split(options, strategy, ("config", "max_pending", "submit_timeout"), OF_POOLS)
        of_processor["observers"] = list(of_processor.get("observers") or ())
        if max_pending is not None and (type(max_pending) is not int or max_pending < 0):
            raise ValueError(f"max_pending must be an integer >= 0, or None for no limit (got {max_pending!r})")
        _check_timeout("submit_timeout", submit_timeout)
        self.strategy = strategy_with(strategy, of_model)
        self._config = configured(None, "auto") if config is None else config
        self._of_processor: dict[str, Any] = of_processor
        self._most = None if max_pending is None else self._config._workers + max_pending
        self._submit_timeout = submit_timeout
        self.closed = False
        """Whether the pool accepts no more calls."""
        self._number = 0
        self._be_new()

    def _be_new(self) -> None:
        self._process = process()
        self._processor: ParallelBatchProcessor[Any, Any, Any] = ParallelBatchProcessor(
            config=copy.copy(self._config), control=False, **self._of_processor
        )
        self._calls: dict[int, _Call] = {}
        self._unfinished: list[WorkItemResult[Any, Any]] = []
        self._untold: BaseException | None = None
        self._live: LiveRun | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None

    async def submit(self, prompt: Any, *, timeout: float | None = None) -> TAnswer:
        """Answer one prompt.

        Args:
            prompt: The prompt.
            timeout: Timeout of this call, including its wait, seconds; by default ``submit_timeout``.

        Returns:
            The output.

        Raises:
            Exception: The exception of the last attempt, if the call fails.
            PoolSaturated: If more than ``max_pending`` calls are waiting.
            SubmitTimeout: If the timeout expires.
            PoolClosedError: If the pool is closed.
            LLMCallError: If the call failed without an exception.
        """
        return output_of(await self.submit_result(prompt, timeout=timeout))

    async def submit_result(self, prompt: Any, *, timeout: float | None = None) -> Result[TAnswer, Any]:
        """Answer one prompt and return its result: a failed one if the call fails, is rejected or times out.

        Args:
            prompt: The prompt.
            timeout: As for :meth:`submit`.

        Raises:
            PoolClosedError: If the pool is closed.
            ArtifactError: If the store or cache cannot be used.
            TypeError: If the strategy cannot take such a prompt.
            BaseException: ``SystemExit`` and similar exceptions from a call. The exception closes the pool, and all
                waiting calls raise it.
            asyncio.CancelledError: If the awaiting task is cancelled; the call is cancelled too.
        """
        if self._process != process():
            self._be_new()  # calls, and the run they are in, are the parent's
        live = self._live or self._begin()
        self._check_open(timeout)
        self._number += 1
        if self._most is not None and len(self._calls) >= self._most:
            problem = f"{self._most} calls are running or waiting; retry later, or raise max_pending"
            return self._failed(PoolSaturated(f"shared call pool saturated: {problem}"), self._number)
        waiting = _Call(asyncio.get_running_loop().create_future())
        item: LLMWorkItem[Any, Any, _Call] = LLMWorkItem(f"req-{self._number}", self.strategy, prompt, waiting)
        self._processor._check_item(item)
        (index,) = live.run.feed([item])
        if waiting.answer.done():  # from the store, or the cache
            return waiting.answer.result()
        self._calls[index] = waiting
        limit = timeout if timeout is not None else self._submit_timeout
        if limit is not None:
            assert self._loop is not None
            waiting.timer = self._loop.call_later(limit, self._expire, index, self._number, limit)
        try:
            return await waiting.answer
        finally:
            if self._calls.pop(index, None) is not None:
                self._cancel(index)  # the caller was cancelled
            if waiting.timer is not None:
                waiting.timer.cancel()

    async def submit_many(self, prompts: Iterable[Any], *, timeout: float | None = None) -> list[Result[TAnswer, Any]]:
        """Answer several prompts, and return their results in input order.

        Args:
            prompts: The prompts.
            timeout: Timeout for all of them together, seconds. Calls that have not finished by then have failed
                results.

        Raises:
            PoolClosedError: If the pool is closed.
            TypeError: If the strategy cannot take one of the prompts; nothing has been sent.
            asyncio.CancelledError: If the awaiting task is cancelled; the calls are cancelled too.
        """
        calls = [asyncio.ensure_future(self._submit_contained(prompt, timeout)) for prompt in prompts]
        try:
            answers = await asyncio.gather(*calls)
        except BaseException:
            for waiting in calls:
                waiting.cancel()
            raise
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _submit_contained(self, prompt: Any, timeout: float | None) -> Any:
        """The result; or, out of a task of ours, what would end the loop."""
        try:
            return await self.submit_result(prompt, timeout=timeout)
        except BaseException as error:
            if ends_run(error):
                return error
            raise

    def stats(self) -> PoolStats:
        """Return the pool's current state and counters."""
        live = self._live
        if live is None or self._process != process():
            return PoolStats()
        stats = live.stats
        counts = {"succeeded": stats.succeeded, "failed": stats.failed, "total_tokens": stats.total_tokens}
        if live.is_over or live.run.closing:
            return PoolStats(**counts)
        queued, running, retrying, pause, *_ = live.run.gauges()
        return PoolStats(running, queued + retrying, pause, **counts)

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Reject new calls, let accepted ones finish, and clean up. Idempotent.

        Args:
            timeout: Cancel the remaining calls after this time, seconds; None = wait until all have finished.

        Raises:
            BaseException: The exception that ended the pool, such as ``SystemExit`` from a strategy's ``cleanup()``,
                unless a call has already raised it.
        """
        self.closed = True
        if self._live is None or self._process != process():
            return
        if self._closing is None:
            self._live.close_input()
            self._closing = asyncio.ensure_future(self._live.ended())
        if timeout is not None:
            await asyncio.wait({self._closing}, timeout=timeout)
            if not self._closing.done():
                await self._live.stop()
        # Whoever is cancelled here leaves the closing to itself; another call can wait for it.
        await asyncio.shield(self._closing)
        untold, self._untold = self._untold, None
        if untold is not None:
            raise untold

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        await self.aclose()
        return False

    # Inside

    def _begin(self) -> LiveRun:
        if self.closed:
            raise PoolClosedError("the pool is closed; create a new one")
        self._loop = asyncio.get_running_loop()
        plan = dataclasses.replace(self._processor._plan(), outage_ends_run=False, fails_early=self._fails_early)
        live = self._live = LiveRun(plan)
        live.run.on_results = self._deliver
        live.run.give_variables(_variables_of)
        if live.run.run_store is not None:
            live.run.run_store.context_of = _no_context
        live.on_end(self._deliver_the_rest)
        return live

    def _check_open(self, timeout: float | None) -> None:
        if self.closed:
            raise PoolClosedError("the pool is closed; create a new one")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("a pool belongs to the event loop of its first call; create one for each loop")
        _check_timeout("timeout", timeout)
        assert self._live is not None
        if not self._live.run.takes_items:
            failure = self._live.failure()
            if failure is not None:
                self._untold = None
                raise failure
            raise BatchAbortedError(f"the pool accepts no more calls: {self._live.termination.reason}")

    def _failed(self, error: PoolError, number: int) -> Result[Any, Any]:
        category = error.category
        return as_result(
            WorkItemResult(f"req-{number}", False, error=describe(error), exception=error, error_category=category)
        )

    def _deliver(self) -> None:
        assert self._live is not None
        for result in self._live.take_now():
            if self._live.run.failure is not None and not result.success:
                self._unfinished.append(result)  # its caller gets what ended the run
                continue
            waiting: Any = result.context
            result.context = None
            if result.submission_index is not None:
                self._calls.pop(result.submission_index, None)
            if not waiting.answer.done():
                waiting.answer.set_result(result)

    def _deliver_the_rest(self) -> None:
        """Nobody waits for a run that is over."""
        assert self._live is not None
        self._deliver()
        ending = self._live.failure()
        failure = ending or PoolClosedError("the pool was closed before the call finished")
        if not self._calls:
            self._untold = ending
        for result in self._unfinished:
            result.context = None
        attach(failure, self._live.batch(self._unfinished))
        for waiting in list(self._calls.values()):
            if not waiting.answer.done():
                waiting.answer.set_exception(failure)

    def _expire(self, index: int, number: int, limit: float) -> None:
        waiting = self._calls.pop(index, None)
        if waiting is not None and not waiting.answer.done():
            error = SubmitTimeout(f"submit timed out: the call did not finish within {limit:g} s")
            waiting.answer.set_result(self._failed(error, number))
            self._cancel(index)

    def _cancel(self, index: int) -> None:
        assert self._live is not None
        if not (self._live.run.closing or self._live.is_over):
            self._live.run.cancel_index(index)


def _variables_of(item: LLMWorkItem[Any, Any, Any]) -> contextvars.Context:
    waiting: Any = item.context
    variables: contextvars.Context = waiting.variables
    return variables


def _no_context(item: LLMWorkItem[Any, Any, Any]) -> None:
    """Prompts of a pool have none; what looks like one is who waits."""


def _check_timeout(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
        raise ValueError(f"{name} must be > 0 seconds, or None for no limit (got {value!r})")
