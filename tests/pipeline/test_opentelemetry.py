"""Spans and metrics, by the conventions for generative AI."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import warnings

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from batch_llm import (
    EmbeddingStrategy,
    LLMCallPool,
    LLMCallStrategy,
    ProcessorConfig,
    RetryConfig,
    llm,
    process_prompts,
    run,
)
from batch_llm.observers import OpenTelemetryObserver
from batch_llm.testing import Fault, SimulatedProvider


class Seen:
    """An observer, and what it made."""

    def __init__(self, **options):
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.provider, meter_provider=MeterProvider([self._metrics]), **options
        )

    @property
    def spans(self):
        return [span for span in self._spans.get_finished_spans() if span.instrumentation_scope.name == "batch_llm"]

    def metric(self, name):
        """The points of a metric."""
        for resource in self._metrics.get_metrics_data().resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        return {
                            json.dumps(dict(one.attributes), sort_keys=True): one for one in metric.data.data_points
                        }
        return {}


def known_attributes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
        from opentelemetry.semconv.attributes import error_attributes, server_attributes

        modules = (gen_ai_attributes, error_attributes, server_attributes)
        return {value for module in modules for _, value in inspect.getmembers(module) if isinstance(value, str)}


def test_an_attempt_is_a_span_by_the_conventions():
    seen = Seen()
    with SimulatedProvider() as provider:
        strategy = llm("openai:gpt-x", base_url=provider.base_url, temperature=0.5, max_tokens=99, seed=3)
        batch = run(strategy, ["one", "two"], observers=[seen.observer])
    assert batch.succeeded == 2
    assert len(seen.spans) == 2
    span = seen.spans[0]
    assert span.name == "chat gpt-x"
    assert span.kind is trace.SpanKind.CLIENT
    assert span.parent is None
    attributes = dict(span.attributes)
    result = next(one for one in batch.results if one.item_id == attributes["batch_llm.item.id"])
    assert attributes["gen_ai.usage.input_tokens"] == result.token_usage["input_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == result.token_usage["output_tokens"]
    assert attributes["gen_ai.response.model"] == result.metadata["model"]
    assert attributes["gen_ai.response.id"] == result.metadata["request_id"]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.seed": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "server.address": "127.0.0.1",
        "batch_llm.attempt": 1,
    }
    assert expected.items() <= attributes.items()
    own = {name for name in attributes if not name.startswith("batch_llm.")}
    assert own <= known_attributes()
    assert "one" not in json.dumps(attributes["gen_ai.operation.name"])
    assert not any("messages" in name for name in attributes)


def test_metrics_are_those_of_the_conventions():
    seen = Seen()
    with SimulatedProvider() as provider:
        batch = run(llm("openai:gpt-x", base_url=provider.base_url), ["a"] * 10, observers=[seen.observer])
    (duration,) = seen.metric("gen_ai.client.operation.duration").values()
    assert duration.count == 10
    assert duration.explicit_bounds[0] == 0.01
    by_type = {
        json.loads(key)["gen_ai.token.type"]: one for key, one in seen.metric("gen_ai.client.token.usage").items()
    }
    assert by_type["input"].sum == batch.total_input_tokens
    assert by_type["output"].sum == batch.total_output_tokens
    assert [one.value for one in seen.metric("batch_llm.items").values()] == [10]


def test_failed_attempts_are_spans_of_their_own_with_the_type_of_the_error():
    seen = Seen()
    config = ProcessorConfig(retry=RetryConfig(max_attempts=2, initial_wait=0.01))

    def ask(prompt, attempt):
        if attempt == 1:
            error = ConnectionError("gone")
            error.usage = {"input_tokens": 7}
            raise error
        return prompt

    run(ask, ["a"], config=config, observers=[seen.observer])
    first, second = sorted(seen.spans, key=lambda span: span.attributes["batch_llm.attempt"])
    assert first.attributes["error.type"] == "ConnectionError"
    assert first.attributes["gen_ai.usage.input_tokens"] == 7
    assert first.status.status_code is trace.StatusCode.ERROR
    assert first.status.description == "ConnectionError: gone"
    assert second.attributes["batch_llm.attempt"] == 2
    assert "error.type" not in second.attributes
    assert second.status.status_code is trace.StatusCode.UNSET
    assert len(seen.metric("gen_ai.client.operation.duration")) == 2


async def test_a_time_out_says_so():
    class Slow(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            await asyncio.sleep(60)

    seen = Seen()
    config = ProcessorConfig(timeout_per_item=0.05, retry=RetryConfig(max_attempts=1))
    await process_prompts(Slow(), ["a"], config=config, observers=[seen.observer])
    assert seen.spans[0].attributes["error.type"] == "timeout"


async def test_spans_stand_where_the_run_was_begun_and_are_current_in_the_strategy():
    seen = Seen()
    tracer = seen.provider.get_tracer("mine")
    within = []

    async def ask(prompt):
        await asyncio.sleep(0.001)
        within.append(trace.get_current_span().get_span_context().span_id)
        return prompt

    with tracer.start_as_current_span("my job") as job:
        await process_prompts(ask, ["a", "b", "c"], observers=[seen.observer])
        assert trace.get_current_span() is job
    assert {span.parent.span_id for span in seen.spans} == {job.get_span_context().span_id}
    assert sorted(within) == sorted(span.context.span_id for span in seen.spans)
    assert {span.name for span in seen.spans} == {"chat"}


def test_a_run_without_async_stands_in_the_callers_span_too():
    seen = Seen()
    with seen.provider.get_tracer("mine").start_as_current_span("my job") as job:
        run(lambda prompt: prompt, ["a"], observers=[seen.observer])
    assert seen.spans[0].parent.span_id == job.get_span_context().span_id


async def test_calls_through_a_pool_stand_in_the_span_of_their_caller():
    seen = Seen()
    tracer = seen.provider.get_tracer("mine")

    async def ask(prompt):
        return prompt

    async with LLMCallPool(ask, observers=[seen.observer]) as pool:

        async def request(name):
            with tracer.start_as_current_span(name) as span:
                await pool.submit(name)
                return span.get_span_context().span_id

        callers = await asyncio.gather(*(request(f"r{number}") for number in range(20)))
    assert sorted(span.parent.span_id for span in seen.spans) == sorted(callers)


@pytest.mark.parametrize("by_variable", [True, False])
def test_content_is_captured_when_asked_for(monkeypatch, by_variable):
    if by_variable:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    seen = Seen() if by_variable else Seen(capture_content=True)
    with SimulatedProvider(replies=["the answer"]) as provider:
        strategy = llm("openai:x", base_url=provider.base_url, system_prompt="be kind")
        run(strategy, ["hello", [{"role": "user", "content": "again"}]], observers=[seen.observer])
    spans = {span.attributes["batch_llm.item.id"]: span.attributes for span in seen.spans}
    first, second = spans["item_0"], spans["item_1"]
    assert json.loads(first["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "hello"}]}
    ]
    assert json.loads(second["gen_ai.input.messages"])[0]["parts"][0]["content"] == "again"
    assert json.loads(first["gen_ai.output.messages"])[0]["parts"][0]["content"] == "the answer"
    assert json.loads(first["gen_ai.system_instructions"]) == [{"type": "text", "content": "be kind"}]
    assert set(first) - {"batch_llm.item.id", "batch_llm.attempt"} <= known_attributes()


def test_embeddings_are_an_operation_of_their_own():
    seen = Seen()
    with SimulatedProvider() as provider:
        strategy = EmbeddingStrategy("openai:e", base_url=provider.base_url, dimensions=8)
        run(strategy, ["a"], observers=[seen.observer])
    assert seen.spans[0].name == "embeddings e"
    assert seen.spans[0].attributes["gen_ai.embeddings.dimension.count"] == 8


def test_what_is_replayed_is_counted_and_makes_no_span(tmp_path):
    for expected in ("succeeded", "replayed"):
        seen = Seen()
        with SimulatedProvider() as provider:
            strategy = llm("openai:x", base_url=provider.base_url)
            run(strategy, ["a"], observers=[seen.observer], store=tmp_path / "run.db")
        assert list(seen.metric("batch_llm.items")) == [json.dumps({"batch_llm.outcome": expected})]
    assert seen.spans == []


def test_no_key_is_in_a_span():
    seen = Seen(capture_content=True)
    with SimulatedProvider(faults=[Fault(401, every=1)]) as provider:
        strategy = llm("openai:x", api_key="sk-very-secret", base_url=provider.base_url)
        run(strategy, ["a"], observers=[seen.observer])
    assert "sk-very-secret" not in "".join(span.to_json() for span in seen.spans)


def test_without_it_nothing_of_it_is_imported():
    program = (
        "import sys, batch_llm; batch_llm.run(lambda p: p, ['a'], observers=[batch_llm.MetricsObserver()]);"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_when_it_is_not_installed_it_says_what_to_install():
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "try: from batch_llm.observers import OpenTelemetryObserver\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "pip install 'batch-llm[opentelemetry]'" in done.stdout


async def test_the_forecast_is_measured():
    seen, found = Seen(), {}

    async def look(completed, total, item_id):
        if completed >= 60 and not found:
            found.update({name: seen.metric(f"batch_llm.forecast.{name}") for name in ("seconds_left", "cost")})

    with SimulatedProvider(latency=0.01) as provider:
        await process_prompts(
            llm("openai:gpt-5-mini", base_url=provider.base_url),
            [f"prompt {number}" for number in range(100)],
            config=ProcessorConfig(concurrency=5, progress_interval=10),
            progress=look,
            observers=[seen.observer],
        )
    for name in ("seconds_left", "cost"):
        points = found[name]
        low, expected, high = (points[json.dumps({"batch_llm.bound": bound})].value for bound in BOUNDS)
        assert 0 <= low <= expected <= high
        assert high > 0
        assert not seen.metric(f"batch_llm.forecast.{name}"), "the run is over"


BOUNDS = ("low", "expected", "high")
