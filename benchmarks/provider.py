"""A simulated provider in a process of its own: ``python provider.py [LATENCY [REPLY [CA_FILE]]]``.

Prints its URL, serves until its input ends, and prints the CPU us of each request. With CA_FILE it serves TLS, and
writes there (PEM) which authority clients are to trust. An empty REPLY is the usual one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from batch_llm.testing import SimulatedProvider

given = dict(enumerate(sys.argv))
latency, reply, ca_file = given.get(1, "0"), given.get(2, ""), given.get(3, "")
with SimulatedProvider(latency=float(latency), replies=[reply] if reply else [], tls=bool(ca_file)) as provider:
    if ca_file:
        Path(ca_file).write_text(provider.ca or "")
    print(provider.base_url, flush=True)
    cpu = time.process_time()
    sys.stdin.read()
    print((time.process_time() - cpu) / max(provider.stats.requests, 1) * 1e6)
