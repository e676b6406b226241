"""A simulated provider in a process of its own: prints its URL, serves until its input ends, prints CPU us each."""

from __future__ import annotations

import sys
import time

from batch_llm.testing import SimulatedProvider

with SimulatedProvider(latency=float(sys.argv[1]) if len(sys.argv) > 1 else 0.0) as provider:
    print(provider.base_url, flush=True)
    cpu = time.process_time()
    sys.stdin.read()
    print((time.process_time() - cpu) / max(provider.stats.requests, 1) * 1e6)
