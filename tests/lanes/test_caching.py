"""The automatic lane where the provider's prompt cache has the beginning of prompts: what it says, and what is paid."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections import Counter

import pytest

from batch_llm import plan, run
from batch_llm.testing import SimulatedBatches, SimulatedProvider

from .common import FAST, of

SYSTEM = "You are a careful reader of the following handbook. " * 400
PROMPTS = [f"prompt {number}" for number in range(200)]
PROBED = dataclasses.replace(FAST, probe=True)


def paid(tmp_path, name, lane, **options):
    """The result of a run, and what the provider's ledgers say that it cost: live requests and batches."""
    batches = SimulatedBatches(delay=0.1, poll_interval=0.0)
    with SimulatedProvider(batches=batches, prompt_caches=True) as provider:
        strategy, given = of(provider, name, tmp_path / f"{lane}.db", lane=lane, **options)
        batch = run(strategy, PROMPTS, **given)
        ledger, live = provider.batches, provider.stats.prompt_caches
    assert ledger.paid_twice == 0
    assert ledger.live.answers + ledger.batch.answers == len(PROMPTS)
    return batch, (live.cost if live is not None else 0.0) + ledger.batch.cost


def reasons(batch):
    return Counter(result.metadata.get("lane_reason") for result in batch.results if result.success)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_long_prefix_goes_live_and_costs_less_than_in_batches(tmp_path, name):
    options = {"system_prompt": SYSTEM, "max_tokens": 50, "batches": PROBED}
    batch, cost = paid(tmp_path, name, "auto", **options)
    assert reasons(batch) == {"probe": 1, "cache": len(PROMPTS) - 1}
    assert batch.stats.sent_live == {"cache": len(PROMPTS) - 1}
    assert "because the provider's prompt cache made them cheaper than a batch" in batch.stats.explain()
    _, in_batches = paid(tmp_path, name, "batch", **options)
    assert cost < 0.9 * in_batches


def test_a_short_prefix_goes_into_batches(tmp_path):
    batch, _ = paid(tmp_path, "openai", "auto", system_prompt="Be brief.", max_tokens=50, batches=PROBED)
    assert reasons(batch) == {"probe": 1, None: len(PROMPTS) - 1}


def test_without_a_first_request_nothing_is_known_of_the_cache(tmp_path):
    batch, _ = paid(tmp_path, "openai", "auto", system_prompt=SYSTEM, max_tokens=50)
    assert reasons(batch) == {None: len(PROMPTS)}


def test_plans_say_what_the_cache_makes_cheaper():
    options = {"api_key": "key", "max_tokens": 50}
    [lane] = plan("anthropic:claude-haiku-4-5", PROMPTS, system_prompt=SYSTEM, **options).lanes
    assert (lane.lane, lane.requests, lane.why) == ("live", len(PROMPTS), "cache")
    batched = plan("anthropic:claude-haiku-4-5", PROMPTS, system_prompt=SYSTEM, lane="batch", **options)
    auto = plan("anthropic:claude-haiku-4-5", PROMPTS, system_prompt=SYSTEM, **options)
    assert auto.cost is not None
    assert batched.cost is not None
    assert auto.cost < batched.cost / 2
    assert auto.live_cost == pytest.approx(auto.cost)
    assert "(reason: cache)" in str(auto)
    # Long answers, of which the cache has nothing.
    long = plan("anthropic:claude-haiku-4-5", PROMPTS, system_prompt=SYSTEM, api_key="key", max_tokens=5000)
    assert [lane.lane for lane in long.lanes] == ["batch"]


def test_what_earlier_batches_have_read_decides(tmp_path):
    """That a third of a prefix is read in batches is a guess; the batches in the store know better."""
    store = tmp_path / "batch.db"
    options = {"system_prompt": SYSTEM, "max_tokens": 50}
    paid(tmp_path, "openai", "batch", batches=FAST, **options)

    def planned():
        return [
            (lane.lane, lane.why)
            for lane in plan("openai:gpt-4.1-mini", more, store=store, api_key="key", **options).lanes
        ]

    more = [f"more {number}" for number in range(50)]
    assert planned() == [("live", "cache")], "simulated batches have no hits"
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE batches SET cached_tokens = input_tokens * 19 / 20")
    assert planned() == [("batch", "")]
    with SimulatedProvider(batches=SimulatedBatches(delay=0.1, poll_interval=0.0), prompt_caches=True) as provider:
        strategy, given = of(provider, "openai", store, lane="auto", batches=PROBED, **options)
        batch = run(strategy, more, **given)
    assert reasons(batch)["cache"] == 0
    assert batch.succeeded == len(more)
