"""``run()`` and ``stream()``: what ``process_prompts()`` and ``process_stream()`` do, without async.

The event loop runs in a separate thread, which is started once per process, so that strategies whose
clients belong to an event loop can be reused. The caller's thread waits, and meanwhile reads the prompts: a
generator runs in the thread that made it, as a database cursor must.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from ._callers import ends_at_caller
from ._core import leave_behind
from ._forks import in_child, process
from ._read_by_caller import ReadByCaller
from ._results import BatchTermination, ProcessingStats, Result
from ._run import OfThread
from ._run import interrupts as _interrupts
from .prompts import ResultStream, Start, TAnswer, collect
from .results import BatchResult

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._items import ProgressCallbackFunc
    from ._llm import LLMCallStrategy
    from ._options import BatchOptions, ModelBatchOptions, ModelStreamOptions, OnInterrupt, StreamOptions
    from ._run import LiveRun
    from .core.config import ProcessorConfig
    from .prompts import PromptSource, Strategy

__all__ = ["BlockingResultStream", "run", "stream"]

SIGNAL_SECONDS = 0.25
"""How long a signal that did not end the wait of the caller's thread waits for its handler at most."""


@overload
def run(
    strategy: LLMCallStrategy[TAnswer], prompts: PromptSource, **options: Unpack[BatchOptions]
) -> BatchResult[TAnswer, Any]: ...
@overload
def run(
    strategy: str, prompts: PromptSource, *, response_model: type[TAnswer], **options: Unpack[ModelBatchOptions]
) -> BatchResult[TAnswer, Any]: ...
@overload
def run(
    strategy: str,
    prompts: PromptSource,
    *,
    response_parser: Callable[[str], TAnswer],
    **options: Unpack[ModelBatchOptions],
) -> BatchResult[TAnswer, Any]: ...
@overload
def run(
    strategy: str, prompts: PromptSource, *, response_model: Mapping[str, Any], **options: Unpack[ModelBatchOptions]
) -> BatchResult[Any, Any]: ...
@overload
def run(strategy: str, prompts: PromptSource, **options: Unpack[ModelBatchOptions]) -> BatchResult[str, Any]: ...
@overload
def run(
    strategy: Callable[..., Any], prompts: PromptSource, **options: Unpack[BatchOptions]
) -> BatchResult[Any, Any]: ...
@overload
def run(
    strategy: Strategy[TAnswer], prompts: PromptSource, **options: Unpack[BatchOptions]
) -> BatchResult[TAnswer, Any]: ...
@ends_at_caller
def run(
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
    """Answer all prompts and return a result for each: :func:`~batch_llm.process_prompts` without async.

    ::

        batch = run("openai:gpt-5-mini", ["Name a colour.", "Name a fruit."])
        print(batch.summary())

    It also works inside a running event loop, for example in a notebook; it then blocks that loop. Strategies,
    observers and callbacks run on another loop, in a background thread. Ctrl-C, or a notebook's interrupt, stops the
    run gracefully: attempts in flight may finish, and finished results are preserved (see ``on_interrupt``).

    Args:
        strategy: See :func:`~batch_llm.process_prompts`, which documents all arguments in detail.
        prompts: Iterables are read in the caller's thread, async iterables on the loop.
        config: The configuration.
        concurrency: Attempts in flight; ``"auto"`` finds the provider's limit.
        progress: How progress is displayed.
        preserve_order: Whether results are in input order.
        on_interrupt: ``"raise"``: raise ``KeyboardInterrupt``, with the batch in its attribute ``partial_result``,
            which :func:`~batch_llm.last_interrupted` returns too. ``"return"``: return the batch.
        options: The options of a processor; with a model name, also those of the model.

    Raises:
        RuntimeError: If it is called from a strategy or callback of another such run.
        KeyboardInterrupt: If the run was interrupted; see ``on_interrupt``.
        BaseException: As for :func:`~batch_llm.process_prompts`; also ``SystemExit`` and similar exceptions, from any
            thread.
    """
    start = Start(strategy, prompts, config, concurrency, progress, options, on_interrupt, collects=True)
    caller = _Caller(start)
    try:
        batch: BatchResult[Any, Any] = caller.serve(collect(start, preserve_order, caller.began))
        return batch
    finally:
        caller.unwatch()


@overload
def stream(
    strategy: LLMCallStrategy[TAnswer], prompts: PromptSource, **options: Unpack[StreamOptions]
) -> BlockingResultStream[TAnswer]: ...
@overload
def stream(
    strategy: str, prompts: PromptSource, *, response_model: type[TAnswer], **options: Unpack[ModelStreamOptions]
) -> BlockingResultStream[TAnswer]: ...
@overload
def stream(
    strategy: str,
    prompts: PromptSource,
    *,
    response_parser: Callable[[str], TAnswer],
    **options: Unpack[ModelStreamOptions],
) -> BlockingResultStream[TAnswer]: ...
@overload
def stream(
    strategy: str, prompts: PromptSource, *, response_model: Mapping[str, Any], **options: Unpack[ModelStreamOptions]
) -> BlockingResultStream[Any]: ...
@overload
def stream(
    strategy: str, prompts: PromptSource, **options: Unpack[ModelStreamOptions]
) -> BlockingResultStream[str]: ...
@overload
def stream(
    strategy: Callable[..., Any], prompts: PromptSource, **options: Unpack[StreamOptions]
) -> BlockingResultStream[Any]: ...
@overload
def stream(
    strategy: Strategy[TAnswer], prompts: PromptSource, **options: Unpack[StreamOptions]
) -> BlockingResultStream[TAnswer]: ...
@ends_at_caller
def stream(
    strategy: Strategy[TAnswer],
    prompts: PromptSource,
    *,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    progress: bool | Literal["tqdm", "rich", "notebook"] | ProgressCallbackFunc = False,
    ordered: bool = False,
    on_interrupt: OnInterrupt = "raise",
    **options: Any,
) -> BlockingResultStream[Any]:
    """Send prompts as the source yields them, and yield results as they complete: ``process_stream()`` without async.

    ::

        for result in stream("openai:gpt-5-mini", read_prompts()):
            save(result)

    Args:
        strategy: See :func:`~batch_llm.process_stream`, which documents all arguments in detail.
        prompts: Iterables are read in the caller's thread, while it waits for a result; async iterables on the loop. To
            get results while a source blocks, pass ``read_in_thread(prompts)``.
        config: The configuration.
        concurrency: Attempts in flight; ``"auto"`` finds the provider's limit.
        progress: How progress is displayed.
        ordered: Whether results are in input order.
        on_interrupt: ``"raise"``: yield finished results, then raise ``KeyboardInterrupt``. ``"return"``: also yield
            the results of prompts that were not sent, then end. See :func:`~batch_llm.process_stream`.
        options: The options of a processor; with a model name, also those of the model.

    Returns:
        An iterator of results that also controls the run. Use it in a ``with`` block, so that the run ends when you
        leave the loop early.

    Raises:
        RuntimeError: If it is called from a strategy or callback of another such run.
        Exception: As for :func:`~batch_llm.process_stream`.
    """
    start = Start(strategy, prompts, config, concurrency, progress, options, on_interrupt)
    return BlockingResultStream(_Caller(start), ResultStream(start, ordered=ordered))


class BlockingResultStream(Iterator[Result[TAnswer, Any]], Generic[TAnswer]):
    """An iterator of results that also controls the run, from any thread. :func:`stream` returns one.

    Iterate once, from one thread.
    """

    def __init__(self, caller: _Caller, results: ResultStream[TAnswer]) -> None:
        self._caller = caller
        self._results = results
        self._ready: deque[Result[TAnswer, Any]] = deque()
        self._closed = False
        self._iterating = threading.Lock()
        results.on_begin = caller.began

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result[TAnswer, Any]:
        # Not waited for: the thread that has it would never know that its results are divided.
        if not self._iterating.acquire(blocking=False):
            raise RuntimeError("a stream can be iterated by one thread at a time")
        try:
            return self._following()
        finally:
            self._iterating.release()

    def _following(self) -> Result[TAnswer, Any]:
        if not self._ready:
            if self._closed:
                raise StopIteration
            try:
                self._ready.extend(self._caller.serve(self._results.take_portion()))
            except BaseException:
                self._ended()
                raise
            if not self._ready:
                self._ended()
                raise StopIteration
        return self._ready.popleft()

    def _ended(self) -> None:
        self._closed = True
        self._caller.unwatch()

    def close(self) -> None:
        """Cancel attempts in flight, and wait until everything is cleaned up. Idempotent.

        In a forked child, only forget the stream: it belongs to the parent.
        """
        self._ended()
        self._ready.clear()
        if self._caller.is_here:
            self._caller.serve(self._results.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that is left early drops its reference; nothing waits for the end then.
        if not self._closed and self._caller.is_here:
            self._ended()
            self._caller.submit(self._results.aclose())

    @property
    def stats(self) -> ProcessingStats:
        """The counters so far."""
        return self._results.stats

    @property
    def termination(self) -> BatchTermination:
        """Why the run ended, or will end early."""
        return self._results.termination

    def pause(self) -> None:
        """Start nothing more until :meth:`resume`; attempts in flight continue."""
        self._results.pause()

    def resume(self) -> None:
        """Resume after :meth:`pause`."""
        self._results.resume()

    def set_concurrency(self, concurrency: int) -> None:
        """Change the concurrency; see :meth:`~batch_llm.ResultStream.set_concurrency`."""
        self._results.set_concurrency(concurrency)

    def cancel(self, item_id: str) -> None:
        """Cancel an item that has no result yet; see :meth:`~batch_llm.ResultStream.cancel`."""
        self._caller.loop.call_soon_threadsafe(self._results.cancel, item_id)

    def interrupt(self) -> None:
        """Do what Ctrl-C does; see :meth:`~batch_llm.ResultStream.interrupt`."""
        self._caller.loop.call_soon_threadsafe(self._results.interrupt)


class _Caller:
    """The thread that waits for a run on our loop, and reads its source meanwhile."""

    def __init__(self, start: Start) -> None:
        thread = self._thread = _thread()
        self.loop = thread.loop
        if threading.current_thread() is thread.thread:
            raise RuntimeError(
                "run() and stream() cannot be called from a strategy or callback of another run: that would "
                "deadlock. Await process_prompts() there instead"
            )
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._serving = threading.Lock()
        self._live: LiveRun | None = None
        self._process = process()
        self._variables = contextvars.copy_context()
        if not isinstance(start.prompts, (AsyncIterable, OfThread)):
            # A list never blocks, so nothing has to be yielded before it is read further.
            gives = not (start.collects or isinstance(start.prompts, Sequence))
            start.source = ReadByCaller(start.source, self._requests, self, gives=gives)

    def began(self, live: LiveRun) -> None:
        """Store the run; called on the loop."""
        self._thread.hold(live)
        self._requests.put(("began", live))

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine on the loop; its outcome is queued with the requests."""

        async def do() -> None:
            try:
                outcome = ("done", await coroutine)
            except BaseException as error:
                outcome = ("failed", error)
            self._requests.put(outcome)

        def begin() -> None:
            self._variables.run(self.loop.create_task, do())

        try:
            self.loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed: the interpreter is exiting
            coroutine.close()

    def serve(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop and wait for its outcome, reading the source meanwhile."""
        if not self.is_here:
            coroutine.close()
            raise _forked()
        if not self._serving.acquire(blocking=False):
            # A stream is closed while another thread waits for its results. That thread reads the source, and the
            # outcomes in the queue are its own.
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()
        try:
            self.submit(coroutine)
            kind, value = self._wait()
        except BaseException:
            self._abandon()  # a signal's handler has raised it
            raise
        finally:
            self._serving.release()
        if kind == "failed":
            raise value
        return value

    @property
    def is_here(self) -> bool:
        """Whether the loop has its thread: in a forked child it has none."""
        return self._process == process()

    def _wait(self) -> tuple[str, Any]:
        message: tuple[str, Any] | None = None
        while True:
            if not self.is_here:  # the source has forked
                raise _forked()
            kind, value = message or self._next_request()
            message = None
            if kind == "read":
                message = value()
            elif kind == "began":
                self._live = value
                _interrupts.watch(value, self.loop)
            else:
                return kind, value

    def _next_request(self) -> tuple[str, Any]:
        while True:
            # Not without end: a signal that comes just before a wait does not end it, and is handled only after it.
            with contextlib.suppress(queue.Empty):
                request: tuple[str, Any] = self._requests.get(timeout=SIGNAL_SECONDS)
                return request

    def _abandon(self) -> None:
        """Cancel everything: the caller waits no more."""
        live = self._live
        if live is not None and self.is_here and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(lambda: self.loop.create_task(live.stop()))

    @property
    def wants_more(self) -> bool:
        """Whether the source is to be read further."""
        return self._live is None or self._live.wants_more

    def waits_for(self, read: int) -> bool:
        """Whether results of this many read items are still to come."""
        return self._live is not None and self._live.delivered_count < read

    def unwatch(self) -> None:
        """Have the run interrupted by Ctrl-C no more."""
        if self._live is not None:
            _interrupts.unwatch(self._live)


def _forked() -> RuntimeError:
    return RuntimeError(
        "this run started before a fork and continues in the parent process only; call run() or stream() again in the "
        "child, or start processes with the 'spawn' or 'forkserver' method"
    )


class _LoopThread:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._runs: set[LiveRun] = set()
        self.thread = threading.Thread(target=self._run, name="batch-llm loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except BaseException as error:
                # SystemExit, or KeyboardInterrupt, of a task that a strategy has started: asyncio does not report
                # whose.
                if _present is not self:
                    raise  # in a child that a strategy has forked
                for live in list(self._runs):
                    live.run.fail(error)
            else:
                return

    def hold(self, live: LiveRun) -> None:
        """End this run too if an exception ends the loop."""
        self._runs.add(live)
        live.on_end(lambda: self._runs.discard(live))

    def stop(self) -> None:
        """End the thread, at the end of the process."""
        if self.thread.is_alive() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(2.0)


_present: _LoopThread | None = None
_lock = threading.Lock()


def _thread() -> _LoopThread:
    global _present
    with _lock:
        if _present is None or not _present.thread.is_alive():
            _present = _LoopThread()
            atexit.register(_present.stop)
        return _present


def _forget() -> None:
    """A forked child has no such thread, and must not wait for a lock of its parent."""
    global _present, _lock
    if _present is not None:
        leave_behind(_present.loop)
    _present, _lock = None, threading.Lock()


in_child(_forget)
