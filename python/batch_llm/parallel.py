"""The processor: runs work items in parallel, retries, and returns one result per item."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ._callers import ends_at_caller
from ._checks import check_concurrency, check_known
from ._endings import attach
from ._items import LLMWorkItem, PostProcessorFunc, ProgressCallbackFunc
from ._lanes import LaneOptions, lane_of
from ._llm import KnownStrategies, LLMCallStrategy
from ._results import BatchTermination, ProcessingStats, Result, WorkItemResult
from ._run import Hooks, LiveRun, RunPlan
from ._types import ProgressDisplay, RetryState, TContext, TInput, TokenUsage, TOutput
from .base import _NOBODY, BatchProcessor
from .core.config import ProcessorConfig, RateLimitConfig, RetryConfig
from .errors import BatchAdmissionClosedError
from .middleware.base import Middleware
from .observers.base import ProcessingEvent, ProcessorObserver
from .pools import model_without_price
from .prices import Price
from .results import BatchResult
from .strategies.errors import DefaultErrorClassifier, ErrorClassifier, ErrorInfo, FrameworkTimeoutError
from .strategies.rate_limit import ExponentialBackoffStrategy, RateLimitStrategy

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._jobs import Job
    from ._run import ItemPipeline, Overseer, Run
    from .artifacts import ArtifactStore, Persistence, ResponseCache, ResumePolicy

# The processor, and what programs written for 0.3.0 import from here.
__all__ = [
    "OBSERVER_CALLBACK_TIMEOUT",
    "POST_PROCESSOR_TIMEOUT",
    "BatchProcessor",
    "BatchResult",
    "DefaultErrorClassifier",
    "ErrorClassifier",
    "ErrorInfo",
    "ExponentialBackoffStrategy",
    "FrameworkTimeoutError",
    "LLMCallStrategy",
    "LLMWorkItem",
    "Middleware",
    "ParallelBatchProcessor",
    "PostProcessorFunc",
    "ProcessingEvent",
    "ProcessingStats",
    "ProcessorConfig",
    "ProcessorObserver",
    "ProgressCallbackFunc",
    "RateLimitConfig",
    "RateLimitStrategy",
    "RetryConfig",
    "RetryState",
    "SimpleBatchProcessor",
    "SimpleResult",
    "SimpleWorkItem",
    "TContext",
    "TInput",
    "TOutput",
    "TokenUsage",
    "WorkItemResult",
]

OBSERVER_CALLBACK_TIMEOUT = 5.0
"""Limit of one call of one observer, seconds."""
POST_PROCESSOR_TIMEOUT = 90.0
"""Kept for importers: the limit of a post-processor is ``base.POST_PROCESSOR_EXECUTION_TIMEOUT``."""


class PersistenceOptions(TypedDict, total=False):
    """Where results and answers are stored, and which are reused; see :class:`ParallelBatchProcessor`."""

    store: str | os.PathLike[str] | ArtifactStore | None
    artifact_store: str | os.PathLike[str] | ArtifactStore | None
    resume: ResumePolicy | str | None
    cache: str | os.PathLike[str] | ResponseCache | None
    dedupe: bool


class ParallelOptions(PersistenceOptions, LaneOptions, total=False):
    """What :class:`ParallelBatchProcessor` takes by name only."""

    progress_bar: ProgressDisplay
    keep_prompts: bool | None
    job: Job | None
    control: bool | str | None


_ARGUMENTS = (
    "max_workers", "post_processor", "timeout_per_item", "rate_limit_cooldown", "config", "error_classifier",
    "rate_limit_strategy", "middlewares", "observers", "progress_callback",
)  # fmt: skip


def _persistence_of(options: Mapping[str, Any]) -> Persistence | None:
    """What is stored and reused. Imports the stores only if they are used."""
    given = {name: options[name] for name in PersistenceOptions.__annotations__ if options.get(name) is not None}
    if not (given.get("dedupe") or given.keys() - {"dedupe"}):
        return None
    from .artifacts import persistence_of

    return persistence_of(**given)


def _control_of(given: Any, persistence: Persistence | None) -> Callable[[RunPlan], Overseer] | None:
    """What makes the control of a run. Imports that only if it is used."""
    has_store = persistence is not None and persistence.store is not None
    if given is False or (given is None and not has_store):
        return None
    from ._control import control_of

    return control_of(given, has_store=has_store)


class ParallelBatchProcessor(BatchProcessor[TInput, TOutput, TContext]):
    """Runs work items in parallel.

    ::

        async with ParallelBatchProcessor(config=ProcessorConfig(max_workers=50)) as processor:
            for number, prompt in enumerate(prompts):
                await processor.add_work(LLMWorkItem(str(number), strategy, prompt))
            batch = await processor.process_all()

    Args:
        max_workers: Maximum items in flight; overrides the config's. A ``ProcessorConfig`` passed here is used as
            ``config``.
        post_processor: Called once with every result, before the item counts as done; sync or async.
        timeout_per_item: Timeout of one attempt, seconds; overrides the config's.
        rate_limit_cooldown: Length of the first cooldown, seconds; overrides the config's.
        config: The configuration. It is copied; the copy is in :attr:`config`.
        error_classifier: An object with ``classify(exception)``; by default, the one that a strategy recommends,
            otherwise ``DefaultErrorClassifier()``.
        rate_limit_strategy: Decides how long cooldowns last; by default, an ``ExponentialBackoffStrategy`` from the
            config. A ``Retry-After`` replaces the default strategy's value; for any other strategy it is the minimum.
        middlewares: Hooks around each item.
        observers: Receive the events of the run.
        progress_callback: Called with ``(completed, total, item_id)``.
        store: Where results are stored: a path (``"runs/tagging.db"``, or ``.jsonl``), or a store of
            :mod:`batch_llm.artifacts`. A result is stored before it is returned, and stored results are not requested
            again. ``artifact_store`` is an alias, with which nothing is reused unless ``resume`` is set.
        resume: Which stored results are reused: ``"reuse_successes"`` (the default with ``store``), ``"reuse_all"``,
            ``"none"`` or ``"force"``; see :class:`~batch_llm.ResumePolicy`.
        cache: Where answers are cached for any later run: a path, or a :class:`~batch_llm.ResponseCache`.
        dedupe: Whether identical requests of a run share one call.
        progress_bar: The progress display. True: a bar (tqdm), in a notebook a panel; ``"auto"``: the same, but nothing
            if stderr is not a terminal; ``"tqdm"``, ``"rich"`` or ``"notebook"``: that display.
        keep_prompts: Whether results have their prompts, ``result.prompt``; overrides the config's.
        job: The job that the run belongs to; its caps, deadline and stop apply to all of its runs together. See
            :class:`~batch_llm.Job`.
        control: Whether the run can be watched and controlled from outside, by ``batch-llm status``, ``pause``, ``set``
            and so on, and by :func:`~batch_llm.attach`; a string is its name there. None: if it has a store. See the
            guide "Control".
        lane: How requests are sent. ``"live"`` (the default): one by one. ``"flex"``: one by one, in the flex tier of
            OpenAI or Gemini, at half the price. ``"batch"``: through the provider's batch API, at half the price with
            most, within minutes or hours. ``"auto"``: in batches as far as ``deadline`` allows, the rest one by one.
            All but ``"live"`` need native strategies; ``"batch"`` and ``"auto"`` also need a store. See the guide
            "Lanes".
        deadline: Seconds from the start of the run, or a timedelta; None: no deadline. With ``"batch"``: when the run
            ends; the next run collects what is still in batches. With ``"auto"``: by when all items should be answered.
            With ``"flex"``: the same; after three quarters of it, requests are sent at the full price.
        wait: With ``"batch"`` and ``"auto"``: False ends the run as soon as all requests are in batches, and it has the
            answers of earlier batches that have ended.
        batches: With ``"batch"`` and ``"auto"``: how batches are created; see :class:`~batch_llm.BatchSettings`.

    Raises:
        TypeError: If an argument has the wrong type, or an option is unknown; the message suggests the closest match.
        ValueError: If the configuration is invalid; the message names the field, the value and a remedy.
    """

    @ends_at_caller
    def __init__(
        self,
        max_workers: int | ProcessorConfig | None = None,
        post_processor: PostProcessorFunc[TOutput, TContext] | None = None,
        timeout_per_item: float | None = None,
        rate_limit_cooldown: float | None = None,
        config: ProcessorConfig | None = None,
        error_classifier: ErrorClassifier | None = None,
        rate_limit_strategy: RateLimitStrategy | None = None,
        middlewares: list[Middleware[TInput, TOutput, TContext]] | None = None,
        observers: list[ProcessorObserver] | None = None,
        progress_callback: ProgressCallbackFunc | None = None,
        **options: Unpack[ParallelOptions],
    ) -> None:
        check_known(options, (*ParallelOptions.__annotations__, *_ARGUMENTS), type(self).__name__)
        if isinstance(max_workers, ProcessorConfig):
            if config is not None:
                raise TypeError(
                    "two configurations were given: one as the first argument and one as config=; give only one of them"
                )
            config, max_workers = max_workers, None
        if config is not None and not isinstance(config, ProcessorConfig):
            raise TypeError(f"config must be a ProcessorConfig, not {type(config).__name__}")
        self.config = copy.deepcopy(config) if config is not None else ProcessorConfig(rate_limit=RateLimitConfig())
        if max_workers is not None:
            if self.config.concurrency not in (None, max_workers):
                raise ValueError(
                    f"max_workers is {max_workers} and config.concurrency is {self.config.concurrency!r}: "
                    "they are the same setting; give only one of them"
                )
            self.config.max_workers = max_workers
        if timeout_per_item is not None:
            self.config.timeout_per_item = timeout_per_item
        if rate_limit_cooldown is not None:
            self.config.rate_limit.cooldown_seconds = rate_limit_cooldown
        if (keep_prompts := options.get("keep_prompts")) is not None:
            self.config.keep_prompts = keep_prompts
        self.config.validate()
        super().__init__(
            max_workers=self.config._workers,
            post_processor=post_processor,
            max_queue_size=self.config.max_queue_size,
            progress_callback=progress_callback,
            progress_callback_timeout=self.config.progress_callback_timeout,
        )
        limits = self.config.rate_limit
        self.error_classifier: ErrorClassifier = error_classifier or DefaultErrorClassifier()
        self._has_default_classifier = error_classifier is None
        self._has_default_rate_limit_strategy = rate_limit_strategy is None
        self.rate_limit_strategy: RateLimitStrategy = rate_limit_strategy or ExponentialBackoffStrategy(
            initial_cooldown=limits.cooldown_seconds,
            max_cooldown=max(600.0, limits.cooldown_seconds),
            backoff_multiplier=limits.backoff_multiplier,
            slow_start_items=limits.slow_start_items,
            slow_start_initial_delay=limits.slow_start_initial_delay,
            slow_start_final_delay=limits.slow_start_final_delay,
        )
        self.middlewares: list[Middleware[TInput, TOutput, TContext]] = middlewares if middlewares is not None else []
        self.observers: list[ProcessorObserver] = observers if observers is not None else []
        self.progress_bar: ProgressDisplay = options.get("progress_bar", False)
        self.job: Job | None = options.get("job")
        if self.job is not None and not hasattr(self.job, "member"):
            raise TypeError(f"job must be a Job, not {type(self.job).__name__}")
        self._persistence = _persistence_of(options)
        self._lane = lane_of(options, self._persistence)
        self._control = _control_of(options.get("control"), self._persistence)
        self._known = KnownStrategies()
        self._live: LiveRun | None = None
        self._abort = asyncio.Event()

    async def get_stats(self) -> dict[str, Any]:
        """Return the counters of the current run, or of the last one.

        Returns:
            The fields of :class:`~batch_llm.ProcessingStats` as a dict. ``processed == succeeded + failed + not_sent``
            holds at any time.
        """
        run = self._present()
        return (self._stats if run is None else run.stats()).copy()

    # Streaming: items in and results out during the run

    async def start(self) -> None:
        """Start a run that accepts items until :meth:`finish`, and yields results meanwhile.

        ::

            await processor.start()
            adding = asyncio.create_task(add_everything_and_finish(processor))
            async for result in processor.results():
                ...

        In such a run, a strategy's ``cleanup()`` is called once, after its last item. With ``max_result_queue_size``,
        nothing more starts while that many results are waiting. A second call has no effect.

        Raises:
            RuntimeError: If ``process_all()`` is running, the processor is closed, or belongs to another event loop.
        """
        self._check_usable()
        if self._live is not None and self._live.is_running:
            return
        if self._run is not None:
            raise RuntimeError("process_all() is running on this processor; await it before start()")
        self._loop = asyncio.get_running_loop()
        items, self._queue = self._queue, []
        self._termination, self._abort = BatchTermination(), asyncio.Event()
        self._live = LiveRun(
            self._plan(),
            items,
            untaken=self.config.max_result_queue_size or None,
            on_stop=self._ends_early,
            on_end=self._take_stats,
        )

    def _take_stats(self, stats: ProcessingStats) -> None:
        self._stats = stats

    def _present(self) -> Run | None:
        live = self._live
        return live.run if self._run is None and live is not None and live.is_running else self._run

    async def finish(self) -> None:
        """Accept no more items. The run ends when all accepted items have a result.

        Raises:
            RuntimeError: If no run was started.
        """
        self._started().close_input()

    async def results(self) -> AsyncIterator[Result[TOutput, TContext]]:
        """Yield results as they complete, each once, until the run that :meth:`start` began has ended.

        Raises:
            RuntimeError: If no run was started.
        """
        live = self._started()
        while True:
            try:
                taken = await live.take()
            except BaseException as error:
                if error is live.failure():
                    attach(error, live.batch([]))
                raise
            if not taken:
                break
            for result in taken:
                live.delivered()
                yield result
        await live.ended()

    def _started(self) -> LiveRun:
        if self._live is None:
            raise RuntimeError("no run was started: await start() first (or process_all() for everything at once)")
        return self._live

    @property
    def termination(self) -> BatchTermination:
        """Why the current run will end early, or why the last one ended."""
        return self._termination

    @property
    def aborted(self) -> bool:
        """Whether the current run is ending early, or the last one did."""
        return self._termination.kind != "completed"

    async def wait_for_abort(self) -> BatchTermination:
        """Wait until the started run ends early, and return why. For tasks that add items."""
        self._started()
        await self._abort.wait()
        return self._termination

    def _ends_early(self, termination: BatchTermination) -> None:
        super()._ends_early(termination)
        self._abort.set()

    def _check_admission(self) -> None:
        live = self._live
        if self._run is None and live is not None and live.is_running and not live.run.is_open:
            raise BatchAdmissionClosedError(
                "the run accepts no more items: "
                + (f"{self._termination.reason}" if self.aborted else "finish() was called; start() another one")
            )

    # Controlling the current run

    def pause(self) -> None:
        """Start nothing more until :meth:`resume`; attempts in flight continue. Without a run, this has no effect."""
        if (run := self._present()) is not None:
            run.pause()

    def resume(self) -> None:
        """Resume after :meth:`pause`."""
        if (run := self._present()) is not None:
            run.resume()

    def set_concurrency(self, concurrency: int) -> None:
        """Change the concurrency of the current run; attempts in flight continue.

        Raises:
            ValueError: If the concurrency is not a positive integer.
        """
        check_concurrency(concurrency)
        if (run := self._present()) is not None:
            run.set_concurrency(concurrency)

    def cancel(self, item_id: str) -> bool:
        """Cancel an item of the current run: it gets a failed result with the category ``"cancelled"``.

        Returns:
            Whether the item was cancelled; False if it already had its result.
        """
        run = self._present()
        return run is not None and run.cancel(item_id)

    async def shutdown(self) -> None:
        """End the current run, deliver all events, clean up, and accept no more work. Idempotent."""
        await self.cleanup()
        self._closed = True

    def _check_item(self, item: LLMWorkItem[TInput, TOutput, TContext]) -> None:
        super()._check_item(item)
        limit = self.config.max_prompt_length
        if limit is not None and len(item.prompt) > limit:
            raise ValueError(
                f"item {item.item_id!r}: prompt has {len(item.prompt)} characters, max_prompt_length is {limit}; "
                "shorten it, split it, or raise the limit"
            )
        _ = self._known.get(item.strategy).scope  # raises if it cannot be named
        guardrails = self.config.guardrails
        is_capped = guardrails.max_total_cost is not None
        is_capped = is_capped or (self.job is not None and self.job.max_total_cost is not None)
        if is_capped and guardrails.cost_function is None and not self.config.dry_run:
            unpriced = model_without_price(item.strategy, guardrails.prices)
            if unpriced is not None:
                raise ValueError(
                    f"item {item.item_id!r}: max_total_cost is set, but the price of "
                    f"{unpriced!r} is "
                    "unknown; give GuardrailConfig(prices={model: Price(...)}) or a cost_function (on the command "
                    "line, leave --budget out, or use a model that `batch-llm models` lists)"
                )
        if limit is None:
            self._vetted = item.strategy

    def _prices(self) -> Mapping[str, Price] | None:
        return self.config.guardrails.prices

    def _pipeline(self) -> ItemPipeline:
        return self._plan().start(self._known, self._ends_early)

    def _plan(self) -> RunPlan:
        """What a run is to do that begins now."""
        from ._pipeline import StrategyPipeline

        self._vetted = _NOBODY
        return RunPlan(
            config=self.config,
            hooks=self._hooks(),
            middlewares=self.middlewares,
            observers=self.observers,
            error_classifier=self.error_classifier,
            uses_strategies_classifiers=self._has_default_classifier,
            rate_limit_strategy=self.rate_limit_strategy,
            has_default_rate_limit_strategy=self._has_default_rate_limit_strategy,
            pipeline=StrategyPipeline,
            persistence=self._persistence,
            progress_bar=self.progress_bar,
            job=self.job,
            lane=self._lane,
            control=self._control,
        )

    def _hooks(self) -> Hooks:
        hooks = super()._hooks()
        return dataclasses.replace(
            hooks, timeouts=dataclasses.replace(hooks.timeouts, observer=OBSERVER_CALLBACK_TIMEOUT)
        )

    async def _worker(self, worker_id: int) -> None:
        """Not used: the engine has its own workers."""

    async def _process_item(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext]
    ) -> WorkItemResult[TOutput, TContext]:
        """Process one item in a run of its own."""
        other = copy.copy(self)
        other._be_empty()
        await other.add_work(work_item)
        return (await other.process_all()).results[0]


SimpleBatchProcessor = ParallelBatchProcessor[str, TOutput, None]
"""A processor of prompts that are strings, without contexts: ``SimpleBatchProcessor[int](max_workers=5)``."""
SimpleWorkItem = LLMWorkItem[str, TOutput, None]
"""An item of such a processor."""
SimpleResult = WorkItemResult[TOutput, None]
"""A result of such a processor."""
