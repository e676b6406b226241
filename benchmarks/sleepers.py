"""Many items that only wait: ``python sleepers.py sleep|processors|threads``; prints seconds and CPU seconds.

``sleep``: 50,000 items that take a second each, 5,000 at a time. ``processors``: ten processors on one loop, 50,000
items in all. ``threads``: four event loops in four threads with a processor each, 50,000 items in all.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from batch_llm import LLMCallStrategy, LLMWorkItem, ParallelBatchProcessor, ProcessorConfig


class Sleeper(LLMCallStrategy[str]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def execute(self, prompt: str, attempt: int, timeout: float, state: Any = None) -> tuple[str, Any]:
        await asyncio.sleep(self.seconds)
        return prompt, {}


async def run(items: int, workers: int, seconds: float) -> None:
    strategy = Sleeper(seconds)
    processor: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=workers))
    for number in range(items):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    assert (await processor.process_all()).succeeded == items


async def many() -> None:
    await asyncio.gather(*(run(5_000, 200, 0) for _ in range(10)))


def main(kind: str) -> None:
    if kind == "sleep":
        asyncio.run(run(50_000, 5_000, 1.0))
    elif kind == "processors":
        asyncio.run(many())
    else:
        threads = [threading.Thread(target=lambda: asyncio.run(run(12_500, 200, 0))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


start, cpu = time.perf_counter(), time.process_time()
main(sys.argv[1])
print(time.perf_counter() - start, time.process_time() - cpu)
