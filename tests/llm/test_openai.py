"""The native strategy against the simulated provider, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_llm import (
    BaseMiddleware,
    ContentFilterError,
    EmptyResponseError,
    LLMWorkItem,
    MetricsObserver,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProviderConnectionError,
    ProviderError,
    ProviderResponseError,
    RateLimitConfig,
    RefusalError,
    RetryConfig,
    Transport,
    TruncatedResponseError,
)
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick, run
from ..served import Gate, answer, serve


@pytest.fixture
def provider():
    with SimulatedProvider() as simulated:
        yield simulated


def strategy_for(provider, **arguments):
    return OpenAIStrategy("test-model", base_url=provider.base_url, **arguments)


async def test_a_batch_over_real_http(provider):
    batch, processor = await run(strategy_for(provider), [f"say {n}" for n in range(500)], quick(max_workers=50))
    assert batch.succeeded == 500
    assert all(result.output.endswith(f": say {result.context}") for result in batch.results)
    assert all(result.token_usage["input_tokens"] > 0 for result in batch.results)
    assert provider.stats.requests == 500
    assert provider.stats.statuses == {200: 500}
    stats = await processor.get_stats()
    assert stats["total_tokens"] == sum(result.token_usage["total_tokens"] for result in batch.results)


async def test_as_many_at_once_as_there_are_workers():
    gate = Gate(40)
    with serve(lambda body, number: gate.passed(answer("chat"))) as served:
        strategy = served.strategy(transport=Transport(http2="never"))
        batch, _ = await run(strategy, ["x"] * 200, quick(max_workers=40))
    assert batch.succeeded == 200
    assert gate.peak == 40


async def test_scheduled_faults_are_retried():
    faults = [Fault(429, every=10, retry_after=0.01), Fault(500, every=7), Fault(503, on=[1, 2])]
    with SimulatedProvider(faults=faults) as provider:
        config = quick(max_workers=20, retry=RetryConfig(max_attempts=10, initial_wait=0.001))
        batch, processor = await run(strategy_for(provider), ["x"] * 200, config)
        assert batch.succeeded == 200
        statuses = provider.stats.statuses
        assert statuses[200] == 200
        assert statuses[500] > 0
        assert statuses[503] == 2
        assert (await processor.get_stats())["rate_limit_count"] == statuses[429] > 0


async def test_the_servers_retry_after_rules_the_pause():
    with SimulatedProvider(faults=[Fault(429, on=[1], retry_after=0.3)]) as provider:
        start = time.monotonic()
        # Without the server's word the pause would be five minutes, longer than any test may take.
        batch, _ = await run(strategy_for(provider), ["x"], quick(rate_limit=RateLimitConfig()))
        assert batch.succeeded == 1
        assert time.monotonic() - start >= 0.3


async def test_middlewares_observers_and_post_processors_see_native_items(provider):
    class Shout(BaseMiddleware):
        async def before_process(self, work_item):
            work_item.prompt = work_item.prompt.upper()
            return work_item

    metrics, seen = MetricsObserver(), []
    batch, _ = await run(
        strategy_for(provider), ["hello"] * 20, middlewares=[Shout()], observers=[metrics], post_processor=seen.append
    )
    assert all(result.output.endswith(": HELLO") for result in batch.results)
    assert metrics.metrics["items_succeeded"] == len(seen) == 20
    batch, _ = await run(strategy_for(provider), ["hello"] * 5, observers=[metrics], post_processor=seen.append)
    assert metrics.metrics["items_succeeded"] == len(seen) == 25


async def test_a_timeout_drops_the_request():
    with SimulatedProvider(latency=1000) as provider:
        config = quick(timeout_per_item=0.05, retry=RetryConfig(max_attempts=2, initial_wait=0.01))
        batch, _ = await run(strategy_for(provider), ["a", "b"], config)
        assert {result.error.split(":")[0] for result in batch.results} == {"FrameworkTimeoutError"}
        with pytest.raises(TimeoutError, match="no reply within"):
            await strategy_for(provider).execute("x", 1, 0.05)


async def test_cancelling_a_run_drops_its_requests(monkeypatch):
    # Nothing is waited for: neither the answers nor the time that attempts get to end.
    monkeypatch.setattr("batch_llm.base.WORKER_CANCELLATION_TIMEOUT", 1000.0)
    with SimulatedProvider(latency=1000) as provider:
        processor = ParallelBatchProcessor(config=quick(max_workers=10))
        for number in range(30):
            await processor.add_work(LLMWorkItem(str(number), strategy_for(provider), "x"))
        running = asyncio.create_task(processor.process_all())
        while provider.stats.requests < 10:
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert processor.partial_result().total_items == 30


async def test_a_wrong_key_fails_at_once_and_shows_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    secret = "sk-very-secret-0123456789"
    with SimulatedProvider(api_key="the-right-one") as provider:
        strategy = strategy_for(provider, api_key=secret)
        batch, _ = await run(strategy, ["x"] * 3)
        assert provider.stats.requests == 3  # no retries
        shown = [repr(strategy), str(vars(strategy)), repr(batch), caplog.text]
        for result in batch.results:
            assert result.error.startswith("ProviderError: HTTP 401: Incorrect API key")
            shown += [repr(result.exception), str(vars(result.exception))]
        assert not any(secret in text for text in shown)
        batch, _ = await run(strategy_for(provider, api_key="the-right-one"), ["x"])
        assert batch.succeeded == 1


async def test_a_dead_server_is_named():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    strategy = OpenAIStrategy("m", base_url=f"http://user:pass-word@127.0.0.1:{port}/v1")
    batch, _ = await run(strategy, ["x"], quick(retry=RetryConfig(2, 0.001)))
    assert batch.results[0].error.startswith(f"ProviderConnectionError: connection failed: http://127.0.0.1:{port}: ")
    assert isinstance(batch.results[0].exception, (ProviderConnectionError, ConnectionError))
    assert batch.results[0].attempts == 2
    assert "pass-word" not in repr(strategy) + batch.results[0].error


async def test_direct_calls_metadata_and_parsers(provider):
    strategy = strategy_for(provider, response_parser=len)
    output, usage, metadata = await strategy.execute("hello", 1, 5.0)
    assert output > 5
    assert (metadata["finish_reason"], metadata["model"]) == ("stop", "test-model")
    assert metadata["request_id"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    batch, _ = await run(strategy, ["x"])
    assert batch.results[0].metadata["model"] == "test-model"
    batch, _ = await run(strategy_for(provider, response_parser=json.loads), ["x"])
    assert batch.results[0].error.startswith("JSONDecodeError")
    assert batch.results[0].token_usage["output_tokens"] > 0  # paid for all the same


async def test_an_overridden_execute_is_the_one_that_runs(provider):
    class Twice(OpenAIStrategy):
        async def execute(self, prompt, attempt, timeout, state=None):
            text, usage, metadata = await super().execute(prompt, attempt, timeout, state)
            return [text, text], usage, metadata

    batch, _ = await run(Twice("m", base_url=provider.base_url), ["x"])
    assert len(batch.results[0].output) == 2


async def test_native_hooks_of_a_subclass_are_called(provider):
    calls = []

    class Hooked(OpenAIStrategy):
        async def prepare(self):
            calls.append("prepare")

        async def cleanup(self):
            calls.append("cleanup")

    await run(Hooked("m", base_url=provider.base_url), ["x"] * 3)
    assert calls.count("prepare") == 1
    assert calls.count("cleanup") == 3


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": ""}, ValueError, "model must be a non-empty string"),
        ({"model": None}, ValueError, "model must be"),
        ({"base_url": "localhost:8000"}, ValueError, "base_url"),
        ({"base_url": "ftp://host/v1"}, ValueError, "http://"),
        ({}, ValueError, "OPENAI_API_KEY"),
        ({"api_key": "key\nwith newline"}, ValueError, "api_key has characters"),
        ({"api_key": "k", "temprature": 0}, TypeError, "no option 'temprature'; did you mean 'temperature'"),
        ({"api_key": "k", "n": 0}, ValueError, "n must be an integer"),
        ({"api_key": "k", "api": "completions"}, ValueError, "api must be"),
        ({"api_key": "k", "api": "responses", "stop": "x"}, ValueError, "does not support stop"),
        ({"api_key": "k", "provider": "anthropic"}, ValueError, "llm.'anthropic:m'"),
        ({"api_key": "k", "response_model": 5}, TypeError, "response_model must be"),
        ({"api_key": "k", "response_model": {"type": 7}}, ValueError, "not a valid JSON Schema"),
        ({"api_key": ["a", 1]}, TypeError, "api_key must be"),
        ({"api_key": "k", "extra_body": {"stream": True}}, ValueError, "cannot set 'stream'"),
        ({"api_key": "k", "extra_body": {"x": object()}}, ValueError, "extra_body.x cannot be written as JSON"),
        ({"api_key": "k", "extra_headers": {"bad header": "x"}}, ValueError, "extra_headers"),
        ({"api_key": "k", "response_parser": 5}, TypeError, "response_parser must be callable"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, says):
    with pytest.raises(error, match=says):
        OpenAIStrategy(**{"model": "m", **arguments})


def test_the_environments_key_goes_to_openai_only(monkeypatch, provider):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    with SimulatedProvider(api_key="sk-env") as other:
        strategy = strategy_for(other)
        batch, _ = asyncio.run(run(strategy, ["x"]))
        assert batch.failed == 1
    assert "sk-env" not in repr(OpenAIStrategy("m"))


class Canned(BaseHTTPRequestHandler):
    """Answers with what the server was given."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.seen.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if "content-length" in headers:
            self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def canned():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


