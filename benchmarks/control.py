"""What control costs, and how soon a command takes effect: ``python control.py [REQUESTS]``; prints three tables.

First the CPU time of an answer of the endpoint, in the process of the run, whose other threads wait. Then a stream of
native requests to a simulated provider in another process: without control, with it, and with a watcher in a third
process. (Turns alternate; a machine is noisier than what is measured.) Last, the time of commands in such a run, from
the call until its answer: the engine has done then what was asked.
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
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from batch_llm import OpenAIStrategy, attach, process_stream

HERE = Path(__file__).parent
IN_FLIGHT = 100
TURNS = 3
ANSWERS = 1_000
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
ASK = """
import sys
from batch_llm._control import find
from batch_llm._control.client import Client
client = Client(find("answers"))
for _ in range(int(sys.argv[1])):
    client.ask(sys.argv[2])
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


async def answers() -> None:
    """Print the CPU time of answers."""
    waits = asyncio.Event()

    async def wait(_: Any) -> str:
        await waits.wait()
        return ""

    stream = process_stream(wait, ["a"] * 1000, concurrency=IN_FLIGHT, control="answers")
    taking = asyncio.create_task(anext(stream))
    await asyncio.sleep(1)
    print("| answer | CPU of the run, ms |\n| --- | ---: |")
    for command in ("status", "explain", "cost", "tail"):
        cpu = time.process_time()
        asking = await asyncio.create_subprocess_exec(sys.executable, "-c", ASK, str(ANSWERS), command)
        await asking.wait()
        print(f"| `{command}` | {(time.process_time() - cpu) / ANSWERS * 1e3:.3f} |", flush=True)
    waits.set()
    await taking
    await stream.aclose()


async def turn(url: str, requests: int, control: bool | str) -> tuple[float, float]:
    """Requests per second, and CPU us for each."""
    strategy = OpenAIStrategy("simulated", base_url=url)
    prompts = (f"Say {number}" for number in range(requests))
    began, cpu = time.perf_counter(), time.process_time()
    async for _ in process_stream(strategy, prompts, concurrency=IN_FLIGHT, control=control):
        pass
    return requests / (time.perf_counter() - began), (time.process_time() - cpu) / requests * 1e6


def cost(url: str, requests: int) -> None:
    """Print what control costs a run."""
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
    print("\n| | requests/s | client CPU, us per request |\n| --- | ---: | ---: |")
    for name, turns in found.items():
        rate, cpu = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"| {name} | {rate:,.0f} | {cpu:.2f} |", flush=True)


async def effects(url: str) -> None:
    """Print how soon commands take effect."""

    async def source() -> AsyncIterator[str]:
        while True:
            yield "Say it"

    strategy = OpenAIStrategy("simulated", base_url=url)
    stream = process_stream(strategy, source(), concurrency=IN_FLIGHT, control="effects")

    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.5)
    times = await asyncio.to_thread(commands)
    attach("effects").sync.cancel()
    await task
    print("\n| command | median, ms | 95 of 100, ms |\n| --- | ---: | ---: |")
    for name, found in times.items():
        print(f"| `{name}` | {statistics.median(found):.1f} | {sorted(found)[94]:.1f} |")


def commands() -> dict[str, list[float]]:
    """Call commands 100 times each; return how long each call took, ms."""
    handle = attach("effects").sync
    calls: dict[str, Callable[[int], Any]] = {
        "status": lambda _: handle.status(),
        "set": lambda number: handle.set(concurrency=IN_FLIGHT + number % 2),
        "pause": lambda _: handle.pause(),
        "resume": lambda _: handle.resume(),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(100):
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            times[name].append((time.perf_counter() - began) * 1e3)
            time.sleep(0.01)
    return times


def main() -> None:
    """Measure."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as state, provider(0.0) as url:
        os.environ["BATCH_LLM_STATE"] = state
        asyncio.run(answers())
        asyncio.run(effects(url))
        if requests:
            cost(url, requests)


if __name__ == "__main__":
    main()
