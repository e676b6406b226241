"""What is in memory of requests that wait in batches: next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .common import simulated

ROOT = Path(__file__).parents[2]
FEW, MANY = 3_000, 15_000
MOST_BYTES_EACH = 1_000
"""An item with its prompt, its task and its attempt took 3,000; what is left are a few dozen, and noise."""


def peak_of(provider, store, items):
    """The peak memory of a program that puts so many items into batches and leaves them there, bytes."""
    program = [sys.executable, "-m", "tests.lanes.waiting", provider.batch_url("openai"), str(store), str(items)]
    said = subprocess.run(program, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    left, peak = map(int, said.split())
    assert left == items
    return peak


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource")
def test_memory_does_not_grow_with_the_requests_that_wait(tmp_path):
    with simulated(delay=3600.0) as provider:
        few = peak_of(provider, tmp_path / "few.db", FEW)
        many = peak_of(provider, tmp_path / "many.db", MANY)
    assert (many - few) / (MANY - FEW) < MOST_BYTES_EACH


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource")
def test_they_are_all_found_again(tmp_path):
    # Each batch may take up to an hour.
    with simulated(delay=3600.0) as provider:
        store = tmp_path / "run.db"
        peak_of(provider, store, 3_000)
        provider.advance(hours=20)
        program = [sys.executable, "-m", "tests.lanes.waiting", provider.batch_url("openai"), str(store), "3000"]
        said = subprocess.run([*program, "wait"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        assert said.split()[0] == "0"
        assert provider.batches.paid_twice == 0
        assert provider.batches.batch.answers == 3_000
