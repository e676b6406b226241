"""Rows per second and CPU per row on Daft: prompt() with our provider and with Daft's for OpenAI, and ask().

Needs an environment with daft and openai. The simulated provider has a process of its own, which CPU does not include.

    python benchmarks/daft_prompt.py [--latency 0.05] [--only theirs,ours,ask]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import daft
from daft.ai.openai.provider import OpenAIProvider
from daft.functions import prompt

import batch_llm.daft

SIMULATOR = """
import json, sys
from batch_llm.testing import SimulatedProvider
with SimulatedProvider(latency=float(sys.argv[1])) as provider:
    print(provider.base_url, flush=True)
    sys.stdin.read()
    print(json.dumps([provider.stats.requests, provider.stats.peak_concurrency]), flush=True)
"""
MODEL = "gpt-4.1-mini"


def reviews(rows: int):
    texts = [f"review {number}: {'words ' * 20}" for number in range(rows)]
    return daft.from_pydict({"id": list(range(rows)), "text": texts})


def theirs(url: str):
    # With the default timeout, requests fail before the SDK has sent all that Daft starts at once.
    provider = OpenAIProvider(base_url=url, api_key="any", timeout=600)
    return prompt(daft.col("text"), provider=provider, model=MODEL).alias("output")


def ours(url: str):
    provider = batch_llm.daft.Provider(base_url=url)
    return prompt(daft.col("text"), provider=provider, model=f"openai:{MODEL}").alias("output")


def ask(url: str):
    return batch_llm.daft.ask("{text}", f"openai:{MODEL}", base_url=url)


def measured(name: str, make, rows: int, latency: float) -> tuple[float, float]:
    """Rows per second, and CPU per row in microseconds."""
    command = [sys.executable, "-c", SIMULATOR, str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as simulator:
        frame = reviews(rows).select("id", make(simulator.stdout.readline().strip()))
        began, before = time.perf_counter(), sum(os.times()[:2])
        answers = frame.collect().to_pydict()["output"]
        seconds, cpu = time.perf_counter() - began, sum(os.times()[:2]) - before
        requests, peak = json.loads(simulator.communicate()[0])
    failed = answers.count(None)
    print(
        f"{name:36} {rows / seconds:9,.0f} rows/s  {cpu / rows * 1e6:8,.0f} us CPU/row  peak in flight {peak:6,}  "
        f"{requests - rows:+,} requests, {failed:,} failed",
        flush=True,
    )
    return rows / seconds, cpu / rows * 1e6


RUNS = {
    "theirs": ("prompt(), Daft's provider for OpenAI", theirs, 3_000),
    "ours": ("prompt(), batch_llm.daft.Provider", ours, 40_000),
    "ask": ("batch_llm.daft.ask()", ask, 40_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--only", default=",".join(RUNS))
    options = parser.parse_args()
    os.environ["DAFT_PROGRESS_BAR"] = "0"
    figures = {name: measured(*RUNS[name], options.latency) for name in RUNS if name in options.only.split(",")}
    for name in ("ours", "ask"):
        if "theirs" in figures and name in figures:
            faster = figures[name][0] / figures["theirs"][0]
            cheaper = figures["theirs"][1] / figures[name][1]
            print(f"{RUNS[name][0]}: {faster:.1f} times the rows/s, 1/{cheaper:.1f} of the CPU per row")


if __name__ == "__main__":
    main()
