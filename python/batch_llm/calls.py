"""Single calls, with the same retries, limits and accounting as whole batches: ``call()`` and ``stream_tokens()``."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from ._callers import ends_at_caller
from ._follower import Follower, TokenEvent
from ._items import LLMWorkItem
from ._options import split, strategy_with
from ._results import Result, WorkItemResult
from ._run import LiveRun
from .core.config import ProcessorConfig
from .errors import LLMCallError
from .native import NativeStrategy
from .parallel import ParallelBatchProcessor
from .prompts import TAnswer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._llm import LLMCallStrategy
    from ._options import CallOptions, ModelCallOptions
    from .artifacts import ArtifactStore, ResponseCache
    from .prompts import Strategy
    from .strategies.errors import ErrorClassifier

__all__ = ["LLMCallError", "TokenEvent", "call", "call_result", "stream_tokens"]

_KEYWORDS = ("config", "error_classifier", "store", "cache", "on_token")


@overload
async def call_result(
    strategy: LLMCallStrategy[TAnswer], prompt: Any, **options: Unpack[CallOptions]
) -> Result[TAnswer, Any]: ...
@overload
async def call_result(
    strategy: str, prompt: Any, *, response_model: type[TAnswer], **options: Unpack[ModelCallOptions]
) -> Result[TAnswer, Any]: ...
@overload
async def call_result(
    strategy: str, prompt: Any, *, response_parser: Callable[[str], TAnswer], **options: Unpack[ModelCallOptions]
) -> Result[TAnswer, Any]: ...
@overload
async def call_result(
    strategy: str, prompt: Any, *, response_model: Mapping[str, Any], **options: Unpack[ModelCallOptions]
) -> Result[Any, Any]: ...
@overload
async def call_result(strategy: str, prompt: Any, **options: Unpack[ModelCallOptions]) -> Result[str, Any]: ...
@overload
async def call_result(
    strategy: Callable[..., Any], prompt: Any, **options: Unpack[CallOptions]
) -> Result[Any, Any]: ...
@overload
async def call_result(
    strategy: Strategy[TAnswer], prompt: Any, **options: Unpack[CallOptions]
) -> Result[TAnswer, Any]: ...
@ends_at_caller
async def call_result(
    strategy: Strategy[TAnswer],
    prompt: Any,
    *,
    config: ProcessorConfig | None = None,
    error_classifier: ErrorClassifier | None = None,
    store: str | os.PathLike[str] | ArtifactStore | None = None,
    cache: str | os.PathLike[str] | ResponseCache | None = None,
    on_token: Callable[[TokenEvent], object] | None = None,
    **options: Any,
) -> WorkItemResult[Any, Any]:
    """Answer one prompt, with the same retries and limits as a batch, and return its result.

    Args:
        strategy: What answers the prompt; see :func:`~batch_llm.process_prompts`.
        prompt: The prompt.
        config: The configuration.
        error_classifier: Classifies errors.
        store: Where the result is stored, and looked up first; see :class:`~batch_llm.ParallelBatchProcessor`. Each
            call opens it anew; for many calls, use a pool.
        cache: Where the answer is cached; see :class:`~batch_llm.ParallelBatchProcessor`.
        on_token: Called on the event loop with each :class:`~batch_llm.TokenEvent` while the answer is streamed. If it
            returns True, the answer ends there: the result is a success with the text so far, and its
            ``metadata["finish_reason"]`` is ``"stopped"``. For native strategies, without a store or cache.
        options: With a model name, the options of :func:`~batch_llm.llm`: ``temperature``, ``response_model``, ...

    Returns:
        The result, with the id ``"single"``. If the call failed, it is a failed result.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is invalid.
        ArtifactError: If the store or cache cannot be used.
        asyncio.CancelledError: If the awaiting task is cancelled; the call is cancelled too.
        BaseException: What ``on_token`` raised.
    """
    _, of_model = split(options, strategy, _KEYWORDS, ())
    processor: ParallelBatchProcessor[Any, Any, Any] = ParallelBatchProcessor(
        config=_single(config), error_classifier=error_classifier, store=store, cache=cache, control=False
    )
    answering, follower = strategy_with(strategy, of_model), None
    if on_token is not None:
        follower = Follower(on_token)
        answering = _followed(answering, follower, store, cache)
    item: LLMWorkItem[Any, Any, Any] = LLMWorkItem("single", answering, prompt)
    processor._check_item(item)
    live = LiveRun(processor._plan(), [item])
    live.close_input()
    results: list[WorkItemResult[TAnswer, Any]] = []
    try:
        while taken := await live.take():
            results.extend(taken)
    except BaseException as error:
        await live.broken(error, results)
        raise
    if follower is not None and follower.error is not None:
        raise follower.error
    return results[0]


def _single(config: ProcessorConfig | None) -> ProcessorConfig:
    if config is None:
        return ProcessorConfig(concurrency=1)
    return config


@overload
async def call(strategy: LLMCallStrategy[TAnswer], prompt: Any, **options: Unpack[CallOptions]) -> TAnswer: ...
@overload
async def call(
    strategy: str, prompt: Any, *, response_model: type[TAnswer], **options: Unpack[ModelCallOptions]
) -> TAnswer: ...
@overload
async def call(
    strategy: str, prompt: Any, *, response_parser: Callable[[str], TAnswer], **options: Unpack[ModelCallOptions]
) -> TAnswer: ...
@overload
async def call(
    strategy: str, prompt: Any, *, response_model: Mapping[str, Any], **options: Unpack[ModelCallOptions]
) -> Any: ...
@overload
async def call(strategy: str, prompt: Any, **options: Unpack[ModelCallOptions]) -> str: ...
@overload
async def call(strategy: Callable[..., Any], prompt: Any, **options: Unpack[CallOptions]) -> Any: ...
@overload
async def call(strategy: Strategy[TAnswer], prompt: Any, **options: Unpack[CallOptions]) -> TAnswer: ...
@ends_at_caller
async def call(
    strategy: Strategy[TAnswer],
    prompt: Any,
    *,
    config: ProcessorConfig | None = None,
    error_classifier: ErrorClassifier | None = None,
    store: str | os.PathLike[str] | ArtifactStore | None = None,
    cache: str | os.PathLike[str] | ResponseCache | None = None,
    on_token: Callable[[TokenEvent], object] | None = None,
    **options: Any,
) -> Any:
    """Answer one prompt and return the output; see :func:`call_result`.

    Raises:
        Exception: The exception of the last attempt, if the call fails.
        LLMCallError: If the call failed without an exception.
    """
    result = await call_result(
        strategy,
        prompt,
        config=config,
        error_classifier=error_classifier,
        store=store,
        cache=cache,
        on_token=on_token,
        **options,
    )
    return output_of(result)


def output_of(result: WorkItemResult[TAnswer, Any]) -> TAnswer:
    """The output of a result, or the exception that it failed with."""
    if result.success:
        output: Any = result.output
        return output  # type: ignore[no-any-return] # None is an output like any other
    if result.exception is not None:
        raise result.exception
    raise LLMCallError(result.error or "the call failed", result)


async def stream_tokens(
    strategy: Strategy[Any],
    prompt: Any,
    *,
    config: ProcessorConfig | None = None,
    error_classifier: ErrorClassifier | None = None,
    **options: Any,
) -> AsyncIterator[TokenEvent]:
    """Answer one prompt, and yield the answer as it arrives.

    ::

        async for event in stream_tokens("openai:gpt-5-mini", "Tell me a story."):
            print(event.text, end="", flush=True)

    Retries and limits are those of :func:`call_result`. Leaving the loop ends the request.

    Args:
        strategy: A model's name or a native strategy; see :func:`~batch_llm.process_prompts`.
        prompt: The prompt.
        config: The configuration.
        error_classifier: Classifies errors.
        options: With a model name, the options of :func:`~batch_llm.llm`: ``temperature``, ``max_tokens``, ...

    Yields:
        Events: ``"text"`` and ``"reasoning"`` as they arrive, ``"retry"`` when an attempt failed and the answer starts
        over, and ``"result"`` at the end.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is invalid.
        Exception: The exception of the last attempt, if the call fails.
        LLMCallError: If the call failed without an exception.
    """
    events: asyncio.Queue[TokenEvent | None] = asyncio.Queue()
    calling = call_result(
        strategy, prompt, config=config, error_classifier=error_classifier, on_token=events.put_nowait, **options
    )
    task = asyncio.ensure_future(calling)
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        result = await task
        if not result.success:
            output_of(result)
        yield TokenEvent("result", result=result)
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _followed(strategy: Any, follower: Follower, store: Any, cache: Any) -> Any:
    if not isinstance(strategy, NativeStrategy):
        raise TypeError(f"on_token needs a model's name or a native strategy, not {type(strategy).__name__}")
    if store is not None or cache is not None:
        raise ValueError("on_token needs a call without a store or cache: stored answers are not streamed")
    return strategy._followed_by(follower)
