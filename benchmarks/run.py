"""Run the benchmarks and print the tables of ``docs/benchmarks.md``: ``python run.py [SECTION ...]``.

Called by ``make bench``. Without arguments all sections run but those of :data:`LONG`, which take longer than all the
others together, or need an environment of their own. ``--list`` prints their names.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import real
from measuring import HERE, OLD, WIRE, environment, example, measure, provider


def overhead() -> None:
    """Print engine time per item, ours and peers'."""
    print("\n## Engine overhead\n\nMicroseconds per item.\n\n| package | workers | returns at once | awaits sleep(0) |")
    print("| --- | ---: | ---: | ---: |")
    rows = [("batch-llm", "batch-llm", 200, 50_000, sys.executable)]
    rows += [("batch-llm, middleware and observer", "batch-llm-hooks", 200, 50_000, sys.executable)]
    rows += [("batch-llm", "batch-llm", 10, 50_000, sys.executable)]
    rows += [("bare worker loop", "workers", 200, 50_000, sys.executable)]
    rows += [("gather + Semaphore", "gather", 200, 50_000, sys.executable)]
    rows += [("gather + Semaphore + wait_for", "gather-timeout", 200, 50_000, sys.executable)]
    for name, requirement in OLD.items():
        # 0.28 takes ten seconds for what takes the others one.
        items = 50_000 if "0.5" in name else 5_000
        rows.append((name, "async-batch-llm", 200, items, environment(requirement)))
    ours: list[float] = []
    for name, peer, workers, items, python in rows:
        now, later = (
            measure("overhead.py", peer, workers, items, kind, python=python)[0] for kind in ("now", "sleep0")
        )
        ours = ours or [now, later]
        print(f"| {name} | {workers} | {now:.1f} ({now / ours[0]:.1f}x) | {later:.1f} ({later / ours[1]:.1f}x) |")


def stores() -> None:
    """Print what stores cost, ours and a peer's."""
    peer = environment(OLD["async-batch-llm 0.28.0"], WIRE["openai"])
    print("\n## Stores\n\n| store | µs per item of a run | added by the store | results/s written directly |")
    print("| --- | ---: | ---: | ---: |")
    for name, python, items in (("batch-llm", sys.executable, 100_000), ("async-batch-llm 0.28.0", peer, 5_000)):
        (bare,) = measure("journal.py", "run", "none", items, python=python)
        print(f"| {name}, none | {bare:.1f} | | |")
        kinds = {"db": "SQLite", "db-fsync": "SQLite, full", "jsonl": "JSONL"}
        if name == "batch-llm":
            kinds["segments"] = "segments in a folder"
        for kind, words in kinds.items():
            (run,) = measure("journal.py", "run", kind, items, python=python)
            (rate,) = measure("journal.py", "append", kind, 2 * items, python=python)
            print(f"| {name}, {words} | {run:.1f} | {run - bare:.1f} | {rate:,.0f} |")
    print("\n| a store of 1,000,000 results | s to open | MB of memory |\n| --- | ---: | ---: |")
    for kind, words in (("db", "SQLite"), ("jsonl", "JSONL"), ("segments", "segments in a folder")):
        seconds, megabytes = measure("journal.py", "open", kind, 1_000_000)
        print(f"| {words} | {seconds:.2f} | {megabytes:.0f} |")


def wire() -> None:
    """Print requests per second over HTTP."""
    print("\n## Over HTTP against the simulated provider, two processes on the same cores\n")
    print("| client | in flight | requests/s | client CPU, µs per request | times slower |")
    print("| --- | ---: | ---: | ---: | ---: |")
    bare = example("bare_reqwest")
    with provider() as (url, cost):
        best = 0.0
        rows: list[tuple[str, int, int, str]] = [
            ("batch-llm", concurrency, 60_000, sys.executable) for concurrency in (100, 1000, 4000)
        ]
        rows += [("batch-llm-http2", concurrency, 60_000, sys.executable) for concurrency in (100, 1000, 4000)]
        rows += [("batch-llm-processor", concurrency, 60_000, sys.executable) for concurrency in (100, 1000, 4000)]
        rows += [("bare reqwest loop", concurrency, 60_000, "") for concurrency in (100, 1000, 4000)]
        rows += [("aiohttp", 100, 10_000, environment(WIRE["aiohttp"]))]
        rows += [("openai", 100, 1_500, environment(WIRE["openai"]))]
        rows += [("litellm", 100, 600, environment(WIRE["litellm"]))]
        old = environment(OLD["async-batch-llm 0.28.0"], WIRE["openai"])
        rows += [("async-batch-llm", 100, 1_000, old)]
        for peer, concurrency, requests, python in rows:
            if python:
                rate, cpu = measure("wire.py", peer, url, concurrency, requests, python=python)
            else:
                rate, cpu = measure(bare, url, concurrency, requests, python=None)
            best = best or rate
            name = peer if peer != "async-batch-llm" else "async-batch-llm 0.28.0 (openai SDK)"
            print(f"| {name} | {concurrency} | {rate:,.0f} | {cpu:.0f} | {best / rate:.1f} |", flush=True)
    print(
        f"\nThe simulated provider itself took {cost[0]:.1f} us a request: {1e6 / cost[0]:,.0f} requests/s on one core."
    )


