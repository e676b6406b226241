"""Conversations wherever items are: hooks, pools, streams, frames, budgets, interrupts."""

import asyncio
import contextvars
import dataclasses

import pandas
import pytest

from batch_llm import (
    BaseMiddleware,
    BaseObserver,
    GuardrailConfig,
    LLMCallPool,
    LLMWorkItem,
    ParallelBatchProcessor,
    Price,
    ProcessingEvent,
    ProcessorConfig,
    Quota,
    WorkItemResult,
    llm,
    process_frame,
    process_prompts,
    process_stream,
    stream_tokens,
)
from batch_llm.testing import SimulatedProvider

from .common import Steps


@pytest.fixture
def provider():
    with SimulatedProvider() as simulated:
        yield simulated


def agent(provider, rounds=3, **options):
    steps = Steps(rounds)
    options.setdefault("rounds", 9)
    return llm("openai:m", base_url=provider.base_url, tools=[steps.advance], **options), steps


async def test_middlewares_see_an_item_once_and_observers_each_attempt(provider):
    seen = []

    class Hooks(BaseMiddleware):
        async def before_process(self, item):
            seen.append(("before", item.prompt))
            item.prompt = item.prompt + " please"
            return item

        async def after_process(self, result):
            seen.append(("after", result.rounds, len(result.messages)))
            return result

    class Watcher(BaseObserver):
        async def on_event(self, event, data):
            if event is ProcessingEvent.ITEM_STARTED:
                seen.append(("attempt", data.get("attempt")))

    strategy, _ = agent(provider)
    batch = await process_prompts(strategy, ["call advance"], middlewares=[Hooks()], observers=[Watcher()], store=None)
    (result,) = batch.results
    assert (result.rounds, result.prompt) == (4, "call advance please")
    assert [one for one in seen if one[0] != "attempt"] == [("before", "call advance"), ("after", 4, 8)]
    assert result.messages[0]["content"] == "call advance please"


async def test_a_middleware_may_put_a_strategy_with_tools_in_place_of_another(provider, tmp_path):
    strategy, _ = agent(provider)

    class Swap(BaseMiddleware):
        async def before_process(self, item):
            return dataclasses.replace(item, strategy=strategy, prompt=item.prompt + " please")

    plain = llm("openai:m", base_url=provider.base_url)
    for reused in (None, "store"):
        batch = await process_prompts(plain, ["call advance"], middlewares=[Swap()], store=tmp_path / "run.db")
        (result,) = batch.results
        assert (result.rounds, result.reused) == (4, reused)
        assert result.output.endswith("that was all")
        assert "_raw" not in result.metadata
    # What a middleware made of the prompt is not stored, and the item's own is not what was sent.
    assert result.messages[0]["role"] == "assistant"


async def test_a_pool_answers_callers_with_conversations(provider):
    strategy, _ = agent(provider)
    async with LLMCallPool(strategy) as pool:
        results = await asyncio.gather(*(pool.submit_result("call advance") for _ in range(20)))
    assert [result.rounds for result in results] == [4] * 20


async def test_tools_of_a_pool_have_the_context_of_their_caller(provider):
    caller = contextvars.ContextVar("caller")
    seen = []

    async def advance() -> str:
        """Go one step further."""
        seen.append(caller.get(None))
        return "that was all"

    strategy = llm("openai:m", base_url=provider.base_url, tools=[advance], rounds=3)

    async def ask(pool, number):
        caller.set(number)
        await pool.submit("call advance")

    async with LLMCallPool(strategy) as pool:
        await asyncio.gather(*(asyncio.ensure_future(ask(pool, number)) for number in range(5)))
    assert sorted(seen) == [0, 1, 2, 3, 4]


async def test_streams_and_the_processor(provider):
    strategy, _ = agent(provider)
    rounds = [result.rounds async for result in process_stream(strategy, ["call advance"] * 30, ordered=True)]
    assert rounds == [4] * 30
    processor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=4))
    plain = llm("openai:m", base_url=provider.base_url)
    for number in range(20):
        await processor.add_work(LLMWorkItem(str(number), plain if number % 2 else strategy, "call advance"))
    batch = await processor.process_all()
    assert [result.rounds for result in sorted(batch.results, key=lambda one: int(one.item_id))] == [4, None] * 10


async def test_a_frame_has_the_last_answers(provider):
    strategy, _ = agent(provider)
    frame = pandas.DataFrame({"verb": ["advance", "wait"]})
    answered = await process_frame(frame, "call {verb}", strategy)
    assert answered["output"].notna().all()
    assert provider.stats.requests == 5


async def test_tokens_arrive_of_every_round(provider):
    strategy, _ = agent(provider)
    events = [event async for event in stream_tokens(strategy, "call advance")]
    assert events[-1].kind == "result"
    assert events[-1].result.rounds == 4


