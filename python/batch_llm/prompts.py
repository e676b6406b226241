"""One call for a list of prompts, and one for a stream of them: ``process_prompts()`` and ``process_stream()``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ._callers import ends_at_caller
from ._checks import check_concurrency
from ._options import OnInterrupt, ProcessorOptions, configured, split, strategy_with
from ._results import BatchTermination, ProcessingStats, Result, WorkItemResult
from ._run import LiveRun, OfThread, PromptEntry, ReadInThread, Source, interruption, read_in_thread
from ._run import interrupts as _interrupts
from ._run import last_interrupted as last_interrupted
from ._secrets import quoted
from .core.config import ProcessorConfig
from .estimates import sampling_of
from .parallel import ParallelBatchProcessor

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._items import ProgressCallbackFunc
    from ._llm import LLMCallStrategy
    from ._options import BatchOptions, ModelBatchOptions, ModelStreamOptions, StreamOptions
    from .results import BatchResult

__all__ = [
    "OnInterrupt",
    "ProcessorOptions",
    "PromptSource",
    "ResultStream",
    "Strategy",
    "last_interrupted",
    "process_prompts",
    "process_stream",
    "read_in_thread",
]

PromptSource = Iterable[PromptEntry] | AsyncIterable[PromptEntry]
"""Where prompts come from: a list, a generator, an async generator, ... See :func:`process_prompts`."""
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    # What a function or a model's name answers, type checkers cannot know.
    TAnswer = TypeVarWithDefault("TAnswer", default=Any)
    Strategy = LLMCallStrategy[TAnswer] | str | Callable[..., Any]
else:
    TAnswer = TypeVar("TAnswer")
    Strategy = Any

MOST_UNSENT = 100_000
"""The longest list of which an interrupted stream keeps a result for each prompt that was not sent."""


@overload
async def process_prompts(
    strategy: LLMCallStrategy[TAnswer], prompts: PromptSource, **options: Unpack[BatchOptions]
) -> BatchResult[TAnswer, Any]: ...
@overload
async def process_prompts(
    strategy: str, prompts: PromptSource, *, response_model: type[TAnswer], **options: Unpack[ModelBatchOptions]
) -> BatchResult[TAnswer, Any]: ...
@overload
async def process_prompts(
    strategy: str,
    prompts: PromptSource,
    *,
    response_parser: Callable[[str], TAnswer],
    **options: Unpack[ModelBatchOptions],
) -> BatchResult[TAnswer, Any]: ...
@overload
async def process_prompts(
    strategy: str, prompts: PromptSource, *, response_model: Mapping[str, Any], **options: Unpack[ModelBatchOptions]
) -> BatchResult[Any, Any]: ...
@overload
async def process_prompts(
    strategy: str, prompts: PromptSource, **options: Unpack[ModelBatchOptions]
) -> BatchResult[str, Any]: ...
@overload
async def process_prompts(
    strategy: Callable[..., Any], prompts: PromptSource, **options: Unpack[BatchOptions]
) -> BatchResult[Any, Any]: ...
@overload
async def process_prompts(
    strategy: Strategy[TAnswer], prompts: PromptSource, **options: Unpack[BatchOptions]
) -> BatchResult[TAnswer, Any]: ...
@ends_at_caller
async def process_prompts(
    strategy: Strategy[TAnswer],
    prompts: PromptSource,
    *,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    progress: bool | Literal["tqdm", "rich", "notebook"] | ProgressCallbackFunc = False,
    preserve_order: bool = False,
    on_interrupt: OnInterrupt = "raise",
    **options: Any,
) -> BatchResult[Any, Any]:
    """Answer all prompts and return a result for each.

    ::

        batch = await process_prompts("openai:gpt-5-mini", ["Name a colour.", "Name a fruit."])
        print(batch.summary())

    Args:
        strategy: What answers the prompts: a strategy, a model name (see :func:`~batch_llm.llm`), or a function of a
            prompt.
        prompts: Any iterable or async iterable. It is read lazily, on the event loop unless it is
            ``read_in_thread(prompts)``. An entry is a string; a list of messages, or of strings and media (for
            strategies that take them); ``(id, prompt)`` or ``(id, prompt, context)``; a mapping with ``"prompt"`` or
            ``"messages"``, and optionally ``"id"``, ``"context"``, ``"priority"``, ``"sample"``; or an ``LLMWorkItem``,
            whose own strategy is used. Entries without an id get ``item_0``, ``item_1``, ... by position.
        config: The configuration. Its ``concurrency`` (or ``max_workers``) takes precedence over the default of the
            argument ``concurrency``.
        concurrency: Attempts in flight; ``"auto"`` finds the provider's limit during the run.
        progress: True: a bar on a terminal, a panel in a notebook (Jupyter, VS Code, Colab, Databricks), otherwise a
            line on stderr every 30 seconds. ``"tqdm"``, ``"rich"``, ``"notebook"``: always that display. Or a function
            that is called with ``(completed, total, item_id)``, sync or async.
        preserve_order: Whether results are in input order; otherwise in completion order.
        on_interrupt: What happens after Ctrl-C, or a notebook's interrupt, has ended the run. ``"raise"``: raise
            ``KeyboardInterrupt``, so that the code after it does not run; its attribute ``partial_result`` is the
            batch, which :func:`last_interrupted` returns too. (In a notebook, if the run is in a task other than the
            cell's, the exception is also an ``asyncio.CancelledError``, so that the kernel survives.) ``"return"``:
            return the batch.
        options: ``post_processor``, ``observers``, ``middlewares``, ``error_classifier``, ``rate_limit_strategy``,
            ``timeout_per_item``, ``rate_limit_cooldown``, ``progress_callback``, ``store``, ``resume``, ``cache``,
            ``dedupe``, ``keep_prompts``, ``job``, ``lane``, ``deadline``, ``wait``, ``batches``, ``control``: as for
            :class:`~batch_llm.ParallelBatchProcessor`. With a model name, also the options of :func:`~batch_llm.llm`.
            ``dry_run="sample"``: send nothing; the batch has no results, but ``estimate``, what the run would cost.

    Returns:
        The batch. A prompt that failed has a failed result; ``termination`` says why the run ended. If it ended early,
        each prompt that was not sent has a result that says so (``result.not_sent``): every prompt of a list; of other
        iterables, those that had been read.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown; nothing has been sent.
        ValueError: If an argument is invalid; nothing has been sent.
        ArtifactError: If the store or cache cannot be used. Before the run, nothing is sent; during the run, the
            exception has a ``partial_result``.
        Exception: What ``prompts`` raised, or a ``TypeError`` or ``ValueError`` for an invalid entry, with its index.
            Everything before it has been finished, and is in the exception's attribute ``partial_result``, a batch.
        BaseException: ``SystemExit``, ``KeyboardInterrupt`` and similar exceptions from a strategy, a function, a hook
            or ``prompts``. They end the run at once; ``partial_result`` has the finished results.
        KeyboardInterrupt: If the run was interrupted; see ``on_interrupt``.
        asyncio.CancelledError: If the awaiting task is cancelled; everything is cleaned up first.
    """
    start = Start(strategy, prompts, config, concurrency, progress, options, on_interrupt, collects=True)
    return await collect(start, preserve_order)


async def collect(
    start: Start, preserve_order: bool, on_begin: Callable[[LiveRun], None] | None = None
) -> BatchResult[Any, Any]:
    """Start a run and collect all its results."""
    if start.sampling is not None:
        return await start.sampling.batch(start.source)
    live = start.begin(on_begin=on_begin)
    results: list[WorkItemResult[Any, Any]] = []
    try:
        while taken := await live.take():
            results.extend(taken)
            live.delivered(len(taken))
    except BaseException as error:
        await live.broken(error, results)
        raise
    finally:
        _interrupts.unwatch(live)
        live.set_indexes(results)
        if preserve_order:
            results.sort(key=lambda result: result.submission_index or 0)
    made = live.batch(results)
    if live.interrupted and start.on_interrupt == "raise":
        done = made.total_items - made.not_sent
        raise interruption(made, f"{done:,} results are", is_users_task=on_begin is None)
    return made


@overload
def process_stream(
    strategy: LLMCallStrategy[TAnswer], prompts: PromptSource, **options: Unpack[StreamOptions]
) -> ResultStream[TAnswer]: ...
@overload
def process_stream(
    strategy: str, prompts: PromptSource, *, response_model: type[TAnswer], **options: Unpack[ModelStreamOptions]
) -> ResultStream[TAnswer]: ...
@overload
def process_stream(
    strategy: str,
    prompts: PromptSource,
    *,
    response_parser: Callable[[str], TAnswer],
    **options: Unpack[ModelStreamOptions],
) -> ResultStream[TAnswer]: ...
@overload
def process_stream(
    strategy: str, prompts: PromptSource, *, response_model: Mapping[str, Any], **options: Unpack[ModelStreamOptions]
) -> ResultStream[Any]: ...
@overload
def process_stream(
    strategy: str, prompts: PromptSource, **options: Unpack[ModelStreamOptions]
) -> ResultStream[str]: ...
@overload
def process_stream(
    strategy: Callable[..., Any], prompts: PromptSource, **options: Unpack[StreamOptions]
) -> ResultStream[Any]: ...
@overload
def process_stream(
    strategy: Strategy[TAnswer], prompts: PromptSource, **options: Unpack[StreamOptions]
) -> ResultStream[TAnswer]: ...
@ends_at_caller
def process_stream(
    strategy: Strategy[TAnswer],
    prompts: PromptSource,
    *,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    progress: bool | Literal["tqdm", "rich", "notebook"] | ProgressCallbackFunc = False,
    ordered: bool = False,
    on_interrupt: OnInterrupt = "raise",
    **options: Any,
) -> ResultStream[Any]:
    """Send prompts as the source yields them, and yield results as they complete.

    ::

        async for result in process_stream("openai:gpt-5-mini", read_prompts()):
            save(result)

    Memory stays flat, however many prompts there are: prompts are read lazily, and nothing more starts while results
    are not consumed. Leaving the loop early cancels attempts in flight. To wait for their end, iterate inside
    ``async with process_stream(...) as stream:``.

    Args:
        strategy: See :func:`process_prompts`.
        prompts: See :func:`process_prompts`.
        config: Its ``max_queue_size`` limits how many prompts are read ahead, ``max_result_queue_size`` how many
            results may wait to be consumed; by default, four times the concurrency, and at least 64.
        concurrency: See :func:`process_prompts`.
        progress: See :func:`process_prompts`.
        ordered: Whether results are in input order. A slow result then delays those after it, and nothing more starts
            while ``max_result_queue_size`` results wait for it.
        on_interrupt: What happens after Ctrl-C, or a notebook's interrupt, has ended the run. ``"raise"``: finished
            results are yielded, then ``KeyboardInterrupt`` is raised. Its attribute ``partial_result`` has the prompts
            that were not sent (all of a list, unless it is longer than 100,000; otherwise those that had been read).
            ``"return"``: the results of prompts that were not sent are yielded too, and the iteration ends.
        options: See :func:`process_prompts`.

    Returns:
        An async iterator of results that also controls the run; see :class:`ResultStream`.

    Raises:
        TypeError: See :func:`process_prompts`.
        ValueError: See :func:`process_prompts`.
    """
    start = Start(strategy, prompts, config, concurrency, progress, options, on_interrupt)
    return ResultStream(start, ordered=ordered)


class Start:
    """Check the arguments of a run, and start it."""

    def __init__(
        self,
        strategy: Any,
        prompts: Any,
        config: ProcessorConfig | None,
        concurrency: int | Literal["auto"],
        progress: Any,
        options: Any,
        on_interrupt: OnInterrupt = "raise",
        *,
        collects: bool = False,
    ) -> None:
        others = ("config", "concurrency", "progress", "preserve_order" if collects else "ordered", "on_interrupt")
        self.sampling = sampling_of(options, config) if collects else None
        of_processor, of_model = split(options, strategy, others)
        if on_interrupt not in ("raise", "return"):
            raise ValueError(f"on_interrupt must be 'raise' or 'return', not {quoted(on_interrupt)}")
        self.on_interrupt = on_interrupt
        self._config = configured(config, concurrency)
        given = {name: value for name, value in of_processor.items() if value is not None}
        if callable(progress):
            if "progress_callback" in given:
                raise ValueError("progress and progress_callback are both functions; give only one of them")
            given["progress_callback"], progress = progress, False
        for name in ("middlewares", "observers"):
            if name in given:
                given[name] = list(given[name])
        self._processor: ParallelBatchProcessor[Any, Any, Any] = ParallelBatchProcessor(
            config=self._config, progress_bar="auto" if progress is True else progress, **given
        )
        self.prompts = prompts
        self.source = Source(prompts, strategy_with(strategy, of_model), self._processor._check_item, warn=collects)
        if isinstance(prompts, OfThread):
            self.source = ReadInThread(self.source)
        self.collects = collects

    def begin(self, *, ordered: bool = False, on_begin: Callable[[LiveRun], None] | None = None) -> LiveRun:
        """Start the run on this event loop. ``on_begin`` receives it, and has to handle interrupts."""
        workers = self._config._workers
        plan = self._processor._plan()
        ahead = self._config.max_queue_size or plan.usual_ahead
        untaken: int | None = self._config.max_result_queue_size or plan.usual_ahead
        window: int | None = None
        if ordered:
            untaken, window = None, workers + (untaken or 0)
        elif self.collects:
            untaken = None
        expected = len(self.prompts) if isinstance(self.prompts, Sized) else None
        # What can be iterated once is read no further than needed, even if its length is known.
        is_list = expected is not None and isinstance(self.prompts, Iterable) and not isinstance(self.prompts, Iterator)
        is_list = is_list and not getattr(self.prompts, "is_lazy", False)
        live = LiveRun(plan, untaken=untaken, window=window, expected=expected)
        # What was not sent is stored for the exception of a stream; for a long list, memory would not stay flat.
        reads_on = self.collects or self.on_interrupt == "return" or (expected or 0) <= MOST_UNSENT
        live.feed(self.source, ahead, reads_rest=is_list, also_interrupted=reads_on)
        if on_begin is None:
            _interrupts.watch(live, asyncio.get_running_loop())
        else:
            on_begin(live)
        return live


class ResultStream(AsyncIterator[Result[TAnswer, Any]], Generic[TAnswer]):
    """An async iterator of results that also controls the run. :func:`process_stream` returns one.

    The run starts when the first result is requested. Iterate once, from one task; control it from anywhere on the same
    event loop.
    """

    def __init__(self, start: Start, *, ordered: bool = False) -> None:
        self._start = start
        self._live: LiveRun | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[Result[TAnswer, Any]] = deque()
        self._early: dict[int, Result[TAnswer, Any]] | None = {} if ordered else None
        self._next = 0
        self._given = 0
        self._unsent: list[WorkItemResult[Any, Any]] = []
        self._closed = False
        self.on_begin: Callable[[LiveRun], None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result[TAnswer, Any]:
        if not self._ready:
            self._ready.extend(await self._take())
            if not self._ready:
                raise StopAsyncIteration
        result = self._ready.popleft()
        assert self._live is not None
        self._live.delivered()
        return result

    async def take_portion(self) -> list[Result[TAnswer, Any]]:
        """Wait for at least one result, and return all that are ready; none at the end."""
        taken = await self._take()
        if self._live is not None:
            self._live.delivered(len(taken))
        return taken

    async def _take(self) -> list[Result[TAnswer, Any]]:
        while not self._closed:
            live = self._live or self._begin()
            if live.is_being_read:
                raise RuntimeError("a stream can be iterated by one task at a time")
            try:
                taken = await live.take()
            except BaseException as error:
                self._closed = True
                _interrupts.unwatch(live)
                undelivered: list[WorkItemResult[Any, Any]] = list((self._early or {}).values())
                await live.broken(error, undelivered)
                raise
            if not taken:
                await self._end()
                if live.interrupted and self._start.on_interrupt == "raise":
                    kept = f"{len(self._unsent):,} for prompts that were not sent are"
                    raise interruption(
                        live.batch(self._unsent),
                        f"{self._given:,} results were yielded before, and {kept}",
                        is_users_task=self.on_begin is None,
                    )
            elif self._early is not None:
                taken = self._in_order(taken, self._early)
            if live.interrupted and self._start.on_interrupt == "raise":
                taken = self._without_unsent(taken, live)
            if taken:
                live.set_indexes(taken)
                self._given += len(taken)
                return taken
        return []

    def _without_unsent(self, taken: list[Result[TAnswer, Any]], live: LiveRun) -> list[Result[TAnswer, Any]]:
        """Return the results without those that an interrupt has left unsent, which are for the exception."""
        unsent = [result for result in taken if result.not_sent]
        self._unsent.extend(unsent)
        live.delivered(len(unsent))
        return [result for result in taken if not result.not_sent]

    def _begin(self) -> LiveRun:
        self._loop = asyncio.get_running_loop()
        live = self._live = self._start.begin(ordered=self._early is not None, on_begin=self.on_begin)
        return live

    def _in_order(
        self, taken: list[Result[TAnswer, Any]], early: dict[int, Result[TAnswer, Any]]
    ) -> list[Result[TAnswer, Any]]:
        for result in taken:
            early[result.submission_index or 0] = result
        ready = []
        while (following := early.pop(self._next, None)) is not None:
            ready.append(following)
            self._next += 1
        return ready

    async def _end(self) -> None:
        self._closed = True
        if self._live is not None:
            await self._live.ended()
            _interrupts.unwatch(self._live)

    async def aclose(self) -> None:
        """Cancel attempts in flight, and wait until everything is cleaned up. Idempotent."""
        self._closed = True
        self._ready.clear()
        if self._live is not None:
            _interrupts.unwatch(self._live)
            await self._live.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        live, loop = self._live, self._loop
        if live is None or loop is None or self._closed or live.is_over or loop.is_closed():
            return
        _interrupts.unwatch(live)
        # Whoever leaves a loop early forgets us, and cannot be made to await anything.
        loop.call_soon_threadsafe(lambda: loop.create_task(live.stop()))

    # Steering

    def _running(self) -> LiveRun:
        if self._live is None:
            raise RuntimeError("the stream has not started: request its first result")
        return self._live

    @property
    def stats(self) -> ProcessingStats:
        """The counters so far."""
        return ProcessingStats() if self._live is None else self._live.stats

    @property
    def termination(self) -> BatchTermination:
        """Why the run ended, or will end early."""
        return BatchTermination() if self._live is None else self._live.termination

    def pause(self) -> None:
        """Start nothing more until :meth:`resume`; attempts in flight continue."""
        self._running().run.pause()

    def resume(self) -> None:
        """Resume after :meth:`pause`."""
        self._running().run.resume()

    def set_concurrency(self, concurrency: int) -> None:
        """Change the concurrency; with ``"auto"``, the maximum that it may reach.

        Raises:
            ValueError: If the concurrency is not a positive integer.
        """
        check_concurrency(concurrency)
        self._running().run.set_concurrency(concurrency)

    def cancel(self, item_id: str) -> bool:
        """Cancel an item: it gets a failed result with the category ``"cancelled"``.

        Returns:
            Whether the item was cancelled; False if it already had its result, or was not read yet.
        """
        return self._running().run.cancel(item_id)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: stop reading prompts and let attempts in flight finish. A second call cancels them."""
        self._running().interrupt()
