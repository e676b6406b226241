"""Latency that we add at some load: ``python latency.py URL RATE SECONDS``; prints p50 and p99 in ms.

With RATE 0 it asks as fast as it can, 4,000 at a time, and prints the requests/s that it reaches.

The server takes LATENCY seconds for each request (URL is that of a provider started so); prompts come evenly, RATE a
second, into a stream. What a request takes beyond the time that the server says it took is ours and the kernel's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

from batch_llm import OpenAIStrategy, process_stream


async def most(url: str, seconds: float) -> None:
    strategy = OpenAIStrategy("simulated", base_url=url)
    done, start = 0, time.perf_counter()
    prompts = iter(lambda: "Say it" if time.perf_counter() < start + seconds else None, None)
    async for _ in process_stream(strategy, prompts, concurrency=4_000):
        done += 1
    print(done / (time.perf_counter() - start))


async def main(url: str, rate: float, seconds: float) -> None:
    strategy = OpenAIStrategy("simulated", base_url=url)
    began: dict[str, float] = {}
    took: list[float] = []

    async def prompts() -> AsyncIterator[tuple[str, str]]:
        start = time.perf_counter()
        for number in range(int(rate * seconds)):
            wait = start + number / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            name = str(number)
            began[name] = time.perf_counter()
            yield name, "Say it"

    async for result in process_stream(strategy, prompts(), concurrency=10_000):
        elapsed = time.perf_counter() - began.pop(result.item_id)
        assert result.metadata is not None
        took.append(elapsed - result.metadata["processing_ms"] / 1e3)
    added = sorted(one * 1e3 for one in took[len(took) // 5 :])
    print(added[len(added) // 2], added[int(len(added) * 0.99)])


if __name__ == "__main__":
    url, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    asyncio.run(main(url, rate, seconds) if rate else most(url, seconds))
