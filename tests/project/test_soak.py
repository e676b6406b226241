"""Long runs: ``make soak``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time

import pytest

from batch_llm import (
    LLMCallPool,
    LLMCallStrategy,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    RateLimitConfig,
    RetryConfig,
    Transport,
    process_stream,
)
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick, run
from ..proxy import Proxy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


class Weather(LLMCallStrategy[str]):
    """Fails in every way there is, now and then."""

    async def execute(self, prompt, attempt, timeout, state=None):
        roll = random.random()
        if roll < 0.001:
            await asyncio.sleep(10)
        if roll < 0.02:
            raise random.choice([RuntimeError("x"), ConnectionError("x"), asyncio.CancelledError("x"), ValueError("x")])
        if roll < 0.021:
            raise RuntimeError("429")
        if roll < 0.5:
            await asyncio.sleep(0)
        return prompt, {"input_tokens": 1}


async def test_a_million_items_in_all_weathers():
    limits = RateLimitConfig(cooldown_seconds=0.001, slow_start_items=0, backoff_multiplier=1.0)
    config = quick(max_workers=500, timeout_per_item=0.5, rate_limit=limits, retry=RetryConfig(3, 0.001, 0.01))
    processor = ParallelBatchProcessor(config=config)
    strategy = Weather()
    total = 1_000_000
    for number in range(total):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    batch = await processor.process_all()
    assert batch.total_items == total
    assert len({result.item_id for result in batch.results}) == total
    stats = await processor.get_stats()
    assert stats["succeeded"] + stats["failed"] == total


async def test_three_hundred_thousand_requests_with_faults():
    faults = [Fault(429, every=20_000, retry_after=0.05), Fault(500, every=97), Fault(503, every=1009)]
    with SimulatedProvider(faults=faults) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        limits = RateLimitConfig(slow_start_items=0)
        config = quick(max_workers=500, rate_limit=limits, retry=RetryConfig(max_attempts=8, initial_wait=0.001))
        processor = ParallelBatchProcessor(config=config)
        for number in range(300_000):
            await processor.add_work(LLMWorkItem(str(number), strategy, f"say {number}"))
        batch = await processor.process_all()
        assert batch.succeeded == 300_000
        assert provider.stats.statuses[200] == 300_000


async def test_cancelling_a_thousand_runs():
    for _ in range(1000):
        processor = ParallelBatchProcessor(config=quick(max_workers=20, retry=RetryConfig(3, 0.001)))
        strategy = Weather()
        for number in range(200):
            await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
        running = asyncio.create_task(processor.process_all())
        await asyncio.sleep(random.random() * 0.01)
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            pass
        assert processor.partial_result().total_items == 200


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_million_prompts_through_a_stream_in_flat_memory(ordered):
    limits = RateLimitConfig(cooldown_seconds=0.001, slow_start_items=0, backoff_multiplier=1.0)
    config = quick(max_workers=500, timeout_per_item=0.5, rate_limit=limits, retry=RetryConfig(3, 0.001, 0.01))
    total, count, before, most = 1_000_000, 0, 0, 0
    prompts = (f"{number:0200d}" for number in range(total))
    async for result in process_stream(Weather(), prompts, config=config, ordered=ordered):
        if ordered:
            assert result.submission_index == count
        count += 1
        if count % 1000 == 0:
            await asyncio.sleep(0.001)  # results wait
        if count == 100_000:
            before = resident()
        elif count % 100_000 == 0:
            most = max(most, resident())
    assert count == total
    assert most - before < 80e6


async def test_half_a_million_calls_of_a_pool_that_come_and_go():
    limits = RateLimitConfig(cooldown_seconds=0.001, slow_start_items=0, backoff_multiplier=1.0)
    config = quick(max_workers=200, timeout_per_item=0.5, rate_limit=limits, retry=RetryConfig(3, 0.001, 0.01))
    done = 0

    async def caller(pool):
        nonlocal done
        for _ in range(500):
            try:
                await asyncio.wait_for(pool.submit_result("x"), random.choice([0.001, 30, 30, 30]))
            except asyncio.TimeoutError:
                pass
            done += 1

    async with LLMCallPool(Weather(), config=config) as pool:
        await asyncio.gather(*(caller(pool) for _ in range(1000)))
        assert pool._calls == {}
    assert done == 500_000


SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))


@pytest.mark.timeout(SOAK_SECONDS + 300)
async def test_half_an_hour_of_all_faults_in_flat_memory_and_descriptors(caplog):
    # pytest keeps every record, and a line for each pause is some twenty thousand in half an hour.
    caplog.set_level(logging.CRITICAL, logger="batch_llm")
    kinds = (500, 503, 429, 408, "reset", "cut", "malformed", "html", "keep_alive", "error_inside", "drip")
    faults = [Fault(kind, every=97 + 40 * place, retry_after=0.01) for place, kind in enumerate(kinds)]
    faults.append(Fault("hang", every=5003))
    config = quick(
        max_workers=50,
        timeout_per_item=1.0,
        rate_limit=RateLimitConfig(cooldown_seconds=0.01, slow_start_items=0, backoff_multiplier=1.0),
        retry=RetryConfig(max_attempts=8, initial_wait=0.001, max_wait=0.05),
    )
    began, count, failed, samples = time.monotonic(), 0, 0, []

    def prompts():
        number = 0
        while time.monotonic() - began < SOAK_SECONDS:
            yield f"question {number}: {'x' * 500}"
            number += 1

    with SimulatedProvider(latency=0.01, latency_spread=0.02, faults=faults) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        next_sample = began + SOAK_SECONDS / 10
        async for result in process_stream(strategy, prompts(), config=config):
            count += 1
            failed += not result.success
            if time.monotonic() > next_sample:
                next_sample += SOAK_SECONDS / 10
                samples.append((count, resident(), len(os.listdir("/proc/self/fd"))))
        sent = provider.stats.requests
    assert sent > count > 100 * min(SOAK_SECONDS, 60)
    assert failed < count / 1000
    memory, descriptors = [one[1] for one in samples], [one[2] for one in samples]
    assert max(memory[1:]) - memory[0] < 20e6, samples
    # Every five minutes all connections are replaced: for an instant there are twice as many, of two descriptors each.
    assert max(descriptors) - min(descriptors) < 60 + 2 * config.max_workers, samples
    assert sorted(descriptors)[len(descriptors) // 2] - min(descriptors) < 60, samples


async def test_pings_keep_silent_connections_of_http2_open():
    """Of replies that take longer than a proxy allows a connection to be silent, those over HTTP/2 arrive."""
    once = quick(max_workers=50, retry=RetryConfig(max_attempts=1, outage_patience=0), timeout_per_item=200.0)
    with SimulatedProvider(tls=True, latency=100.0) as provider, Proxy(provider.url, idle=40.0) as proxy:

        async def succeeded(http2):
            transport = Transport(ca_bundle=provider.ca, http2=http2)
            strategy = OpenAIStrategy("m", base_url=proxy.url, stream=False, transport=transport)
            batch, _ = await run(strategy, ["x"] * 50, once)
            return batch.succeeded

        assert await asyncio.gather(succeeded("auto"), succeeded("never")) == [50, 0]
