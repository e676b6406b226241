"""plan(): what would go where, until when, and at what cost."""

from __future__ import annotations

import dataclasses

import pytest

from batch_llm import Price, plan, run
from batch_llm.testing import FakeStrategy

from .common import FAST, of, simulated

PROMPTS = [f"prompt {number}" for number in range(1000)]
KEY = {"api_key": "key", "max_tokens": 100}


def test_without_a_deadline_all_goes_into_batches_at_half_the_price():
    planned = plan("openai:gpt-5-mini", PROMPTS, **KEY)
    [lane] = planned.lanes
    assert (lane.lane, lane.requests, lane.output_tokens, lane.why) == ("batch", 1000, 100_000, "")
    assert planned.cost == pytest.approx(planned.live_cost / 2)
    assert lane.expected_end < 3600 < lane.latest_end == 86_400


def test_a_near_deadline_and_a_full_price_send_everything():
    assert [(lane.lane, lane.why) for lane in plan("openai:gpt-5-mini", PROMPTS, deadline=60, **KEY).lanes] == [
        ("live", "deadline")
    ]
    dear = {"gpt-5-mini": Price(1.0, 1.0, batch=1.0)}
    planned = plan("openai:gpt-5-mini", PROMPTS, prices=dear, **KEY)
    assert [(lane.lane, lane.why) for lane in planned.lanes] == [("live", "price")]
    assert planned.cost == planned.live_cost


def test_what_could_not_be_sent_otherwise_in_time_is_sent_at_once():
    planned = plan("openai:gpt-5-mini", PROMPTS, deadline=3600, rate=0.4, **KEY)
    assert [lane.lane for lane in planned.lanes] == ["batch", "live"]
    assert planned.requests == len(PROMPTS)
    assert planned.lanes[1].why == "fallback"
    assert planned.lanes[0].latest_end == 3600
    assert planned.live_cost / 2 < planned.cost < planned.live_cost
    assert "total about $" in str(planned)


def test_earlier_batches_tell_how_long_they_take(tmp_path):
    with simulated() as provider:
        one_each = dataclasses.replace(FAST, size=1)
        strategy, batched = of(provider, "openai", tmp_path / "run.db", batches=one_each)
        run(strategy, [f"before {number}" for number in range(60)], **batched)
    fast = plan(strategy, PROMPTS, store=tmp_path / "run.db", **KEY).lanes[0].expected_end
    assert fast < plan(strategy, PROMPTS, **KEY).lanes[0].expected_end


def test_what_cannot_be_planned_is_rejected():
    with pytest.raises(TypeError, match="needs a native strategy"):
        plan(FakeStrategy("x"), PROMPTS)
    with pytest.raises(ValueError, match="deadline must be > 0"):
        plan("openai:gpt-5-mini", PROMPTS, deadline=0, **KEY)
    with pytest.raises(ValueError, match="rate must be > 0"):
        plan("openai:gpt-5-mini", PROMPTS, rate=-1, **KEY)
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        plan("openai:gpt-5-mini", PROMPTS, api_key="key", max_token=5)
