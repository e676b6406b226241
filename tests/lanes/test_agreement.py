"""What plan() says is what a run does; and what lanes cost by the provider's own ledger."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from batch_llm import llm, plan, run
from batch_llm._lanes import tickets

from .common import FAST, MODELS, of, simulated

PROMPTS = [f"prompt {number}" for number in range(60)]
RATE = 50.0
"""Requests per second that are said to be sent one by one."""
KNOWN_RATE = dataclasses.replace(FAST, live_rate=RATE)
UNLISTED = "together:meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
"""Together's batches of this model cost what live requests do."""


def lanes(batch):
    return Counter(result.metadata["lane"] for result in batch.results if result.success)


def both(provider, name, store, strategy=None, lane="auto", deadline=None):
    """The lanes that a plan names, and those that a run takes; and why not all is in batches."""
    model, batched = of(provider, name, store, lane=lane, batches=KNOWN_RATE)
    where = {key: batched[key] for key in ("api_key", "base_url")}
    strategy = strategy or model
    planned = plan(
        strategy, PROMPTS, lane=lane, deadline=deadline, rate=RATE, store=store if store.exists() else None, **where
    )
    if lane == "flex":
        batched.pop("batches")
    batch = run(strategy, PROMPTS, deadline=deadline, **batched)
    assert batch.succeeded == len(PROMPTS), str(batch.summary())
    whys = {lane.why for lane in planned.lanes if lane.why}
    assert whys == set(batch.stats.sent_live), (whys, batch.stats.sent_live)
    assert {lane.lane: lane.requests for lane in planned.lanes} == lanes(batch)
    return planned, batch


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("deadline", [None, 300.0, 8 * 3600.0])
def test_a_run_does_what_its_plan_says(tmp_path, name, deadline):
    with simulated() as provider:
        planned, _ = both(provider, name, tmp_path / "run.db", deadline=deadline)
        ledger = provider.batches
    expected = {300.0: "live"}.get(deadline, "batch")
    assert [lane.lane for lane in planned.lanes] == [expected]
    assert (ledger.paid_twice, ledger.violations) == (0, [])


@pytest.mark.parametrize("deadline", [None, 8 * 3600.0])
def test_where_batches_cost_as_much_both_say_live(tmp_path, deadline):
    with simulated() as provider:
        planned, batch = both(provider, "together", tmp_path / "run.db", strategy=UNLISTED, deadline=deadline)
        ledger = provider.batches
    assert [(lane.lane, lane.why) for lane in planned.lanes] == [("live", "price")]
    assert {result.metadata["lane_reason"] for result in batch.results} == {"price"}
    assert "because a batch costs as much" in batch.stats.explain()
    assert (ledger.calls.get("create", 0), ledger.live.answers) == (0, len(PROMPTS))


@pytest.mark.parametrize("name", ["responses", "gemini"])
def test_flex_is_planned_and_run_where_there_is_such_a_tier(tmp_path, name):
    with simulated() as provider:
        both(provider, name, tmp_path / "run.db", lane="flex")


@pytest.mark.parametrize(
    ("strategy", "lane", "says"),
    [
        ("ollama:llama3", "auto", "ollama has no batches"),
        ("ollama:llama3", "batch", "ollama has no batches"),
        ("deepseek:deepseek-chat", "auto", "deepseek has no batches"),
        ("anthropic:claude-haiku-4-5", "flex", "anthropic has no flex tier"),
    ],
)
def test_where_there_is_no_such_lane_both_say_so(tmp_path, strategy, lane, says):
    given = {"api_key": "key", "base_url": "http://localhost:1/v1"}
    with pytest.raises(ValueError, match=says) as of_plan:
        plan(strategy, PROMPTS, lane=lane, **given)
    with pytest.raises(ValueError, match=says) as of_run:
        run(llm(strategy, **given), PROMPTS, lane=lane, store=tmp_path / "run.db")
    assert str(of_plan.value) == str(of_run.value)


def test_both_go_by_the_batches_of_the_store(tmp_path):
    # A deadline that usual batches do not meet, and those of this store do.
    deadline = 400.0
    store = tmp_path / "run.db"
    with simulated() as provider:
        strategy, batched = of(provider, "anthropic", store)
        usual = plan(strategy, PROMPTS, deadline=deadline, rate=RATE, api_key="key")
        assert [lane.lane for lane in usual.lanes] == ["live"]
        alone = dataclasses.replace(FAST, size=1)
        run(strategy, [f"before {number}" for number in range(60)], **{**batched, "batches": alone})
        assert len(tickets(store)) == 60
        planned, _ = both(provider, "anthropic", store, deadline=deadline)
    assert [lane.lane for lane in planned.lanes] == ["batch"]
    assert planned.lanes[0].expected_end < 60


def test_without_a_deadline_auto_costs_half(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", lane="auto")
        batch = run(strategy, PROMPTS, **batched)
        in_batches = provider.batches
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "live.db")
        run(strategy, PROMPTS, stream=False, **{name: batched[name] for name in ("api_key", "base_url")})
        live = provider.batches
    assert (lanes(batch), in_batches.live.cost, live.batch.cost) == ({"batch": len(PROMPTS)}, 0, 0)
    assert live.live.cost > 0
    assert in_batches.batch.cost / live.live.cost == pytest.approx(0.5, rel=0.01)
