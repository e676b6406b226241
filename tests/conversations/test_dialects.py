"""Conversations in every dialect: streamed and plain, through a pool, with an answer that has a type."""

from __future__ import annotations

import asyncio
import threading

import pytest
from pydantic import BaseModel

from batch_llm import llm, pool, process_prompts, stream_tokens
from batch_llm.testing import SimulatedProvider

from ..served import DIALECTS, answer, serve
from .common import Steps

MODELS = {
    "chat": ("openai:gpt-4.1-mini", "base_url", {"api": "chat"}),
    "thinking chat": ("deepseek:deepseek-v4", "base_url", {}),
    "responses": ("openai:gpt-5-mini", "base_url", {"api": "responses", "reasoning_effort": "low"}),
    "anthropic": ("anthropic:claude-sonnet-5", "url", {"extra_body": {"thinking": {"type": "adaptive"}}}),
    "gemini": ("gemini:gemini-3.8-flash", "gemini_url", {}),
}
ROUNDS = 4


class Total(BaseModel):
    total: int


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("dialect", MODELS)
async def test_a_conversation_goes_on_until_there_is_an_answer(dialect, members, stream):
    model, where, options = MODELS[dialect]
    with SimulatedProvider() as one, SimulatedProvider() as other:
        addresses = [getattr(provider, where) for provider in (one, other)]
        steps = Steps(ROUNDS)
        options = {**options, "api_key": "k", "tools": [steps.advance], "rounds": 2 * ROUNDS, "stream": stream}
        if members == 1:
            strategy = llm(model, base_url=addresses[0], **options)
        else:
            strategy = pool(model, base_url=addresses, **options)
        batch = await process_prompts(strategy, [f"{number}: call advance" for number in range(6)], concurrency=6)
        assert batch.failed == 0, [result.error for result in batch.results]
        requests = [provider.stats.requests for provider in (one, other)]
    for result in batch.results:
        assert (result.rounds, steps.ran[result.item_id]) == (ROUNDS + 1, ROUNDS)
        assert "that was all" in result.output
        assert (result.timing.first_token_seconds is not None) == stream
    assert sum(requests) == 6 * (ROUNDS + 1)
    assert (min(requests) > 0) == (members == 2), "each member has its share"


@pytest.mark.parametrize("dialect", MODELS)
async def test_tokens_of_every_round_arrive(dialect):
    model, where, options = MODELS[dialect]
    steps = Steps(ROUNDS)
    with SimulatedProvider() as provider:
        options = {**options, "api_key": "k", "tools": [steps.advance], "rounds": 2 * ROUNDS}
        strategy = llm(model, base_url=getattr(provider, where), **options)
        events = [event async for event in stream_tokens(strategy, "call advance")]
    result = events[-1].result
    assert (result.success, result.rounds) == (True, ROUNDS + 1)
    assert "".join(event.text for event in events if event.kind == "text") == result.output
    if dialect == "thinking chat":
        thoughts = [event.text for event in events if event.kind == "reasoning"]
        assert "".join(thoughts).count("Simulated thought") == ROUNDS + 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", [name for name in MODELS if "thinking" not in name])  # DeepSeek has no schemas
async def test_the_answer_after_tools_has_its_type(dialect, stream):
    model, where, options = MODELS[dialect]
    steps = Steps(2)
    with SimulatedProvider() as provider:
        options = {**options, "api_key": "k", "tools": [steps.advance], "rounds": 8, "stream": stream}
        strategy = llm(model, base_url=getattr(provider, where), response_model=Total, **options)
        batch = await process_prompts(strategy, ["call advance"])
    (result,) = batch.results
    assert result.success, result.error
    assert (type(result.output), result.rounds) == (Total, 3)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", ["tasks", "threads"])
def test_calls_of_one_reply_run_at_the_same_time(dialect, kind):
    # Each of the two goes on only once the other runs as well.
    both = {"tasks": asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else _Barrier(), "threads": threading.Barrier(2)}

    async def in_a_task(name: str) -> str:
        """Meet."""
        await asyncio.wait_for(both["tasks"].wait(), 30)
        return f"{name} met"

    def in_a_thread(name: str) -> str:
        """Meet."""
        both["threads"].wait(30)
        return f"{name} met"

    tool = in_a_task if kind == "tasks" else in_a_thread
    calls = [(f"c{name}", tool.__name__, {"name": name}) for name in ("left", "right")]
    with serve(lambda _, number: answer(dialect, "", calls) if number == 0 else answer(dialect, "fine")) as server:
        strategy = server.strategy(dialect, tools=[tool], rounds=2, tool_timeout=60)
        (result,) = server.ask(strategy, "go")
    assert (result.output, result.rounds) == ("fine", 2), result.error
    said = str(server.bodies[1])
    assert said.index("left met") < said.index("right met")


class _Barrier:
    """As ``asyncio.Barrier(2)``, which Python 3.10 has not."""

    def __init__(self):
        self._here = 0
        self._both = asyncio.Event()

    async def wait(self):
        self._here += 1
        if self._here == 2:
            self._both.set()
        await self._both.wait()
