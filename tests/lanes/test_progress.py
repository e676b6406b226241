"""What the progress of a run says of its batches: what is queued, running, being written and collected."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

from batch_llm import process_prompts
from batch_llm._lanes import BatchProgress
from batch_llm.testing import BatchFault

from .common import FAST, of, simulated

PROMPTS = [f"prompt {number}" for number in range(40)]


class Shown:
    """A display that waits until batches are as wanted."""

    interval = 0.0

    def __init__(self, wanted):
        self.wanted, self.seen = wanted, asyncio.Event()
        self.last = None

    def show(self, snapshot):
        if not self.seen.is_set():
            self.last = snapshot
        if snapshot.batches == self.wanted:
            self.seen.set()

    close = show


async def shown(monkeypatch, wanted, provider, store, **options):
    """Run until the display shows what is wanted; return what it shows then."""
    display = Shown(wanted)
    monkeypatch.setattr("batch_llm._pipeline.pipeline.display_for", lambda _: display)
    strategy, batched = of(provider, "openai", store, batches=dataclasses.replace(FAST, size=10), **options)
    run = asyncio.create_task(process_prompts(strategy, PROMPTS, progress=True, **batched))
    seen = asyncio.create_task(display.seen.wait())
    await asyncio.wait({run, seen}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert display.seen.is_set(), display.last
    run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await run
    return display.last


def test_each_batch_counts_where_it_is(tmp_path, monkeypatch):
    states = ("validating", "in_progress", "finalizing")
    stuck = [BatchFault(f"stuck:{state}", on=[number]) for number, state in enumerate(states, 1)]
    with simulated(faults=stuck) as provider:
        last = asyncio.run(shown(monkeypatch, BatchProgress(10, 10, 10, 10), provider, tmp_path / "run.db"))
    assert last.batches.waiting == last.in_flight == 30
    assert last.words()[:2] == ["30 in batches (10 queued, 10 running, 10 being written)", "10 collected"]


def test_what_is_not_sent_yet_is_queued(tmp_path, monkeypatch):
    with simulated(queue_tokens=1) as provider:
        asyncio.run(shown(monkeypatch, BatchProgress(queued=40), provider, tmp_path / "run.db"))


def test_at_the_end_all_is_collected(tmp_path, monkeypatch):
    with simulated() as provider:
        asyncio.run(shown(monkeypatch, BatchProgress(collected=40), provider, tmp_path / "run.db"))
