"""A simulated provider in a process of its own: ``python provider.py [LATENCY [REPLY]]``.

Prints its URL, serves until its input ends, and prints the CPU us of each request.
"""

from __future__ import annotations

import sys
import time

from batch_llm.testing import SimulatedProvider

latency = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
with SimulatedProvider(latency=latency, replies=sys.argv[2:]) as provider:
    print(provider.base_url, flush=True)
    cpu = time.process_time()
    sys.stdin.read()
    print((time.process_time() - cpu) / max(provider.stats.requests, 1) * 1e6)
