"""Run a million LLM calls from one Python process, as fast as the provider allows, with nothing lost.

The names below are the public interface. They are imported on first use, so ``import batch_llm`` itself is fast.
Modules with a leading underscore are private.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._boards import Demand, JobReport, JobVerdict, LimitBoard, LimitServer, Share
    from ._control import AttachedRun, AttachedSync, attach
    from ._jobs import Job
    from ._lanes import BatchSettings, BatchTicket
    from .artifacts import (
        ArtifactIdentity,
        ArtifactStore,
        JsonlArtifactStore,
        ResponseCache,
        ResumePolicy,
        SegmentArtifactStore,
        SqliteArtifactStore,
        SqliteDurability,
    )
    from .base import (
        BatchProcessor,
        BatchResult,
        BatchTermination,
        LLMWorkItem,
        PostProcessorFunc,
        ProcessingStats,
        ProgressCallbackFunc,
        RetryState,
        TokenUsage,
        WorkItemResult,
    )
    from .blocking import BlockingResultStream, run, stream
    from .call_pool import LLMCallPool, PoolStats
    from .callable_strategy import CallableStrategy, CallOutcome
    from .calls import TokenEvent, call, call_result, stream_tokens
    from .classifiers import GeminiErrorClassifier
    from .content import Audio, File, Image
    from .conversations import Conversation, End, Reply
    from .core import (
        AbortMode,
        AttemptUsage,
        GuardrailConfig,
        ProcessorConfig,
        Quota,
        RateLimitConfig,
        RetryConfig,
        StartupRampConfig,
    )
    from .embeddings import EmbeddingStrategy
    from .errors import (
        ArtifactError,
        ArtifactFormatError,
        ArtifactIdentityError,
        ArtifactIOError,
        ArtifactSerializationError,
        BatchAbortedError,
        BatchAdmissionClosedError,
        BatchBudgetExceeded,
        BatchDeadlineExceeded,
        BatchInterruptedError,
        BatchLLMError,
        ContentFilterError,
        ControlError,
        EmptyResponseError,
        GuardrailError,
        InBatchError,
        ItemCancelledError,
        ItemDeadlineExceeded,
        LLMCallError,
        PoolClosedError,
        PoolError,
        PoolSaturated,
        PromptError,
        ProviderConnectionError,
        ProviderError,
        ProviderResponseError,
        ProviderTimeoutError,
        QuotaScopeError,
        RefusalError,
        ResultSerializationError,
        RoundsExhaustedError,
        StoreWriteError,
        StructuredOutputValidationError,
        SubmitTimeout,
        TokenEstimateExceedsLimit,
        TokenEstimationError,
        ToolError,
        TruncatedResponseError,
        UnkeptError,
    )
    from .estimates import RunEstimate
    from .frames import answers_schema, process_frame, run_frame
    from .inspection import Inspection, inspect
    from .llm_strategies import (
        GeminiCachedStrategy,
        GeminiResponse,
        GeminiStrategy,
        LLMCallStrategy,
        PydanticAIStrategy,
    )
    from .middleware import BaseMiddleware, Middleware
    from .native import (
        AnthropicStrategy,
        BedrockStrategy,
        GoogleStrategy,
        NativeStrategy,
        OpenAIStrategy,
        VertexStrategy,
        llm,
    )
    from .observers import BaseObserver, MetricsObserver, ProcessingEvent, ProcessorObserver
    from .parallel import ParallelBatchProcessor, SimpleBatchProcessor, SimpleResult, SimpleWorkItem
    from .plans import LanePlan, PlannedLane, plan
    from .pools import Fallback, MixedPoolStrategy, PoolStrategy, pool
    from .prices import Price
    from .prompts import ResultStream, last_interrupted, process_prompts, process_stream, read_in_thread
    from .strategies import (
        DefaultErrorClassifier,
        ErrorClassifier,
        ErrorInfo,
        ExponentialBackoffStrategy,
        FixedDelayStrategy,
        FrameworkTimeoutError,
        RateLimitStrategy,
    )
    from .timing import AttemptTiming, WorkItemTiming
    from .token_estimation import CharacterTokenEstimator, TokenEstimate, TokenEstimator
    from .tools import Tool, ToolCall, ToolContext
    from .transport import Transport

    __version__: str

__all__ = [
    "AbortMode",
    "AnthropicStrategy",
    "ArtifactError",
    "ArtifactFormatError",
    "ArtifactIOError",
    "ArtifactIdentity",
    "ArtifactIdentityError",
    "ArtifactSerializationError",
    "ArtifactStore",
    "AttachedRun",
    "AttachedSync",
    "AttemptTiming",
    "AttemptUsage",
    "Audio",
    "BaseMiddleware",
    "BaseObserver",
    "BatchAbortedError",
    "BatchAdmissionClosedError",
    "BatchBudgetExceeded",
    "BatchDeadlineExceeded",
    "BatchInterruptedError",
    "BatchLLMError",
    "BatchProcessor",
    "BatchResult",
    "BatchSettings",
    "BatchTermination",
    "BatchTicket",
    "BedrockStrategy",
    "BlockingResultStream",
    "CallOutcome",
    "CallableStrategy",
    "CharacterTokenEstimator",
    "ContentFilterError",
    "ControlError",
    "Conversation",
    "DefaultErrorClassifier",
    "Demand",
    "EmbeddingStrategy",
    "EmptyResponseError",
    "End",
    "ErrorClassifier",
    "ErrorInfo",
    "ExponentialBackoffStrategy",
    "Fallback",
    "File",
    "FixedDelayStrategy",
    "FrameworkTimeoutError",
    "GeminiCachedStrategy",
    "GeminiErrorClassifier",
    "GeminiResponse",
    "GeminiStrategy",
    "GoogleStrategy",
    "GuardrailConfig",
    "GuardrailError",
    "Image",
    "InBatchError",
    "Inspection",
    "ItemCancelledError",
    "ItemDeadlineExceeded",
    "Job",
    "JobReport",
    "JobVerdict",
    "JsonlArtifactStore",
    "LLMCallError",
    "LLMCallPool",
    "LLMCallStrategy",
    "LLMWorkItem",
    "LanePlan",
    "LimitBoard",
    "LimitServer",
    "MetricsObserver",
    "Middleware",
    "MixedPoolStrategy",
    "NativeStrategy",
    "OpenAIStrategy",
    "ParallelBatchProcessor",
    "PlannedLane",
    "PoolClosedError",
    "PoolError",
    "PoolSaturated",
    "PoolStats",
    "PoolStrategy",
    "PostProcessorFunc",
    "Price",
    "ProcessingEvent",
    "ProcessingStats",
    "ProcessorConfig",
    "ProcessorObserver",
    "ProgressCallbackFunc",
    "PromptError",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderResponseError",
    "ProviderTimeoutError",
    "PydanticAIStrategy",
    "Quota",
    "QuotaScopeError",
    "RateLimitConfig",
    "RateLimitStrategy",
    "RefusalError",
    "Reply",
    "ResponseCache",
    "ResultSerializationError",
    "ResultStream",
    "ResumePolicy",
    "RetryConfig",
    "RetryState",
    "RoundsExhaustedError",
    "RunEstimate",
    "SegmentArtifactStore",
    "Share",
    "SimpleBatchProcessor",
    "SimpleResult",
    "SimpleWorkItem",
    "SqliteArtifactStore",
    "SqliteDurability",
    "StartupRampConfig",
    "StoreWriteError",
    "StructuredOutputValidationError",
    "SubmitTimeout",
    "TokenEstimate",
    "TokenEstimateExceedsLimit",
    "TokenEstimationError",
    "TokenEstimator",
    "TokenEvent",
    "TokenUsage",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "Transport",
    "TruncatedResponseError",
    "UnkeptError",
    "VertexStrategy",
    "WorkItemResult",
    "WorkItemTiming",
    "answers_schema",
    "attach",
    "call",
    "call_result",
    "inspect",
    "last_interrupted",
    "llm",
    "plan",
    "pool",
    "process_frame",
    "process_prompts",
    "process_stream",
    "read_in_thread",
    "run",
    "run_frame",
    "stream",
    "stream_tokens",
]

# Quiet, until the program configures logging.
logging.getLogger("batch_llm").addHandler(logging.NullHandler())

_HOMES = {
    "._boards": "Demand JobReport JobVerdict LimitBoard LimitServer Share",
    "._control": "AttachedRun AttachedSync attach",
    "._jobs": "Job",
    "._lanes": "BatchSettings BatchTicket",
    ".artifacts": (
        "ArtifactIdentity ArtifactStore JsonlArtifactStore ResponseCache ResumePolicy SegmentArtifactStore "
        "SqliteArtifactStore SqliteDurability"
    ),
    ".inspection": "Inspection inspect",
    ".blocking": "BlockingResultStream run stream",
    ".call_pool": "LLMCallPool PoolStats",
    ".calls": "TokenEvent call call_result stream_tokens",
    ".callable_strategy": "CallOutcome CallableStrategy",
    ".estimates": "RunEstimate",
    ".frames": "answers_schema process_frame run_frame",
    ".prompts": "ResultStream last_interrupted process_prompts process_stream read_in_thread",
    ".plans": "LanePlan PlannedLane plan",
    ".timing": "AttemptTiming WorkItemTiming",
    ".base": (
        "BatchProcessor BatchResult BatchTermination LLMWorkItem PostProcessorFunc ProcessingStats "
        "ProgressCallbackFunc RetryState TokenUsage WorkItemResult"
    ),
    ".classifiers": "GeminiErrorClassifier",
    ".core": (
        "AbortMode AttemptUsage GuardrailConfig ProcessorConfig Quota RateLimitConfig RetryConfig StartupRampConfig"
    ),
    ".content": "Audio File Image",
    ".embeddings": "EmbeddingStrategy",
    ".errors": (
        "ArtifactError ArtifactFormatError ArtifactIOError ArtifactIdentityError ArtifactSerializationError "
        "StoreWriteError UnkeptError "
        "BatchAbortedError BatchAdmissionClosedError BatchBudgetExceeded BatchDeadlineExceeded "
        "BatchInterruptedError BatchLLMError ContentFilterError ControlError EmptyResponseError "
        "GuardrailError InBatchError "
        "ItemCancelledError ItemDeadlineExceeded LLMCallError PoolClosedError PoolError PoolSaturated "
        "PromptError ProviderConnectionError ProviderError ProviderResponseError ProviderTimeoutError "
        "QuotaScopeError RefusalError ResultSerializationError RoundsExhaustedError StructuredOutputValidationError "
        "SubmitTimeout TokenEstimateExceedsLimit TokenEstimationError ToolError TruncatedResponseError"
    ),
    ".llm_strategies": "GeminiCachedStrategy GeminiResponse GeminiStrategy LLMCallStrategy PydanticAIStrategy",
    ".middleware": "BaseMiddleware Middleware",
    ".observers": "BaseObserver MetricsObserver ProcessingEvent ProcessorObserver",
    ".native": "AnthropicStrategy BedrockStrategy GoogleStrategy NativeStrategy OpenAIStrategy VertexStrategy llm",
    ".parallel": "ParallelBatchProcessor SimpleBatchProcessor SimpleResult SimpleWorkItem",
    ".pools": "Fallback MixedPoolStrategy PoolStrategy pool",
    ".prices": "Price",
    ".token_estimation": "CharacterTokenEstimator TokenEstimate TokenEstimator",
    ".tools": "Tool ToolCall ToolContext",
    ".conversations": "Conversation End Reply",
    ".transport": "Transport",
    ".strategies": (
        "DefaultErrorClassifier ErrorClassifier ErrorInfo ExponentialBackoffStrategy FixedDelayStrategy "
        "FrameworkTimeoutError RateLimitStrategy"
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._version import version

        value: Any = version()
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
