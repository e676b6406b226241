"""Spans and metrics of OpenTelemetry, by its conventions for generative AI.

Needs ``pip install 'batch-llm[opentelemetry]'``, the interface only: what is done with spans and metrics, and where
they go, is set up with the SDK as in any program. Names are those of the conventions' registry (2026, in development):
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._json_values import to_json_value
from .._llm import usage_of_failure
from .._logs import logger_of
from .._pipeline import AttemptWatcher
from ..errors import ERROR_MESSAGE_LIMIT
from .base import BaseObserver, ProcessingEvent

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
except ImportError as error:
    raise ImportError(
        "OpenTelemetry is required for this. Install it: pip install 'batch-llm[opentelemetry]'"
    ) from error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from .._core import Flight
    from .._progress import Outlook
    from .._results import Forecast

__all__ = ["OpenTelemetryObserver"]

logger = logger_of("batch_llm.opentelemetry")

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# What the conventions advise for gen_ai.client.operation.duration (seconds) and gen_ai.client.token.usage (tokens).
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
_REQUEST = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "stop": "gen_ai.request.stop_sequences",
    "dimensions": "gen_ai.embeddings.dimension.count",
}
_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}


class OpenTelemetryObserver(BaseObserver, AttemptWatcher):
    """Emits a span for every attempt, and the metrics of the run.

    ::

        batch = run("openai:gpt-5-mini", prompts, observers=[OpenTelemetryObserver()])

    The parent of a span is the span in which the run was started (with a pool, the caller's). Without a parent, each
    span is its own trace, which is best for very long runs. During ``execute()`` the span is current, so spans of your
    strategy, for example of HTTP requests, are its children. Attributes beyond the conventions are
    ``batch_llm.item.id`` and ``batch_llm.attempt`` (from 1).

    Metrics are ``gen_ai.client.operation.duration`` (seconds) and ``gen_ai.client.token.usage`` for each attempt;
    ``batch_llm.items`` (by ``batch_llm.outcome``: ``succeeded``, ``failed``, ``not_sent``, ``replayed``),
    ``batch_llm.rate_limits`` and ``batch_llm.cooldown`` (seconds of cooldown); and the forecast of the run, as soon as
    there is one: ``batch_llm.forecast.seconds_left`` and ``batch_llm.forecast.cost``, each with ``batch_llm.bound``
    ``low``, ``expected`` and ``high``. Of several runs at a time, it is the last end, and the sum of the costs.

    Args:
        tracer_provider: Creates the tracer; by default the global provider.
        meter_provider: Creates the meter; by default the global provider.
        capture_content: Whether spans contain prompts and answers, which may be personal and long. By default, whether
            the environment variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``true``.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        capture_content: bool | None = None,
    ) -> None:
        if capture_content is None:
            capture_content = os.environ.get(CAPTURE_VARIABLE, "").lower() == "true"
        self._captures = capture_content
        self._tracer = trace.get_tracer("batch_llm", tracer_provider=tracer_provider)
        meter = metrics.get_meter("batch_llm", meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._items = meter.create_counter("batch_llm.items", "{item}", "Finished items.")
        self._rate_limits = meter.create_counter("batch_llm.rate_limits", "{refusal}", "Rate limited requests.")
        self._cooldown = meter.create_counter("batch_llm.cooldown", "s", "Time in cooldown after rate limits.")
        self._outlooks: list[Outlook] = []
        meter.create_observable_gauge(
            "batch_llm.forecast.seconds_left", [self._seconds_left], "s", "Time to the end of the run, 90% interval."
        )
        meter.create_observable_gauge(
            "batch_llm.forecast.cost", [self._final_cost], "{currency}", "Cost of the whole run, 90% interval."
        )

    def follow(self, outlook: Outlook) -> None:
        """Measure the forecast of a run from now on."""
        self._outlooks.append(outlook)

    def leave(self, outlook: Outlook) -> None:
        """Measure it no more."""
        self._outlooks = [other for other in self._outlooks if other is not outlook]

    def _seconds_left(self, _: CallbackOptions) -> list[Observation]:
        found = [one.seconds_left for one in self._forecasts() if one.seconds_left is not None]
        return _bounds([max(bound) for bound in zip(*found, strict=True)])

    def _final_cost(self, _: CallbackOptions) -> list[Observation]:
        found = [one.cost for one in self._forecasts() if one.cost is not None]
        return _bounds([sum(bound) for bound in zip(*found, strict=True)])

    def _forecasts(self) -> list[Forecast]:
        found = []
        for outlook in self._outlooks:
            with contextlib.suppress(RuntimeError):  # the run is just ending
                found.append(outlook.now())
        return [one for one in found if one is not None]

    async def on_event(self, event: ProcessingEvent, data: dict[str, Any]) -> None:
        """Count results and cooldowns."""
        if event is ProcessingEvent.ITEM_COMPLETED:
            self._items.add(1, {"batch_llm.outcome": "succeeded"})
        elif event is ProcessingEvent.ITEM_FAILED:
            outcome = "not_sent" if data.get("not_sent") else "failed"
            self._items.add(1, {"batch_llm.outcome": outcome, "error.type": str(data.get("error_type"))})
        elif event is ProcessingEvent.ITEM_REPLAYED:
            self._items.add(1, {"batch_llm.outcome": "replayed"})
        elif event is ProcessingEvent.RATE_LIMIT_HIT:
            self._rate_limits.add(1)
        elif event is ProcessingEvent.COOLDOWN_ENDED:
            self._cooldown.add(max(0.0, data.get("duration", 0.0)))

    @contextlib.contextmanager
    def watch(self, flight: Flight, strategy: Any, prompt: Any) -> Iterator[Callable[[Any], None]]:
        """Create the span of an attempt. The yielded object receives the answer."""
        operation, common = _common(strategy)
        model = common.get("gen_ai.request.model")
        attributes: dict[str, Any] = {
            **common,
            **_request(strategy),
            "batch_llm.item.id": str(flight.item.item_id),
            "batch_llm.attempt": flight.attempt,
        }
        answers: list[Any] = []
        failure: BaseException | None = None
        began = time.perf_counter()
        with self._tracer.start_as_current_span(
            f"{operation} {model}" if model else operation,
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield answers.append
            except BaseException as error:
                failure = error
                raise
            finally:
                seconds = time.perf_counter() - began
                try:
                    if failure is not None:
                        common["error.type"] = "timeout" if flight.timed_out else type(failure).__qualname__
                        span.set_attribute("error.type", common["error.type"])
                        message = str(failure)[:ERROR_MESSAGE_LIMIT]
                        span.set_status(trace.StatusCode.ERROR, f"{type(failure).__name__}: {message}")
                    self._measure(span, common, seconds, *_parts(answers, failure))
                    if self._captures and span.is_recording():
                        _capture(span, strategy, prompt, answers)
                except Exception as error:
                    logger.warning("Could not set the attributes of a span: %s: %s", type(error).__name__, error)

    def _measure(
        self, span: Span, attributes: dict[str, Any], seconds: float, usage: Any, metadata: dict[str, Any]
    ) -> None:
        if metadata.get("model"):
            attributes["gen_ai.response.model"] = metadata["model"]
            span.set_attribute("gen_ai.response.model", metadata["model"])
        if metadata.get("request_id"):
            span.set_attribute("gen_ai.response.id", metadata["request_id"])
        reasons = metadata.get("finish_reason")
        if reasons:
            reasons = reasons if isinstance(reasons, list) else [reasons]
            span.set_attribute("gen_ai.response.finish_reasons", [str(reason) for reason in reasons])
        for name, attribute in _USAGE.items():
            if usage.get(name):
                span.set_attribute(attribute, usage[name])
        for kind in ("input", "output"):
            count = usage.get(f"{kind}_tokens")
            if count:
                self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})
        self._duration.record(seconds, attributes)