async def test_limits_count_requests_and_not_items(provider):
    strategy, _ = agent(provider, rounds=4)
    config = ProcessorConfig(concurrency=10, quotas=[Quota(requests=1000, per="second")])
    batch = await process_prompts(strategy, ["call advance"] * 20, config=config)
    assert (batch.succeeded, provider.stats.requests) == (20, 100)
    assert batch.stats.total_input_tokens == provider.stats.input_tokens


async def test_a_budget_ends_conversations_between_their_rounds(provider, tmp_path):
    prices = {"m": Price(input=1e6, output=1e6, cached_input=1e6)}
    guardrails = GuardrailConfig(max_total_cost=2000.0, prices=prices)
    strategy, _ = agent(provider, rounds=4, max_tokens=30)
    config = ProcessorConfig(concurrency=1, guardrails=guardrails)
    batch = await process_prompts(strategy, ["call advance"] * 20, config=config, store=tmp_path / "run.db")
    assert batch.termination.kind == "budget_exceeded"
    assert 0 < provider.stats.requests < 100
    spent = provider.stats.input_tokens + provider.stats.output_tokens
    assert spent <= 2000
    # Raise the budget: nothing that was paid is paid again.
    again = await process_prompts(
        strategy, ["call advance"] * 20, config=ProcessorConfig(concurrency=4), store=tmp_path / "run.db"
    )
    assert again.succeeded == 20
    assert provider.stats.requests == 100


async def test_an_item_can_be_cancelled_while_its_tool_works(provider):
    cancelled = asyncio.Event()

    async def advance() -> str:
        """Go one step further."""
        try:
            stream.cancel("item_0")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "never"

    strategy = llm("openai:m", base_url=provider.base_url, tools=[advance], rounds=3)
    stream = process_stream(strategy, ["call advance"])
    results = [result async for result in stream]
    assert [result.error_category for result in results] == ["cancelled"]
    assert cancelled.is_set()
    assert results[0].rounds == 1


async def test_an_interrupted_run_lets_tools_end_and_stores_them(provider, tmp_path):
    ran = []

    async def advance() -> str:
        """Go one step further."""
        ran.append(1)
        if len(ran) == 1:
            stream.interrupt()
            await asyncio.sleep(0.01)
        return "that was all"

    strategy = llm("openai:m", base_url=provider.base_url, tools=[advance], rounds=3)
    stream = process_stream(strategy, ["call advance"], store=tmp_path / "run.db", on_interrupt="return")
    results = [result async for result in stream]
    assert [result.error_category for result in results] == ["interrupted"]
    batch = await process_prompts(strategy, ["call advance"], store=tmp_path / "run.db")
    assert batch.succeeded == 1
    assert (len(ran), provider.stats.requests) == (1, 2)


async def test_an_attempt_that_times_out_is_that_of_its_round(provider):
    strategy, steps = agent(provider)
    with SimulatedProvider(latency=0.5) as slow:
        late = llm("openai:m", base_url=slow.base_url, tools=[steps.advance], rounds=9)
        config = ProcessorConfig(timeout_per_item=0.05, concurrency=1)
        config.retry.max_attempts = 1
        (result,) = (await process_prompts(late, ["call advance"], config=config)).results
    assert result.error_category == "framework_timeout"
    assert result.rounds in (None, 0)
    assert strategy is not late


async def test_results_can_be_written_and_read_again(provider):
    strategy, _ = agent(provider)
    batch = await process_prompts(strategy, ["call advance"])
    result = WorkItemResult.from_dict(batch.results[0].to_dict())
    assert (result.rounds, result.messages) == (4, batch.results[0].messages)
    assert "4 in 1 conversations" in batch.summary()
    assert "retries" not in batch.summary()
    assert list(batch.to_pandas()["rounds"]) == [4]


async def test_thousands_of_conversations_lose_nothing(provider):
    """Faults, retries and few slots: every conversation ends once, with all its rounds in order."""
    from batch_llm import RateLimitConfig, RetryConfig
    from batch_llm.testing import Fault

    steps = Steps(3)
    faults = [Fault(500, every=7), Fault(429, every=50, retry_after=0.01)]
    with SimulatedProvider(faults=faults) as faulty:
        strategy = llm("openai:m", base_url=faulty.base_url, tools=[steps.advance], rounds=9)
        config = ProcessorConfig(
            max_workers=32,
            retry=RetryConfig(max_attempts=8, initial_wait=0.001, max_wait=0.002),
            rate_limit=RateLimitConfig(cooldown_seconds=0.01, slow_start_items=0),
        )
        batch = await process_prompts(strategy, ["call advance"] * 1000, config=config)
    assert batch.succeeded == 1000
    assert set(steps.ran.values()) == {3}
    assert all(result.rounds == 4 and result.attempts >= 4 for result in batch.results)
