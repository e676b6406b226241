"""What the surfaces cost: ``python surfaces.py [overhead|pool|memory]``; prints a table's rows, best of five.

``overhead``: microseconds per prompt, of a strategy that answers at once. ``pool``: microseconds per call with 5,000
callers at once. ``memory``: growth of the process while a million prompts from a generator go through a stream whose
consumer is slower than everything else.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from batch_llm import (
    LLMCallPool,
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    process_prompts,
    process_stream,
    run,
    stream,
)

USAGE: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
ITEMS, CALLERS, MILLION = 100_000, 5_000, 1_000_000


class Echo(LLMCallStrategy[str]):
    async def execute(self, prompt: str, attempt: int, timeout: float, state: Any = None) -> tuple[str, Any]:
        return prompt, USAGE


async def best(what: Callable[[], Awaitable[Any]], items: int, rounds: int = 5) -> float:
    seconds = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        await what()
        seconds.append(time.perf_counter() - start)
    return min(seconds) / items * 1e6


async def overhead() -> None:
    strategy, prompts = Echo(), [str(number) for number in range(ITEMS)]

    async def processor() -> None:
        runner: Any = ParallelBatchProcessor(config=ProcessorConfig(concurrency=200))
        for number, prompt in enumerate(prompts):
            await runner.add_work(LLMWorkItem(f"item_{number}", strategy, prompt))
        assert (await runner.process_all()).succeeded == ITEMS

    async def collected() -> None:
        assert (await process_prompts(strategy, prompts, concurrency=200)).succeeded == ITEMS

    async def streamed(**options: Any) -> None:
        count = 0
        async for _ in process_stream(strategy, prompts, concurrency=200, **options):
            count += 1
        assert count == ITEMS

    async def blocking() -> None:
        assert run(strategy, prompts, concurrency=200).succeeded == ITEMS

    async def blocking_stream() -> None:
        assert sum(1 for _ in stream(strategy, prompts, concurrency=200)) == ITEMS

    print("processor, items made and added one by one", round(await best(processor, ITEMS), 2))
    print("process_prompts", round(await best(collected, ITEMS), 2))
    print("process_stream", round(await best(streamed, ITEMS), 2))
    print("process_stream, ordered", round(await best(lambda: streamed(ordered=True), ITEMS), 2))
    print("run", round(await best(blocking, ITEMS), 2))
    print("stream", round(await best(blocking_stream, ITEMS), 2))


async def pool() -> None:
    strategy = Echo()

    async def bare() -> None:
        await asyncio.gather(*(strategy.execute("x", 1, 1.0) for _ in range(CALLERS)))

    async with LLMCallPool(strategy, config=ProcessorConfig(concurrency=CALLERS)) as calls:

        async def submit() -> None:
            await asyncio.gather(*(calls.submit("x") for _ in range(CALLERS)))

        async def with_limit() -> None:
            await asyncio.gather(*(calls.submit("x", timeout=60) for _ in range(CALLERS)))

        print("the strategy alone, gathered", round(await best(bare, CALLERS, 20), 2))
        print("pool.submit", round(await best(submit, CALLERS, 20), 2))
        print("pool.submit with a timeout", round(await best(with_limit, CALLERS, 20), 2))


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def memory() -> None:
    for ordered in (False, True):
        await _count(1000, ordered)
        before = resident()
        most = await _count(MILLION, ordered)
        print("ordered" if ordered else "as they come", f"{(most - before) / 1e6:.1f} MB at most beyond the start")


async def _count(items: int, ordered: bool) -> int:
    count = most = 0
    prompts = (f"{number:0200d}" for number in range(items))
    async for _ in process_stream(Echo(), prompts, ordered=ordered):
        count += 1
        if count % 1000 == 0:
            await asyncio.sleep(0.001)  # slower than everything else: results wait
        if count % 20_000 == 0:
            most = max(most, resident())
    assert count == items
    return most


if __name__ == "__main__":
    for name in sys.argv[1:] or ("overhead", "pool", "memory"):
        asyncio.run({"overhead": overhead, "pool": pool, "memory": memory}[name]())
