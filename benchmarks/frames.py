"""Data frames: ``python frames.py [ROWS]``; prints microseconds and bytes a row for each library.

A strategy that answers at once with 40 characters; texts of 200. Bytes are what the process has grown by at most during
the run, the new columns among it. ``reader`` asks while a table that is nowhere as a whole is read.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any


def memory(name: str) -> int:
    """Bytes: VmRSS, what there is now, or VmHWM, the most there was."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024


async def ask(prompt: str) -> str:
    return prompt[:40]


def frame(kind: str, rows: int) -> Any:
    """Make a frame of a library."""
    import pyarrow

    schema = pyarrow.schema([("text", pyarrow.string())])

    def batches() -> Iterator[Any]:
        for start in range(0, rows, 1000):
            texts = [f"{number:0200d}" for number in range(start, min(start + 1000, rows))]
            yield pyarrow.record_batch([texts], schema=schema)

    reader = pyarrow.RecordBatchReader.from_batches(schema, batches())
    if kind == "reader":
        return reader
    table = reader.read_all()
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        import polars

        return polars.from_arrow(table)
    return table


def measure(kind: str, rows: int) -> None:
    """Measure one library, in a process of its own."""
    from batch_llm import run_frame

    run_frame(frame("arrow", 100), "{text}", ask)
    given = frame(kind, rows)
    before = memory("VmRSS")
    began = time.perf_counter()
    made: Any = run_frame(given, "Say {text}", ask, concurrency=200)
    count = sum(len(batch) for batch in made) if kind == "reader" else len(made)
    taken = time.perf_counter() - began
    assert count == rows, count
    grown = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    print(f"{kind:8} {taken / rows * 1e6:6.1f} us a row {grown / rows:8.0f} bytes a row ({grown / 1e6:,.0f} MB)")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    if os.environ.get("FRAMES_KIND"):
        measure(os.environ["FRAMES_KIND"], count)
    else:
        for each in ("pandas", "polars", "arrow", "reader"):
            subprocess.run([sys.executable, __file__, str(count)], check=True, env={**os.environ, "FRAMES_KIND": each})
