"""A pool with sick members against its healthy member alone, over real HTTP.

``python benchmarks/pools.py [ITEMS] [IN_FLIGHT]``: four simulated members, one of them well, one ten times as slow, one
of whose requests a third fail, and one with a wrong key. Prints the rate of both, the requests sent, and what failed.
``python benchmarks/pools.py peers [ITEMS] [IN_FLIGHT]``: the same for LiteLLM's Router and flexllm's pool, as a table.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from measuring import environment

from batch_llm import ProcessorConfig, llm, pool, run
from batch_llm.testing import Fault, SimulatedProvider

LATENCY = 0.2
# Each in an environment of its own.
PEERS = {
    "LiteLLM 1.110.2, Router, `simple-shuffle`": ("litellm-shuffle", "litellm==1.110.2", "pydantic"),
    "LiteLLM 1.110.2, Router, `latency-based-routing`": ("litellm-latency", "litellm==1.110.2", "pydantic"),
    "flexllm 0.17.10, `LLMClientPool`": ("flexllm", "flexllm==0.17.10", "pydantic"),
}


def ours(urls: list[str], items: int, in_flight: int) -> tuple[float, int]:
    """Run the items; return how many seconds they took, and how many failed."""
    members = [llm("openai-compatible:m", base_url=url, api_key="key") for url in urls]
    prompts = [f"prompt {number}" for number in range(items)]
    began = time.perf_counter()
    strategy = members[0] if len(members) == 1 else pool(members)
    result = run(strategy, prompts, config=ProcessorConfig(concurrency=in_flight))
    return time.perf_counter() - began, result.failed


def theirs(peer: str, python: str, urls: list[str], items: int, in_flight: int) -> tuple[float, int]:
    """The same with another package, in its own process."""
    script = Path(__file__).with_name("pool_peers.py")
    command = [python, str(script), peer, str(items), str(in_flight), *urls]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, failed = output.split()[-2:]
    return float(seconds), int(failed)


def scene(name: str, peer: tuple[str, str] | None, items: int, in_flight: int) -> None:
    """Measure the healthy member alone, then all four, and print a row of the table."""
    rates, rows = [], []
    for is_alone in (True, False):
        with ExitStack() as stack:
            servers = [
                stack.enter_context(SimulatedProvider(latency=LATENCY)),
                stack.enter_context(SimulatedProvider(latency=10 * LATENCY)),
                stack.enter_context(SimulatedProvider(latency=LATENCY, faults=[Fault(500, every=3)])),
                stack.enter_context(SimulatedProvider(latency=LATENCY, api_key="another key")),
            ][: 1 if is_alone else 4]
            urls = [server.base_url for server in servers]
            if peer is None:
                seconds, failed = ours(urls, items, in_flight)
            else:
                seconds, failed = theirs(*peer, urls, items, in_flight)
            sent = [server.stats.requests for server in servers]
        rates.append(items / seconds)
        extra = 100 * (sum(sent) / items - 1)
        rows.append(f"{failed:,} | {extra:.1f}% | {', '.join(f'{one:,}' for one in sent)}")
    alone, pooled = rates
    print(f"| {name} | {alone:.0f} | {pooled:.0f} | {100 * pooled / alone:.1f}% | {rows[-1]} |", flush=True)


def main() -> None:
    """Compare."""
    arguments = sys.argv[1:]
    with_peers = arguments[:1] == ["peers"]
    numbers = [int(one) for one in arguments[with_peers:]]
    items, in_flight = [*numbers, *(10_000, 100)[len(numbers) :]]
    columns = ("client", "items/s, healthy member alone", "items/s, pool", "of it", "failed", "extra requests")
    print(f"| {' | '.join(columns)} | requests by member |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    scene("batch-llm", None, items, in_flight)
    if with_peers:
        for name, (peer, *requirements) in PEERS.items():
            scene(name, (peer, environment(*requirements)), items, in_flight)


if __name__ == "__main__":
    main()
