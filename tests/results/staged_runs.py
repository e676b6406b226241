"""Runs that are limited by one known thing each, far apart from any other: what ``explain()`` has to find."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from batch_llm import (
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessingStats,
    RetryConfig,
    TokenEstimate,
    llm,
    process_prompts,
    process_stream,
)
from batch_llm.core import GuardrailConfig, Quota
from batch_llm.core.config import StartupRampConfig
from batch_llm.middleware import BaseMiddleware
from batch_llm.testing import Fault, PromptCaches, SimulatedBatches, SimulatedProvider

from ..helpers import Echo, Scripted, quick
from ..lanes.common import FAST

Stage = Callable[[Any], Awaitable[ProcessingStats]]
STAGES: dict[str, tuple[str, Stage]] = {}
"""By name: the limit, and the run."""
WORDS = [f"word {number}" for number in range(1000)]


def stage(limit: str) -> Callable[[Stage], Stage]:
    """A run with this limit."""

    def added(run: Stage) -> Stage:
        STAGES[run.__name__] = limit, run
        return run

    return added


async def asked(provider: SimulatedProvider, count: int, **options: Any) -> ProcessingStats:
    """Send so many prompts."""
    model = options.pop("model", "openai:gpt-5-mini")
    place = {"api_key": "key"} | options.pop("place", {})
    prompts = options.pop("prompts", WORDS[:count])
    batch = await process_prompts(model, prompts, base_url=provider.base_url, control=False, **place, **options)
    assert batch.stats is not None
    return batch.stats


async def answered(strategy: Any, count: int, **fields: Any) -> ProcessingStats:
    """Have a strategy in Python answer so many."""
    batch = await process_prompts(strategy, WORDS[:count], config=quick(**fields), control=False)
    assert batch.stats is not None
    return batch.stats


def limited(concurrency: int = 100, **fields: Any) -> Any:
    """A configuration whose limits may be used up at once only for a moment."""
    return quick(concurrency=concurrency, quota_burst_seconds=0.02, **fields)


class Estimated(Echo):
    """Uses as many tokens as it says before."""

    def __init__(self, tokens: TokenEstimate) -> None:
        super().__init__()
        self.tokens = tokens

    def estimate_tokens(self, prompt: Any, **_: Any) -> TokenEstimate:
        return self.tokens

    async def execute(self, prompt, attempt, timeout, state=None):
        await asyncio.sleep(0)
        sent, received = self.tokens.input_tokens, self.tokens.output_tokens
        return prompt, {"input_tokens": sent, "output_tokens": received, "total_tokens": sent + received}


# Quotas


@stage("quota:requests")
async def requests_per_minute(path):
    return await answered(Echo(), 12, concurrency=50, max_requests_per_minute=1200, quota_burst_seconds=0.02)


@stage("quota:requests")
async def requests_per_second(path):
    return await answered(
        Echo(), 12, concurrency=50, quotas=[Quota(requests=20, per="second")], quota_burst_seconds=0.02
    )


@stage("quota:requests")
async def requests_of_a_native_strategy(path):
    with SimulatedProvider() as provider:
        return await asked(provider, 12, config=limited(max_requests_per_minute=1200))


@stage("quota:requests")
async def requests_as_the_provider_reports(path):
    with SimulatedProvider(requests_per_minute=1200, burst_seconds=0.5) as provider:
        return await asked(provider, 40, config=quick(concurrency="auto"))


@stage("quota:input_tokens")
async def input_tokens_per_minute(path):
    strategy = Estimated(TokenEstimate(100, 1))
    return await answered(
        strategy, 12, concurrency=50, quotas=[Quota(input_tokens=2000, per="second")], quota_burst_seconds=0.05
    )


@stage("quota:input_tokens")
async def input_tokens_of_a_native_strategy(path):
    quotas = [Quota(input_tokens=2000, per="second"), Quota(requests=10_000, per="second")]
    with SimulatedProvider() as provider:
        config = quick(concurrency=100, quota_burst_seconds=0.1, quotas=quotas)
        return await asked(provider, 0, prompts=["x " * 200 + word for word in WORDS[:12]], config=config)


@stage("quota:output_tokens")
async def output_tokens_per_minute(path):
    strategy = Estimated(TokenEstimate(1, 100))
    return await answered(
        strategy, 12, concurrency=50, quotas=[Quota(output_tokens=2000, per="second")], quota_burst_seconds=0.05
    )


@stage("quota:output_tokens")
async def output_tokens_beside_a_wide_quota_of_requests(path):
    quotas = [Quota(output_tokens=1000, per="second"), Quota(requests=10_000, per="second")]
    return await answered(Estimated(TokenEstimate(50, 50)), 12, concurrency=50, quotas=quotas, quota_burst_seconds=0.05)


@stage("quota:tokens")
async def tokens_per_minute(path):
    strategy = Estimated(TokenEstimate(50, 50))
    return await answered(strategy, 12, concurrency=50, max_tokens_per_minute=120_000, quota_burst_seconds=0.05)


@stage("quota:tokens")
async def tokens_of_a_native_strategy(path):
    with SimulatedProvider() as provider:
        config = quick(concurrency=100, max_tokens_per_minute=60_000, quota_burst_seconds=0.2)
        prompts = ["x " * 200 + word for word in WORDS[:8]]
        return await asked(provider, 0, prompts=prompts, config=config, place={"max_tokens": 20})


# Budgets


@stage("budget")
async def a_budget_of_tokens(path):
    return await answered(Echo(), 100, concurrency=2, guardrails=GuardrailConfig(max_total_tokens=300))


@stage("budget")
async def a_budget_of_money(path):
    with SimulatedProvider() as provider:
        config = quick(concurrency=2, guardrails=GuardrailConfig(max_total_cost=0.001))
        return await asked(provider, 100, config=config, place={"max_tokens": 100})


@stage("budget")
async def a_budget_that_is_reserved(path):
    # One attempt reserves more than half of it, and uses little.
    with SimulatedProvider(latency=0.05) as provider:
        config = quick(concurrency=50, guardrails=GuardrailConfig(max_total_tokens=10_000))
        return await asked(provider, 8, config=config, place={"max_tokens": 7_000})


@stage("deadline")
async def too_little_time(path):
    return await answered(Echo(0.05), 100, concurrency=1, guardrails=GuardrailConfig(batch_timeout=0.3))


# Attempts in flight


@stage("workers")
async def two_workers(path):
    return await answered(Echo(0.03), 20, max_workers=2)


@stage("workers")
async def one_at_a_time(path):
    with SimulatedProvider(latency=0.03) as provider:
        return await asked(provider, 12, concurrency=1)


@stage("workers")
async def few_slots_for_a_slow_provider(path):
    with SimulatedProvider(latency=0.1) as provider:
        return await asked(provider, 24, concurrency=4)


@stage("last_items")
async def everything_at_once(path):
    with SimulatedProvider(latency=0.2) as provider:
        return await asked(provider, 5, concurrency=50)


@stage("last_items")
async def a_straggler(path):
    async def answer(prompt: str) -> str:
        await asyncio.sleep(0.5 if prompt == WORDS[0] else 0.001)
        return prompt

    return await answered(answer, 20, concurrency=20)


@stage("endpoint")
async def one_slow_endpoint(path):
    return await _two_endpoints(0.3, 0.01, 5)


@stage("endpoint")
async def one_slow_endpoint_among_three(path):
    return await _two_endpoints(0.4, 0.01, 3, more=1)


async def _two_endpoints(slow: float, fast: float, workers: int, more: int = 0) -> ProcessingStats:
    with contextlib.ExitStack() as stack:
        latencies = [slow, *[fast] * (1 + more)]
        providers = [stack.enter_context(SimulatedProvider(latency=latency)) for latency in latencies]
        models = [
            llm("openai:gpt-5-mini", api_key=f"key-{number}", base_url=provider.base_url)
            for number, provider in enumerate(providers)
        ]
        processor: Any = ParallelBatchProcessor(config=quick(max_workers=workers))
        for number in range(24):
            await processor.add_work(LLMWorkItem(str(number), models[number % len(models)], WORDS[number]))
        return (await processor.process_all()).stats


@stage("loop")
async def a_strategy_that_computes(path):
    async def answer(prompt: str) -> str:
        burn(0.02)
        await asyncio.sleep(0)
        burn(0.02)
        return prompt

    return await answered(answer, 20, concurrency=4)


@stage("loop")
async def a_hook_that_computes(path):
    class Slow(BaseMiddleware[Any, Any, Any]):
        async def before_process(self, work_item: Any) -> Any:
            burn(0.03)
            return work_item

    with SimulatedProvider() as provider:
        return await asked(provider, 20, concurrency=2, middlewares=[Slow()])


def burn(seconds: float) -> None:
    """Compute for so long, by this thread's own clock."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


