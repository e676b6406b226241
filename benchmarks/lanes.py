"""What the journal costs per request, by lane: ``python -m benchmarks.lanes [ITEMS] [db|jsonl]``; CPU, microseconds.

Live, that is the difference between a run with a store and one without. In batches it is the ledger, which
``cargo run --release --no-default-features --example batch_lines`` measures, and what results cost: the difference
between a run that stores them and one that stores none. Each run is in a process of its own, against a simulated
provider in another. Prompts have 200 bytes, batches 5,000 requests.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from batch_llm import BatchSettings, ProcessorConfig, process_stream
from batch_llm._store import RunStore
from batch_llm.testing import SimulatedBatches, SimulatedProvider

LENGTH = 200
WORKERS = 200
SIZE = 5_000
ROUNDS = 3


def serve(pipe: Any) -> None:
    """Serve until asked to stop."""
    with SimulatedProvider(batches=SimulatedBatches(delay=1.0)) as provider:
        pipe.send(provider.batch_url("openai"))
        pipe.recv()


async def answer(url: str, items: int, options: dict[str, Any]) -> None:
    """Take all results of a run."""

    def prompts() -> Iterator[str]:
        for number in range(items):
            yield f"Describe this number in one sentence: {number:0{LENGTH - 38}}"

    stream = process_stream(
        "openai:gpt-4.1-mini", prompts(), api_key="k", base_url=url, keep_prompts=False, stream=False, **options
    )
    async for result in stream:
        assert result.success, result.error


def measure(url: str, items: int, lane: str, kind: str, keeps: bool = True) -> float:
    """CPU per request of one run, microseconds; without ``keeps`` its store gets no results."""
    if not keeps:
        RunStore.keep = lambda self, flight, result: False  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        options: dict[str, Any] = {} if kind == "none" else {"store": Path(folder) / f"run.{kind}"}
        if lane == "batch":
            settings = BatchSettings(size=SIZE, linger=0.5, first_poll=0.5, longest_poll=2.0, probe=False)
            options |= {"lane": "batch", "batches": settings}
        else:
            options["config"] = ProcessorConfig(concurrency=WORKERS)
        before = time.process_time()
        asyncio.run(answer(url, items, options))
        return (time.process_time() - before) / items * 1e6


def main() -> None:
    """Print a line for each run, the best of some rounds."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    kind = sys.argv[2] if len(sys.argv) > 2 else "db"
    spawn = get_context("spawn")
    mine, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = mine.recv()
    for lane, store, keeps in (
        ("live", "none", True),
        ("live", kind, True),
        ("batch", kind, False),
        ("batch", kind, True),
    ):
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
            best = min(pool.submit(measure, url, items, lane, store, keeps).result() for _ in range(ROUNDS))
        results = "" if keeps else ", no results in it"
        sys.stdout.write(f"{lane}, store {store}{results}: {best:.1f} us CPU per request\n")
    mine.send(None)
    server.join()


if __name__ == "__main__":
    main()
