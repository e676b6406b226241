"""The command line beside the library: ``python cli.py [ROWS] [ROUNDS]``; prints rows per second and their ratio.

Both read the same file of JSON lines, ask a simulated provider in a process of its own, and write JSON lines: the one
``batch-llm run``, the other a program of a dozen lines, as a user would write it. Each without and with a store.
``python cli.py big GIGABYTES`` sends a file of that size through the command line, and prints the most memory it takes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARY = """
import json, sys
from batch_llm import stream

def prompts():
    for number, line in enumerate(open(sys.argv[1]), 1):
        row = json.loads(line)
        yield row["id"], row["prompt"], row

with open(sys.argv[2], "w") as out:
    options = {"store": sys.argv[3]} if len(sys.argv) > 3 else {}
    for result in stream("openai:gpt-4.1-mini", prompts(), ordered=True, **options):
        usage = result.token_usage
        row = {**result.context, "output": result.output, "error": result.error, "model": result.metadata["model"],
               "input_tokens": usage["input_tokens"], "output_tokens": usage["output_tokens"]}
        out.write(json.dumps(row) + "\\n")
"""
RUN = [sys.executable, "-m", "batch_llm", "run"]


def rows(path: Path, count: int, size: int) -> None:
    """Write a file of prompts of so many characters."""
    with path.open("w") as file:
        for number in range(count):
            text = f"Summarise number {number}: " + "lorem ipsum " * (size // 12)
            file.write(json.dumps({"id": f"r{number}", "prompt": text[:size]}) + "\n")


def seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Time a program, in a folder without what was there before but the input."""
    for path in folder.iterdir():
        if path.name != "in.jsonl":
            path.unlink()
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def compare(folder: Path, environment: dict[str, str], count: int, rounds: int) -> None:
    """Take turns."""
    rows(folder / "in.jsonl", count, 500)
    library = [sys.executable, "-c", LIBRARY, "in.jsonl", "out.jsonl"]
    command = [*RUN, "in.jsonl", "-m", "openai:gpt-4.1-mini", "-o", "out.jsonl", "-q"]
    cases = {
        "library": library,
        "batch-llm run --no-store": [*command, "--no-store"],
        "library, with a store": [*library, "store.db"],
        "batch-llm run": command,
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, one in cases.items():
            times[name].append(seconds(one, folder, environment))
    best = {name: statistics.median(taken) for name, taken in times.items()}
    for name, taken in best.items():
        print(f"{name:28} {count / taken:9,.0f} rows/s")
    print(f"without a store the command line reaches {best['library'] / best['batch-llm run --no-store']:.0%}")
    print(f"with a store it reaches {best['library, with a store'] / best['batch-llm run']:.0%}")


def big(folder: Path, environment: dict[str, str], gigabytes: float) -> None:
    """Send a large file through."""
    count = int(gigabytes * 1e9 / 1035)
    rows(folder / "in.jsonl", count, 1000)
    size = (folder / "in.jsonl").stat().st_size
    print(f"{count:,} rows, {size / 1e9:.2f} GB", flush=True)
    command = [*RUN, "in.jsonl", "-m", "openai:gpt-4.1-mini", "-o", "out.jsonl", "-q", "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    taken = time.perf_counter() - began
    assert status == 0, status
    sizes = {path.name: f"{path.stat().st_size / 1e9:.2f} GB" for path in folder.iterdir()}
    print(f"{taken:,.0f} s, {count / taken:,.0f} rows/s, at most {used.ru_maxrss / 1024:,.0f} MB of memory; {sizes}")


def main() -> None:
    """Start a provider, and measure."""
    provider = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "provider.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert provider.stdout is not None
    url = provider.stdout.readline().strip()
    environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "any"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            if sys.argv[1:2] == ["big"]:
                big(Path(folder), environment, float(sys.argv[2]))
            else:
                given = [int(one) for one in sys.argv[1:]]
                compare(Path(folder), environment, *(given + [100_000, 3][len(given) :]))
    finally:
        provider.communicate()


if __name__ == "__main__":
    main()