GOOD = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'


async def test_what_is_sent(canned):
    canned.answer = (200, {}, GOOD)
    strategy = OpenAIStrategy(
        "m",
        "key",
        canned.base_url,
        system_prompt="Be brief.",
        temperature=0,
        max_tokens=5,
        extra_body={"seed": 1, "nested": {"a": [True, None, 1.5, "ü"]}},
        extra_headers={"X-Title": "test"},
    )
    output, usage, _ = await strategy.execute("Hellö", 1, 5.0)
    assert (output, usage["total_tokens"]) == ("hi", 0)
    headers, body = canned.seen[0]
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["authorization"] == "Bearer key"
    assert headers["x-title"] == "test"
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hellö"}],
        "seed": 1,
        "nested": {"a": [True, None, 1.5, "ü"]},
        "temperature": 0,
        "max_completion_tokens": 5,
    }


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((200, {}, b"<html>Bad gateway</html>"), ProviderResponseError, "<html>Bad gateway"),
        ((200, {}, b""), ProviderResponseError, "not a valid Chat Completions"),
        ((200, {}, b'{"choices": []}'), ProviderResponseError, "no choices"),
        ((200, {}, b"\xff\xfe"), ProviderResponseError, "not a valid"),
        ((200, {"content-length": "500"}, GOOD), ProviderConnectionError, "connection failed"),
        ((200, {}, b'{"error": {"message": "no credit", "code": 402}}'), ProviderError, "HTTP 402: no credit"),
        (
            (200, {}, b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'),
            TruncatedResponseError,
            "length",
        ),
        ((200, {}, b'{"choices": [{"message": {"content": null}}]}'), EmptyResponseError, "no text"),
        ((200, {}, b'{"choices": [{"message": {"refusal": "I will not"}}]}'), RefusalError, "I will not"),
        (
            (200, {}, b'{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}'),
            ContentFilterError,
            "filter",
        ),
        (
            (200, {"content-type": "text/html"}, b"<html>Sign in</html>"),
            ProviderResponseError,
            "an HTML page",
        ),
        ((200, {}, b"\n\n: keep-alive\n\n{"), ProviderResponseError, "EOF"),
        ((502, {}, b"<html>proxy</html>"), ProviderError, "HTTP 502: <html>proxy"),
        ((404, {}, b'{"error": "model not found"}'), ProviderError, "HTTP 404: model not found"),
        ((400, {}, b'{"object": "error", "message": "too long", "code": 400}'), ProviderError, "HTTP 400: too long"),
        ((302, {"location": "http://elsewhere/"}, b""), ProviderError, "HTTP 302"),
    ],
)
async def test_replies_that_are_none(canned, answer, error, says):
    canned.answer = answer
    with pytest.raises(error, match=says):
        await OpenAIStrategy("m", base_url=canned.base_url).execute("x", 1, 5.0)


