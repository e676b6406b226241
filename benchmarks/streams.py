"""Replies that come as streams: ``python streams.py DIALECT URL STREAM REQUESTS CONCURRENCY``.

Prints requests/s and CPU us each.

DIALECT: ``chat``, ``responses``, ``anthropic``, ``gemini``. STREAM: ``yes`` or ``no``, as the server answers (see
``fixed_server.rs``, and ``recorded.py`` for what it answers with).
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any


def strategy(dialect: str, url: str, stream: bool) -> Any:
    from batch_llm import AnthropicStrategy, GoogleStrategy, OpenAIStrategy

    root = url.removesuffix("/v1")
    if dialect == "anthropic":
        return AnthropicStrategy("simulated", "none", root, stream=stream)
    if dialect == "gemini":
        return GoogleStrategy("simulated", "none", f"{root}/v1beta", stream=stream)
    api: Any = dialect
    return OpenAIStrategy("simulated", base_url=url, api=api, stream=stream)


async def run(dialect: str, url: str, stream: bool, requests: int, concurrency: int) -> None:
    from batch_llm import process_stream

    prompts = (f"Say {number}" for number in range(requests))
    async for result in process_stream(strategy(dialect, url, stream), prompts, concurrency=concurrency):
        assert result.success, result.error
        assert len(result.output) > 700, result.output


async def main(dialect: str, url: str, stream: bool, requests: int, concurrency: int) -> None:
    await run(dialect, url, stream, 200, concurrency)
    start, cpu = time.perf_counter(), time.process_time()
    await run(dialect, url, stream, requests, concurrency)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(requests / seconds, cpu / requests * 1e6)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "yes", int(sys.argv[4]), int(sys.argv[5])))