def _bounds(values: list[float]) -> list[Observation]:
    names = ("low", "expected", "high")
    return [Observation(value, {"batch_llm.bound": name}) for name, value in zip(names, values, strict=False)]


def _common(strategy: Any) -> tuple[str, dict[str, Any]]:
    """The operation, and what spans and metrics have in common."""
    provider, model = getattr(strategy, "provider", None), getattr(strategy, "model", None)
    name = type(strategy).__name__
    operation = "embeddings" if name == "EmbeddingStrategy" else "generate_content" if provider == "gemini" else "chat"
    attributes: dict[str, Any] = {"gen_ai.operation.name": operation}
    if isinstance(provider, str) and provider:
        attributes["gen_ai.provider.name"] = _PROVIDERS.get(provider, provider)
    if isinstance(model, str):
        attributes["gen_ai.request.model"] = model
    address = getattr(strategy, "base_url", None)
    if isinstance(address, str):
        parts = urlsplit(address)
        attributes["server.address"] = parts.hostname or ""
        attributes["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    return operation, attributes


def _request(strategy: Any) -> dict[str, Any]:
    """The parameters of a native strategy's requests."""
    asks: dict[str, Any] = getattr(strategy, "_asks", None) or {}
    return {attribute: asks[name] for name, attribute in _REQUEST.items() if asks.get(name) is not None}


def _parts(answers: list[Any], failure: BaseException | None) -> tuple[Any, dict[str, Any]]:
    """Token counts and metadata of an answer, or of a failure; of an odd one, nothing."""
    if isinstance(failure, Exception):
        return usage_of_failure(failure), {}
    answer = answers[0] if answers else None
    if not isinstance(answer, (tuple, list)):
        return {}, {}
    usage, metadata = (*answer[1:3], None, None)[:2]
    return usage if isinstance(usage, dict) else {}, metadata if isinstance(metadata, dict) else {}


def _capture(span: Span, strategy: Any, prompt: Any, answers: list[Any]) -> None:
    """Put prompt and answer into a span, as JSON of the conventions' shape."""
    system = (getattr(strategy, "_asks", None) or {}).get("system_prompt")
    if system:
        span.set_attribute("gen_ai.system_instructions", _json([_text(system)]))
    given = prompt if isinstance(prompt, list) and prompt and all(_is_message(one) for one in prompt) else None
    messages = given or [{"role": "user", "content": prompt}]
    span.set_attribute(
        "gen_ai.input.messages",
        _json([{"role": one["role"], "parts": [_text(one.get("content"))]} for one in messages]),
    )
    if answers and isinstance(answers[0], (tuple, list)) and answers[0]:
        span.set_attribute("gen_ai.output.messages", _json([{"role": "assistant", "parts": [_text(answers[0][0])]}]))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value


def _text(value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else _json(to_json_value(value, encoder=str))
    return {"type": "text", "content": text}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