# The provider


@stage("prompt_cache")
async def a_prompt_cache_that_is_written(path):
    # No reply comes, so the others wait: until they have done so for most of the time, however slow the machine is.
    with SimulatedProvider(prompt_caches=PromptCaches(), faults=[Fault("hang", between=(1, 100))]) as provider:
        document = "The contract says many things. " * 400
        prompts = [[document, word] for word in WORDS[:30]]
        stream = process_stream(
            "openai:gpt-5-mini", prompts, api_key="key", base_url=provider.base_url, concurrency=30, control=False
        )
        async with contextlib.aclosing(stream):
            reading = asyncio.ensure_future(anext(stream))
            waited = whole = 0.0
            while 5 * waited <= 4 * whole < 100:  # after half a minute, requests wait no more
                assert not reading.done(), stream.stats.explain()
                await asyncio.sleep(0.01)
                bound_by = stream.stats.bound_by
                waited, whole = bound_by.get("prompt_cache", 0.0), sum(bound_by.values())
            reading.cancel()
            return stream.stats


@stage("cooldown")
async def a_cooldown_after_a_rate_limit(path):
    with SimulatedProvider(0.02, faults=[Fault(429, on=[3], retry_after=1)]) as provider:
        return await asked(provider, 10, config=quick(max_workers=2))


