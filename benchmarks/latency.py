"""Latency that we add at half load: ``python latency.py URL RATE SECONDS``; prints p50 and p99 in ms.

The server takes LATENCY seconds for each request (URL is that of a provider started so); requests start evenly, RATE
a second. What a request takes beyond the time that the server says it took is ours and the kernel's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from batch_llm import LLMWorkItem, OpenAIStrategy, ParallelBatchProcessor, ProcessorConfig


async def main(url: str, rate: float, seconds: float) -> None:
    strategy = OpenAIStrategy("simulated", base_url=url)
    began: dict[str, float] = {}
    took: list[float] = []

    def note(result: Any) -> None:
        elapsed = time.perf_counter() - began.pop(result.item_id)
        took.append(elapsed - result.metadata["processing_ms"] / 1e3)

    processor: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=10_000), post_processor=note)
    await processor.add_work(LLMWorkItem("first", strategy, "x"))
    began["first"] = time.perf_counter()
    running = asyncio.create_task(processor.process_all())
    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        wait = start + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        name = str(number)
        began[name] = time.perf_counter()
        await processor.add_work(LLMWorkItem(name, strategy, "Say it"))
    await running
    added = sorted(one * 1e3 for one in took[len(took) // 5 :])
    print(added[len(added) // 2], added[int(len(added) * 0.99)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(float, sys.argv[2:4])))
