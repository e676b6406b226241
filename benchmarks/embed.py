"""Many short texts packed: ``python embed.py URL TEXTS DIMENSIONS``; prints texts/s, bytes per text beyond vectors."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from batch_llm import EmbeddingStrategy, LLMWorkItem, ParallelBatchProcessor, ProcessorConfig


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def main(url: str, texts: int, dimensions: int) -> None:
    strategy = EmbeddingStrategy("openai:e", "none", url, dimensions=dimensions)
    processor: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=32_768))
    for number in range(texts):
        await processor.add_work(LLMWorkItem(str(number), strategy, f"a short text, number {number}"))
    before, start = resident(), time.perf_counter()
    batch = await processor.process_all()
    seconds = time.perf_counter() - start
    assert batch.succeeded == texts
    print(texts / seconds, (resident() - before) / texts - 4 * dimensions)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
