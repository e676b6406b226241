"""Answers that are followed while they come: ``stream_tokens()``, ``on_token=``, and an end at any time."""

from __future__ import annotations

import asyncio

import pytest

from batch_llm import ProcessorConfig, ProviderError, RetryConfig, call, call_result, llm, stream_tokens
from batch_llm.testing import FakeStrategy, Fault, SimulatedProvider

TEXT = "one two three four five six seven grüße \U0001f600"
DIALECTS = {
    "openai:gpt-5-mini": "base_url",
    "openai-compatible:m": "base_url",
    "anthropic:claude-sonnet-4-6": "url",
    "gemini:gemini-3-flash": "gemini_url",
}
QUICK = ProcessorConfig(concurrency=1, retry=RetryConfig(max_attempts=3, initial_wait=0.001))


@pytest.fixture(scope="module")
def provider():
    with SimulatedProvider(replies=[TEXT]) as simulated:
        yield simulated


def strategy(provider, model="openai-compatible:m", **options):
    return llm(model, base_url=getattr(provider, DIALECTS[model]), api_key="k", **options)


@pytest.mark.parametrize("model", DIALECTS)
async def test_an_answer_is_the_sum_of_its_parts(provider, model):
    events = [event async for event in stream_tokens(strategy(provider, model), "go")]
    assert {event.kind for event in events[:-1]} == {"text"}
    assert len(events) > 4
    assert "".join(event.text for event in events) == TEXT
    assert events[-1].kind == "result"
    result = events[-1].result
    assert result.success
    assert result.output == TEXT
    assert result.token_usage["output_tokens"] > 0
    assert result.timing.first_token_seconds > 0


@pytest.mark.parametrize("model", DIALECTS)
async def test_enough_is_enough(provider, model):
    heard = []

    def follow(event):
        heard.append(event.text)
        return "three" in "".join(heard)

    with SimulatedProvider(replies=[TEXT], latency=1.0) as slow:
        result = await call_result(strategy(slow, model), "go", on_token=follow)
    assert result.success
    assert result.metadata["finish_reason"] == "stopped"
    assert "three" in result.output
    assert TEXT.startswith(result.output)
    assert len(result.output) < len(TEXT)


async def test_what_is_not_streamed_comes_in_one_piece(provider):
    heard = []
    assert await call(strategy(provider, stream=False), "go", on_token=heard.append) == TEXT
    assert [(event.kind, event.text) for event in heard] == [("text", TEXT)]


async def test_the_strategy_itself_is_followed_by_nobody(provider):
    asking = strategy(provider)
    await call(asking, "go", on_token=lambda event: None)
    assert asking._follower is None
    assert asking._stream_timeout is None
    assert await call(asking, "go") == TEXT


async def test_a_retry_begins_again():
    faults = [Fault("cut", on=[1]), Fault(503, on=[2])]
    with SimulatedProvider(replies=[TEXT], faults=faults) as provider:
        events = [event async for event in stream_tokens(strategy(provider), "go", config=QUICK)]
    kinds = [event.kind for event in events]
    assert kinds.count("retry") == 2
    last = len(kinds) - 1 - kinds[::-1].index("retry")
    assert "".join(event.text for event in events[last:]) == TEXT
    assert kinds[0] == "text"


async def test_a_failure_is_raised_after_its_parts():
    with SimulatedProvider(replies=[TEXT], faults=[Fault("cut", every=1)]) as provider:
        events = []

        async def follow():
            async for event in stream_tokens(strategy(provider), "go", config=QUICK):
                events.append(event)

        with pytest.raises(ProviderError):
            await follow()
    assert [event.kind for event in events].count("retry") == 2


async def test_leaving_the_loop_ends_the_request():
    with SimulatedProvider(replies=[TEXT], latency=30.0) as provider:
        events = stream_tokens(strategy(provider), "go")
        async for event in events:
            assert event.text
            break
        await events.aclose()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_an_error_of_the_callback_ends_the_call(provider):
    def follow(event):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await call(strategy(provider), "go", on_token=follow)


async def test_hundreds_at_the_same_time():
    with SimulatedProvider(latency=0.5) as provider:

        async def one(number):
            events = [event async for event in stream_tokens(strategy(provider), f"number {number}")]
            assert "".join(event.text for event in events) == events[-1].result.output
            return events[-1].result.output

        outputs = await asyncio.gather(*(one(number) for number in range(200)))
    assert all(output.endswith(f"number {number}") for number, output in enumerate(outputs))


async def test_wrong_arguments_are_named(provider, tmp_path):
    with pytest.raises(TypeError, match="native strategy, not FakeStrategy"):
        await call(FakeStrategy("x"), "go", on_token=print)
    with pytest.raises(TypeError, match="on_token must be a function"):
        await call(strategy(provider), "go", on_token=1)
    with pytest.raises(ValueError, match="store or cache"):
        await call(strategy(provider), "go", on_token=print, store=tmp_path / "a.db")
