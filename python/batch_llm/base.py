"""Data types of a batch, and the base class of processors."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._endings import attach, ended_by
from ._pickles import copied, portable
from ._secrets import quoted
from .results import BatchResult as BatchResult
from .results import BatchTermination as BatchTermination
from .results import ProcessingStats as ProcessingStats
from .results import Result as Result
from .results import TContext as TContext
from .results import TokenUsage as TokenUsage
from .results import TOutput as TOutput
from .results import WorkItemResult as WorkItemResult

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._run import Run
    from .llm_strategies import LLMCallStrategy
    from .prices import Price

TInput = TypeVar("TInput")

_NOBODY = object()
_GIVEN_AS = frozenset({FunctionType, MethodType, str})
"""What stands for a strategy: a function, or a model's name."""

WORKER_CANCELLATION_TIMEOUT = 2.0
"""How long cancelled attempts may take to end, seconds."""
WORKER_SHUTDOWN_TIMEOUT = 30.0
"""Kept for importers: a finished run of this engine has no workers left to wait for."""
POST_PROCESSOR_EXECUTION_TIMEOUT = 75.0
"""Limit of one async post-processor call, seconds."""
PROGRESS_TASK_CANCELLATION_TIMEOUT = 2.0
"""How long ``cleanup()`` waits for a cancelled progress callback, seconds."""


@dataclass
class RetryState:
    """Notes that a strategy keeps from one attempt of an item to the next.

    One fresh instance per work item, given to ``execute()`` and ``on_error()`` of all its attempts; never shared
    between items. ``data`` may be read and written directly.
    """

    data: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        # The engine makes states without calling __init__, for most are never looked into.
        if name == "data":
            data: dict[str, Any] = {}
            self.data = data
            return data
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under ``key``, else ``default``."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Store any object under ``key``."""
        self.data[key] = value

    def delete(self, key: str, raise_if_missing: bool = False) -> None:
        """Forget ``key``.

        Raises:
            KeyError: When there is no such key and ``raise_if_missing`` is set.
        """
        if raise_if_missing:
            del self.data[key]
        else:
            self.data.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self.data.clear()

    def __contains__(self, key: str) -> bool:
        """Whether there is a value under ``key``."""
        return key in self.data

    def __repr__(self) -> str:
        return f"RetryState({self.data!r})"