@stage("cooldown")
async def several_cooldowns(path):
    with SimulatedProvider(faults=[Fault(429, on=[1, 4], retry_after=0.4)]) as provider:
        return await asked(provider, 10, config=quick(max_workers=1))


@stage("outage")
async def a_provider_that_is_down_for_good(path):
    with SimulatedProvider(faults=[Fault(503, between=(6, 10_000))]) as provider:
        retry = RetryConfig(max_attempts=3, initial_wait=0.01, max_wait=0.02, outage_patience=0.5)
        return await asked(provider, 100, config=quick(concurrency=5, retry=retry))


@stage("backoff")
async def long_waits_after_errors(path):
    def script(prompt: str, attempt: int) -> Any:
        return RuntimeError("not yet") if attempt == 1 else prompt

    retry = RetryConfig(initial_wait=0.5, max_wait=0.5, jitter=False)
    return await answered(Scripted(script), 10, concurrency=10, retry=retry)


@stage("slow_start")
async def a_startup_ramp(path):
    ramp = StartupRampConfig(initial_concurrency=1, ramp_interval_seconds=10.0)
    return await answered(Echo(0.01), 20, max_workers=20, startup_ramp=ramp)


@stage("batches")
async def requests_in_batches(path):
    return await _in_batches("gpt-4.1-mini", path)


@stage("batches")
async def requests_in_batches_of_responses(path):
    return await _in_batches("gpt-5-mini", path)


async def _in_batches(model: str, path: Any) -> ProcessingStats:
    with SimulatedProvider(batches=SimulatedBatches(delay=0.5, poll_interval=0.0)) as provider:
        batch = await process_prompts(
            f"openai:{model}", WORDS[:10], api_key="key", base_url=provider.batch_url("openai"), lane="batch",
            store=path / "batches.db", batches=FAST, control=False,
        )  # fmt: skip
    assert batch.stats is not None
    return batch.stats


# What is around it


@stage("consumer")
async def a_slow_consumer(path):
    config = quick(concurrency=2, max_queue_size=2, max_result_queue_size=2)
    stream = process_stream(Echo(), WORDS[:20], config=config, control=False)
    async for _ in stream:
        await asyncio.sleep(0.02)
    return stream.stats


