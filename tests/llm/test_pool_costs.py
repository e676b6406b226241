"""What answers of pools cost: as much as those who gave them take."""

from __future__ import annotations

import asyncio

import pytest

from batch_llm import (
    CallableStrategy,
    Fallback,
    GuardrailConfig,
    Price,
    ProcessorConfig,
    ProviderError,
    inspect,
    llm,
    pool,
    run,
)
from batch_llm.testing import Fault, SimulatedProvider

PRICES = {"small": Price(input=1.0, output=4.0), "large": Price(input=20.0, output=80.0)}


def _config(cap=None, concurrency=4):
    return ProcessorConfig(concurrency=concurrency, guardrails=GuardrailConfig(max_total_cost=cap, prices=PRICES))


def _model(server, name):
    return llm(f"openai-compatible:{name}", base_url=server.base_url, api_key="k", max_tokens=50)


def _charged(server, name):
    price = PRICES[name]
    return (server.stats.input_tokens * price.input + server.stats.output_tokens * price.output) / 1e6


def test_a_budget_is_spent_at_the_price_of_whoever_answers():
    with SimulatedProvider() as small, SimulatedProvider() as large:
        strategy = pool([_model(small, "small")], fallback=[_model(large, "large")])
        result = run(strategy, [f"prompt {number}" for number in range(100)], config=_config(cap=1.0))
        assert (result.succeeded, large.stats.requests) == (100, 0)
        assert result.stats.budget_cost_used == pytest.approx(_charged(small, "small"))


def test_more_is_done_with_a_budget_where_the_cheap_one_answers():
    with SimulatedProvider() as small, SimulatedProvider() as large:
        strategy = pool([_model(small, "small")], fallback=[_model(large, "large")])
        cap = 0.05
        result = run(strategy, [f"prompt {number}" for number in range(3000)], config=_config(cap=cap))
        assert result.termination.kind == "budget_exceeded"
        charged = _charged(small, "small")
    assert charged <= cap
    assert charged > 0.85 * cap, "the rest is what one answer of the dear one could cost"


def test_a_fallback_is_paid_for_at_its_own_price():
    with SimulatedProvider(faults=[Fault(503, every=1)]) as small, SimulatedProvider() as large:
        strategy = pool([_model(small, "small")], fallback=[_model(large, "large")])
        result = run(strategy, ["a"] * 20, config=_config(cap=1.0))
        assert result.succeeded == 20
        assert result.stats.budget_cost_used == pytest.approx(_charged(large, "large"))


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("cap", [None, 1.0])
def test_stores_have_the_price_of_whoever_answered(tmp_path, is_mixed, cap):
    async def never(prompt):
        raise ProviderError("away", category="server_error", status_code=500)

    with SimulatedProvider() as small, SimulatedProvider() as large:
        first = CallableStrategy(never, model="large") if is_mixed else _model(large, "large")
        if not is_mixed:
            large.stop()
        strategy = pool([first], fallback=[_model(small, "small")])
        result = run(strategy, ["a"] * 10, config=_config(cap), store=tmp_path / "s.db")
        assert result.succeeded == 10
        assert inspect(tmp_path / "s.db").cost == pytest.approx(_charged(small, "small"))
        if cap is not None:
            assert result.stats.budget_cost_used == pytest.approx(_charged(small, "small"))


def test_members_in_python_have_prices_of_their_own():
    async def answer(prompt):
        await asyncio.sleep(0)
        return "yes", {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}

    async def never(prompt):
        raise ProviderError("no", category="content_filter", is_retryable=False, status_code=400)

    for first, last, price in [(answer, never, PRICES["small"]), (never, answer, PRICES["large"])]:
        members = [CallableStrategy(first, model="small")]
        strategy = pool(members, fallback=[Fallback(CallableStrategy(last, model="large"), on=["content_filter"])])
        result = run(strategy, ["a"] * 30, config=_config(cap=10.0))
        assert result.succeeded == 30
        cost = 30 * (1000 * price.input + 100 * price.output) / 1e6
        assert result.stats.budget_cost_used == pytest.approx(cost)


def test_without_differences_nothing_is_looked_at():
    with SimulatedProvider() as one, SimulatedProvider() as two:
        strategy = pool([_model(one, "small"), _model(two, "small")])
        result = run(strategy, ["a"] * 40, config=_config(cap=1.0))
        assert result.stats.budget_cost_used == pytest.approx(_charged(one, "small") + _charged(two, "small"))
