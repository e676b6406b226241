"""Lanes that are chosen for the user: what goes into batches, what does not, and why; and the flex tier."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from batch_llm import GuardrailConfig, Price, ProcessorConfig, inspect, run
from batch_llm._lanes import tickets
from batch_llm.testing import BatchFault

from .common import FAST, of, simulated

PROMPTS = [f"prompt {number}" for number in range(60)]
AUTO = {"lane": "auto"}


def lanes(batch):
    return Counter(result.metadata["lane"] for result in batch.results if result.success)


def reasons(batch):
    return Counter(result.metadata.get("lane_reason") for result in batch.results if result.success)


def test_without_a_deadline_everything_goes_into_batches(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **AUTO)
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert lanes(batch) == {"batch": len(PROMPTS)}
    assert (ledger.live.answers, ledger.paid_twice) == (0, 0)


def test_where_batches_cost_as_much_nothing_goes_into_them(tmp_path):
    config = ProcessorConfig(guardrails=GuardrailConfig(prices={"gpt-4.1-mini": Price(1.0, 2.0, batch=1.0)}))
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **AUTO)
        batch = run(strategy, PROMPTS, config=config, **batched)
        ledger = provider.batches
    assert (lanes(batch), reasons(batch)) == ({"live": len(PROMPTS)}, {"price": len(PROMPTS)})
    assert batch.stats.sent_live == {"price": len(PROMPTS)}
    assert "because a batch costs as much" in batch.stats.explain()
    assert ledger.calls.get("create", 0) == 0


def test_a_near_deadline_sends_everything_at_once(tmp_path):
    with simulated(delay=60.0) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **AUTO)
        batch = run(strategy, PROMPTS, **batched, deadline=30)
    assert lanes(batch) == {"live": len(PROMPTS)}
    assert reasons(batch) == {"probe": 8, "deadline": len(PROMPTS) - 8}


def test_no_more_goes_into_batches_than_could_be_sent_otherwise(tmp_path):
    # Half an hour at a tenth of a request per second, less half of what batches take: some dozen.
    settings = dataclasses.replace(FAST, live_rate=0.1, cancel_time=10.0)
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **AUTO)
        batch = run(
            strategy, [f"prompt {number}" for number in range(300)], deadline=3600, **{**batched, "batches": settings}
        )
        ledger = provider.batches
    assert set(lanes(batch)) == {"batch", "live"}
    assert reasons(batch)["fallback"] == lanes(batch)["live"]
    assert (ledger.batch.answers + ledger.live.answers, ledger.paid_twice) == (300, 0)


def test_batches_that_are_stuck_are_cancelled_and_the_rest_is_sent_in_time(tmp_path):
    settings = dataclasses.replace(FAST, live_rate=200.0, cancel_time=1.0)
    # Beliefs about batches are of minutes: those of this store are fast.
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **AUTO)
        one_each = dataclasses.replace(FAST, size=1)
        run(strategy, [f"before {number}" for number in range(60)], **{**batched, "lane": "batch", "batches": one_each})
    with simulated(faults=[BatchFault("stuck:running", on=[1])]) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **AUTO)
        batch = run(strategy, PROMPTS, deadline=6, **{**batched, "batches": settings})
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS)
    assert reasons(batch)["late"] > 0
    assert ledger.paid_twice == 0
    assert ledger.calls["cancel"] == 1
    assert {ticket.cancelled for ticket in tickets(tmp_path / "run.db")} >= {"deadline"}


def test_flex_requests_say_so_and_cost_half(tmp_path):
    with simulated() as provider:
        strategy, given = of(provider, "responses", tmp_path / "run.db")
        given.pop("batches")
        batch = run(strategy, PROMPTS, **{**given, "lane": "flex"})
        run(strategy, PROMPTS, **{**given, "lane": "live", "store": tmp_path / "live.db"})
    assert lanes(batch) == {"flex": len(PROMPTS)}
    assert inspect(tmp_path / "run.db").cost == pytest.approx(inspect(tmp_path / "live.db").cost / 2)


def test_flex_is_for_providers_that_have_it(tmp_path):
    with simulated() as provider:
        strategy, given = of(provider, "anthropic", tmp_path / "run.db", lane="flex")
        given.pop("batches")
        with pytest.raises(ValueError, match="anthropic has no flex tier"):
            run(strategy, PROMPTS, **given)
