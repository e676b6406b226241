"""How long the first part of a streamed answer takes, and how fast the rest comes."""

from __future__ import annotations

import pytest

from batch_llm import BatchResult, llm, process_prompts
from batch_llm.testing import SimulatedProvider

MODELS = ["openai:gpt-5-mini", "openai-compatible:m", "anthropic:claude-sonnet-4-6", "gemini:gemini-3-flash"]


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("model", MODELS)
async def test_streams_have_a_time_to_the_first_token_and_a_speed(model, observed):
    with SimulatedProvider(latency=0.3, replies=["one two three four five six seven eight"]) as provider:
        base_url = provider.gemini_url if model.startswith("gemini") else provider.base_url
        base_url = provider.url if model.startswith("anthropic") else base_url
        post_processor = (lambda result: None) if observed else None

        async def batch(stream):
            strategy = llm(model, base_url=base_url, api_key="k", stream=stream)
            return await process_prompts(strategy, ["a", "b"], post_processor=post_processor)

        streamed, plain = await batch(True), await batch(False)
    for result in streamed:
        timing = result.timing
        assert 0 < timing.first_token_seconds < timing.execution_seconds
        rest = timing.execution_seconds - timing.first_token_seconds
        assert timing.tokens_per_second == pytest.approx(result.token_usage["output_tokens"] / rest)
        assert result.metadata["first_token_seconds"] == timing.first_token_seconds
    for result in plain:
        timing = result.timing
        assert timing.first_token_seconds is None
        assert timing.tokens_per_second == pytest.approx(result.token_usage["output_tokens"] / timing.execution_seconds)
    assert "first token p50" in streamed.summary()
    assert "tokens/s per request" in streamed.summary()
    assert "first token" not in plain.summary()
    again = BatchResult.from_json(streamed.to_json())
    assert [result.timing for result in again] == [result.timing for result in streamed]
    assert "first token p50" in again.summary()


async def test_what_has_no_tokens_has_no_speed():
    async def ask(prompt):
        return prompt

    batch = await process_prompts(ask, ["a"])
    assert (batch.results[0].timing.first_token_seconds, batch.results[0].timing.tokens_per_second) == (None, None)
