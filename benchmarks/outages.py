"""What outages cost: items lost, probes during the outage, and how long until the rate is back.

A real server in a process of its own is killed and started again, or made to reset connections or to answer with 500
or 503, while a run is on. ::

    python benchmarks/outages.py                      # 20,000 items, 2, 5 and 60 s, each kind: about 20 minutes
    python benchmarks/outages.py --seconds 2,5 --kinds refused,503 --items 10000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from away_server import AwayServer
from batch_llm import OpenAIStrategy, ProcessorConfig, process_stream

LATENCY = 0.1
WINDOW = 0.5
"""Rates are those of so many seconds."""
FIRST = 1.5
"""So long requests arrive that were sent before it was known that there is an outage, seconds."""


async def measure(kind: str, lasts: float, concurrency: int | str, items: int) -> dict[str, float]:
    """One run with one outage in the middle."""
    with AwayServer(LATENCY) as server:
        strategy = OpenAIStrategy("m", api_key="k", base_url=server.base_url, api="chat")
        done: list[float] = []
        lost = attempts = 0
        times = [0.0, 0.0]

        async def outage() -> None:
            await asyncio.to_thread(server.go, kind)
            times[0] = time.time()
            await asyncio.sleep(lasts)
            await asyncio.to_thread(server.come_back, kind)
            times[1] = time.time()

        task = None
        config = ProcessorConfig(concurrency=concurrency)
        async with process_stream(strategy, (f"prompt {n}" for n in range(items)), config=config) as results:
            async for result in results:
                done.append(time.time())
                lost += not result.success
                attempts += result.attempts
                if task is None and len(done) >= items * 0.4:
                    task = asyncio.ensure_future(outage())
        assert task is not None
        await task
        failures = server.stats()["failures"]
    went, back = times
    before = sum(went - 2 * WINDOW <= at < went for at in done) / (2 * WINDOW)
    recovered = float("nan")
    steps = [back + 0.05 * step for step in range(200)]
    for start in steps:
        if sum(start <= at < start + WINDOW for at in done) / WINDOW >= 0.9 * before:
            recovered = start - back
            break
    # Those of the first moment are no probes: they are what told that it is an outage. Connections whose first packet
    # was lost among them come a second later.
    probes = sum(went + FIRST < at <= back for at in failures) if kind != "refused" else float("nan")
    return {
        "rate": before,
        "lost": lost,
        "failed attempts": attempts - items,
        "probes": probes,
        "back after": recovered,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--seconds", default="2,5,60")
    parser.add_argument("--kinds", default="refused,reset,500,503")
    parser.add_argument("--concurrency", default="200,auto")
    options = parser.parse_args()
    print("| outage | concurrency | rate before | lost | failed attempts | probes | full rate after |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in options.kinds.split(","):
        for lasts in map(float, options.seconds.split(",")):
            for concurrency in options.concurrency.split(","):
                number = concurrency if concurrency == "auto" else int(concurrency)
                got = asyncio.run(measure(kind, lasts, number, options.items))
                probes = got["probes"]
                print(
                    f"| {kind}, {lasts:g} s | {concurrency} | {got['rate']:,.0f}/s | {got['lost']} "
                    f"| {got['failed attempts']} | {'-' if probes != probes else f'{probes:.0f}'} "
                    f"| {got['back after']:.1f} s |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
