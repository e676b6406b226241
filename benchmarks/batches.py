"""Requests in batches: time, memory and requests, against a simulated provider in a process of its own.

``python -m benchmarks.batches [ITEMS] [SIZE] [SECONDS]``: so many prompts of 200 bytes, in batches of so many, which
take so long: with enough of it, all wait at the same time.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from batch_llm import BatchSettings, process_stream
from batch_llm.testing import SimulatedBatches, SimulatedProvider

LENGTH = 200
WORDS = "Describe this number in one sentence:"


def serve(pipe: object, delay: float = 1.0) -> None:
    """Serve until asked to stop; say what was called then."""
    with SimulatedProvider(batches=SimulatedBatches(delay=delay)) as provider:
        pipe.send(provider.batch_url("openai"))  # type: ignore[attr-defined]
        pipe.recv()  # type: ignore[attr-defined]
        pipe.send((provider.batches.calls, provider.batches.paid_twice))  # type: ignore[attr-defined]


async def answer(url: str, items: int, size: int, store: Path) -> tuple[int, float]:
    """Take all results of a run in batches; return how many there were, and the seconds to the first."""

    def prompts() -> Iterator[str]:
        for number in range(items):
            yield f"{WORDS} {number:0{LENGTH - len(WORDS) - 1}}"

    began, first, done = time.perf_counter(), 0.0, 0
    settings = BatchSettings(size=size, linger=1.0, first_poll=0.5, longest_poll=2.0)
    stream = process_stream(
        "openai:gpt-4.1-mini",
        prompts(),
        api_key="k",
        base_url=url,
        lane="batch",
        store=store,
        batches=settings,
        keep_prompts=False,
    )
    async for result in stream:
        assert result.success, result.error
        first = first or time.perf_counter() - began
        done += 1
    return done, first


def main() -> None:
    """Print one line."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 5_000
    delay = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
    mine, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=serve, args=(theirs, delay), daemon=True)
    server.start()
    url = mine.recv()
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done, first = asyncio.run(answer(url, items, size, Path(folder) / "run.db"))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mine.send(None)
    calls, twice = mine.recv()
    server.terminate()
    sys.stdout.write(
        f"{done:,} answers in {seconds:.1f} s ({done / seconds:,.0f}/s), the first after {first:.1f} s; "
        f"{cpu / done * 1e6:.0f} us CPU each; peak memory {peak / 1024:.0f} MB (at the start {before / 1024:.0f}); "
        f"calls {calls}; paid twice {twice}\n"
    )


if __name__ == "__main__":
    main()
