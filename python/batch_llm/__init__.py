"""Run a million LLM calls from one Python process, as fast as the provider allows, with nothing lost.

The names below are the public interface. They are imported when first used, so that ``import batch_llm`` costs
next to nothing; modules with a leading underscore are private.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import (
        BatchProcessor,
        BatchResult,
        LLMWorkItem,
        PostProcessorFunc,
        ProcessingStats,
        ProgressCallbackFunc,
        RetryState,
        TokenUsage,
        WorkItemResult,
    )
    from .classifiers import GeminiErrorClassifier
    from .core import ProcessorConfig, RateLimitConfig, RetryConfig
    from .errors import (
        EmptyResponseError,
        ProviderConnectionError,
        ProviderError,
        ProviderResponseError,
        ProviderTimeoutError,
    )
    from .llm_strategies import (
        GeminiCachedStrategy,
        GeminiResponse,
        GeminiStrategy,
        LLMCallStrategy,
        PydanticAIStrategy,
    )
    from .middleware import BaseMiddleware, Middleware
    from .observers import BaseObserver, MetricsObserver, ProcessingEvent, ProcessorObserver
    from .openai import OpenAIStrategy
    from .parallel import ParallelBatchProcessor
    from .strategies import (
        DefaultErrorClassifier,
        ErrorClassifier,
        ErrorInfo,
        ExponentialBackoffStrategy,
        FixedDelayStrategy,
        FrameworkTimeoutError,
        RateLimitStrategy,
    )

    __version__: str

__all__ = [
    "BaseMiddleware",
    "BaseObserver",
    "BatchProcessor",
    "BatchResult",
    "DefaultErrorClassifier",
    "EmptyResponseError",
    "ErrorClassifier",
    "ErrorInfo",
    "ExponentialBackoffStrategy",
    "FixedDelayStrategy",
    "FrameworkTimeoutError",
    "GeminiCachedStrategy",
    "GeminiErrorClassifier",
    "GeminiResponse",
    "GeminiStrategy",
    "LLMCallStrategy",
    "LLMWorkItem",
    "MetricsObserver",
    "Middleware",
    "OpenAIStrategy",
    "ParallelBatchProcessor",
    "PostProcessorFunc",
    "ProcessingEvent",
    "ProcessingStats",
    "ProcessorConfig",
    "ProcessorObserver",
    "ProgressCallbackFunc",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderResponseError",
    "ProviderTimeoutError",
    "PydanticAIStrategy",
    "RateLimitConfig",
    "RateLimitStrategy",
    "RetryConfig",
    "RetryState",
    "TokenUsage",
    "WorkItemResult",
]

_HOMES = {
    ".base": (
        "BatchProcessor BatchResult LLMWorkItem PostProcessorFunc ProcessingStats ProgressCallbackFunc RetryState "
        "TokenUsage WorkItemResult"
    ),
    ".classifiers": "GeminiErrorClassifier",
    ".core": "ProcessorConfig RateLimitConfig RetryConfig",
    ".errors": "EmptyResponseError ProviderConnectionError ProviderError ProviderResponseError ProviderTimeoutError",
    ".llm_strategies": "GeminiCachedStrategy GeminiResponse GeminiStrategy LLMCallStrategy PydanticAIStrategy",
    ".middleware": "BaseMiddleware Middleware",
    ".observers": "BaseObserver MetricsObserver ProcessingEvent ProcessorObserver",
    ".openai": "OpenAIStrategy",
    ".parallel": "ParallelBatchProcessor",
    ".strategies": (
        "DefaultErrorClassifier ErrorClassifier ErrorInfo ExponentialBackoffStrategy FixedDelayStrategy "
        "FrameworkTimeoutError RateLimitStrategy"
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name], __name__), name)
    else:
        try:
            # Sub-modules, as an eager import would have bound them: ``batch_llm.base`` after ``import batch_llm``.
            value = importlib.import_module(f".{name}", __name__) if not name.startswith("_") else None
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            value = None
        if value is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("batch-llm")
    except metadata.PackageNotFoundError:
        return "0.0.0+dev"
