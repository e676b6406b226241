"""Data types of a batch, and the base class of processors."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic

from ._endings import attach, ended_by
from ._items import LLMWorkItem as LLMWorkItem
from ._items import PostProcessorFunc as PostProcessorFunc
from ._items import ProgressCallbackFunc as ProgressCallbackFunc
from ._results import BatchTermination as BatchTermination
from ._results import ProcessingStats as ProcessingStats
from ._results import Result as Result
from ._results import WorkItemResult as WorkItemResult
from ._run import Hooks, RunSettings, Timeouts
from ._secrets import quoted
from ._types import RetryState as RetryState
from ._types import TContext as TContext
from ._types import TInput as TInput
from ._types import TokenUsage as TokenUsage
from ._types import TOutput as TOutput
from .results import BatchResult as BatchResult

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._run import CaughtInterrupts, ItemPipeline, Run
    from .prices import Price

_NOBODY = object()

WORKER_CANCELLATION_TIMEOUT = 2.0
"""How long cancelled attempts may take to end, seconds."""
WORKER_SHUTDOWN_TIMEOUT = 30.0
"""Kept for importers: a finished run of this engine has no workers left to wait for."""
POST_PROCESSOR_EXECUTION_TIMEOUT = 75.0
"""Limit of one async post-processor call, seconds."""
PROGRESS_TASK_CANCELLATION_TIMEOUT = 2.0
"""How long ``cleanup()`` waits for a cancelled progress callback, seconds."""


class BatchProcessor(ABC, Generic[TInput, TOutput, TContext]):
    """Base class that accepts work items and runs them. Use :class:`~batch_llm.ParallelBatchProcessor`.

    A subclass implements :meth:`_process_item`; the engine provides the queue, workers, results, statistics and
    callbacks.

    Args:
        max_workers: Maximum items in flight.
        post_processor: Called once with every result, successful or failed, before the item counts as done. A sync
            function runs on the event loop's thread.
        max_queue_size: Maximum number of items that wait in a running batch; 0 = unbounded.
        progress_callback: Called with ``(completed, total, item_id)`` every ``progress_interval`` results and at the
            end.
        progress_callback_timeout: Timeout of a progress callback, seconds; None = none.
    """

    def __init__(
        self,
        max_workers: int = 5,
        post_processor: PostProcessorFunc[TOutput, TContext] | None = None,
        max_queue_size: int = 0,
        progress_callback: ProgressCallbackFunc | None = None,
        progress_callback_timeout: float | None = None,
    ) -> None:
        self.max_workers = max_workers
        self.post_processor = post_processor
        self.max_queue_size = max_queue_size
        self.progress_callback = progress_callback
        self.progress_callback_timeout = progress_callback_timeout
        self._queue: list[LLMWorkItem[TInput, TOutput, TContext]] = []
        self._results: list[WorkItemResult[TOutput, TContext]] = []
        self._stats = ProcessingStats()
        # The strategy whose further items need no look, if their prompts are strings: a million may follow one.
        self._vetted: object = _NOBODY
        self._termination = BatchTermination()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run: Run | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        """Open (again) and return the processor."""
        self._closed = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        """Clean up and close; exceptions pass."""
        await self.cleanup()
        self._closed = True
        return False

    async def add_work(self, work_item: LLMWorkItem[TInput, TOutput, TContext]) -> None:
        """Queue an item for the running batch, or for the next ``process_all()``.

        Waits while the queue of a running batch is full (``max_queue_size``), except when called from within that
        batch (from a post-processor, for example), where waiting would deadlock.

        Args:
            work_item: The item. It is not copied.

        Raises:
            TypeError: If it is not a work item, or its strategy or prompt cannot be used; the message names the item.
            ValueError: If its prompt is longer than ``max_prompt_length``.
            RuntimeError: If the processor is closed or belongs to another event loop.
        """
        if self._closed or self._loop is not None:
            self._check_usable()
        vetted = work_item.__class__ is LLMWorkItem and work_item.strategy is self._vetted
        if not (vetted and work_item.prompt.__class__ is str):
            self._check_item(work_item)
        run = self._present()
        if run is not None:
            self._check_admission()
            if await run.join(work_item):
                return
        self._queue.append(work_item)
        if self._stats.start_time is None:
            self._stats.total += 1

    async def process_all(self) -> BatchResult[TOutput, TContext]:
        """Run all queued items, and items added meanwhile, until every item has a result.

        Returns:
            The results in completion order (with one worker, in order of submission). A failed item does not raise.

        Raises:
            RuntimeError: If a run is active, the processor is closed, or it belongs to another event loop.
            ArtifactError: If the store or cache cannot be used. If this happens before the run, nothing is sent; during
                the run, the run ends early, and the finished results are in :meth:`partial_result`.
            asyncio.CancelledError: If the awaiting task is cancelled. Attempts in flight are cancelled.
                :meth:`partial_result` has the finished results, and a failed result for every other item.
            KeyboardInterrupt: If Ctrl-C, or a notebook's interrupt, cancelled the awaiting task.
                :func:`~batch_llm.last_interrupted` returns the same results.
            BaseException: ``SystemExit``, ``KeyboardInterrupt`` and similar exceptions from a strategy or a hook; they
                end the run in the same way. The attribute ``partial_result`` of each of these exceptions has the same
                results.
        """
        from ._run import CaughtInterrupts, Run

        self._check_usable()
        if self._present() is not None:
            raise RuntimeError(
                "process_all() is already running on this processor; await that call, or add_work() to join it"
            )
        self._loop = asyncio.get_running_loop()
        pipeline = self._pipeline()
        items, self._queue = self._queue, []
        self._results = []
        self._termination = BatchTermination()
        run = self._run = Run(pipeline, items, self._results)
        heard = CaughtInterrupts()
        try:
            await run.execute()
        except BaseException as error:
            raised = self._ended_with(error, run, heard)
            if raised is not error:
                raise raised from None
            raise
        finally:
            heard.end()
            self._run = None
            self._stats = run.stats()
            run.clear()
        return self._batch(run)

    def _ended_with(self, error: BaseException, run: Run, heard: CaughtInterrupts) -> BaseException:
        """What to raise for a run that ended with this exception; it has what was finished."""
        from ._run import interruption, remember

        # The task was cancelled by Ctrl-C; asyncio.run() would raise its own KeyboardInterrupt for that.
        is_interrupt = heard.is_so and isinstance(error, asyncio.CancelledError)
        self._termination = ended_by(KeyboardInterrupt() if is_interrupt else error, self._termination)
        batch = self._batch(run)
        attach(error, batch)
        if is_interrupt:
            kept = f"{batch.total_items - batch.not_sent:,} results are"
            raised = interruption(batch, kept, is_users_task=True, on_its_way=heard.error)
            if heard.error is None:
                heard.raised(raised)
                return raised
        elif heard.is_so:
            remember(error, batch)
        return error

    def _batch(self, run: Run) -> BatchResult[TOutput, TContext]:
        return BatchResult(
            results=list(self._results),
            termination=self._termination,
            stats=run.stats(),
            wall_time_seconds=run.elapsed(),
            prices=self._prices(),
        )

    def _prices(self) -> Mapping[str, Price] | None:
        """The user's own prices."""
        return None

    def partial_result(self) -> BatchResult[TOutput, TContext]:
        """Return the finished results of the current run, or of the last one if none is running.

        After a cancelled run, it has a result for every accepted item. Items that did not finish have an ``error`` that
        begins with ``"CancelledError"``.
        """
        return BatchResult(results=list(self._results))

    def _ends_early(self, termination: BatchTermination) -> None:
        """Record why the current run ends early."""
        self._termination = termination

    async def cleanup(self) -> None:
        """Cancel the current run and drop items queued for the next one. Idempotent.

        Items in flight get a ``CancelledError`` result; ``process_all()`` then returns. Strategies are cleaned up after
        each item, not here.
        """
        self._queue.clear()
        run = self._present()
        if run is not None:
            await run.stop()

    def _be_empty(self) -> None:
        """Have no items, and no run."""
        self._queue, self._results, self._run = [], [], None

    def _present(self) -> Run | None:
        """The current run."""
        return self._run

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError(
                "this processor is closed; create a new one, or do all work inside its 'async with' block"
            )
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "this processor belongs to the event loop of its first run and cannot be used from another one; "
                "create one processor per event loop (per asyncio.run() call, per thread)"
            )

    def _check_admission(self) -> None:
        """Raise if the current run accepts no more items."""

    def _check_item(self, item: LLMWorkItem[TInput, TOutput, TContext]) -> None:
        given: Any = item
        if type(given) is LLMWorkItem and given.strategy is not None and type(given.prompt) is str:
            return
        # Anything with the fields of a work item is one.
        if not all(hasattr(given, name) for name in ("item_id", "strategy", "prompt", "context")):
            raise TypeError(
                f"add_work() takes an LLMWorkItem, not {type(given).__name__}: "
                "LLMWorkItem(item_id=..., strategy=..., prompt=...)"
            )
        if given.strategy is None:
            raise TypeError(f"item {item.item_id!r}: strategy is None; give it an LLMCallStrategy instance")
        if isinstance(given.prompt, str):
            return
        check = getattr(given.strategy, "check_prompt", None)
        try:
            if check is None:
                raise TypeError(f"prompt must be a string, not {type(given.prompt).__name__} ({quoted(given.prompt)})")
            check(given.prompt)
        except (TypeError, ValueError) as error:
            raise type(error)(f"item {item.item_id!r}: {error}") from error

    def _pipeline(self) -> ItemPipeline:
        """Return what a run does with each item."""
        from ._pipeline import SingleCall

        hooks = self._hooks()
        settings = RunSettings(
            max_workers=self.max_workers,
            max_queue_size=self.max_queue_size,
            abandon_after=hooks.timeouts.cancellation,
        )
        return SingleCall(self._process_item, hooks, settings)

    def _hooks(self) -> Hooks:
        return Hooks(
            self.post_processor,
            self.progress_callback,
            self.progress_callback_timeout,
            Timeouts(WORKER_CANCELLATION_TIMEOUT, POST_PROCESSOR_EXECUTION_TIMEOUT, PROGRESS_TASK_CANCELLATION_TIMEOUT),
        )

    @abstractmethod
    async def _worker(self, worker_id: int) -> None:
        """Work as worker ``worker_id``. For subclasses of 0.3.0; the engine has its own workers."""

    @abstractmethod
    async def _process_item(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext]
    ) -> WorkItemResult[TOutput, TContext]:
        """Process one item."""
