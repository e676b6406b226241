"""A simulated provider in a process of its own: prints its URL, serves until its input ends."""

from __future__ import annotations

import sys

from batch_llm.testing import SimulatedProvider

with SimulatedProvider(latency=float(sys.argv[1]) if len(sys.argv) > 1 else 0.0) as provider:
    print(provider.base_url, flush=True)
    sys.stdin.read()
