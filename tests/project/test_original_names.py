"""Where programs for 0.3.0 find its names, module by module, and in which order its fields and arguments are."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pickle
import subprocess
import sys
import typing

import pytest

import batch_llm

BASE = """
BatchProcessor BatchResult LLMWorkItem PostProcessorFunc ProcessingStats ProgressCallbackFunc RetryState TContext TInput
TOutput TokenUsage WorkItemResult WORKER_CANCELLATION_TIMEOUT WORKER_SHUTDOWN_TIMEOUT POST_PROCESSOR_EXECUTION_TIMEOUT
PROGRESS_TASK_CANCELLATION_TIMEOUT
"""
CONFIGS = "ProcessorConfig RateLimitConfig RetryConfig"
PROTOCOLS = "AgentLike ResultLike TOutput UsageLike"
ERRORS = "DefaultErrorClassifier ErrorClassifier ErrorInfo FrameworkTimeoutError"
RATE_LIMITS = "ExponentialBackoffStrategy FixedDelayStrategy RateLimitStrategy"
PATTERNS = "RATE_LIMIT_PATTERNS DEFAULT_RATE_LIMIT_WAIT"
# What each module defines, what its package gives out again, and what its signatures are written with.
MODULES = {
    "batch_llm": "__version__ base parallel llm_strategies core strategies classifiers middleware observers",
    "batch_llm.base": BASE,
    "batch_llm.parallel": f"""
        ParallelBatchProcessor OBSERVER_CALLBACK_TIMEOUT POST_PROCESSOR_TIMEOUT
        BatchProcessor BatchResult LLMWorkItem PostProcessorFunc ProcessingStats ProgressCallbackFunc RetryState
        TContext TInput TOutput TokenUsage WorkItemResult {CONFIGS} {ERRORS} ExponentialBackoffStrategy
        RateLimitStrategy Middleware ProcessingEvent ProcessorObserver LLMCallStrategy
        """,
    "batch_llm.llm_strategies": """
        GeminiCachedStrategy GeminiResponse GeminiStrategy LLMCallStrategy PydanticAIStrategy TOutput RetryState
        TokenUsage
        """,
    "batch_llm.core": f"{CONFIGS} {PROTOCOLS} config protocols",
    "batch_llm.core.config": CONFIGS,
    "batch_llm.core.protocols": PROTOCOLS,
    "batch_llm.strategies": f"{ERRORS} {RATE_LIMITS} errors rate_limit",
    "batch_llm.strategies.errors": f"{ERRORS} {PATTERNS}",
    "batch_llm.strategies.rate_limit": RATE_LIMITS,
    "batch_llm.classifiers": "GeminiErrorClassifier gemini",
    "batch_llm.classifiers.gemini": f"""
        GeminiErrorClassifier {PATTERNS} TIMEOUT_PATTERNS ErrorClassifier ErrorInfo FrameworkTimeoutError
        """,
    "batch_llm.middleware": "Middleware BaseMiddleware base",
    "batch_llm.middleware.base": "Middleware BaseMiddleware LLMWorkItem WorkItemResult TInput TOutput TContext",
    "batch_llm.observers": "BaseObserver MetricsObserver ProcessingEvent ProcessorObserver base metrics",
    "batch_llm.observers.base": "BaseObserver ProcessingEvent ProcessorObserver",
    "batch_llm.observers.metrics": "MetricsObserver BaseObserver ProcessingEvent",
    "batch_llm.testing": "MockAgent MockResult mock_strategy mocks strategies",
    "batch_llm.testing.mocks": "MockAgent MockResult MockUsage TOutput",
    "batch_llm.testing.strategies": "mock_strategy MockAgent PydanticAIStrategy",
}
# Names that are one and the same object wherever they are found. TOutput is not: the protocols' has a bound.
SHARED = {name for names in MODULES.values() for name in names.split()} & set(batch_llm.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_a_module_is_found_there(module):
    loaded = importlib.import_module(module)
    for name in MODULES[module].split():
        found = getattr(loaded, name)
        if name in SHARED:
            assert found is getattr(batch_llm, name), name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_the_first_to_be_imported(module):
    names = ", ".join(name for name in MODULES[module].split() if name != "__version__")
    program = f"from {module} import {names}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modules_are_attributes_of_the_package_as_after_an_eager_import():
    program = "import batch_llm\n" + "\n".join(module for module in MODULES if "testing" not in module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_type_variables_are_those_of_the_original():
    from batch_llm import base, core, llm_strategies

    assert core.TOutput.__bound__.__name__ == "BaseModel"
    assert core.TOutput.__covariant__
    for variable in (base.TInput, base.TOutput, base.TContext, llm_strategies.TOutput):
        assert isinstance(variable, typing.TypeVar)
        assert variable.__bound__ is None


def test_a_gemini_response_can_be_read_by_a_process_that_has_imported_nothing(tmp_path):
    file = tmp_path / "response.pickle"
    file.write_bytes(pickle.dumps(batch_llm.GeminiResponse("out", None, "STOP", {}, None)))
    program = f"import pickle; print(pickle.load(open({str(file)!r}, 'rb')).finish_reason)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "STOP", done.stderr


# Fields and arguments may be given by position: what 0.3.0 had comes first, in its order.
FIELDS = {
    "RetryConfig": "max_attempts initial_wait max_wait exponential_base jitter",
    "RateLimitConfig": (
        "cooldown_seconds slow_start_items slow_start_initial_delay slow_start_final_delay backoff_multiplier"
    ),
    "ProcessorConfig": (
        "max_workers timeout_per_item retry rate_limit max_requests_per_minute progress_interval "
        "progress_callback_timeout enable_detailed_logging max_queue_size dry_run"
    ),
    "RetryState": "data",
    "LLMWorkItem": "item_id strategy prompt context",
    "WorkItemResult": "item_id success output error context token_usage gemini_safety_ratings",
    "BatchResult": ("results total_items succeeded failed total_input_tokens total_output_tokens total_cached_tokens"),
    "ProcessingStats": (
        "total processed succeeded failed start_time error_counts rate_limit_count total_input_tokens "
        "total_output_tokens total_tokens cached_input_tokens total_cached_tokens"
    ),
    "ErrorInfo": "is_retryable is_rate_limit is_timeout error_category suggested_wait",
    "GeminiResponse": "output safety_ratings finish_reason token_usage raw_response",
}
ARGUMENTS = {
    "BatchProcessor": "max_workers post_processor max_queue_size progress_callback progress_callback_timeout",
    "ParallelBatchProcessor": (
        "max_workers post_processor timeout_per_item rate_limit_cooldown config error_classifier rate_limit_strategy "
        "middlewares observers progress_callback"
    ),
    "FrameworkTimeoutError": "message item_id elapsed timeout_limit",
    "ExponentialBackoffStrategy": (
        "initial_cooldown max_cooldown backoff_multiplier slow_start_items slow_start_initial_delay "
        "slow_start_final_delay"
    ),
    "FixedDelayStrategy": "cooldown delay_between_requests",
    "GeminiStrategy": "model client response_parser config include_metadata",
    "GeminiCachedStrategy": (
        "model client response_parser cached_content cache_ttl_seconds cache_refresh_threshold "
        "cache_renewal_buffer_seconds auto_renew config include_metadata cache_tags"
    ),
    "PydanticAIStrategy": "agent",
    "testing.MockAgent": "response_factory latency failure_rate rate_limit_on_call timeout_on_call",
    "testing.MockResult": "output usage_info",
    "testing.mocks.MockUsage": "request_tokens response_tokens",
}


def named(path):
    found = batch_llm
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_keep_their_positions(kind):
    expected = FIELDS[kind].split()
    assert [field.name for field in dataclasses.fields(named(kind))][: len(expected)] == expected
    assert list(inspect.signature(named(kind)).parameters)[: len(expected)] == expected


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_keep_their_positions(kind):
    importlib.import_module("batch_llm.testing")
    expected = ARGUMENTS[kind].split()
    assert list(inspect.signature(named(kind).__init__).parameters)[1 : len(expected) + 1] == expected


def test_stats_made_by_position():
    stats = batch_llm.ProcessingStats(5, 4, 3, 1, 12.5, {"ValueError": 1}, 2, 10, 20, 30, 6, 6)
    assert (stats.start_time, stats.error_counts, stats.rate_limit_count) == (12.5, {"ValueError": 1}, 2)
    assert (stats.total_tokens, stats.total_cached_tokens, stats.replayed) == (30, 6, 0)
    assert list(stats.copy())[:12] == FIELDS["ProcessingStats"].split()


def test_a_package_that_is_not_installed_has_a_version_and_stores(monkeypatch):
    from importlib import metadata

    from batch_llm.artifacts import package_version

    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    monkeypatch.delitem(vars(batch_llm), "__version__", raising=False)
    assert batch_llm.__version__ == package_version() == "0.0.0+dev"
    monkeypatch.delitem(vars(batch_llm), "__version__")