def more_wire() -> None:
    """Print latency, memory of open requests, and embeddings."""
    print("\n## More over HTTP\n")
    with provider(0.05) as (url, _):
        (most,) = measure("latency.py", url, 0, 4)
        p50, p99 = measure("latency.py", url, most / 2, 4)
    print(f"- latency added at half load ({most / 2:,.0f} requests/s of 50 ms): p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    with provider(6.0) as (url, _):
        (memory,) = measure("open_requests.py", url, 4000, "auto", repeat=1)
        (shared,) = measure("open_requests.py", url, 4000, "always", repeat=1)
    print(f"- memory of an open request, 4,000 of them: {memory:.1f} KiB; over HTTP/2 {shared:.1f} KiB")
    with provider() as (url, _):
        rate, extra = measure("embed.py", url, 1_000_000, 64, repeat=1)
    print(f"- a million short texts embedded, 2,048 a request: {rate:,.0f} texts/s, {extra:.0f} bytes each", end=" ")
    print("beyond the vector")


def conversations() -> None:
    """Print conversations with tools, ours and a loop over an SDK."""
    from conversations import CHAIN, CONVERSATIONS, ROUNDS

    print(f"\n## Conversations with tools\n\n{CONVERSATIONS:,} of {ROUNDS} rounds; the longest takes {CHAIN:.2f} s.\n")
    print("| | seconds | of the chain | CPU us per round |\n| --- | ---: | ---: | ---: |")
    peer = environment(WIRE["openai"])
    names = {"batch-llm": "ours", "batch-llm, HTTP/2": "http2", "batch-llm, SQLite store": "stored"}
    rows = [(name, kind, sys.executable) for name, kind in names.items()]
    rows += [("openai SDK in gather", "openai", peer)]
    for name, kind, python in rows:
        with provider(0.1) as (url, _):
            seconds, cpu = measure("conversations.py", kind, url, python=python)
        print(f"| {name} | {seconds:.2f} | {seconds / CHAIN:.2f} | {cpu:,.0f} |")


def rest() -> None:
    """Print memory, waiting items, contention and import time."""
    queued, result = measure("memory.py", 1_000_000, repeat=1)
    print("\n## Memory, a million items with prompts of 200 characters\n")
    print(f"- queued: {queued:.0f} bytes an item beyond the item itself\n- results: {result:.0f} bytes an item")
    print("\n## Many at once\n\n| case | seconds | CPU seconds |\n| --- | ---: | ---: |")
    for kind, text in (
        ("sleep", "50,000 items that sleep 1 s, 5,000 at a time"),
        ("processors", "50,000 items over ten processors on one loop"),
        ("threads", "50,000 items over four loops in four threads"),
    ):
        seconds, cpu = measure("sleepers.py", kind, repeat=1)
        print(f"| {text} | {seconds:.2f} | {cpu:.2f} |")
    code = (
        "import subprocess, sys, time\n"
        "def took(program):\n"
        "    runs = []\n"
        "    for _ in range(15):\n"
        "        start = time.perf_counter()\n"
        "        subprocess.run([sys.executable, '-c', program], check=True)\n"
        "        runs.append(time.perf_counter() - start)\n"
        "    return sorted(runs)[len(runs) // 2]\n"
        "print(1e3 * took('pass'), 1e3 * took('import batch_llm'), 1e3 * took('from batch_llm import *'))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    bare, light, full = map(float, output.split())
    print("\n## Import, ms beyond a bare interpreter\n")
    print(f"- `import batch_llm`: {light - bare:.1f}\n- `from batch_llm import *`: {full - bare:.1f}")


def program(script: str, *arguments: str) -> None:
    """Run a script that prints its tables itself."""
    subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)


def module(name: str, *arguments: str) -> None:
    """The same for a module of this folder that imports from others."""
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True, cwd=HERE.parent)


SECTIONS: dict[str, Callable[[], None]] = {
    "overhead": overhead,
    "wire": wire,
    "more-wire": more_wire,
    "real": real.main,
    "limits": lambda: program("limits.py", "90"),
    "prompt-caches": lambda: program("prompt_caches.py"),
    "pools": lambda: program("pools.py", "peers", "2000", "20"),
    "conversations": conversations,
    "batches": lambda: module("batches", "100000", "5000"),
    "surfaces": lambda: program("surfaces.py"),
    "stores": stores,
    "control": lambda: program("control.py", "100000"),
    "signing": lambda: subprocess.run([example("signing")], check=True) and None,
    "clouds": lambda: program("clouds.py", "rate", "40000"),
    "command-line": lambda: program("cli.py"),
    "frames": lambda: program("frames.py", "200000"),
    "rest": rest,
    "forecast": lambda: program("forecast.py"),
}
"""What ``make bench`` runs, in the order of the page."""
LONG: dict[str, Callable[[], None]] = {
    "batch-peers": lambda: module("batch_peers"),
    "million-in-batches": lambda: module("batches", "1000000", "5000"),
    "expiry": lambda: program("clouds.py", "expiry"),
    "outages": lambda: program("outages.py"),
}
"""What runs only if it is named."""


def main(names: list[str]) -> None:
    """Run the sections with these names; none: all of :data:`SECTIONS`."""
    known = SECTIONS | LONG
    if names == ["--list"]:
        print("\n".join(known))
        return
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"there is no section {unknown[0]!r}; there are {', '.join(known)}")
    print(f"Python {sys.version.split()[0]}, medians of three runs")
    for name in names or SECTIONS:
        print(f"\n# {name}", flush=True)
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
