"""Native strategies go on after parallel calls of tools, with all that a strict server wants back."""

from __future__ import annotations

import pytest

from batch_llm import RetryConfig, llm
from batch_llm.testing import SimulatedProvider

from ..helpers import quick, run


def weather(city: str) -> str:
    """Tell the weather."""
    return city


def clock() -> str:
    """Tell the time."""
    return "noon"


THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}


@pytest.mark.parametrize(
    ("name", "where", "options"),
    [
        ("openai:m", "base_url", {"api": "chat"}),
        ("openai:m", "base_url", {"api": "responses", "reasoning_effort": "low"}),
        ("anthropic:m", "url", {}),
        ("anthropic:m", "url", {"extra_body": THINKING}),
        ("gemini:gemini-2.5-flash", "gemini_url", {}),
        ("gemini:gemini-3-pro", "gemini_url", {}),
        ("deepseek:deepseek-v4", "base_url", {}),
        ("openai-compatible:kimi-k3", "base_url", {}),
    ],
)
async def test_two_rounds_of_parallel_calls(name, where, options):
    with SimulatedProvider() as provider:
        strategy = llm(name, api_key="k", base_url=getattr(provider, where), tools=[weather, clock], **options)
        config = quick(retry=RetryConfig(1))
        messages = [{"role": "user", "content": "weather and clock please"}]
        # The results of the first round ask for the second.
        for answer in ("now clock and weather", "fine"):
            batch, _ = await run(strategy, [messages], config)
            (result,) = batch.results
            assert result.success, result.error
            assert {call.name for call in result.tool_calls} == {"weather", "clock"}
            messages = [*messages, {"role": "assistant", "tool_calls": result.tool_calls}]
            messages += [{"role": "tool", "tool_call_id": call.id, "content": answer} for call in result.tool_calls]
        batch, _ = await run(strategy, [messages], config)
        assert batch.results[0].success, batch.results[0].error
        assert "fine" in batch.results[0].output
