"""Embeddings of 1,536 numbers: ``python vectors.py PEER URL TEXTS ENCODING``; prints texts/s and CPU us each.

The server answers each request with ``PACK`` vectors, as base64 or as JSON numbers (ENCODING, for those peers that ask
for one of them). Each vector is made a numpy array, which is what one computes with. Peers: ``batch-llm``, ``openai``
(its usual way: base64 read by numpy, and lists of floats).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

PACK = 256
LENGTH = 1536


async def batch_llm(url: str, texts: int, encoding: str) -> int:
    import numpy as np

    from batch_llm import EmbeddingStrategy, process_stream

    strategy = EmbeddingStrategy("openai:e", "none", url, max_items=PACK, linger=5.0)
    done = 0
    prompts = (f"a short text, number {number}" for number in range(texts))
    async for result in process_stream(strategy, prompts, concurrency=16 * PACK):
        assert np.asarray(result.output).shape == (LENGTH,)
        done += 1
    return done


async def openai_sdk(url: str, texts: int, encoding: str) -> int:
    import numpy as np
    import openai

    done = 0
    packs = iter(range(0, texts, PACK))
    more: dict[str, Any] = {} if encoding == "base64" else {"encoding_format": "float"}
    async with openai.AsyncOpenAI(base_url=url, api_key="none", http_client=openai.DefaultAioHttpClient()) as client:

        async def worker() -> None:
            nonlocal done
            for start in packs:
                words = [f"a short text, number {start + place}" for place in range(PACK)]
                reply = await client.embeddings.create(model="e", input=words, **more)
                for one in reply.data:
                    assert np.asarray(one.embedding, dtype=np.float32).shape == (LENGTH,)
                    done += 1

        await asyncio.gather(*(worker() for _ in range(16)))
    return done


PEERS: dict[str, Callable[[str, int, str], Awaitable[int]]] = {"batch-llm": batch_llm, "openai": openai_sdk}


async def main(peer: str, url: str, texts: int, encoding: str) -> None:
    await PEERS[peer](url, 2 * PACK, encoding)
    start, cpu = time.perf_counter(), time.process_time()
    assert await PEERS[peer](url, texts, encoding) == texts
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(texts / seconds, cpu / texts * 1e6)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
