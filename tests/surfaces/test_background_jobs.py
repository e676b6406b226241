"""The command line as a shell's background job, for which SIGINT is ignored: SIGTERM ends it as Ctrl-C would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from batch_llm.testing import SimulatedProvider

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals")


@pytest.fixture(params=[1, 2], ids=["gently", "at once"])
def times(request):
    return request.param


def test_sigterm_ends_it(tmp_path, times):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": f"{number}"}) + "\n" for number in range(1000)))
    command = [sys.executable, "-m", "batch_llm", "run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl"]
    with SimulatedProvider(latency=0.3 if times == 1 else 30.0) as provider:
        job = subprocess.Popen(
            [*command, "-c", "4"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENAI_API_KEY": "any", "OPENAI_BASE_URL": provider.base_url},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        while provider.stats.requests < 4 and job.poll() is None:
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)  # is still ignored
        time.sleep(0.1)
        for _ in range(times):
            job.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        try:
            errors = job.communicate(timeout=60)[1]
        finally:
            job.kill()
    assert job.returncode == 130, errors
    assert "To resume from out.jsonl.store.db" in errors
    assert not (tmp_path / "out.jsonl").exists()
