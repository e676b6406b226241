"""Memory of open requests: ``python open_requests.py URL REQUESTS HTTP2``; prints KiB each, before any has its result.

HTTP2 is ``auto`` (HTTP/1.1, for without TLS no other is offered) or ``always``.

URL is that of a provider that takes seconds for each answer. The sockets' buffers are the kernel's and do not count.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from batch_llm import LLMWorkItem, OpenAIStrategy, ParallelBatchProcessor, ProcessorConfig
from batch_llm.transport import Transport


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def main(url: str, requests: int, http2: Any) -> None:
    strategy = OpenAIStrategy("simulated", base_url=url, transport=Transport(http2=http2))
    processor: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=requests))
    await processor.add_work(LLMWorkItem("first", strategy, "x"))
    await processor.process_all()
    for number in range(requests):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x" * 200))
    before = resident()
    running = asyncio.create_task(processor.process_all())
    peak = before
    while not running.done():
        await asyncio.sleep(0.05)
        size = resident()
        if not (await processor.get_stats())["processed"]:
            peak = max(peak, size)
    assert running.result().succeeded == requests, running.result().results[0].error
    print((peak - before) / requests / 1024)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
