"""Names, signatures, defaults and data types of the original interface."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import batch_llm
from batch_llm import LLMWorkItem, ParallelBatchProcessor, ProcessorConfig, RateLimitConfig, RetryConfig, RetryState

from ..helpers import Echo, quick

ORIGINAL_NAMES = """
BatchProcessor BatchResult LLMWorkItem PostProcessorFunc ProcessingStats ProgressCallbackFunc RetryState TokenUsage
WorkItemResult ProcessorConfig RateLimitConfig RetryConfig GeminiCachedStrategy GeminiResponse GeminiStrategy
LLMCallStrategy PydanticAIStrategy ErrorClassifier ErrorInfo DefaultErrorClassifier FrameworkTimeoutError
RateLimitStrategy ExponentialBackoffStrategy FixedDelayStrategy Middleware BaseMiddleware ProcessorObserver
BaseObserver MetricsObserver ProcessingEvent GeminiErrorClassifier ParallelBatchProcessor
""".split()

MODULES = """
batch_llm.base batch_llm.parallel batch_llm.llm_strategies batch_llm.core batch_llm.core.config
batch_llm.core.protocols batch_llm.strategies batch_llm.strategies.errors batch_llm.strategies.rate_limit
batch_llm.classifiers batch_llm.classifiers.gemini batch_llm.middleware batch_llm.middleware.base batch_llm.observers
batch_llm.observers.base batch_llm.observers.metrics batch_llm.testing batch_llm.testing.mocks
batch_llm.testing.strategies
""".split()

ROOT = Path(__file__).parents[2]


def test_every_original_name_is_there():
    assert len(ORIGINAL_NAMES) == 32
    assert set(ORIGINAL_NAMES) <= set(batch_llm.__all__)
    for name in batch_llm.__all__:
        assert getattr(batch_llm, name) is not None
    with pytest.raises(AttributeError):
        batch_llm.no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        from batch_llm import no_such_name  # noqa: F401


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_what_it_promises(module):
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert getattr(loaded, name) is not None


def test_module_constants():
    from batch_llm import base, parallel
    from batch_llm.classifiers import gemini
    from batch_llm.strategies import errors

    assert (base.WORKER_CANCELLATION_TIMEOUT, base.WORKER_SHUTDOWN_TIMEOUT) == (2.0, 30.0)
    assert (base.POST_PROCESSOR_EXECUTION_TIMEOUT, base.PROGRESS_TASK_CANCELLATION_TIMEOUT) == (75.0, 2.0)
    assert (parallel.OBSERVER_CALLBACK_TIMEOUT, parallel.POST_PROCESSOR_TIMEOUT) == (5.0, 90.0)
    assert (
        errors.RATE_LIMIT_PATTERNS == gemini.RATE_LIMIT_PATTERNS == ("429", "resource_exhausted", "quota", "rate limit")
    )
    assert errors.DEFAULT_RATE_LIMIT_WAIT == gemini.DEFAULT_RATE_LIMIT_WAIT == 300.0
    assert gemini.TIMEOUT_PATTERNS == ("timeout", "504", "deadline")


def test_one_version_everywhere():
    version = batch_llm.__version__
    assert version == metadata.version("batch-llm")
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+dev)?", version)
    for file in ("Cargo.toml", "pyproject.toml"):
        found = re.search(r'^version = "(.+)"$', (ROOT / file).read_text(), re.MULTILINE)
        assert found is not None
        assert found[1] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_import_is_light():
    program = "import sys, batch_llm; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pydantic", "pydantic_ai", "google.genai", "asyncio", "tqdm", "batch_llm._core", "httpx"}
    assert heavy.isdisjoint(loaded)
    program = "import sys; from batch_llm import *; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic", "pydantic_ai", "google.genai", "tqdm", "httpx"}.isdisjoint(loaded)


def test_every_public_name_has_a_docstring():
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__, name
        for attribute, value in vars(module).items():
            if attribute.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                missing += [] if value.__doc__ else [f"{name}.{attribute}"]
            if inspect.isclass(value):
                missing += [
                    f"{name}.{attribute}.{method}"
                    for method, function in vars(value).items()
                    if not method.startswith("_") and inspect.isfunction(function) and not function.__doc__
                ]
    assert missing == []


def test_the_processors_signature():
    names = list(inspect.signature(ParallelBatchProcessor.__init__).parameters)
    assert names[1:11] == [
        "max_workers", "post_processor", "timeout_per_item", "rate_limit_cooldown", "config", "error_classifier",
        "rate_limit_strategy", "middlewares", "observers", "progress_callback",
    ]  # fmt: skip
    processor = ParallelBatchProcessor[str, str, None](3, None, 9.0, 1.0)
    assert (processor.max_workers, processor.config.timeout_per_item) == (3, 9.0)
    assert processor.config.rate_limit.cooldown_seconds == 1.0
    assert (processor.middlewares, processor.observers) == ([], [])
    given: list = []
    assert ParallelBatchProcessor(middlewares=given).middlewares is given
    assert LLMWorkItem[str, str, None]("a", Echo(), "x").item_id == "a"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RetryConfig(max_attempts=0), "max_attempts must be >= 1"),
        (lambda: RetryConfig(initial_wait=0), "initial_wait must be > 0"),
        (lambda: RetryConfig(initial_wait=5, max_wait=1), "max_wait must be >= initial_wait"),
        (lambda: RetryConfig(exponential_base=0.5), "exponential_base must be >= 1"),
        (lambda: RetryConfig(initial_wait=float("nan")), "initial_wait must be a number, not NaN"),
        (lambda: RetryConfig(max_attempts="3"), "max_attempts must be an integer"),
        (lambda: RetryConfig(max_rate_limit_retries=-1), "max_rate_limit_retries must be >= 0"),
        (lambda: RateLimitConfig(cooldown_seconds=-1), "cooldown_seconds must be >= 0"),
        (lambda: RateLimitConfig(slow_start_items=-1), "slow_start_items must be >= 0"),
        (
            lambda: RateLimitConfig(slow_start_initial_delay=0.1, slow_start_final_delay=1),
            "slow_start_initial_delay must be >= slow_start_final_delay",
        ),
        (lambda: RateLimitConfig(backoff_multiplier=0.9), "backoff_multiplier must be >= 1.0"),
        (lambda: RateLimitConfig(cooldown_seconds=float("nan")), "NaN"),
        (lambda: ProcessorConfig(max_workers=0), "max_workers must be >= 1"),
        (lambda: ProcessorConfig(max_workers=2.5), "max_workers must be an integer"),
        (lambda: ProcessorConfig(timeout_per_item=0), "timeout_per_item must be > 0"),
        (lambda: ProcessorConfig(timeout_per_item=float("nan")), "NaN"),
        (lambda: ProcessorConfig(timeout_per_item=None), "timeout_per_item must be a number"),
        (lambda: ProcessorConfig(progress_interval=0), "progress_interval must be >= 1"),
        (lambda: ProcessorConfig(progress_callback_timeout=0), "progress_callback_timeout must be > 0"),
        (lambda: ProcessorConfig(max_queue_size=-1), "max_queue_size must be >= 0"),
        (lambda: ProcessorConfig(max_requests_per_minute=-10), "max_requests_per_minute must be > 0"),
        (lambda: ProcessorConfig(max_requests_per_minute=0), "max_requests_per_minute must be > 0 or None"),
        (lambda: ProcessorConfig(max_prompt_length=0), "max_prompt_length must be >= 1"),
        (lambda: ProcessorConfig(retry=RetryConfig(max_attempts=0)), "max_attempts must be >= 1"),
        (lambda: ProcessorConfig(rate_limit=RateLimitConfig(cooldown_seconds=-1)), "cooldown_seconds must be >= 0"),
    ],
)
def test_settings_that_make_no_sense(make, says):
    config = make()  # constructing never validates
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        config.validate()
    assert "got" in str(caught.value)
    if isinstance(config, ProcessorConfig):
        with pytest.raises(ValueError, match=re.escape(says)):
            ParallelBatchProcessor(config=config)


@pytest.mark.parametrize("arguments", [{"max_workers": 0}, {"timeout_per_item": -1.0}, {"rate_limit_cooldown": -1}])
def test_zero_is_not_taken_for_not_given(arguments):
    with pytest.raises(ValueError, match="must be"):
        ParallelBatchProcessor(**arguments)
    assert ParallelBatchProcessor(rate_limit_cooldown=0).config.rate_limit.cooldown_seconds == 0


def test_doubtful_settings_are_warnings(caplog):
    ProcessorConfig(max_queue_size=3, max_workers=10).validate()
    assert "max_queue_size (3) is less than the number of workers (10)" in caplog.text
    caplog.clear()
    ProcessorConfig(max_requests_per_minute=0.5).validate()
    assert "Lower the number of workers to 1." in caplog.text
    caplog.clear()
    ProcessorConfig(max_requests_per_minute=600, max_workers=20, timeout_per_item=1).validate()
    assert caplog.text == ""


@pytest.mark.parametrize("item_id", ["", None, 5, b"x", [], "   ", "\t\n"])
def test_item_ids_that_are_none(item_id):
    with pytest.raises(ValueError, match="item_id") as caught:
        LLMWorkItem(item_id, Echo(), "x")
    assert repr(item_id) in str(caught.value)


async def test_work_that_cannot_be_done_is_refused_at_once():
    processor = ParallelBatchProcessor(config=quick(max_prompt_length=10))
    with pytest.raises(TypeError, match="LLMWorkItem"):
        await processor.add_work("just a prompt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'a'.*strategy is None"):
        await processor.add_work(LLMWorkItem("a", None, "x"))  # type: ignore[arg-type]
    for prompt in (None, 5, b"bytes", ["x"], {"role": "user"}):
        with pytest.raises(TypeError, match="'a'.*prompt must be a string"):
            await processor.add_work(LLMWorkItem("a", Echo(), prompt))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'a'.*11 characters.*max_prompt_length is 10"):
        await processor.add_work(LLMWorkItem("a", Echo(), "x" * 11))
    await processor.add_work(LLMWorkItem("good", Echo(), "x" * 10))
    assert (await processor.process_all()).succeeded == 1


def test_two_configs_or_none_at_all():
    with pytest.raises(TypeError, match="two configurations"):
        ParallelBatchProcessor(ProcessorConfig(), config=ProcessorConfig())
    with pytest.raises(TypeError, match="ProcessorConfig"):
        ParallelBatchProcessor(config={"max_workers": 3})  # type: ignore[arg-type]


def test_retry_state():
    state = RetryState()
    state.set("key", [1])
    assert state.get("key") == [1]
    assert "key" in state
    assert state.get("other", 7) == 7
    assert repr(state) == "RetryState({'key': [1]})"
    state.delete("missing")
    with pytest.raises(KeyError):
        state.delete("missing", raise_if_missing=True)
    state.delete("key", raise_if_missing=True)
    assert state == RetryState({})
    state.data["direct"] = 1
    state.clear()
    assert state.data == {}
    with pytest.raises(TypeError):
        hash(state)


def test_protocols_are_bound_to_pydantic():
    import pydantic

    from batch_llm.base import TOutput as plain
    from batch_llm.core import TOutput

    assert TOutput.__bound__ is pydantic.BaseModel
    assert TOutput.__covariant__
    assert plain.__bound__ is None


def test_few_type_ignores():
    sources = [path.read_text() for path in (ROOT / "python").rglob("*.py")]
    assert sum(text.count("type: ignore") for text in sources) < 10
