"""Programs with batches that are killed at any instant, again and again: nothing is lost, nothing is paid for twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch_llm.testing import BatchFault

from .common import simulated

ROOT = Path(__file__).parents[2]
ITEMS = 60
LONG = [pytest.mark.soak, pytest.mark.timeout(1800)]
FAULTS = [
    BatchFault("create_lost", every=3),
    BatchFault("create_500_made", every=5),
    BatchFault("create_500_not_made", every=4),
    BatchFault("cut_download", every=4),
    BatchFault("drop_lines", every=6),
]


def until_done(provider, name, store, random_delay, most_kills):
    """Start the program, kill it after a random time, and again; let it end in the end. Returns the kills."""
    maker = "openai" if name == "responses" else name
    program = [sys.executable, "-m", "tests.lanes.batching", provider.batch_url(maker), name, str(store), str(ITEMS)]
    kills = 0
    while True:
        process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kills < most_kills:
            time.sleep(random_delay())
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        said = process.communicate()[0]
        if process.returncode == 0:
            assert said == f"{ITEMS} {ITEMS}\n"
            return kills
        assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("name", "seeds", "kills", "delay"),
    [
        ("openai", 1, 6, 0.3),
        ("anthropic", 1, 6, 0.3),
        pytest.param("openai", 20, 15, 8.0, marks=LONG),
        pytest.param("anthropic", 20, 15, 8.0, marks=LONG),
    ],
)
def test_nothing_is_lost_or_paid_for_twice(tmp_path, record_property, name, seeds, kills, delay):
    done = 0
    for seed in range(seeds):
        numbers = random.Random(f"{name} {seed}")
        store = tmp_path / f"{seed}.db"
        with simulated(delay=delay, faults=FAULTS) as provider:
            done += until_done(provider, name, store, lambda: numbers.uniform(0.0, 1.0), kills)  # noqa: B023
            ledger = provider.batches
        assert ledger.paid_twice == 0, (seed, ledger)
        assert ledger.batch.answers == ITEMS
        assert all(made <= 1 for made in ledger.per_nonce.values())
        assert [one for one in ledger.violations if one.rule != "poll"] == []
    record_property("kills", done)
    assert done > 0
