"""Prompts as users have them, as work items: read lazily, as far as there is room for them."""

from __future__ import annotations

import asyncio
import copy
import dis
import logging
import time
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from .._guesses import close_to
from .._items import LLMWorkItem
from .._logs import log_event
from .._secrets import quoted

PromptEntry = Any
"""One prompt of a source: a string, a list of messages or parts, ``(id, prompt)``, ``(id, prompt, context)``, a mapping
with ``prompt`` (or ``messages``) and perhaps ``id``, ``context``, ``priority``, ``sample``; or an ``LLMWorkItem``."""

TURN_SECONDS = 0.001
"""How long a source is read without letting the loop do something else."""
BLOCKED_SECONDS = 1.0
"""How long one read may block the loop before that is worth a warning."""
_KEYS = ("id", "item_id", "prompt", "messages", "context", "priority", "sample")


class Source:
    """Reads prompts and makes work items of them.

    Args:
        prompts: The user's iterable or async iterable.
        strategy: What answers those that bring no strategy of their own.
        check: Looks at an item and raises if it cannot be processed.
        warn: Whether a repeated id is worth a warning.

    Raises:
        TypeError: If ``prompts`` is not something to read prompts from.
    """

    def __init__(
        self,
        prompts: Iterable[PromptEntry] | AsyncIterable[PromptEntry],
        strategy: Any,
        check: Callable[[Any], None],
        *,
        warn: bool = False,
    ) -> None:
        check_prompts(prompts)
        self._strategy = strategy
        self._check = check
        self._index = 0
        self._has_logged = False
        self._error: BaseException | None = None
        self._ids: set[str] | None = set() if warn else None
        self._iterator: Iterator[Any] | None = None
        self._async_iterator: AsyncIterator[Any] | None = None
        if isinstance(prompts, AsyncIterable):
            self._async_iterator = prompts.__aiter__()
        else:
            self._iterator = iter(prompts)

    async def read(self, count: int) -> list[LLMWorkItem[Any, Any, Any]]:
        """Return up to ``count`` further items; none at the end.

        Raises:
            Exception: What the source raises, or what is wrong with an entry; everything before it has been returned.
        """
        if self._async_iterator is not None:
            try:
                entry = await self._async_iterator.__anext__()
            except StopAsyncIteration:
                return []
            except StopIteration as error:
                raise _as_error(error) from error
            if self._index % 64 == 63:
                await asyncio.sleep(0)  # one that never waits would block the loop
            return [self._item(entry)]
        began = time.perf_counter()
        items = self.read_now(count)
        self._warn_if_blocked(time.perf_counter() - began)
        await asyncio.sleep(0)
        return items

    def read_now(self, count: int) -> list[LLMWorkItem[Any, Any, Any]]:
        """Do the same without waiting, for a source that is not async."""
        if self._error is not None:
            raise self._error
        assert self._iterator is not None
        items: list[LLMWorkItem[Any, Any, Any]] = []
        end = time.perf_counter() + TURN_SECONDS
        try:
            for entry in self._iterator:
                items.append(self._item(entry))
                if len(items) == count or time.perf_counter() > end:
                    break
        except BaseException as error:
            failure = _as_error(error)
            if not items:
                if failure is error:
                    raise
                raise failure from error
            self._error = failure  # after those that came before it
        return items

    def _warn_if_blocked(self, seconds: float) -> None:
        if seconds > BLOCKED_SECONDS and not self._has_logged:
            self._has_logged = True
            log_event(
                logging.WARNING,
                "source_blocked",
                "The source of prompts blocked the event loop for %.1f s, and with it all requests and results; "
                "pass read_in_thread(prompts) to read it in a thread",
                seconds,
                seconds=seconds,
            )

    def release(self) -> None:
        """Close the source if it is a generator, in the thread that has read it."""
        if isinstance(self._iterator, Generator):
            self._iterator.close()

    async def close(self) -> None:
        """Release the source; an async generator is closed."""
        close = getattr(self._async_iterator, "aclose", None)
        if close is not None:
            await close()

    def _item(self, entry: Any) -> LLMWorkItem[Any, Any, Any]:
        index = self._index
        self._index += 1
        if type(entry) is str:
            item: LLMWorkItem[Any, Any, Any] = LLMWorkItem(f"item_{index}", self._strategy, entry)
        else:
            item = self._other(index, entry)
            if self._ids is not None:
                self._look_at_id(item.item_id)
        try:
            self._check(item)
        except (TypeError, ValueError) as error:
            raise type(error)(f"prompts[{index}]: {error}") from error
        return item

    def _other(self, index: int, entry: Any) -> LLMWorkItem[Any, Any, Any]:
        if isinstance(entry, (str, list)):  # another class, such as numpy's
            return LLMWorkItem(f"item_{index}", self._strategy, entry)
        if isinstance(entry, tuple):
            if len(entry) not in (2, 3):
                raise TypeError(
                    f"prompts[{index}] is a tuple of length {len(entry)}; it must be (id, prompt) or "
                    "(id, prompt, context)"
                )
            item_id, prompt, context = entry if len(entry) == 3 else (*entry, None)
            return LLMWorkItem(_id(index, item_id), self._strategy, prompt, context)
        if isinstance(entry, LLMWorkItem):
            own: Any = entry.strategy
            if own is not None:
                return entry
            # From a pickle that could not hold its strategy.
            item = copy.copy(entry)
            item.strategy = self._strategy
            return item
        if isinstance(entry, Mapping):
            return self._of_mapping(index, entry)
        raise TypeError(
            f"prompts[{index}] is {type(entry).__name__} ({quoted(entry)}); it must be a string, a list of messages, "
            "(id, prompt), (id, prompt, context), a mapping with 'prompt', or an LLMWorkItem"
        )

    def _of_mapping(self, index: int, entry: Mapping[Any, Any]) -> LLMWorkItem[Any, Any, Any]:
        for key in entry:
            if key not in _KEYS:
                near = close_to(str(key), _KEYS)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_KEYS)}."
                if key in ("role", "content"):
                    hint = "write messages as a list: [{'role': ..., 'content': ...}]."
                raise TypeError(
                    f"prompts[{index}] has an unknown key {key!r}; {hint} Put anything else into 'context'."
                )
        if ("prompt" in entry) == ("messages" in entry):
            raise TypeError(f"prompts[{index}] must have either 'prompt' or 'messages' (its keys are {list(entry)})")
        item_id = entry.get("id", entry.get("item_id"))
        return LLMWorkItem(
            f"item_{index}" if item_id is None else _id(index, item_id),
            self._strategy,
            entry.get("prompt", entry.get("messages")),
            entry.get("context"),
            entry.get("priority", 0),
            entry.get("sample", 0),
        )

    def _look_at_id(self, item_id: str) -> None:
        assert self._ids is not None
        if item_id in self._ids:
            warnings.warn(
                f"item id {item_id!r} is used more than once; distinguish its results by submission_index",
                UserWarning,
                stacklevel=2,
            )
            self._ids = None
        else:
            self._ids.add(item_id)


