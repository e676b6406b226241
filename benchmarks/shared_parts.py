"""Parts that many requests share: ``python shared_parts.py KIND URL ITEMS CONCURRENCY HTTP2 [CA]``.

Prints GB/s of request bodies, requests/s, CPU us each, the MB that are unique among the requests in flight (the shared
part once, and what each has of its own), and the MB by which the process grows at most.

KIND: ``prompt`` (a system prompt of 400 KB), ``image`` (one of 1 MB), ``message`` (the 400 KB stand in a system message
of each item's conversation), ``none`` (the items alone: what the growth of the others is to be compared with). Each
item has 200 characters of its own. HTTP2 is ``auto``, ``never`` or ``always``.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from batch_llm import Image, OpenAIStrategy, process_stream
from batch_llm.transport import Transport

PREFIX = 400_000
IMAGE = 1_000_000
QUESTION = "what does clause 17 say about delivery? " * 5


def peak() -> int:
    """The most memory that this process has had since it was last reset, bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def text(length: int) -> str:
    """Words with what JSON escapes, as documents have it."""
    line = 'Clause 17: the "Supplier" shall deliver within 30 days \N{EN DASH} unless otherwise agreed in writing.\n'
    return (line * (length // len(line) + 1))[:length]


def prompts(kind: str, items: int, picture: Any, prefix: str) -> Iterator[Any]:
    for number in range(items):
        own = f"Question {number}: {QUESTION}"
        if kind == "image":
            yield [own, picture]
        elif kind == "message":
            yield [{"role": "system", "content": prefix}, {"role": "user", "content": own}]
        else:
            yield own


async def run(kind: str, url: str, items: int, concurrency: int, http2: Any, ca: str | None) -> None:
    prefix = text(PREFIX)
    transport = Transport(http2=http2, ca_bundle=ca)
    system = prefix if kind == "prompt" else None
    strategy = OpenAIStrategy("simulated", base_url=url, system_prompt=system, transport=transport)
    image = b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(IMAGE - 8)
    picture = Image(image) if kind == "image" else None
    async for result in process_stream(strategy, prompts(kind, items, picture, prefix), concurrency=concurrency):
        assert result.success, result.error


async def main(kind: str, url: str, items: int, concurrency: int, http2: Any, ca: str | None) -> None:
    await run("none", url, 10 * concurrency, concurrency, http2, ca)
    reset_peak()
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    await run(kind, url, items, concurrency, http2, ca)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    shared = {"prompt": len(text(PREFIX).encode()), "message": len(text(PREFIX).encode()), "image": IMAGE * 4 // 3}
    size = items * (shared.get(kind, 0) + 400)
    unique = shared.get(kind, 0) + concurrency * len(f"Question {items}: {QUESTION}")
    print(size / seconds / 1e9, items / seconds, cpu / items * 1e6, unique / 1e6, (peak() - before) / 1e6)


if __name__ == "__main__":
    given = sys.argv[6] if len(sys.argv) > 6 else "-"
    arguments = (sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    asyncio.run(main(*arguments, None if given == "-" else given))
