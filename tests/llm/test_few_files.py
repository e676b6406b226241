"""A process that may open few files waits for its own connections to end, and fails no request."""

from __future__ import annotations

import subprocess
import sys

import pytest

from batch_llm.testing import SimulatedProvider

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

CODE = """
import resource, sys
from batch_llm import ProcessorConfig, RetryConfig, llm, run
url, count = sys.argv[1:]
strategy = llm("openai:gpt-5-mini", base_url=url, api_key="any")
once = ProcessorConfig(retry=RetryConfig(max_attempts=1))
run(strategy, ["a"], config=once)
limit = len(__import__("os").listdir("/dev/fd")) + int(count)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
batch = run(strategy, [f"q{i}" for i in range(300)], config=once, concurrency=100)
print(batch.succeeded, {result.error for result in batch.results if not result.success} or "")
"""


def _asked(provider, count):
    done = subprocess.run(
        [sys.executable, "-c", CODE, provider.base_url, str(count)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("count", [6, 40])
def test_no_request_fails(count):
    with SimulatedProvider(latency=0.005) as provider:
        assert _asked(provider, count) == "300"
        assert provider.stats.requests == 301