@dataclass
class LLMWorkItem(Generic[TInput, TOutput, TContext]):
    """One prompt to be answered.

    Args:
        item_id: Names the item in results, events and logs; a non-empty string. Ids need not be unique, but results
            can only be told apart by them.
        strategy: How the prompt is answered. Share one instance between items: it is prepared once per instance. A
            function of a prompt, or a model's name (``"openai:gpt-5-mini"``), is made a strategy.
        prompt: The prompt; a string, or with native strategies also a list of texts and media, or of messages.
        context: Anything; comes back in the result, by reference.
        sample: Tells apart items that ask the same and shall have answers of their own, where equal requests share
            one (``dedupe=True``): 0, 1, 2, ...
        priority: Items of a higher priority start first; equal ones in order of submission.

    Raises:
        ValueError: When ``item_id`` is not a string, empty, or only whitespace; or ``priority`` or ``sample`` is no
            integer.
        TypeError: When ``strategy`` is None.
    """

    item_id: str
    strategy: LLMCallStrategy[TOutput]
    prompt: Any = ""
    context: TContext | None = None
    priority: int = field(default=0, compare=False)
    sample: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.item_id, str) or not self.item_id:
            kind = type(self.item_id).__name__
            raise ValueError(f"item_id must be a non-empty string (got {kind}: {self.item_id!r}). Use str(...) on it.")
        if self.item_id.isspace():
            raise ValueError(f"item_id cannot be whitespace only (got {self.item_id!r}).")
        given: Any = self.strategy
        if given is None:
            raise TypeError(
                f"item {self.item_id!r}: strategy is None; give it an LLMCallStrategy, a model's name or a function. "
                "For a run that has one strategy for all prompts, give dicts or (id, prompt) in place of items"
            )
        if type(given) in _GIVEN_AS:
            from ._strategies import as_strategy

            self.strategy = as_strategy(given)
        if type(self.priority) is not int:
            raise ValueError(f"item {self.item_id!r}: priority must be an integer (got {self.priority!r}).")
        if type(self.sample) is not int:
            raise ValueError(f"item {self.item_id!r}: sample must be an integer (got {self.sample!r}).")

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled; without a strategy that cannot be: a run gives such an item its own."""
        return {
            **self.__dict__,
            "strategy": portable(self.strategy, "the strategy of an item"),
            "context": portable(self.context, "the context of an item"),
        }

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = memo[id(self)] = object.__new__(type(self))
        # Strategies are shared: they are prepared once.
        made.__dict__.update(
            (name, value if name == "strategy" else copied(value, memo)) for name, value in self.__dict__.items()
        )
        return made


PostProcessorFunc = Callable[[Result[TOutput, TContext]], Awaitable[None] | None]
"""Called with every result; sync or async."""
ProgressCallbackFunc = Callable[[int, int, str], Awaitable[None] | None]
"""Called with ``(completed, total, item_id)``; sync or async."""


class BatchProcessor(ABC, Generic[TInput, TOutput, TContext]):
    """Accepts work items and runs them; :class:`~batch_llm.ParallelBatchProcessor` is the one to use.

    A subclass says in :meth:`_process_item` what is done with an item; queue, workers, results, statistics and
    callbacks are the engine's.

    Args:
        max_workers: Items in work at the same time.
        post_processor: Called once with every result, successful or failed, before the item counts as done. Sync
            ones run on the event loop's thread.
        max_queue_size: Bound of the items that wait in a running batch; 0 = unbounded.
        progress_callback: Called with ``(completed, total, item_id)`` every so many results and at the end.
        progress_callback_timeout: Limit of one such call, seconds; None = none.
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
        batch (from a post-processor, for instance), where waiting would be waiting for oneself.

        Args:
            work_item: The item. It is not copied.

        Raises:
            TypeError: When it is not a work item, or its strategy or prompt cannot be used; names the item.
            ValueError: When its prompt is longer than ``max_prompt_length``.
            RuntimeError: When the processor is closed or belongs to another event loop.
        """
        if self._closed or self._loop is not None:
            self._check_usable()
        vetted = work_item.__class__ is LLMWorkItem and work_item.strategy is self._vetted
        if not (vetted and work_item.prompt.__class__ is str):
            self._check_item(work_item)
        run = self._run
        if run is not None:
            self._check_admission()
            if await run.join(work_item):
                return
        self._queue.append(work_item)
        if self._stats.start_time is None:
            self._stats.total += 1

    async def process_all(self) -> BatchResult[TOutput, TContext]:
        """Run everything queued, and what joins meanwhile, until every item has a result.

        Returns:
            The results in order of completion (with one worker: of submission). Never raises because of an item.

        Raises:
            RuntimeError: When a run is on already, the processor is closed, or it belongs to another event loop.
            ArtifactError: When the store or cache cannot be used (nothing has been sent), or not any more: the run has
                then ended early, and what was finished is in :meth:`partial_result`.
            asyncio.CancelledError: When the awaiting task is cancelled. Attempts in flight are cancelled; what was
                finished, and a failed result for everything else, is in :meth:`partial_result`. When it was Ctrl-C,
                which ``asyncio.run()`` makes a ``KeyboardInterrupt`` of, ``last_interrupted()`` has the same.
            BaseException: ``SystemExit``, ``KeyboardInterrupt`` and the like, when a strategy or a hook raised it: the
                run ends likewise. All of these have an attribute ``partial_result`` with the same.
        """
        from ._interrupts import Heard
        from ._run import Run

        self._check_usable()
        if self._run is not None:
            raise RuntimeError(
                "process_all() is running already on this processor; await that call, or add_work() to join it"
            )
        self._loop = asyncio.get_running_loop()
        pipeline = self._pipeline()
        items, self._queue = self._queue, []
        self._results = []
        self._termination = BatchTermination()
        run = self._run = Run(pipeline, items, self._results)
        heard = Heard()
        try:
            await run.execute()
        except BaseException as error:
            self._termination = ended_by(error, self._termination)
            batch = self._batch(run)
            attach(error, batch)
            if heard.is_so:
                from .prompts import remember

                remember(error, batch)
            raise
        finally:
            heard.end()
            self._run = None
            self._stats = run.stats()
            run.let_go()
        return self._batch(run)

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
        """Return what is finished in the present run, or in the last one if none is on.

        After a cancelled run this holds a result for every accepted item; those that did not end have an ``error``
        that begins with ``"CancelledError"``.
        """
        return BatchResult(results=list(self._results))

    def _ends_early(self, termination: BatchTermination) -> None:
        """Take note of why the present run ends early."""
        self._termination = termination

    async def cleanup(self) -> None:
        """End a run that is on and forget items that were queued for the next. Idempotent.

        Items in work end with a ``CancelledError`` result; ``process_all()`` then returns. Strategies are cleaned up
        item by item, not here.
        """
        self._queue.clear()
        if self._run is not None:
            await self._run.stop()

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
        """Raise when the present run takes no more items."""

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

    def _pipeline(self) -> Any:
        """Return what a run does with each item."""
        from ._pipeline import SingleCall

        return SingleCall(self)

    @abstractmethod
    async def _worker(self, worker_id: int) -> None:
        """Work as worker ``worker_id``. Kept for subclasses of 0.3.0; the engine has workers of its own."""

    @abstractmethod
    async def _process_item(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext]
    ) -> WorkItemResult[TOutput, TContext]:
        """Process one item."""
