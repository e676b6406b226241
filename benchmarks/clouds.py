"""Requests to Bedrock with signatures and with a bearer token; and credentials that expire in mid-run.

``python clouds.py rate [REQUESTS]`` prints requests/s and the client's CPU time with a bearer token, with signatures,
and with the token of a session too, alternating, and the ratio to the first; the server (the simulated provider, in
another process) checks none of them.

``python clouds.py expiry [REQUESTS]`` sends requests (20,000) to each cloud while its tokens live for 2 s, and prints
how many failed and how many tokens were issued.
"""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import subprocess
import sys
import time
from typing import Any

NOVA = "bedrock:amazon.nova-pro-v1:0"
SESSION = base64.b64encode(bytes(number * 37 % 256 for number in range(600))).decode()
"""800 characters, as they are in real ones."""
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SOURCES = [
    ("aws_machine", NOVA),
    ("google_machine", "vertex:gemini-3-flash"),
    ("azure", "azure:deployment"),
]


async def ask(strategy: Any, requests: int, concurrency: int = 100) -> tuple[float, int]:
    """The rate, requests/s, and how many failed."""
    from batch_llm import process_stream

    began, failed = time.perf_counter(), 0
    async for result in process_stream(strategy, (f"Say {n}" for n in range(requests)), concurrency=concurrency):
        failed += not result.success
    return requests / (time.perf_counter() - began), failed


async def rate(requests: int) -> None:
    from batch_llm import llm

    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        os.environ.update(AWS_REGION="us-east-1", AWS_ENDPOINT_URL_BEDROCK_RUNTIME=url)
        ways = {"bearer token": llm(NOVA, api_key="any-key-of-bedrock-0123456789")}
        os.environ.update(
            AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
        )
        ways["signatures"] = llm(NOVA)
        os.environ.update(AWS_SESSION_TOKEN=SESSION)
        ways["signatures and a session token"] = llm(NOVA)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for strategy in ways.values():
            await ask(strategy, 500)
        for _ in range(5):
            for name, strategy in ways.items():
                began = time.process_time()
                per_second = (await ask(strategy, requests))[0]
                found[name].append((per_second, (time.process_time() - began) / requests * 1e6))
        server.terminate()
    first = found["bearer token"]
    for name, rounds in found.items():
        per_second, cpu = (statistics.median(one[place] for one in rounds) for place in (0, 1))
        ratio = statistics.median(one[0] / of_bearer[0] for one, of_bearer in zip(rounds, first, strict=True))
        print(f"{name}: {per_second:.0f} requests/s, {cpu:.0f} us of CPU for each; ratio: {ratio:.2f}")


async def expiry(requests: int) -> None:
    from batch_llm import llm
    from batch_llm.testing import SimulatedClouds, SimulatedProvider

    for source, model in SOURCES:
        # So that a run takes about 40 s, or 20 lives.
        with SimulatedProvider(latency=0.1, clouds=SimulatedClouds(token_life=2.0)) as provider:
            os.environ.update(provider.cloud_environment(source))  # type: ignore[arg-type]
            found, failed = await ask(llm(model), requests, 50)
            stats = provider.stats.clouds
            assert stats is not None
            issued = sum(stats.issued.values())
            print(f"{model}: {requests} requests in {requests / found:.0f} s, {failed} failed; {issued} tokens issued, "
                  f"rejected: {stats.rejected}")  # fmt: skip


def serve() -> None:
    from batch_llm.testing import SimulatedProvider

    with SimulatedProvider(replies=["x" * 200]) as provider:
        print(provider.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    what = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    if what == "serve":
        serve()
    else:
        asyncio.run({"rate": rate, "expiry": expiry}[what](count))
