"""How well a run keeps to limits: ``python limits.py [SECONDS]``; all cases at once, in real time, over real HTTP.

Each case has a provider of its own that enforces its limits with a bucket and counts who came too early. Prints what
part of the quota was used after the first third, and how many requests were rate limited.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from batch_llm import (
    GoogleStrategy,
    GuardrailConfig,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    Price,
    ProcessorConfig,
)
from batch_llm.testing import SimulatedProvider

RATE = 6000.0
"""Requests per minute."""
SHORT = [f"Tell me about number {number}." for number in range(1000)]


async def run(strategy: Any, prompts: Iterable[str], config: ProcessorConfig) -> Any:
    processor = ParallelBatchProcessor(config=config)
    for number, prompt in enumerate(prompts):
        await processor.add_work(LLMWorkItem(str(number), strategy, prompt))
    return await processor.process_all()


def prompts(count: int) -> Iterable[str]:
    return (SHORT[number % len(SHORT)] for number in range(count))


def timed(seconds: float, **fields: Any) -> ProcessorConfig:
    guardrails = GuardrailConfig(batch_timeout=seconds, abort_mode="cancel_active")
    return ProcessorConfig(guardrails=guardrails, **fields)


def passed(provider: SimulatedProvider) -> list[int]:
    """Requests that were let through, in each second."""
    stats = provider.stats
    early = Counter(int(violation.at) for violation in stats.violations)
    return [count - early[second] for second, count in enumerate(stats.per_second)]


def report(name: str, provider: SimulatedProvider, seconds: int, rate: float = RATE) -> None:
    from_second = seconds // 3
    counts = passed(provider)[from_second : seconds - 1]
    stats = provider.stats
    early = len(stats.violations)
    later = sum(1 for violation in stats.violations if violation.at >= from_second)
    used = sum(counts) / (len(counts) * rate / 60)
    print(
        f"| {name} | {100 * used:.1f}% | {early} ({100 * early / stats.requests:.2f}%) "
        f"| {100 * later / max(sum(counts), 1):.2f}% |",
        flush=True,
    )


async def configured(seconds: int) -> None:
    with SimulatedProvider(latency=0.3, requests_per_minute=RATE, tokens_per_minute=1e7) as provider:
        strategy = OpenAIStrategy("configured", base_url=provider.base_url)
        limits = timed(seconds, concurrency=200, max_requests_per_minute=RATE, max_tokens_per_minute=1e7)
        await run(strategy, prompts(int(2 * seconds * RATE / 60)), limits)
        report("limits set by the user", provider, seconds)


async def told(seconds: int) -> None:
    with SimulatedProvider(latency=0.3, requests_per_minute=RATE, tokens_per_minute=1e7) as provider:
        strategy = OpenAIStrategy("told", base_url=provider.base_url)
        await run(strategy, prompts(int(2 * seconds * RATE / 60)), timed(seconds, concurrency="auto"))
        report("none set, reported in headers", provider, seconds)


async def found(seconds: int) -> None:
    with SimulatedProvider(latency=0.3, requests_per_minute=RATE) as provider:
        strategy = GoogleStrategy("found", "k", provider.gemini_url)
        await run(strategy, prompts(int(2 * seconds * RATE / 60)), timed(seconds, concurrency="auto"))
        report("none set, no headers", provider, seconds)


async def followed(seconds: int) -> None:
    """The limit is halved after a third of the time, and doubled after two thirds."""
    third = seconds // 3
    with SimulatedProvider(latency=0.3, requests_per_minute=RATE, burst_seconds=2) as provider:
        strategy = GoogleStrategy("followed", "k", provider.gemini_url)
        work = run(strategy, prompts(int(2 * seconds * RATE / 60)), timed(seconds, concurrency="auto"))
        task = asyncio.ensure_future(work)
        await asyncio.sleep(third)
        provider.set_limits(requests_per_minute=RATE / 2, burst_seconds=2)
        await asyncio.sleep(third)
        provider.set_limits(requests_per_minute=RATE, burst_seconds=2)
        await task
        counts = passed(provider)
        stats = provider.stats
        halved = [violation for violation in stats.violations if third <= violation.at < 2 * third]
        received = sum(stats.per_second[third : 2 * third])
        level = 0.9 * RATE / 60
        reached = next(
            (second for second in range(2 * third, seconds - 5) if sum(counts[second : second + 5]) / 5 >= level),
            seconds,
        )
        print(
            f"\nHalved: {100 * len(halved) / received:.2f}% rate limited, "
            f"{sum(counts[third + 5 : 2 * third]) / (third - 5):.0f}/s of {RATE / 120:.0f}/s from 5 s on. "
            f"Doubled: {level:.0f}/s reached within {reached - 2 * third} s.",
            flush=True,
        )


async def capped() -> None:
    """A cap on cost with 5,000 attempts in flight."""
    price = Price(input=0.8, output=2.0)
    with SimulatedProvider(latency=0.5) as provider:
        strategy = OpenAIStrategy("capped", base_url=provider.base_url, max_tokens=40)
        guardrails = GuardrailConfig(max_total_cost=1.0, prices={"capped": price})
        config = ProcessorConfig(max_workers=5000, guardrails=guardrails)
        batch = await run(strategy, prompts(60_000), config)
        stats = provider.stats
        charged = price.of({"input_tokens": stats.input_tokens, "output_tokens": stats.output_tokens})
        print(
            f"\nCap of 1.00 with up to 5,000 in flight (most at once: {stats.peak_concurrency}): {charged:.4f} on the "
            f"provider's ledger, {batch.succeeded} items done, {batch.failed} not admitted, {batch.termination.kind}.",
            flush=True,
        )


async def main(seconds: int) -> None:
    print("| limits | used after the first third | rate limited | rate limited after the first third |")
    print("| --- | ---: | ---: | ---: |")
    await asyncio.gather(configured(seconds), told(seconds), found(seconds))
    await asyncio.gather(followed(seconds), capped())


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 90))
