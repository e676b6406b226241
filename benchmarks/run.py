"""Run all benchmarks and print the tables of ``docs/benchmarks.md``. Called by ``make bench``."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "bench"
OLD = {"async-batch-llm 0.5.0": "async-batch-llm==0.5.0", "async-batch-llm 0.28.0": "async-batch-llm==0.28.0"}
WIRE = {"aiohttp": "aiohttp==3.14.5", "openai": "openai==3.57.0", "litellm": "litellm==1.110.2"}


def environment(*requirements: str) -> str:
    """Make a virtual environment with these packages; return its interpreter."""
    home = CACHE / "+".join(requirements).replace("==", "-")
    python = home / "bin" / "python"
    if not (home / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        (home / ".made").touch()
    return str(python)


def measure(script: str, *arguments: object, python: str | None = sys.executable, repeat: int = 3) -> list[float]:
    """Run a script (or, without ``python``, a program) some times; return the median of each number that it prints."""
    runs = []
    for _ in range(repeat):
        command = [python, str(HERE / script)] if python else [script]
        command += map(str, arguments)
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append([float(number) for number in output.split()])
    return [statistics.median(column) for column in zip(*runs, strict=True)]


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


@contextlib.contextmanager
def provider(latency: float = 0.0) -> Iterator[tuple[str, list[float]]]:
    """Serve in a process of its own; yields the URL, and a list that gets the CPU us per request at the end."""
    command = [sys.executable, str(HERE / "provider.py"), str(latency)]
    cost: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip(), cost
        process.stdin.close()
        cost.append(float(process.stdout.read()))


def bare_reqwest() -> str:
    """Build the loop through reqwest alone; return its path."""
    flags = ["--quiet", "--release", "--no-default-features", "--example", "bare_reqwest"]
    subprocess.run(["cargo", "build", *flags], check=True, cwd=HERE.parent)
    return str(HERE.parent / "target" / "release" / "examples" / "bare_reqwest")


def wire() -> None:
    """Print requests per second over HTTP."""
    print("\n## Over HTTP against the simulated provider, two processes on the same cores\n")
    print("| client | in flight | requests/s | client CPU, µs per request | times slower |")
    print("| --- | ---: | ---: | ---: | ---: |")
    bare = bare_reqwest()
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
    rows = [("batch-llm", "ours", sys.executable), ("batch-llm, SQLite store", "stored", sys.executable)]
    rows += [("openai SDK in gather", "openai", peer)]
    for name, kind, python in rows:
        with provider(0.1) as (url, _):
            seconds, cpu = measure("conversations.py", kind, url, python=python)
        print(f"| {name} | {seconds:.2f} | {seconds / CHAIN:.2f} | {cpu:,.0f} |")


def prompt_caches() -> None:
    """Print what simulated prompt caches save, with us and with a loop of HTTP requests."""
    print("\n## Prompt caches\n", flush=True)
    subprocess.run([sys.executable, str(HERE / "prompt_caches.py")], check=True)


def pools() -> None:
    """Print what sick members of a pool cost, ours and peers'."""
    print("\n## Pools\n", flush=True)
    subprocess.run([sys.executable, str(HERE / "pools.py"), "peers", "2000", "20"], check=True)


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


def control() -> None:
    """Print what watching a run costs, and how soon commands take effect."""
    command = [sys.executable, str(HERE / "control.py"), "100000"]
    print("\n## Control\n\n" + subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    import real  # which uses this module

    print(f"Python {sys.version.split()[0]}, medians of three runs")
    overhead()
    wire()
    more_wire()
    real.main()
    conversations()
    control()
    prompt_caches()
    pools()
    stores()
    rest()
