"""Sources that are read in another thread than the event loop's. Used by ``prompts`` and ``blocking``."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import AsyncIterable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._forks import process
from .source import Source, check_prompts

if TYPE_CHECKING:
    from .._items import LLMWorkItem

T = TypeVar("T")


def read_in_thread(prompts: Iterable[T]) -> Iterable[T]:
    """Read a source that may block for a long time in a separate thread.

    ::

        for result in stream("openai:gpt-5-mini", read_in_thread(waiting_for_messages())):
            save(result)

    Results are yielded while ``next()`` of the source blocks, and no event loop is blocked. Deadlines, budgets, Ctrl-C
    and ``close()`` end the run without waiting for the source.

    One thread creates the iterator, reads every entry, and closes it if it is a generator. It has the context variables
    of the run's caller. The source must not use objects of another thread, such as sqlite3 or Django connections; open
    them in the generator itself. The source runs concurrently with the code that consumes the results. If the run ends
    while ``next()`` blocks, the value is dropped, and the thread (a daemon) ends when ``next()`` returns.

    Args:
        prompts: A plain iterable of prompts.

    Returns:
        A source for :func:`~batch_llm.run`, :func:`~batch_llm.stream`, :func:`~batch_llm.process_prompts` and
        :func:`~batch_llm.process_stream`.

    Raises:
        TypeError: If ``prompts`` is not a plain iterable.
    """
    if isinstance(prompts, AsyncIterable):
        raise TypeError("an async iterable is read on the event loop, without a thread: pass it directly")
    check_prompts(prompts)
    return OfThread(prompts)


class OfThread(Iterable[T], Generic[T]):
    """Prompts to be read in a thread."""

    def __init__(self, prompts: Iterable[T]) -> None:
        self._prompts = prompts

    def __iter__(self) -> Iterator[T]:
        # A generator, so that the iterator is created in the thread that takes the first entry. No `yield from`:
        # closing that
        # would close a file too.
        try:
            for entry in self._prompts:  # noqa: UP028
                yield entry
        finally:
            if isinstance(self._prompts, Generator):
                self._prompts.close()


class ReadElsewhere(Source):
    """A source that another thread reads; entries are passed on at once, also if it then blocks."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._loop: asyncio.AbstractEventLoop | None = None
        self._items: deque[LLMWorkItem[Any, Any, Any]] = deque()
        self._failure: BaseException | None = None
        self._is_read = self._has_ended = False
        self._news: asyncio.Future[None] | None = None

    async def read(self, count: int) -> list[LLMWorkItem[Any, Any, Any]]:
        """Return what is ready; if nothing, request it from the other thread and wait."""
        loop = self._loop = asyncio.get_running_loop()
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._has_ended:
                return []
            news = self._news = loop.create_future()
            if self._items:  # they came in between, without a notification
                continue
            if not self._is_read:
                self._is_read = True
                self._ask(count)
            await news
        return [self._items.popleft() for _ in range(min(count, len(self._items)))]

    def _ask(self, count: int) -> None:
        """Have :meth:`_read` called in the other thread."""
        raise NotImplementedError

    def _next(self, place: int) -> list[LLMWorkItem[Any, Any, Any]] | None:
        """In the other thread: return the next item; an empty list at the end, None to stop for now.

        Args:
            place: How many were read since the request.
        """
        raise NotImplementedError

    def _read(self, count: int) -> None:
        """In the other thread: read up to this many, one by one, because any of them may block."""
        assert self._loop is not None
        failure: BaseException | None = None
        has_ended = False
        here = process()
        try:
            for place in range(count):
                items = self._next(place)
                if not items:
                    has_ended = items is not None
                    break
                self._items.extend(items)
                news = self._news
                if news is not None:
                    self._news = None
                    self._loop.call_soon_threadsafe(_set, news)
        except BaseException as error:
            if here != process():
                raise  # the source has forked, and this ends the child
            failure = error
        self._loop.call_soon_threadsafe(self._was_read, has_ended, failure)

    def _was_read(self, has_ended: bool, failure: BaseException | None) -> None:
        self._is_read, self._has_ended, self._failure = False, has_ended, failure
        if self._news is not None:
            _set(self._news)

    async def close(self) -> None:
        """Nothing to do: it is the caller's."""


class ReadInThread(ReadElsewhere):
    """A source that has a thread for itself, from the first item until the run is over."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._counts: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def _ask(self, count: int) -> None:
        if self._thread is None:
            work = contextvars.copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="batch-llm source", daemon=True)
            self._thread.start()
        self._counts.put(count)

    def _next(self, place: int) -> list[LLMWorkItem[Any, Any, Any]] | None:
        return None if self._is_closed else self._source.read_now(1)

    def _work(self) -> None:
        here = process()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            while (count := self._counts.get()) and here == process():
                self._read(count)
        if here == process():
            self._source.release()

    async def close(self) -> None:
        """Have the thread end as soon as ``next()`` has returned, without waiting for it."""
        self._is_closed = True
        self._counts.put(0)


def _set(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
