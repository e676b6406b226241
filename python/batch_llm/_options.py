"""What the surfaces take as keywords: options of the processor, and of the model where a name stands for it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ._follower import TokenEvent
from ._guesses import close_to
from ._lanes import LaneOptions
from ._llm import ApiKey
from ._strategies import as_strategy
from .core.config import ProcessorConfig
from .native import NativeOptions
from .parallel import PersistenceOptions

if TYPE_CHECKING:
    from ._items import PostProcessorFunc, ProgressCallbackFunc
    from ._jobs import Job
    from ._llm import LLMCallStrategy
    from .artifacts import ArtifactStore, ResponseCache, ResumePolicy
    from .middleware.base import Middleware
    from .observers.base import ProcessorObserver
    from .strategies.errors import ErrorClassifier
    from .strategies.rate_limit import RateLimitStrategy

OnInterrupt = Literal["raise", "return"]
"""What follows when a run was interrupted: ``KeyboardInterrupt``, or an ordinary return."""


class ProcessorOptions(PersistenceOptions, LaneOptions, total=False):
    """What :class:`~batch_llm.ParallelBatchProcessor` takes in addition to a configuration."""

    post_processor: PostProcessorFunc[Any, Any] | None
    timeout_per_item: float | None
    rate_limit_cooldown: float | None
    error_classifier: ErrorClassifier | None
    rate_limit_strategy: RateLimitStrategy | None
    middlewares: Sequence[Middleware[Any, Any, Any]] | None
    observers: Sequence[ProcessorObserver] | None
    progress_callback: ProgressCallbackFunc | None
    keep_prompts: bool
    job: Job | None
    control: bool | str | None


class ModelOptions(NativeOptions, total=False):
    """What :func:`~batch_llm.llm` takes in addition to a name, except what determines the type of answers."""

    api_key: ApiKey | None
    base_url: str | None


class _Watched(ProcessorOptions, total=False):
    progress: bool | Literal["tqdm", "rich", "notebook"] | ProgressCallbackFunc
    on_interrupt: OnInterrupt


class _Run(_Watched, total=False):
    config: ProcessorConfig | None
    concurrency: int | Literal["auto"]


class BatchOptions(_Run, total=False):
    """All keywords of ``run()`` and ``process_prompts()``."""

    preserve_order: bool
    dry_run: Literal["sample"] | None


class StreamOptions(_Run, total=False):
    """All keywords of ``stream()`` and ``process_stream()``."""

    ordered: bool


class _Calls(TypedDict, total=False):
    error_classifier: ErrorClassifier | None
    store: str | os.PathLike[str] | ArtifactStore | None
    cache: str | os.PathLike[str] | ResponseCache | None


class CallOptions(_Calls, total=False):
    """All keywords of ``call()`` and ``call_result()``."""

    config: ProcessorConfig | None
    on_token: Callable[[TokenEvent], object] | None


class ModelBatchOptions(BatchOptions, ModelOptions, total=False):
    """The same where a model's name is the strategy."""


class ModelStreamOptions(StreamOptions, ModelOptions, total=False):
    """The same where a model's name is the strategy."""


class ModelCallOptions(CallOptions, ModelOptions, total=False):
    """The same where a model's name is the strategy."""


class _PooledCalls(_Calls, total=False):
    observers: Sequence[ProcessorObserver] | None
    resume: ResumePolicy | str | None
    dedupe: bool


class PoolOptions(_PooledCalls, ModelOptions, total=False):
    """What a pool of calls passes on: to its processor, and to the model where its name is the strategy."""

    response_model: Any
    response_parser: Callable[[str], Any] | None


class FrameOptions(_Watched, ModelOptions, total=False):
    """What functions of frames pass on: to the run, and to the model where its name is the strategy."""


OF_PROCESSOR = tuple(ProcessorOptions.__annotations__)
OF_POOLS = tuple(_PooledCalls.__annotations__)
OF_FRAMES = tuple(_Watched.__annotations__)
OF_MODEL = (*(name for name in ModelOptions.__annotations__ if name != "provider"), "response_model", "response_parser")


def split(
    given: Mapping[str, Any], strategy: Any, others: Sequence[str], known: Sequence[str] = OF_PROCESSOR
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the processor, and those of the model.

    Args:
        given: The keywords.
        strategy: What answers.
        others: Further keywords that the caller has.
        known: Options of the processor that there are.

    Raises:
        TypeError: If one is unknown (the message suggests the closest match), or is a model's, and the strategy is not
            a name.
    """
    of_processor = {name: value for name, value in given.items() if name in known}
    of_model = {name: value for name, value in given.items() if name in OF_MODEL}
    for name in given:
        if name not in known and name not in OF_MODEL:
            raise _unknown(name, (*known, *others))
    if of_model and not isinstance(strategy, str):
        name = next(iter(of_model))
        if callable(getattr(strategy, "execute", None)):
            kind = type(strategy).__name__
            raise TypeError(
                f"{name} is an option of the model: pass it where the strategy is created, {kind}(..., {name}=...)"
            )
        raise TypeError(
            f"{name} is an option for models given by name, such as 'openai:gpt-5-mini'; a function takes no options"
        )
    return of_processor, of_model


def strategy_with(strategy: Any, options: Mapping[str, Any]) -> LLMCallStrategy[Any]:
    """What answers, with the options of the model where it is a name."""
    if options:
        from .native import llm

        make: Callable[..., LLMCallStrategy[Any]] = llm
        return make(strategy, **options)
    return as_strategy(strategy)


def configured(config: ProcessorConfig | None, concurrency: int | Literal["auto"]) -> ProcessorConfig:
    """A configuration with a concurrency; the user's own is left as it is.

    Raises:
        TypeError: If ``config`` is not one.
        ValueError: If two different numbers were given.
    """
    if config is None:
        config = ProcessorConfig()
    elif not isinstance(config, ProcessorConfig):
        raise TypeError(f"config must be a ProcessorConfig, not {type(config).__name__}")
    if config.concurrency is not None:
        if concurrency not in ("auto", config.concurrency):
            raise ValueError(
                f"concurrency is {concurrency!r} and config.concurrency is {config.concurrency!r}: set only one of them"
            )
        return config
    config = copy.copy(config)
    if concurrency != "auto" or config.max_workers == ProcessorConfig.max_workers:
        config.concurrency = concurrency
    return config


def _unknown(name: str, known: Sequence[str]) -> TypeError:
    if name == "max_workers" and "concurrency" in known:
        hint = "use concurrency="
    elif name == "provider":
        hint = "it is the first part of the model's name, as in 'openai:gpt-5-mini'"
    elif name in ProcessorConfig.__dataclass_fields__:
        hint = f"it is a field of the configuration: config=ProcessorConfig({name}=...)"
    else:
        near = close_to(name, (*known, *OF_MODEL))
        hint = f"did you mean {near[0]!r}?" if near else f"known options: {', '.join((*known, *OF_MODEL))}"
    return TypeError(f"unknown option {name!r}; {hint}")
