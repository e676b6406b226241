"""Programs with batches whose exchange with the provider is cut at any byte, with and without the program being killed.

A batch whose id was never read is found by metadata, by name, by input file, or by its time and size alone.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .common import simulated
from .cutting import cutting

ROOT = Path(__file__).parents[2]
ITEMS = 20
LONG = [pytest.mark.soak, pytest.mark.timeout(3600)]
FINDINGS = ["openai", "gemini", "together", "anthropic"]


def started(url, name, store):
    """The program, ready to send."""
    program = [sys.executable, "-m", "tests.lanes.batching", url, name, str(store), str(ITEMS)]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def has_ended_well(process):
    """Wait for the end of the program; whether it was not killed."""
    said = process.communicate()[0]
    if process.returncode == -signal.SIGKILL:
        return False
    assert (process.returncode, said) == (0, f"{ITEMS} {ITEMS}\n")
    return True


def length(name, tmp_path):
    """How many bytes the whole exchange has."""
    with simulated() as provider, cutting(provider.batch_url(name)) as proxy:
        assert has_ended_well(started(proxy.url(provider.batch_url(name)), name, tmp_path / "whole.db"))
        return proxy.passed


def until_done(name, store, cuts):
    """Cut the exchange after so many bytes each, until the program is done; returns cuts and kills."""
    done = killed = 0
    with simulated() as provider, cutting(provider.batch_url(name)) as proxy:
        for count, kills in [*cuts, (None, False)]:
            process = started(proxy.url(provider.batch_url(name)), name, store)
            happened = []
            if count is not None:
                proxy.cut_after(
                    count, lambda process=process, kills=kills, happened=happened: happened.append(
                        kills and process.kill()
                    )
                )  # fmt: skip
            is_done = has_ended_well(process)
            done += len(happened)
            killed += not is_done
            if is_done:
                break
        ledger = provider.batches
    assert ledger.paid_twice == 0, (cuts, ledger)
    assert ledger.batch.answers == ITEMS, (cuts, ledger)
    assert all(made <= 1 for made in ledger.per_nonce.values()), (cuts, ledger)
    assert [one for one in ledger.violations if one.rule != "poll"] == [], cuts
    return done, killed


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("name", FINDINGS)
@pytest.mark.parametrize("wanted", [3, pytest.param(125, marks=LONG)])
def test_an_exchange_may_end_at_any_byte(tmp_path, record_property, name, wanted):
    whole = length(name, tmp_path)
    seed = kills = cuts = 0
    while kills < wanted:
        numbers = random.Random(f"{name} {seed}")
        # One in four is cut, and the program lives on.
        planned = [(numbers.randrange(whole), numbers.random() < 0.75) for _ in range(2)]
        done, killed = until_done(name, tmp_path / f"{seed}.db", planned)
        seed, cuts, kills = seed + 1, cuts + done, kills + killed
    record_property("cuts", cuts)
    record_property("kills", kills)
