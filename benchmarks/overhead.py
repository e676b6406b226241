"""Engine time per item: ``python overhead.py PEER WORKERS ITEMS STRATEGY``; prints microseconds per item.

The strategy answers at once (``now``) or after ``asyncio.sleep(0)`` (``sleep0``). Runs in the peer's environment.
The time is that of queueing and running the items; making the item objects is not counted, for anybody.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

logging.getLogger().addHandler(logging.NullHandler())
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


async def execute(kind: str, prompt: str) -> tuple[str, dict[str, int]]:
    if kind == "sleep0":
        await asyncio.sleep(0)
    return prompt, USAGE


async def gather(kind: str, items: int, workers: int, limit: float | None = None) -> float:
    semaphore = asyncio.Semaphore(workers)

    async def one(prompt: str) -> Any:
        async with semaphore:
            if limit is None:
                return await execute(kind, prompt)
            return await asyncio.wait_for(execute(kind, prompt), limit)

    prompts = [str(number) for number in range(items)]
    start = time.perf_counter()
    results = await asyncio.gather(*(one(prompt) for prompt in prompts))
    assert len(results) == items
    return time.perf_counter() - start


async def bare_workers(kind: str, items: int, workers: int) -> float:
    queue: asyncio.Queue[str] = asyncio.Queue()
    results = []

    async def worker() -> None:
        while not queue.empty():
            results.append(await execute(kind, queue.get_nowait()))

    start = time.perf_counter()
    for number in range(items):
        queue.put_nowait(str(number))
    await asyncio.gather(*(worker() for _ in range(workers)))
    assert len(results) == items
    return time.perf_counter() - start


async def processor(module: Any, kind: str, items: int, workers: int, **hooks: Any) -> float:
    class Strategy(module.LLMCallStrategy):  # type: ignore[misc, name-defined]
        async def execute(self, prompt: str, attempt: int, timeout: float, state: Any = None) -> Any:
            if kind == "sleep0":
                await asyncio.sleep(0)
            return prompt, USAGE

    strategy = Strategy()
    runner = module.ParallelBatchProcessor(config=module.ProcessorConfig(max_workers=workers), **hooks)
    work = [module.LLMWorkItem(item_id=str(n), strategy=strategy, prompt=str(n)) for n in range(items)]
    start = time.perf_counter()
    for item in work:
        await runner.add_work(item)
    batch = await runner.process_all()
    assert batch.succeeded == items
    return time.perf_counter() - start


async def main(peer: str, workers: int, items: int, kind: str) -> float:
    if peer == "gather":
        return await gather(kind, items, workers)
    if peer == "gather-timeout":
        return await gather(kind, items, workers, limit=120.0)
    if peer == "workers":
        return await bare_workers(kind, items, workers)
    if peer == "async-batch-llm":
        import async_batch_llm  # type: ignore[import-not-found]

        return await processor(async_batch_llm, kind, items, workers)
    import batch_llm

    hooks: dict[str, Any] = {}
    if peer == "batch-llm-hooks":
        hooks = {"middlewares": [batch_llm.BaseMiddleware()], "observers": [batch_llm.MetricsObserver()]}
    # The extension and its tables are loaded once per process, not per item.
    await processor(batch_llm, kind, 10, 2)
    return await processor(batch_llm, kind, items, workers, **hooks)


if __name__ == "__main__":
    name, workers, items, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    print(asyncio.run(main(name, workers, items, kind)) / items * 1e6)
