"""What stores cost: ``python journal.py run|append|open KIND [ITEMS]``; prints numbers.

``run``: microseconds per item of a run whose strategy answers at once (KIND ``none`` is without a store). ``append``:
results per second into a store, without a run. ``open``: seconds and MB of memory to open a store of that many results
to resume from it; it is made first. KIND is ``db``, ``jsonl``, ``db-fsync``, ``jsonl-fsync``, ``segments`` (a folder),
``segments-fsync``, or the URL of a bucket, ``s3://bucket/prefix``. Answers have 400 characters.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

USAGE: Any = {"input_tokens": 100, "output_tokens": 80, "total_tokens": 180}
ANSWER = "a word " * 57
WORKERS = 200


def store_of(module: Any, folder: str, kind: str, **options: Any) -> Any:
    """Make a store of a kind, of ours or a peer's."""
    if "://" in kind:
        return module.SegmentArtifactStore(f"{kind.rstrip('/')}/{Path(folder).name}", **options)
    if kind.startswith("segments"):
        return module.SegmentArtifactStore(Path(folder) / "store", fsync=kind.endswith("fsync"), **options)
    path = Path(folder) / f"store.{kind.partition('-')[0]}"
    if kind.startswith("jsonl"):
        return module.JsonlArtifactStore(path, fsync=kind.endswith("fsync"), **options)
    durability = module.SqliteDurability.FULL if kind.endswith("fsync") else module.SqliteDurability.BALANCED
    return module.SqliteArtifactStore(path, durability=durability, **options)


async def run(module: Any, kind: str, items: int, folder: str) -> float:
    class Strategy(module.LLMCallStrategy):  # type: ignore[misc, name-defined]
        model = "gpt-5-mini"
        artifact_identity = module.ArtifactIdentity(provider="a", model="b", application_version="1")

        async def execute(self, prompt: str, attempt: int, timeout: float, state: Any = None) -> Any:
            return f"{prompt} {ANSWER}", USAGE

    options = {} if kind == "none" else {"artifact_store": store_of(module, folder, kind)}
    config = module.ProcessorConfig(concurrency=WORKERS)
    prompts = [f"Tag this text, number {number}." for number in range(items)]
    gc.collect()
    start = time.perf_counter()
    batch = await module.process_prompts(Strategy(), prompts, config=config, **options)
    seconds = time.perf_counter() - start
    assert batch.succeeded == items
    return seconds / items * 1e6


def append_ours(kind: str, items: int, folder: str) -> float:
    from batch_llm import _core, artifacts
    from batch_llm.serialization import to_plain

    store = store_of(artifacts, folder, kind)
    journal = _core.Journal(store.path, store._format, store, 3)
    start = time.perf_counter()
    for number in range(items):
        key = _core.fingerprint([f"Tag this text, number {number}.", 0], to_plain, b"identity")
        price, body = (1e-6, 1e-6, 1e-6, 1e-6), {"attempts": 1, "output": ANSWER, "token_usage": USAGE}
        request, spending = (key, 1, f"item_{number}", number), (USAGE, None, price, None)
        record = (True, request, (True, None, 2), spending, body, None)
        journal.append(record, to_plain)
    journal.flush()
    seconds = time.perf_counter() - start
    journal.close()
    return items / seconds


async def append_theirs(module: Any, kind: str, items: int, folder: str) -> float:
    identity = module.ArtifactIdentity(provider="a", model="b", application_version="1")
    store = store_of(module, folder, kind, identity=identity)
    numbers = iter(range(items))
    strategy = module.llm("openai:gpt-4.1-mini", api_key="none")

    async def work() -> None:
        for number in numbers:
            item = module.LLMWorkItem(f"item_{number}", strategy, f"Tag this text, number {number}.")
            prepared = await store.prepare_item(item)
            result = module.WorkItemResult(item.item_id, True, ANSWER, token_usage=USAGE)
            await store.append(item, prepared, result)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(WORKERS)))
    seconds = time.perf_counter() - start
    await store.close()
    return items / seconds


def open_ours(kind: str, items: int, folder: str) -> tuple[float, float]:
    from batch_llm import _core, artifacts

    # In a process of its own, for the sake of the memory.
    subprocess.run([sys.executable, __file__, "fill", kind, str(items), folder], check=True)
    store = store_of(artifacts, folder, kind)
    gc.collect()
    before, start = memory(), time.perf_counter()
    journal = _core.Journal(store.path, store._format, store, 2)
    seconds = time.perf_counter() - start
    assert journal.found == items
    used = memory() - before
    journal.close()
    return seconds, used


def memory() -> float:
    """Resident memory now, MB."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(what: str, kind: str, items: int, *rest: str) -> None:
    if what == "fill":
        append_ours(kind, items, rest[0])
        return
    try:
        import batch_llm as module
    except ImportError:
        import async_batch_llm as module  # type: ignore[import-not-found, no-redef]
    ours = module.__name__ == "batch_llm"
    with tempfile.TemporaryDirectory() as folder:
        if what == "run":
            print(asyncio.run(run(module, kind, items, folder)))
        elif what == "append":
            print(append_ours(kind, items, folder) if ours else asyncio.run(append_theirs(module, kind, items, folder)))
        else:
            print(*open_ours(kind, items, folder))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 100_000, *sys.argv[4:])
