"""What a run may not exceed: time, tokens, money; and errors that end it."""

from __future__ import annotations

import asyncio

import pytest

from batch_llm import (
    AbortMode,
    AttemptUsage,
    BatchAbortedError,
    BatchBudgetExceeded,
    BatchDeadlineExceeded,
    BatchLLMError,
    GuardrailConfig,
    ItemDeadlineExceeded,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    Price,
    RetryConfig,
)
from batch_llm.prices import PRICES, price_of
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import USAGE, Deaf, Echo, Scripted, quick, run, until
from .test_rate_limits import Events


def guarded(max_workers=5, retry=None, **fields):
    more = {} if retry is None else {"retry": retry}
    return quick(max_workers=max_workers, guardrails=GuardrailConfig(**fields), **more)


class Gated(Echo):
    """Answers once its gate is open."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()

    async def execute(self, prompt, attempt, timeout, state=None):
        self.calls.append((prompt, attempt))
        self.active += 1
        try:
            await self.gate.wait()
        finally:
            self.active -= 1
        return prompt, dict(USAGE)


# Time


async def test_an_item_over_its_time_in_an_attempt_fails_alone():
    slow, fast = Echo(30.0), Echo()
    events = Events()
    processor = ParallelBatchProcessor(config=guarded(total_timeout_per_item=0.1), observers=[events])
    await processor.add_work(LLMWorkItem("slow", slow, "x"))
    await processor.add_work(LLMWorkItem("fast", fast, "x"))
    batch = await processor.process_all()
    failed = next(result for result in batch.results if not result.success)
    assert failed.item_id == "slow"
    assert isinstance(failed.exception, ItemDeadlineExceeded)
    assert isinstance(failed.exception, TimeoutError)
    assert isinstance(failed.exception, BatchLLMError)
    assert failed.exception.item_id == "slow"
    assert failed.error_category == "framework_total_item_timeout"
    assert slow.active == 0
    assert batch.termination.kind == "completed"
    assert [data["error_type"] for data in events.of("ITEM_FAILED")] == ["ItemDeadlineExceeded"]


@pytest.mark.parametrize("workers", [1, 5])
async def test_a_wait_that_does_not_fit_into_an_items_time_fails_at_once_with_its_cause(workers):
    strategy = Scripted(lambda prompt, attempt: ConnectionError("no line"))
    # Whoever waited would wait for longer than any test may take.
    retry = RetryConfig(initial_wait=5000.0, max_wait=6000.0)
    batch, _ = await run(strategy, ["x"], guarded(workers, retry, total_timeout_per_item=1000.0))
    error = batch.results[0].exception
    assert isinstance(error, ItemDeadlineExceeded)
    assert isinstance(error.__cause__, ConnectionError)
    assert batch.results[0].attempts == 1


async def test_an_item_over_its_time_while_it_waits_is_ended():
    # A rate limit whose pause is longer than the item's time: it waits with everybody, and its time runs.
    class Limited(Exception):
        status_code = 429

    strategy = Scripted(lambda prompt, attempt: Limited("slow down"))
    config = guarded(total_timeout_per_item=0.2)
    config.rate_limit.cooldown_seconds = 1000.0
    batch, _ = await run(strategy, ["a", "b"], config)
    assert [type(result.exception) for result in batch.results] == [ItemDeadlineExceeded] * 2


@pytest.mark.parametrize("mode", [AbortMode.DRAIN_ACTIVE, "cancel_active"])
async def test_a_deadline_of_the_batch_ends_it_in_a_controlled_way(mode):
    drained = mode is AbortMode.DRAIN_ACTIVE
    strategy, events = Gated(), Events()
    processor = ParallelBatchProcessor(config=guarded(3, batch_timeout=0.5, abort_mode=mode), observers=[events])
    for number in range(50):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    running = asyncio.ensure_future(processor.process_all())
    if drained:
        await until(lambda: events.of("BATCH_ABORTED"))
        strategy.gate.set()
    batch = await running
    assert len(batch.results) == 50
    assert batch.succeeded == (3 if drained else 0)
    late = [result for result in batch.results if not result.success]
    assert all(isinstance(result.exception, BatchDeadlineExceeded) for result in late)
    assert {result.error_category for result in late} == {"batch_deadline_exceeded"}
    assert batch.termination.kind == "batch_timeout"
    assert "0.5 s" in batch.termination.reason
    assert len(strategy.calls) == 3
    assert strategy.active == 0
    stats = await processor.get_stats()
    assert stats["processed"] == stats["total"] == 50
    assert [data["kind"] for data in events.of("BATCH_ABORTED")] == ["batch_timeout"]
    assert len(events.of("ITEM_FAILED")) + len(events.of("ITEM_COMPLETED")) == 50


async def test_a_strategy_that_ignores_its_cancellation_does_not_hold_the_end_up():
    strategy = Deaf()
    config = guarded(2, batch_timeout=0.1, abort_mode="cancel_active")
    batch, _ = await run(strategy, ["x"] * 4, config)
    strategy.released.set()
    assert [type(result.exception) for result in batch.results] == [BatchDeadlineExceeded] * 4


async def test_native_requests_are_dropped_at_a_deadline():
    with SimulatedProvider(latency=1000.0) as provider:
        strategy = OpenAIStrategy("deadline", base_url=provider.base_url)
        batch, _ = await run(strategy, ["x"] * 20, guarded(batch_timeout=0.3, abort_mode="cancel_active"))
        assert len(batch.results) == 20
        assert batch.termination.kind == "batch_timeout"


async def test_a_processor_runs_again_after_a_deadline():
    processor = ParallelBatchProcessor(config=guarded(batch_timeout=0.1))
    await processor.add_work(LLMWorkItem("a", Echo(1000.0), "x"))
    processor.config.guardrails.abort_mode = "cancel_active"
    assert (await processor.process_all()).termination.kind == "batch_timeout"
    processor.config.guardrails.batch_timeout = None
    await processor.add_work(LLMWorkItem("b", Echo(), "x"))
    batch = await processor.process_all()
    assert batch.succeeded == 1
    assert batch.termination.kind == "completed"
    assert batch.termination.reason is None


async def test_items_that_come_after_the_end_are_refused_too():
    processor = ParallelBatchProcessor(config=guarded(1, batch_timeout=0.5))
    gated = Gated()
    await processor.add_work(LLMWorkItem("first", gated, "x"))
    task = asyncio.ensure_future(processor.process_all())
    await until(lambda: gated.active and processor.termination.kind == "batch_timeout")
    await processor.add_work(LLMWorkItem("late", Echo(), "x"))
    gated.gate.set()
    batch = await task
    assert {result.item_id: result.success for result in batch.results} == {"first": True, "late": False}


# Errors that concern everybody


async def test_an_error_of_such_a_category_ends_the_run():
    with SimulatedProvider(api_key="right") as provider:
        strategy = OpenAIStrategy("fatal", "wrong", provider.base_url)
        config = guarded(5, abort_on_error_categories={"authentication"})
        batch, _ = await run(strategy, ["x"] * 500, config)
        assert len(batch.results) == 500
        assert batch.succeeded == 0
        assert provider.stats.requests < 50
    assert batch.termination.kind == "fail_fast"
    assert batch.termination.error_category == "authentication"
    assert batch.termination.triggering_item_id.startswith("item-")
    categories = {result.error_category for result in batch.results}
    assert categories == {"authentication", "batch_aborted"}
    refused = [result for result in batch.results if result.error_category == "batch_aborted"]
    assert isinstance(refused[0].exception, BatchAbortedError)
    assert "authentication" in refused[0].error


async def test_without_such_a_category_every_item_is_tried():
    with SimulatedProvider(api_key="right") as provider:
        strategy = OpenAIStrategy("fatal2", "wrong", provider.base_url)
        batch, _ = await run(strategy, ["x"] * 20, guarded(fail_early=False))
        assert {result.error_category for result in batch.results} == {"authentication"}
        assert provider.stats.requests == 20


async def test_items_that_wait_for_another_attempt_are_refused_with_their_last_error():
    def script(prompt, attempt):
        return ConnectionError("no line") if prompt == "waits" else KeyError("fatal")

    retry = RetryConfig(initial_wait=30.0, max_wait=30.0)
    config = guarded(2, retry, abort_on_error_categories={"logic_error"})
    config.timeout_per_item = 60
    batch, _ = await run(Scripted(script), ["waits", "fatal"], config)
    waited = next(result for result in batch.results if result.context == 0)
    assert isinstance(waited.exception, BatchAbortedError)
    assert isinstance(waited.exception.__cause__, ConnectionError)
    assert waited.attempts == 1


# Money and tokens


PRICES_OF_TESTS = {"budget": Price(input=10.0, output=40.0)}


async def test_a_cap_on_cost_is_never_passed_on_the_providers_own_ledger():
    with SimulatedProvider(latency=0.01) as provider:
        strategy = OpenAIStrategy("budget", base_url=provider.base_url, max_tokens=40)
        cap = 0.05
        config = guarded(500, max_total_cost=cap, prices=PRICES_OF_TESTS)
        batch, processor = await run(strategy, [f"say something about {n}" for n in range(2000)], config)
        stats = provider.stats
    charged = (stats.input_tokens * 10 + stats.output_tokens * 40) / 1e6
    assert charged <= cap
    assert charged > 0.9 * cap
    assert batch.termination.kind == "budget_exceeded"
    assert "max_total_cost=0.05" in batch.termination.reason
    refused = [result for result in batch.results if not result.success]
    assert len(batch.results) == 2000
    assert all(isinstance(r.exception, BatchBudgetExceeded) for r in refused)
    assert (await processor.get_stats())["budget_cost_used"] == pytest.approx(charged)


async def test_a_cap_on_tokens_holds_with_failures_among_the_attempts():
    with SimulatedProvider(faults=[Fault(500, every=3)]) as provider:
        strategy = OpenAIStrategy("tokens", base_url=provider.base_url, max_tokens=20)
        batch, _ = await run(strategy, ["hello there"] * 500, guarded(50, max_total_tokens=3000))
        used = provider.stats.input_tokens + provider.stats.output_tokens
    assert used <= 3000
    assert batch.termination.kind == "budget_exceeded"
    assert batch.succeeded > 10


async def test_a_small_cap_is_shown_as_a_sum_of_money():
    with SimulatedProvider() as provider:
        strategy = OpenAIStrategy("budget", base_url=provider.base_url, max_tokens=40)
        config = guarded(1, max_total_cost=0.00001, prices=PRICES_OF_TESTS)
        batch, _ = await run(strategy, ["hello"], config)
    assert batch.termination.reason == "no further attempt fits within max_total_cost=0.000010"


async def test_a_budget_that_suffices_ends_nothing():
    with SimulatedProvider() as provider:
        strategy = OpenAIStrategy("budget", base_url=provider.base_url, max_tokens=40)
        config = guarded(50, max_total_cost=1.0, max_total_tokens=100_000, prices=PRICES_OF_TESTS)
        batch, _ = await run(strategy, ["hello"] * 100, config)
    assert batch.succeeded == 100
    assert batch.termination.kind == "completed"


async def test_a_model_without_a_price_is_refused_when_a_cost_is_capped():
    processor = ParallelBatchProcessor(config=guarded(max_total_cost=1.0))
    strategy = OpenAIStrategy("my-own-model", base_url="http://localhost:1/v1")
    with pytest.raises(ValueError, match=r"item 'a': max_total_cost is set, but the price of 'my-own-model'"):
        await processor.add_work(LLMWorkItem("a", strategy, "x"))
    with pytest.raises(ValueError, match="price of 'Echo'"):
        await processor.add_work(LLMWorkItem("a", Echo(), "x"))


async def test_a_cost_function_counts_every_attempt_and_ends_the_run():
    seen: list[AttemptUsage] = []

    def cost(usage):
        seen.append(usage)
        return 0.1

    def script(prompt, attempt):
        if prompt == "again" and attempt == 1:
            error = ConnectionError("billed")
            error.usage = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
            return error
        return prompt

    config = guarded(1, max_total_cost=0.55, cost_function=cost)
    batch, processor = await run(Scripted(script), ["again"] + ["x"] * 20, config)
    assert batch.termination.kind == "budget_exceeded"
    assert [one.success for one in seen[:2]] == [False, True]
    assert (seen[0].usage["input_tokens"], seen[1].usage) == (3, USAGE), "an attempt's own usage"
    assert batch.succeeded == 5
    assert (await processor.get_stats())["budget_cost_used"] == pytest.approx(0.6)
    with pytest.raises(TypeError):
        seen[0].usage["input_tokens"] = 0


@pytest.mark.parametrize("cost", [lambda usage: 1 / 0, lambda usage: float("nan"), lambda usage: -1, lambda usage: "1"])
async def test_a_cost_function_that_fails_ends_the_run(cost):
    batch, _ = await run(Echo(), ["x"] * 50, guarded(2, cost_function=cost, max_total_cost=1.0))
    assert batch.termination.kind == "fail_fast"
    assert "cost_function failed" in batch.termination.reason
    assert len(batch.results) == 50
    assert batch.succeeded <= 4


# Prices and checks


def test_prices_are_found_by_model_and_family():
    assert price_of("gpt-5-mini") is PRICES["gpt-5-mini"]
    assert price_of("gpt-4o-2024-11-20") is PRICES["gpt-4o"]
    assert price_of("claude-sonnet-4-5-20250929") is PRICES["claude-sonnet-4-5"]
    assert price_of("models/gemini-2.5-flash") is PRICES["gemini-2.5-flash"]
    assert price_of("openai/gpt-5") is PRICES["gpt-5"]
    assert price_of("gpt-5-turbo-ultra") is None
    assert price_of("claude-opus-5-9") is None, "a number of its own, a price of its own"
    assert price_of("llama") is None
    own = {"gpt-5": Price(1.0, 2.0)}
    assert price_of("gpt-5", own) is own["gpt-5"]
    own["gpt-5-2025"] = Price(2.0, 2.0)
    assert price_of("gpt-5-2025-latest", own) is own["gpt-5-2025"], "the longest name that begins it"
    assert price_of("gpt-5-2024-latest", own) is own["gpt-5"]


def test_costs_by_kind_of_token():
    price = Price(input=1.0, output=10.0, cached_input=0.1, cache_write=1.25)
    usage = {"input_tokens": 1000, "output_tokens": 100, "cached_input_tokens": 400, "cache_write_tokens": 200}
    assert price.of(usage) == pytest.approx((400 * 1 + 400 * 0.1 + 200 * 1.25 + 100 * 10) / 1e6)
    assert Price(1.0, 10.0).of({}) == 0
    assert price.saved(usage) == pytest.approx((400 * (1 - 0.1) - 200 * 0.25) / 1e6)
    assert price.saved({"input_tokens": 1000, "output_tokens": 100}) == 0
    for_an_hour = Price(input=1.0, output=10.0, cached_input=0.1, cache_write=1.25, cache_write_1h=2.0)
    usage["cache_write_1h_tokens"] = 150
    assert for_an_hour.of(usage) - price.of(usage) == pytest.approx(150 * (2.0 - 1.25) / 1e6)
    assert price_of("claude-sonnet-5") == Price(2.0, 10.0, 0.2, 2.5, cache_write_1h=4.0, batch=0.5)
    with pytest.raises(ValueError, match="output must be >= 0"):
        Price(1.0, -1.0)


def test_lanes_have_their_prices():
    usage = {"input_tokens": 1000, "output_tokens": 100, "cached_input_tokens": 400}
    gemini, claude = price_of("gemini-2.5-flash"), price_of("claude-haiku-4-5")
    assert claude.in_lane("batch").of(usage) == pytest.approx(claude.of(usage) / 2)
    assert claude.in_lane("flex").of(usage) == claude.in_lane(None).of(usage) == claude.of(usage)
    # Cached prompts cost in batches what they always do.
    cached = 400 * gemini.cached_input / 1e6
    assert gemini.in_lane("batch").of(usage) == pytest.approx((gemini.of(usage) - cached) / 2 + cached)
    assert gemini.in_lane("flex").of(usage) == pytest.approx(gemini.of(usage) / 2)
    own = Price(1.0, 2.0, batch=0.8)
    assert own.in_lane("batch") == Price(0.8, 1.6, 0.8)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_timeout": 0}, "batch_timeout must be > 0"),
        ({"total_timeout_per_item": float("nan")}, "NaN"),
        ({"max_total_tokens": 1.5}, "max_total_tokens must be an integer"),
        ({"max_total_cost": -1}, "max_total_cost must be > 0"),
        ({"abort_mode": "explode"}, "drain_active"),
        ({"abort_on_error_categories": "authentication"}, "a set of non-empty strings"),
        ({"prices": {"m": 1.0}}, r"prices\['m'\] must be a Price"),
    ],
)
def test_nonsense_is_refused_by_name(fields, words):
    with pytest.raises(ValueError, match=words):
        ParallelBatchProcessor(config=guarded(**fields))
