"""Run all benchmarks and print the tables of ``docs/benchmarks.md``. Called by ``make bench``."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "bench"
OLD = {"async-batch-llm 0.5.0": "async-batch-llm==0.5.0", "async-batch-llm 0.28.0": "async-batch-llm==0.28.0"}
WIRE = {"aiohttp": "aiohttp==3.14.5", "openai": "openai==3.57.0"}


def environment(requirement: str) -> str:
    """Make a virtual environment with one package; return its interpreter."""
    home = CACHE / requirement.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
        (home / ".made").touch()
    return str(python)


def measure(script: str, *arguments: object, python: str = sys.executable, repeat: int = 3) -> list[float]:
    """Run a script some times and return the median of each number that it prints."""
    runs = []
    for _ in range(repeat):
        command = [python, str(HERE / script), *map(str, arguments)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append([float(number) for number in output.split()])
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def overhead() -> None:
    """Print engine time per item, ours and peers'."""
    print("\n## Engine overhead, us per item\n\n| peer | workers | returns at once | awaits sleep(0) |")
    print("| --- | ---: | ---: | ---: |")
    rows = [("batch-llm", "batch-llm", 200, 50_000, sys.executable)]
    rows += [("batch-llm, middleware and observer", "batch-llm-hooks", 200, 50_000, sys.executable)]
    rows += [("batch-llm", "batch-llm", 10, 50_000, sys.executable)]
    rows += [("bare worker loop", "workers", 200, 50_000, sys.executable)]
    rows += [("gather + Semaphore", "gather", 200, 50_000, sys.executable)]
    rows += [("gather + Semaphore + wait_for", "gather-timeout", 200, 50_000, sys.executable)]
    for name, requirement in OLD.items():
        rows.append((name, "async-batch-llm", 200, 5_000, environment(requirement)))
    ours: list[float] = []
    for name, peer, workers, items, python in rows:
        now, later = (
            measure("overhead.py", peer, workers, items, kind, python=python)[0] for kind in ("now", "sleep0")
        )
        ours = ours or [now, later]
        print(f"| {name} | {workers} | {now:.1f} ({now / ours[0]:.1f}x) | {later:.1f} ({later / ours[1]:.1f}x) |")


def wire() -> None:
    """Print requests per second over HTTP."""
    print("\n## Over HTTP against the simulated provider, two processes on the same cores\n")
    print("| client | in flight | requests/s | client CPU, us per request | times slower |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with subprocess.Popen(
        [sys.executable, str(HERE / "provider.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as provider:
        assert provider.stdout is not None
        assert provider.stdin is not None
        url = provider.stdout.readline().strip()
        best = 0.0
        rows = [("batch-llm", 100, 60_000, sys.executable), ("batch-llm", 1000, 60_000, sys.executable)]
        rows += [("aiohttp", 100, 10_000, environment(WIRE["aiohttp"]))]
        rows += [("openai", 100, 1_500, environment(WIRE["openai"]))]
        for peer, concurrency, requests, python in rows:
            rate, cpu = measure("wire.py", peer, url, concurrency, requests, python=python)
            best = best or rate
            print(f"| {peer} | {concurrency} | {rate:,.0f} | {cpu:.0f} | {best / rate:.1f} |")
        provider.stdin.close()


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


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}, medians of three runs")
    overhead()
    wire()
    rest()