def is_reading(frame: FrameType | None) -> bool:
    """Whether a thread with this frame is in the user's code of a source, and not in a run within it.

    An exception raised there costs no entry that was read.
    """
    inner: FrameType | None = None
    while frame is not None and frame.f_code is not Source.read_now.__code__:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in _WAITING:
            return False
        inner, frame = frame, frame.f_back
    if frame is None:
        return False
    if inner is not None:
        return inner.f_globals is not globals()  # else what was read is being looked at
    # In the code of an iterator that is written in C, or before it.
    if type(frame.f_locals["self"]._iterator) in _NEVER_BLOCK:
        return False
    places = (one.offset for one in dis.get_instructions(frame.f_code) if one.opname == "FOR_ITER")
    return frame.f_lasti <= next(places)


_WAITING = (("asyncio.base_events", "run_forever"), ("batch_llm.blocking", "_wait"))
_CONTAINERS: tuple[Iterable[Any], ...] = ([], (), {}, {}.values(), {}.items(), set(), range(0))
_NEVER_BLOCK = tuple(type(iter(one)) for one in _CONTAINERS)


def _as_error(error: BaseException) -> BaseException:
    """Return what a source raised; ``StopIteration`` becomes a ``RuntimeError``, as in a generator."""
    if not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    failure = RuntimeError(f"the source of prompts raised {type(error).__name__}")
    failure.__cause__ = error
    return failure


def _id(index: int, given: Any) -> str:
    if given is None or isinstance(given, (bool, bytes, tuple, list, dict)):
        raise TypeError(f"prompts[{index}]: its id must be a string or a number, not {quoted(given)}")
    return str(given)


def check_prompts(prompts: Any) -> None:
    """Raise a ``TypeError`` for what prompts cannot be read from."""
    kind = type(prompts).__name__
    if isinstance(prompts, (str, bytes)):
        raise TypeError(f"prompts must be an iterable of prompts, not a single {kind}; use call() for one, or [prompt]")
    if isinstance(prompts, Mapping):
        raise TypeError("prompts must be an iterable of prompts, not a mapping; for {id: prompt} pass prompts.items()")
    if hasattr(prompts, "columns") and hasattr(prompts, "shape"):
        raise TypeError(
            f"prompts must be an iterable of prompts, not a {kind}; pass one of its columns, or use run_frame()"
        )
    if not isinstance(prompts, (Iterable, AsyncIterable)) and not hasattr(prompts, "__getitem__"):
        raise TypeError(f"prompts must be an iterable or async iterable of prompts, not {kind} ({quoted(prompts)})")
