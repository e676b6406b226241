"""Long answers arrive through proxies that close silent connections, and cuts never pass for answers. What comes over
HTTP/2 shares its connection, and with it its cuts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from batch_llm import OpenAIStrategy, RetryConfig, Transport, llm, process_prompts
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick
from ..proxy import Proxy

SILENCE = 0.6
"""A hundredth of the minute after which the usual balancers close a connection, seconds."""
THINKING = 18.0
"""A hundredth of half an hour."""
CONNECTIONS = [
    pytest.param(False, "never", id="HTTP/1.1"),
    pytest.param(True, "never", id="TLS-HTTP/1.1"),
    pytest.param(True, "auto", id="TLS-HTTP/2"),
]


MODELS = {
    "chat": "deepseek:deepseek-reasoner",
    "responses": "openai:gpt-5-mini",
    "anthropic": "anthropic:claude-opus-5-5",
    "gemini": "gemini:gemini-3-pro",
}
"""Of each dialect, one that thinks, so that its answers are streamed by default."""
WITHOUT_THOUGHTS = {**MODELS, "chat": "openai-compatible:m"}
LONGER = {"chat": 1, "responses": 2, "anthropic": 1, "gemini": 1}
PATHS = {"anthropic": "", "gemini": "/v1beta"}


def strategy_of(dialect, url, models=MODELS, **options):
    """A strategy that sends to a server, by its address without a path."""
    return llm(models[dialect], base_url=f"{url}{PATHS.get(dialect, '/v1')}", api_key="k", **options)


@pytest.mark.parametrize(("tls", "http2"), CONNECTIONS)
async def test_a_model_that_thinks_for_long_survives_a_proxy_that_cuts_silence(tls, http2):
    # A machine that is busy may be silent itself: it is requested again then. What is not streamed never gets through.
    often = quick(max_workers=20, retry=RetryConfig(50, 0.001, outage_patience=0), timeout_per_item=100.0)
    few = quick(max_workers=20, retry=RetryConfig(2, 0.001, outage_patience=0), timeout_per_item=100.0)
    # All of the answer comes at the end, after pings and comments.
    with (
        SimulatedProvider(
            latency=THINKING, faults=[Fault("thinking", every=1)], replies=["because"], tls=tls
        ) as provider,
        Proxy(provider.url, idle=SILENCE) as proxy,
    ):
        transport = Transport(ca_bundle=provider.ca, http2=http2)

        async def batch(dialect, stream, config):
            thinking = strategy_of(dialect, proxy.url.removesuffix("/v1"), stream=stream, transport=transport)
            return await process_prompts(thinking, ["why?"] * 5, config=config)

        for whole in await asyncio.gather(*(batch(dialect, "auto", often) for dialect in MODELS)):
            assert whole.outputs() == ["because"] * 5
            for result in whole:
                assert result.timing.attempts[-1].execution_seconds >= THINKING
                assert {attempt.error_category for attempt in result.timing.attempts[:-1]} <= {"connection_error"}
        for plain in await asyncio.gather(*(batch(dialect, False, few) for dialect in MODELS)):
            assert plain.succeeded == 0
            assert {result.error_category for result in plain} == {"connection_error"}


@pytest.mark.parametrize(("tls", "http2"), CONNECTIONS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", MODELS)
async def test_cuts_at_any_byte_lose_nothing_and_are_never_answers(dialect, stream, tls, http2):
    random_bytes = random.Random(7)
    # Over HTTP/2 all that come at the same time are cut together: there are fewer of them, and more bytes between cuts.
    workers = 5 if http2 == "auto" else 30
    plain, streamed = (10_000, 144_000) if http2 == "auto" else (4_000 if tls else 2_000, 12_000)
    # Events of the others are longer than those of Chat Completions.
    most = streamed * LONGER[dialect] if stream else plain
    cuts = (random_bytes.randrange(1, most) for _ in range(10_000))
    prompts = [f"prompt {number} " + "grüße " * 20 for number in range(150)]
    config = quick(max_workers=workers, retry=RetryConfig(max_attempts=400, initial_wait=0.001, max_wait=0.01))
    with SimulatedProvider(tls=tls) as provider, Proxy(provider.url, cuts=cuts) as proxy:
        options = {"transport": Transport(ca_bundle=provider.ca, http2=http2)}
        whole = strategy_of(dialect, provider.url, WITHOUT_THOUGHTS, stream=False, **options)
        expected = (await process_prompts(whole, prompts, config=config, preserve_order=True)).outputs()
        strategy = strategy_of(dialect, proxy.url.removesuffix("/v1"), WITHOUT_THOUGHTS, stream=stream, **options)
        batch = await process_prompts(strategy, prompts, config=config, preserve_order=True)
        cut = proxy.cut
    assert batch.outputs() == expected
    assert cut >= 3


@pytest.mark.parametrize(("tls", "http2"), CONNECTIONS)
async def test_only_streams_that_stall_are_ended_and_by_the_right_clock(tls, http2):
    prompts = [f"{number}" for number in range(1000)]
    config = quick(max_workers=1000, retry=RetryConfig(max_attempts=1, outage_patience=0), timeout_per_item=1000.0)
    faults = [Fault("stall", on=range(100, 1001, 200)), Fault("ping_only", on=range(200, 1001, 200))]
    with SimulatedProvider(latency=1.0, faults=faults, tls=tls, count_questions=True) as provider:
        # Others are never silent for nearly so long, however busy the machine is.
        transport = Transport(ca_bundle=provider.ca, http2=http2, idle_timeout=10.0, progress_timeout=15.0)
        strategy = OpenAIStrategy("m", base_url=provider.base_url, stream=True, transport=transport)
        batch = await process_prompts(strategy, prompts, config=config)
        hits = provider.stats.faults
        failed = {result.prompt: str(result.exception) for result in batch if not result.success}
        assert Counter(hit.kind for hit in hits) == {"stall": 5, "ping_only": 5}
        assert failed.keys() == {hit.question for hit in hits}
        # The pings of Chat Completions are bytes, but no events.
        clocks = {"stall": "(byte timeout)", "ping_only": "(event timeout)"}
        assert all(clocks[hit.kind] in failed[hit.question] for hit in hits), failed
        assert {result.error_category for result in batch if not result.success} == {"api_timeout"}
        again = await process_prompts(strategy, list(failed), config=config)
    assert again.succeeded == 10
