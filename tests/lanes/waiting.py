"""A program that streams prompts of 200 bytes into batches: ``python -m tests.lanes.waiting URL STORE ITEMS [wait]``.

It prints how many results were left in batches, and the peak of its memory in bytes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import resource
import sys
from collections.abc import Iterator

from batch_llm import process_stream

from .common import FAST, MODELS


async def main() -> None:
    """Take all results as they come, and keep none."""
    url, store, items, *wait = sys.argv[1:]

    def prompts() -> Iterator[str]:
        for number in range(int(items)):
            yield f"{number:0200d}"

    settings = dataclasses.replace(FAST, size=1000)
    stream = process_stream(
        f"openai:{MODELS['openai']}", prompts(), api_key="key", base_url=url, lane="batch", store=store,
        batches=settings, wait=bool(wait), keep_prompts=False,
    )  # fmt: skip
    left = done = 0
    async for result in stream:
        done += 1
        left += result.error_category == "in_batch"
    assert done == int(items)
    scale = 1 if sys.platform == "darwin" else 1024
    sys.stdout.write(f"{left} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale}\n")


if __name__ == "__main__":
    asyncio.run(main())
