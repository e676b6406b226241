"""Rows per second and CPU per row on Ray Data: map_prompts(), Ray's HTTP processor, the openai SDK in actors.

Needs an environment with ray[data], openai and aiohttp. One cluster of two nodes on this machine; CPU is that of all
processes but the simulated provider, from the first request on. Rates are those between the first request and the last
row. The model is one whose replies are not streamed by default, for the others do not stream.

    python benchmarks/ray_data.py [--latency 0.05] [--only auto,ours,http,sdk,in-flight]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# The HTTP processor sends the requests of a batch one by one; more batches at once is its best setting.
os.environ["RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY"] = "64"

import pyarrow
import ray
import ray.data
from ray.cluster_utils import Cluster

import batch_llm.ray

SIMULATOR = """
import json, sys
from batch_llm.testing import SimulatedProvider
with SimulatedProvider(latency=float(sys.argv[1])) as provider:
    print(provider.base_url, flush=True)
    for line in sys.stdin:
        print(json.dumps([provider.stats.requests, provider.stats.peak_concurrency]), flush=True)
"""


class Simulator:
    """The provider, in a process of its own."""

    def __init__(self, latency: float) -> None:
        command = [sys.executable, "-c", SIMULATOR, str(latency)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def counts(self) -> tuple[int, int]:
        """Requests, and the most at a time."""
        print(file=self.process.stdin, flush=True)
        return tuple(json.loads(self.process.stdout.readline()))


def cpu_seconds(without: int) -> float:
    """The CPU that this process and its descendants have used, but for one of them."""
    used, children = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        pid = int(stat.parent.name)
        used[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        children.setdefault(int(fields[1]), []).append(pid)
    total, open_pids = 0.0, [os.getpid()]
    while open_pids:
        pid = open_pids.pop()
        total += used[pid]
        open_pids += [child for child in children.get(pid, ()) if child != without]
    return total


def reviews(rows: int, block: int):
    table = pyarrow.table({"id": range(rows), "text": [f"review {number}: " + "words " * 20 for number in range(rows)]})
    return ray.data.from_arrow([table.slice(start, block) for start in range(0, rows, block)])


def ours(url: str, rows: int, block: int = 1000, **options):
    return batch_llm.ray.map_prompts(
        reviews(rows, block), "Rate: {text}", "openai:gpt-4.1-mini", base_url=url, api="chat", **options
    )


def http(url: str, rows: int):
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    config = HttpRequestProcessorConfig(url=f"{url}/chat/completions", concurrency=4, batch_size=16)
    processor = build_processor(
        config,
        preprocess=lambda row: {
            "payload": {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": f"Rate: {row['text']}"}]}
        },
        postprocess=lambda row: {
            "id": row["id"], "output": row["http_response"]["choices"][0]["message"]["content"]
        },
    )  # fmt: skip
    return processor(reviews(rows, 256))


class Sdk:
    """The SDK with as many requests at a time as serve it best."""

    def __init__(self, url: str) -> None:
        import asyncio

        import openai

        self.client = openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=5)
        self.room = asyncio.Semaphore(64)

    async def ask(self, text: str) -> str:
        async with self.room:
            messages = [{"role": "user", "content": f"Rate: {text}"}]
            reply = await self.client.chat.completions.create(model="gpt-4.1-mini", messages=messages)
            return reply.choices[0].message.content

    async def __call__(self, batch):
        import asyncio

        answers = await asyncio.gather(*(self.ask(text) for text in batch["text"].to_pylist()))
        return batch.append_column("output", pyarrow.array(answers))


def sdk(url: str, rows: int):
    return reviews(rows, 256).map_batches(
        Sdk,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0.25,
        fn_constructor_kwargs={"url": url},
        compute=ray.data.ActorPoolStrategy(size=4),
    )


def measured(name: str, make, rows: int, latency: float) -> tuple[float, float]:
    """Rows per second, and CPU per row in microseconds."""
    with Simulator(latency) as simulator:
        made = make(simulator.url, rows)
        first: list[float] = []

        def watch() -> None:
            while not simulator.counts()[0]:
                time.sleep(0.01)
            first.extend((time.perf_counter(), cpu_seconds(simulator.process.pid)))

        began = time.perf_counter()
        watcher = threading.Thread(target=watch)
        watcher.start()
        got = made.materialize().count()
        watcher.join()
        seconds, cpu = time.perf_counter() - first[0], cpu_seconds(simulator.process.pid) - first[1]
        requests, peak = simulator.counts()
    assert got == rows, f"{got} rows of {rows}"
    print(
        f"{name:34} {rows / seconds:9,.0f} rows/s  {cpu / rows * 1e6:8,.0f} us CPU/row  peak in flight {peak:6,}  "
        f"first request after {first[0] - began:4.1f} s, {requests - rows:+,} requests",
        flush=True,
    )
    return rows / seconds, cpu / rows * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--only", default="auto,ours,http,sdk,in-flight")
    options = parser.parse_args()
    node = {"num_cpus": 4, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    runs = {
        "auto": ("map_prompts(), 2 workers", ours, 40_000, options.latency),
        "ours": ("the same, concurrency=1000", partial(ours, concurrency=1000), 120_000, options.latency),
        "http": ("HTTP processor, 4 actors", http, 4_000, options.latency),
        "sdk": ("openai SDK, 4 async actors", sdk, 6_000, options.latency),
        "in-flight": ("10,000 each, 1 s, blocks of 256", partial(ours, block=256, concurrency=10_000), 40_960, 1.0),
    }
    figures = {name: measured(*runs[name]) for name in runs if name in options.only.split(",")}
    for name in ("http", "sdk"):
        if name in figures and "ours" in figures:
            faster = figures["ours"][0] / figures[name][0]
            cheaper = figures[name][1] / figures["ours"][1]
            print(f"against {runs[name][0]}: {faster:.1f} times the rows/s, 1/{cheaper:.1f} of the CPU per row")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
