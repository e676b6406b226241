"""Limits that servers report in headers, over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_llm import (
    AnthropicStrategy,
    EmbeddingStrategy,
    OpenAIStrategy,
    llm,
)
from batch_llm.testing import SimulatedProvider

from ..helpers import quick, run


def learned(stats):
    return {row["measure"]: row["amount"] for row in stats["limits"] if row["learned"]}


async def test_limits_are_learned_from_headers_before_they_are_met():
    with SimulatedProvider(requests_per_minute=1200, tokens_per_minute=1e6, burst_seconds=2) as provider:
        strategy = OpenAIStrategy("learn-openai", base_url=provider.base_url)
        config = quick(concurrency="auto")
        batch, processor = await run(strategy, ["hello"] * 80, config)
        stats = await processor.get_stats()
        assert batch.succeeded == 80
        assert learned(stats) == {"requests": 1200, "tokens": 1e6}
        assert len(provider.stats.violations) <= 2
        assert stats["bound_by"].get("quota:requests", 0) > 0.3
        # The next run of the same scope knows them from its first request on.
        before = len(provider.stats.violations)
        batch, processor = await run(OpenAIStrategy("learn-openai", base_url=provider.base_url), ["x"] * 60, config)
        assert batch.succeeded == 60
        assert len(provider.stats.violations) == before


class Told(BaseHTTPRequestHandler):
    """Answers, and says of limits what the server is set to."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.times.append(time.monotonic())
        status, headers = self.server.answer(len(self.server.times))
        body = json.dumps({"choices": [{"message": {"content": "x"}}], "error": None}).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def telling():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    server.times = []
    server.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "headers", "expected"),
    [
        ("together:m", {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "40"}, {("requests", 50.0, 1.0)}),
        ("together:m", {"x-tokenlimit-limit": "9000", "x-tokenlimit-remaining": "9000"}, {("tokens", 9000.0, 1.0)}),
        ("mistral:m", {"x-ratelimit-limit-req-minute": "600"}, {("requests", 600.0, 60.0)}),
        ("mistral:m", {"x-ratelimit-limit-requests": "60"}, {("requests", 60.0, 1.0)}),
        (
            "groq:m",
            {"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "60000"},
            {("requests", 14_400.0, 86_400.0), ("tokens", 60_000.0, 60.0)},
        ),
        (
            "openai-compatible:m",
            {"RateLimit-Policy": '"p";q=90;w=30', "RateLimit": '"p";r=80;t=5'},
            {("requests", 90.0, 30.0)},
        ),
        ("openai:m", {"x-ratelimit-limit-requests": "600"}, {("requests", 600.0, 60.0)}),
    ],
)
async def test_limits_are_for_the_time_that_they_are_for(telling, name, headers, expected):
    telling.answer = lambda number: (200, headers)
    strategy = llm(name, api_key="k", base_url=telling.base_url)
    strategy.quota_scope = object()  # of its own, with nothing learned
    _, processor = await run(strategy, ["x"], quick(concurrency="auto"))
    stats = await processor.get_stats()
    assert {(row["measure"], row["amount"], row["per"]) for row in stats["limits"] if row["learned"]} == expected


@pytest.mark.parametrize(
    "headers", [{"x-ratelimit-reset": "0.4"}, {"ratelimit-reset": "400ms"}, {"RateLimit": '"p";r=0;t=0.4'}]
)
async def test_a_reset_alone_is_obeyed(telling, headers):
    telling.answer = lambda number: (429, headers) if number == 1 else (200, {})
    batch, _ = await run(llm("together:m", api_key="k", base_url=telling.base_url), ["x"], quick())
    assert batch.succeeded == 1
    first, second = telling.times
    assert second - first >= 0.4


async def test_a_fixed_concurrency_heeds_headers_too():
    with SimulatedProvider(requests_per_minute=1800, burst_seconds=2) as provider:
        strategy = AnthropicStrategy("learn-anthropic", "k", provider.url)
        batch, processor = await run(strategy, ["hello"] * 100, quick(max_workers=10))
        assert batch.succeeded == 100
        assert len(provider.stats.violations) <= 5
        assert (await processor.get_stats())["limits"]


async def test_several_keys_have_several_times_the_limit():
    with SimulatedProvider(requests_per_minute=600, burst_seconds=10) as provider:
        strategy = OpenAIStrategy("keys", ["a", "b", "c"], provider.base_url)
        _, processor = await run(strategy, ["hello"] * 5, quick(max_workers=1))
        assert learned(await processor.get_stats()) == {"requests": 1800}


async def test_an_embedding_counts_as_its_share_of_a_request():
    with SimulatedProvider() as provider:
        strategy = EmbeddingStrategy("openai-compatible:embed", base_url=provider.base_url, max_items=100)
        # 400 texts are four requests; counted one by one they would take more than ten minutes.
        config = quick(max_workers=400, max_requests_per_minute=30, max_tokens_per_minute=1e9)
        batch, _ = await run(strategy, [f"text {n}" for n in range(400)], config)
        assert batch.succeeded == 400
