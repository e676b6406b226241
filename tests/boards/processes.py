"""Workers in processes of their own that share limits, for the tests of boards."""

from __future__ import annotations

import asyncio
import sys

WORKER = """
import asyncio, sys
from batch_llm import LLMWorkItem, OpenAIStrategy, ParallelBatchProcessor, ProcessorConfig

async def main(url, shared, count):
    strategy = OpenAIStrategy("shared", base_url=url)
    config = ProcessorConfig(
        max_workers=50, max_requests_per_minute=3000, quota_burst_seconds=0.2, shared_limits=shared
    )
    processor = ParallelBatchProcessor(config=config)
    for number in range(count):
        await processor.add_work(LLMWorkItem(str(number), strategy, "hello"))
    print((await processor.process_all()).succeeded, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def worker(provider, shared, count):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, provider.base_url, str(shared), str(count), stdout=asyncio.subprocess.PIPE
    )


async def one_dies(dying, staying, provider):
    """Kill a worker; the other one sends its 300 prompts, and both together no more than the limit."""
    dying.kill()
    output, _ = await staying.communicate()
    await dying.wait()
    assert output.strip() == b"300"
    # Each by itself would send 50 a second.
    assert max(provider.stats.per_second) <= 75
    assert len(provider.stats.violations) <= 0.05 * provider.stats.requests
