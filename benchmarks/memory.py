"""Memory: ``python memory.py ITEMS``; prints bytes per queued item and per result beyond the user's own objects.

The user's own objects are the items with their prompts of 200 characters (made before the first reading), and the
output and usage that the strategy returns (here the prompt itself and one shared dict).
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

from batch_llm import LLMCallStrategy, LLMWorkItem, ParallelBatchProcessor, ProcessorConfig

USAGE: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


class Echo(LLMCallStrategy[str]):
    async def execute(self, prompt: str, attempt: int, timeout: float, state: Any = None) -> tuple[str, Any]:
        return prompt, USAGE


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def main(items: int) -> None:
    strategy = Echo()
    warm: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=200))
    await warm.add_work(LLMWorkItem("warm", strategy, "x"))
    await warm.process_all()
    prompts = [f"{number:0200d}" for number in range(items)]
    work = [LLMWorkItem(str(number), strategy, prompts[number]) for number in range(items)]
    processor: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=200))
    before = resident()
    for item in work:
        await processor.add_work(item)
    queued = resident()
    batch = await processor.process_all()
    done = resident()
    assert batch.succeeded == items
    print((queued - before) / items, (done - queued) / items)


asyncio.run(main(int(sys.argv[1])))
