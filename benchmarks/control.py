"""What control costs, and how soon a command takes effect: ``python control.py [REQUESTS]``; prints two tables.

A stream of native requests to a simulated provider in another process: without control, with it, and with a watcher in
a third process, which asks for the status every second, or a hundred times a second. Turns alternate, for a machine is
noisier than what is measured; so the CPU time of this process for each request is printed beside their rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from batch_llm import OpenAIStrategy, attach, process_stream

HERE = Path(__file__).parent
IN_FLIGHT = 100
TURNS = 3
WATCH = """
import sys, time
from batch_llm import attach
while True:
    try:
        handle = attach("bench").sync
        while handle.status()["state"] != "ended":
            time.sleep(float(sys.argv[1]))
    except Exception:
        pass
    time.sleep(0.05)
"""


@contextlib.contextmanager
def provider(latency: float) -> Iterator[str]:
    """A provider in another process; its URL."""
    command = [sys.executable, str(HERE / "provider.py"), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@contextlib.contextmanager
def watcher(interval: float | None) -> Iterator[None]:
    """A watcher in another process."""
    if interval is None:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", WATCH, str(interval)]) as process:
        yield
        process.kill()


async def turn(url: str, requests: int, control: bool | str) -> tuple[float, float]:
    """Requests per second, and CPU us for each."""
    strategy = OpenAIStrategy("simulated", base_url=url)
    prompts = (f"Say {number}" for number in range(requests))
    began, cpu = time.perf_counter(), time.process_time()
    async for _ in process_stream(strategy, prompts, concurrency=IN_FLIGHT, control=control):
        pass
    return requests / (time.perf_counter() - began), (time.process_time() - cpu) / requests * 1e6


def cost(url: str, requests: int) -> None:
    """Print what control costs."""
    kinds: dict[str, tuple[bool | str, float | None]] = {
        "without control": (False, None),
        "control, nobody asks": ("bench", None),
        "a watcher, every second": ("bench", 1.0),
        "a watcher, 100 times a second": ("bench", 0.01),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    asyncio.run(turn(url, requests // 4, False))
    for _ in range(TURNS):
        for name, (control, interval) in kinds.items():
            with watcher(interval):
                found[name].append(asyncio.run(turn(url, requests, control)))
    print("| | requests/s | client CPU, us per request |\n| --- | ---: | ---: |")
    for name, turns in found.items():
        rate, cpu = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"| {name} | {rate:,.0f} | {cpu:.2f} |")


async def effects(url: str) -> None:
    """Print how soon commands take effect: from the call until it is answered and, for pause, the last start."""
    starts: list[float] = []

    async def source():  # type: ignore[no-untyped-def]
        while True:
            starts.append(time.perf_counter())
            yield "Say it"

    stream = process_stream(
        OpenAIStrategy("simulated", base_url=url), source(), concurrency=IN_FLIGHT, control="effects"
    )
    times: dict[str, list[float]] = {}

    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.5)
    handle = attach("effects")
    for number in range(50):
        for name, call in (
            ("status", handle.status),
            ("pause", handle.pause),
            ("set", lambda number=number: handle.set(concurrency=IN_FLIGHT + number % 2)),
            ("resume", handle.resume),
        ):
            began = time.perf_counter()
            await call()
            times.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    await handle.cancel()
    await task
    print("\n| command | median, ms | longest of 50, ms |\n| --- | ---: | ---: |")
    for name, found in times.items():
        print(f"| `{name}` | {statistics.median(found):.1f} | {max(found):.1f} |")


def main() -> None:
    """Measure."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as state, provider(0.0) as url:
        os.environ["BATCH_LLM_STATE"] = state
        cost(url, requests)
        asyncio.run(effects(url))


if __name__ == "__main__":
    main()
