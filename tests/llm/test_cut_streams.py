"""What the provider had said of a stream's cost when it was cut is paid for; what it had said of the answer is none."""

from __future__ import annotations

import pytest

from batch_llm import (
    GuardrailConfig,
    Price,
    ProviderConnectionError,
    RetryConfig,
    inspect,
    llm,
    process_prompts,
)
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick, run

PROMPT = "Tell me about lighthouses."
FEW = RetryConfig(max_attempts=3, initial_wait=0.001, outage_patience=0)


def strategy(provider, dialect):
    if dialect in ("chat", "responses"):
        return llm("openai:m", base_url=provider.base_url, api_key="k", api=dialect, stream=True)
    base_url = provider.url if dialect == "anthropic" else provider.gemini_url
    return llm(f"{dialect}:m", base_url=base_url, api_key="k", stream=True)


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
async def test_the_usage_of_cut_streams_counts(dialect):
    with SimulatedProvider() as provider:
        _, whole, *_ = await strategy(provider, dialect).execute(PROMPT, 1, 100.0)
    tokens = whole["input_tokens"]
    assert tokens > 0
    with SimulatedProvider(faults=[Fault("cut", every=1)]) as provider:
        asking = strategy(provider, dialect)
        with pytest.raises(ProviderConnectionError) as caught:
            await asking.execute(PROMPT, 1, 100.0)
        assert caught.value.text
        assert caught.value.usage["input_tokens"] == tokens
        assert caught.value.usage["output_tokens"] < whole["output_tokens"]

        batch = await process_prompts(asking, [PROMPT] * 5, config=quick(retry=FEW))
        assert batch.succeeded == 0
        assert [result.token_usage["input_tokens"] for result in batch] == [3 * tokens] * 5
        assert batch.stats.total_input_tokens == 15 * tokens
        assert f"{15 * tokens:,} input" in batch.summary()

        before = provider.stats.requests
        guardrails = GuardrailConfig(max_total_cost=100.5 * tokens / 1e6, prices={"m": Price(input=1.0, output=0.0)})
        config = quick(max_workers=1, retry=FEW, guardrails=guardrails)
        batch, processor = await run(asking, [PROMPT] * 100, config)
        sent = provider.stats.requests - before
    assert batch.termination.kind == "budget_exceeded"
    assert 50 <= sent <= 100, "the rest was reserved for an attempt, at most"
    assert (await processor.get_stats())["budget_cost_used"] == pytest.approx(sent * tokens / 1e6)


@pytest.mark.parametrize("dialect", ["chat", "responses", "anthropic", "gemini"])
@pytest.mark.parametrize("kept", ["store", "cache"])
async def test_cut_answers_are_not_kept(dialect, kept, tmp_path):
    prompts = [f"{PROMPT} {number}" for number in range(10)]
    with SimulatedProvider(faults=[Fault("cut", between=(1, 30))]) as provider:

        async def again():
            where = {kept: tmp_path / "kept.db"}
            return await process_prompts(strategy(provider, dialect), prompts, config=quick(retry=FEW), **where)

        assert (await again()).succeeded == 0
        assert provider.stats.requests == 30
        if kept == "store":
            assert inspect(tmp_path / "kept.db").succeeded == 0
        batch = await again()
        assert provider.stats.requests == 40, "each was asked again"
        assert batch.succeeded == 10
        assert {result.reused for result in batch} == {None}
        assert all(PROMPT in result.output for result in batch)
        assert (await again()).outputs(), "whole ones are kept"
        assert provider.stats.requests == 40