@stage("consumer")
async def a_slow_consumer_of_native_answers(path):
    with SimulatedProvider() as provider:
        config = quick(concurrency=10, max_queue_size=4, max_result_queue_size=4)
        stream = process_stream(
            "openai:gpt-5-mini", WORDS[:30], api_key="key", base_url=provider.base_url, config=config, control=False
        )
        async for _ in stream:
            await asyncio.sleep(0.02)
        return stream.stats


@stage("source")
async def a_slow_source(path):
    async def source() -> AsyncIterator[str]:
        for word in WORDS[:10]:
            await asyncio.sleep(0.05)
            yield word

    batch = await process_prompts(Echo(), source(), config=quick(concurrency=10), control=False)
    return batch.stats


@stage("source")
async def a_source_that_computes(path):
    def source() -> Iterator[str]:
        for word in WORDS[:20]:
            burn(0.02)
            yield word

    with SimulatedProvider() as provider:
        return await asked(provider, 0, prompts=source(), concurrency=10)


@stage("store")
async def a_slow_disk(path):
    return await _stored(path, Echo(), {})


@stage("store")
async def a_slow_disk_for_native_answers(path):
    with SimulatedProvider() as provider:
        return await _stored(path, "openai:gpt-5-mini", {"api_key": "key", "base_url": provider.base_url})


HOLD = """
import sqlite3, sys, time
print("ready", flush=True)
sys.stdin.readline()
other = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(1.0)
"""


async def _stored(path: Any, strategy: Any, place: dict[str, Any]) -> ProcessingStats:
    """Another process writes to the file for a second, when the run has begun."""
    store = path / "slow.db"
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, store, stdin=pipe, stdout=pipe)
    assert other.stdin is not None
    assert other.stdout is not None
    await other.stdout.readline()

    async def source() -> AsyncIterator[str]:
        yield WORDS[0]
        other.stdin.write(b"now\n")
        await other.stdout.readline()
        for word in WORDS[1:20]:
            yield word

    try:
        config = quick(max_workers=4)
        batch = await process_prompts(strategy, source(), config=config, store=store, control=False, **place)
    finally:
        other.stdin.close()
        await other.wait()
    assert batch.stats is not None
    return batch.stats


@stage("reused")
async def a_run_that_is_in_the_store(path):
    for _ in range(2):
        batch = await process_prompts(Echo(), WORDS[:10], store=path / "again.db", control=False)
    assert batch.stats is not None
    return batch.stats


@stage("paused")
async def a_run_that_is_paused(path):
    processor: Any = ParallelBatchProcessor(config=quick(max_workers=2))
    for number in range(20):
        await processor.add_work(LLMWorkItem(str(number), Echo(0.005), WORDS[number]))
    task = asyncio.ensure_future(processor.process_all())
    await asyncio.sleep(0.01)
    processor.pause()
    await asyncio.sleep(0.8)
    processor.resume()
    return (await task).stats


# Runs of which nothing came


@stage("failures")
async def a_wrong_key(path):
    with SimulatedProvider(api_key="right") as provider:
        return await asked(provider, 20, config=quick(concurrency=5))


@stage("failures")
async def a_model_that_does_not_exist(path):
    with SimulatedProvider(faults=[Fault(404, every=1)]) as provider:
        return await asked(provider, 20, config=quick(concurrency=5))


@stage("failures")
async def requests_that_are_invalid(path):
    with SimulatedProvider(faults=[Fault(400, every=1)]) as provider:
        return await asked(provider, 20, config=quick(concurrency=5))


@stage("failures")
async def no_credit(path):
    with SimulatedProvider(faults=[Fault("billing", every=1)]) as provider:
        return await asked(provider, 20, config=quick(concurrency=5))


@stage("failures")
async def a_strategy_with_a_mistake(path):
    class Wrong(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            raise KeyError("answer")

    return await answered(Wrong(), 10, concurrency=5)


@stage("failures")
async def answers_that_do_not_parse(path):
    with SimulatedProvider() as provider:

        def parse(text: str) -> str:
            raise ValueError("no number in the answer")

        return await asked(provider, 10, config=quick(concurrency=5), place={"response_parser": parse})