async def test_a_reply_that_is_too_long_is_cut_off(canned):
    canned.answer = (200, {}, b" " * 100_000 + GOOD)
    with pytest.raises(ProviderConnectionError, match="longer than 1000 bytes"):
        await OpenAIStrategy("m", base_url=canned.base_url, transport=Transport(max_body_bytes=1000)).execute(
            "x", 1, 5.0
        )
    assert (await OpenAIStrategy("m", base_url=canned.base_url).execute("x", 1, 5.0))[0] == "hi"


async def test_error_attributes(canned):
    body = b'{"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}}'
    canned.answer = (429, {"retry-after": "7", "x-request-id": "req-1"}, body)
    strategy = OpenAIStrategy("m", base_url=canned.base_url)
    with pytest.raises(ProviderError) as caught:
        await strategy.execute("x", 1, 5.0)
    error = caught.value
    assert (error.status_code, error.code, error.retry_after, error.request_id) == (
        429, "insufficient_quota", 7.0, "req-1",
    )  # fmt: skip
    canned.seen.clear()
    batch, processor = await run(strategy, ["x"])
    assert len(canned.seen) == 1  # billing: waiting does not help
    assert (await processor.get_stats())["rate_limit_count"] == 0


def test_the_simulated_provider_explains_itself():
    with pytest.raises(ValueError, match="status must be"):
        Fault(200, every=1)
    with pytest.raises(ValueError, match="every=N, on="):
        Fault(500)
    with pytest.raises(ValueError, match="latency must be"):
        SimulatedProvider(latency=-1)
    provider = SimulatedProvider(replies=['{"n": "{digest}"}'])
    output, _, _ = asyncio.run(
        OpenAIStrategy("m", base_url=provider.base_url, response_parser=json.loads).execute("x", 1, 5)
    )
    assert len(output["n"]) == 16
    provider.stop()
    provider.stop()
    assert provider.stats.requests == 1
    with SimulatedProvider() as first, pytest.raises(OSError, match="operating system reported an error"):
        SimulatedProvider(port=int(first.base_url.split(":")[2].split("/")[0]))


def test_the_simulated_provider_serves_the_vendors_own_sdk():
    openai = pytest.importorskip("openai")
    with SimulatedProvider(faults=[Fault(429, on=[2]), Fault(500, on=[3])], api_key="k") as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0)
        messages = [{"role": "user", "content": "hello"}]
        completion = client.chat.completions.create(model="m", messages=messages)
        assert completion.choices[0].message.content.endswith(": hello")
        assert completion.usage.total_tokens > 0
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="m", messages=messages)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="m", messages=messages)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").chat.completions.create(model="m", messages=messages)
