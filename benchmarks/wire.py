"""Requests per second over HTTP: ``python wire.py PEER URL CONCURRENCY REQUESTS``; prints requests/s and CPU us each.

Peers: ``batch-llm`` (``process_stream``, which like the loops of the others takes prompts as it goes and keeps no
result), ``batch-llm-http2`` (the same over HTTP/2, which real providers speak; without TLS it must be asked for),
``batch-llm-processor`` (the original API: all items are made and queued before, all results are kept), ``aiohttp`` (a
hand-written loop), ``openai`` and ``litellm`` (the SDKs), ``async-batch-llm`` (0.28, its own way to call OpenAI). The
CPU time is that of this process alone; the simulated provider is another process on the same machine.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def batch_llm_stream(url: str, concurrency: int, requests: int, http2: Any = "auto") -> int:
    from batch_llm import OpenAIStrategy, process_stream
    from batch_llm.transport import Transport

    strategy = OpenAIStrategy("simulated", base_url=url, transport=Transport(http2=http2))
    prompts = (f"Say {number}" for number in range(requests))
    done = 0
    async for result in process_stream(strategy, prompts, concurrency=concurrency):
        done += result.success
    return done


async def batch_llm_processor(url: str, concurrency: int, requests: int) -> int:
    from batch_llm import LLMWorkItem, OpenAIStrategy, ParallelBatchProcessor, ProcessorConfig

    strategy = OpenAIStrategy("simulated", base_url=url)
    processor: Any = ParallelBatchProcessor(config=ProcessorConfig(max_workers=concurrency))
    for number in range(requests):
        await processor.add_work(LLMWorkItem(str(number), strategy, f"Say {number}"))
    return (await processor.process_all()).succeeded  # type: ignore[no-any-return]


async def aiohttp_loop(url: str, concurrency: int, requests: int) -> int:
    import aiohttp

    done = 0
    numbers = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker() -> None:
            nonlocal done
            for number in numbers:
                body = {"model": "simulated", "messages": [{"role": "user", "content": f"Say {number}"}]}
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    reply = json.loads(await response.read())
                    assert reply["choices"][0]["message"]["content"]
                    done += 1

        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return done


async def openai_sdk(url: str, concurrency: int, requests: int) -> int:
    import openai

    done = 0
    numbers = iter(range(requests))
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:

        async def worker() -> None:
            nonlocal done
            for number in numbers:
                messages: Any = [{"role": "user", "content": f"Say {number}"}]
                reply = await client.chat.completions.create(model="simulated", messages=messages)
                assert reply.choices[0].message.content
                done += 1

        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return done


async def litellm_sdk(url: str, concurrency: int, requests: int) -> int:
    import litellm

    done = 0
    numbers = iter(range(requests))

    async def worker() -> None:
        nonlocal done
        for number in numbers:
            messages = [{"role": "user", "content": f"Say {number}"}]
            reply = await litellm.acompletion("openai/simulated", messages=messages, api_base=url, api_key="none")
            assert reply.choices[0].message.content
            done += 1

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return done


async def async_batch_llm_run(url: str, concurrency: int, requests: int) -> int:
    import async_batch_llm

    model = async_batch_llm.OpenAIModel.from_api_key(
        "simulated", "none", base_url=url, api_surface="chat_completions", max_connections=concurrency
    )
    prompts = [f"Say {number}" for number in range(requests)]
    strategy = async_batch_llm.OpenAIStrategy(model)
    batch = await async_batch_llm.process_prompts(strategy, prompts, concurrency=concurrency)
    return batch.succeeded  # type: ignore[no-any-return]


PEERS: dict[str, Callable[[str, int, int], Awaitable[int]]] = {
    "batch-llm": batch_llm_stream,
    "batch-llm-http2": functools.partial(batch_llm_stream, http2="always"),
    "batch-llm-processor": batch_llm_processor,
    "aiohttp": aiohttp_loop,
    "openai": openai_sdk,
    "litellm": litellm_sdk,
    "async-batch-llm": async_batch_llm_run,
}


async def main(peer: str, url: str, concurrency: int, requests: int) -> None:
    await PEERS[peer](url, 10, 100)  # imports, connections, caches
    start, cpu = time.perf_counter(), time.process_time()
    assert await PEERS[peer](url, concurrency, requests) == requests
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(requests / seconds, cpu / requests * 1e6)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
