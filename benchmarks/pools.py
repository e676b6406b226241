"""A pool with sick members against its healthy member alone, over real HTTP.

``python benchmarks/pools.py [ITEMS]``: four simulated members, one of them well, one ten times as slow, one of whose
requests a third fail, and one with a wrong key. Prints the rate of both, the requests sent, and what failed.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from batch_llm import ProcessorConfig, llm, pool, run
from batch_llm.testing import Fault, SimulatedProvider

LATENCY = 0.2
IN_FLIGHT = 100


def measure(name: str, strategy: object, servers: list[SimulatedProvider], items: int) -> float:
    """Run the items, print what came of it, and return items per second."""
    before = sum(server.stats.requests for server in servers)
    began = time.perf_counter()
    result = run(
        strategy, [f"prompt {number}" for number in range(items)], config=ProcessorConfig(concurrency=IN_FLIGHT)
    )
    sent = sum(server.stats.requests for server in servers) - before
    rate = items / (time.perf_counter() - began)
    print(f"{name}: {rate:.0f} items/s, {result.failed} failed, {100 * (sent / items - 1):.2f} % extra requests")
    return rate


def main() -> None:
    """Compare."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with ExitStack() as stack:
        well, slow, flaky, dead = servers = [
            stack.enter_context(SimulatedProvider(latency=LATENCY)),
            stack.enter_context(SimulatedProvider(latency=10 * LATENCY)),
            stack.enter_context(SimulatedProvider(latency=LATENCY, faults=[Fault(500, every=3)])),
            stack.enter_context(SimulatedProvider(latency=LATENCY, api_key="another key")),
        ]
        members = [llm("openai-compatible:m", base_url=server.base_url, api_key="key") for server in servers]
        alone = measure("the healthy member alone", members[0], servers, items)
        pooled = measure("the pool", pool(members), servers, items)
        requests = ", ".join(str(server.stats.requests) for server in (well, slow, flaky, dead))
        print(f"{100 * pooled / alone:.1f} % of the healthy member's rate; requests by member: {requests}")


if __name__ == "__main__":
    main()
