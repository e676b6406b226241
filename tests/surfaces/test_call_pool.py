"""Single calls, and pools of them."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from batch_llm import (
    BaseMiddleware,
    BatchAbortedError,
    GuardrailConfig,
    LLMCallError,
    LLMCallPool,
    MetricsObserver,
    PoolClosedError,
    PoolSaturated,
    ProcessorConfig,
    SubmitTimeout,
    call,
    call_result,
)
from batch_llm.calls import output_of
from batch_llm.results import WorkItemResult
from batch_llm.testing import FakeRateLimitError, FakeStrategy

from ..helpers import USAGE, Echo, Scripted, quick, until
from .test_prompts import Lively, tasks_left, upper


async def test_call_returns_the_output_or_raises_what_the_attempt_raised():
    assert await call(upper, "a") == "A"
    strategy = Lively()
    assert await call(strategy, "b") == "b"
    assert strategy.life == ["prepare", "cleanup"]
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        await call(FakeStrategy("x", failure_schedule=[error]), "a")
    assert caught.value is error
    with pytest.raises(TypeError, match="prompt must be a string"):
        await call(Echo(), 5)


async def test_call_result_has_the_whole_way():
    strategy = FakeStrategy("x", failure_schedule=[ConnectionError("reset"), FakeRateLimitError()], token_usage=USAGE)
    result = await call_result(strategy, "a", config=quick())
    assert (result.item_id, result.success, result.output, result.attempts) == ("single", True, "x", 3)
    assert result.token_usage == USAGE
    failed = await call_result(FakeStrategy("x", failure_schedule=[ValueError("no")]), "a")
    assert (failed.success, failed.error, failed.error_category) == (False, "ValueError: no", "logic_error")
    assert tasks_left() == []


def test_a_failure_without_an_exception_has_one_of_its_own():
    result = WorkItemResult("a", False, error="Skipped by middleware")
    with pytest.raises(LLMCallError, match="Skipped by middleware") as caught:
        output_of(result)
    assert caught.value.result is result
    assert isinstance(caught.value, RuntimeError)


async def test_cancelling_a_call_cancels_its_attempt():
    strategy = Lively(30)
    waiting = asyncio.ensure_future(call(strategy, "a"))
    await until(lambda: strategy.active)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert strategy.life == ["prepare", "cleanup"]
    assert strategy.active == 0
    assert tasks_left() == []


async def test_a_pool_answers_each_caller():
    strategy = Lively(0.001)
    async with LLMCallPool(strategy) as pool:
        answers = await asyncio.gather(*(pool.submit(f"p{number}") for number in range(500)))
        assert answers == [f"p{number}" for number in range(500)]
        result = await pool.submit_result("one")
        assert result.item_id == "req-501"
        assert result.context is None
        results = await pool.submit_many(["a", "b"])
        assert [result.output for result in results] == ["a", "b"]
        stats = pool.stats()
        assert (stats.running, stats.waiting, stats.succeeded, stats.failed) == (0, 0, 503, 0)
        assert stats.total_tokens == 503 * 15
        assert strategy.life == ["prepare"]
    assert strategy.life == ["prepare", "cleanup"]
    assert pool.stats().succeeded == 503
    assert tasks_left() == []


async def test_failures_are_results_or_exceptions():
    error = ValueError("no")
    strategy = Scripted(lambda prompt, attempt: error if prompt == "bad" else prompt)
    async with LLMCallPool(strategy) as pool:
        result = await pool.submit_result("bad")
        assert (result.success, result.error) == (False, "ValueError: no")
        with pytest.raises(ValueError) as caught:
            await pool.submit("bad")
        assert caught.value is error
        assert await pool.submit("good") == "good"
        with pytest.raises(TypeError, match="prompt must be a string"):
            await pool.submit(5)
        assert pool.stats().failed == 2


async def test_a_pool_shares_one_pause():
    limited = [FakeRateLimitError(retry_after=0.3)]
    strategy = FakeStrategy("x", failure_schedule=limited)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with LLMCallPool(strategy) as pool:
        first = asyncio.ensure_future(pool.submit("a"))
        await until(lambda: pool.stats().paused_for)
        await pool.submit("b")
        assert loop.time() - began >= 0.3
        await first


async def test_as_many_at_once_as_configured_in_the_order_of_their_coming():
    strategy = Echo(0.002)
    async with LLMCallPool(strategy, config=ProcessorConfig(max_workers=3)) as pool:
        await asyncio.gather(*(pool.submit(str(number)) for number in range(30)))
    assert strategy.peak == 3
    assert [prompt for prompt, _ in strategy.calls] == [str(number) for number in range(30)]


async def test_a_saturated_pool_says_so_at_once():
    strategy = Echo(0.05)
    async with LLMCallPool(strategy, config=ProcessorConfig(max_workers=2), max_pending=1) as pool:
        calls = [asyncio.ensure_future(pool.submit_result(str(number))) for number in range(5)]
        results = await asyncio.gather(*calls)
        assert [result.success for result in results] == [True, True, True, False, False]
        assert "shared call pool saturated" in results[3].error
        assert results[3].error_category == "pool_saturated"
        fill = [asyncio.ensure_future(pool.submit("x")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(PoolSaturated):
            await pool.submit("y")
        await asyncio.gather(*fill)
    assert len(strategy.calls) == 6


async def test_time_outs_cover_the_wait_too():
    strategy = Echo(1.0)
    async with LLMCallPool(strategy, config=ProcessorConfig(max_workers=1), submit_timeout=0.4) as pool:
        first, second = await asyncio.gather(pool.submit_result("a", timeout=60), pool.submit_result("b"))
        assert first.success
        assert "submit timed out" in second.error
        assert second.error_category == "submit_timeout"
        with pytest.raises(SubmitTimeout):
            await pool.submit("c")
        while strategy.active:  # its attempt is cancelled
            await asyncio.sleep(0.001)
    assert [prompt for prompt, _ in strategy.calls] == ["a", "c"]


async def test_a_cancelled_caller_gives_its_slot_back():
    strategy = Echo(1000)
    async with LLMCallPool(strategy, config=ProcessorConfig(max_workers=1), max_pending=1) as pool:
        running = asyncio.ensure_future(pool.submit("a"))
        waiting = asyncio.ensure_future(pool.submit("b"))
        await until(lambda: strategy.active)
        waiting.cancel()
        running.cancel()
        await asyncio.wait({waiting, running})
        strategy.delay = 0.0
        assert await pool.submit("c") == "c"
    assert [prompt for prompt, _ in strategy.calls] == ["a", "c"]
    assert tasks_left() == []


async def test_closing_lets_what_was_taken_end_and_takes_no_more():
    strategy = Lively(0.05)
    pool = LLMCallPool(strategy, config=ProcessorConfig(max_workers=1))
    calls = [asyncio.ensure_future(pool.submit(str(number))) for number in range(3)]
    await asyncio.sleep(0)
    closing = [asyncio.ensure_future(pool.aclose()) for _ in range(3)]
    await asyncio.sleep(0)
    assert pool.closed
    with pytest.raises(PoolClosedError) as caught:
        await pool.submit("late")
    assert isinstance(caught.value, RuntimeError)
    closing[0].cancel()  # whoever waits for the closing may stop waiting
    await asyncio.gather(*closing[1:])
    assert [await waiting for waiting in calls] == ["0", "1", "2"]
    assert strategy.life == ["prepare", "cleanup"]
    await pool.aclose()
    assert strategy.life == ["prepare", "cleanup"]


async def test_closing_with_a_limit_cancels_what_is_left():
    strategy = Lively(30)
    pool = LLMCallPool(strategy)
    waiting = asyncio.ensure_future(pool.submit_result("a"))
    await until(lambda: strategy.active)
    await pool.aclose(timeout=0.02)
    result = await waiting
    assert not result.success
    assert result.error_category == "cancelled"
    assert strategy.life == ["prepare", "cleanup"]
    assert tasks_left() == []


async def test_a_pool_that_was_never_used():
    async with LLMCallPool(Lively()) as pool:
        pass
    with pytest.raises(PoolClosedError):
        await pool.submit("x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_pending": -1}, "max_pending must be"),
        ({"max_pending": 1.5}, "max_pending must be"),
        ({"submit_timeout": 0}, "submit_timeout must be > 0"),
        ({"submit_timeout": "1"}, "submit_timeout must be > 0"),
    ],
)
def test_arguments_are_checked(arguments, words):
    with pytest.raises(ValueError) as caught:
        LLMCallPool(upper, **arguments)
    assert words in str(caught.value)


async def test_a_pool_has_observers_and_a_budget():
    metrics = MetricsObserver()
    config = ProcessorConfig(max_workers=1, guardrails=GuardrailConfig(max_total_tokens=1000))
    async with LLMCallPool(Echo(), config=config, observers=[metrics]) as pool:
        results = [await pool.submit_result("x") for _ in range(2)]

        async def until_it_is_used_up():
            for _ in range(200):
                await pool.submit("x")

        with pytest.raises(BatchAbortedError, match=r"budget|no more calls|max_total_tokens"):
            await until_it_is_used_up()
        with pytest.raises(
            BatchAbortedError, match="accepts no more calls: .*max_total_tokens=1000|the budget .* was used up"
        ):
            await pool.submit("x")
    assert all(result.success for result in results)
    assert (await metrics.get_metrics())["items_succeeded"] >= 2


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def test_each_caller_s_context_variables_are_seen():
    tries = {}

    async def says(prompt):
        tries[prompt] = tries.get(prompt, 0) + 1
        await asyncio.sleep(0)
        if tries[prompt] == 1 and prompt.endswith("3"):
            raise ConnectionError("again")
        return VARIABLE.get()

    async def caller(pool, number):
        VARIABLE.set(str(number))
        return await pool.submit(str(number))

    async with LLMCallPool(says, config=quick(max_workers=10)) as pool:
        answers = await asyncio.gather(*(caller(pool, number) for number in range(40)))
    assert answers == [str(number) for number in range(40)]


def test_a_pool_belongs_to_one_loop():
    pool = LLMCallPool(upper)

    async def use():
        return await pool.submit("a")

    assert asyncio.run(use()) == "A"
    with pytest.raises((RuntimeError, PoolClosedError)):
        asyncio.run(use())


async def test_middlewares_have_no_part_in_single_calls():
    assert BaseMiddleware  # calls take none: see the signatures
    with pytest.raises(TypeError):
        await call_result(upper, "a", middlewares=[])


async def test_thousands_of_callers_come_and_go():
    strategy = Echo(0.0005)
    outcomes = []

    async def caller(number):
        try:
            outcomes.append(await asyncio.wait_for(pool.submit_result(str(number)), 0.001 if number % 7 == 0 else 30))
        except asyncio.TimeoutError:
            outcomes.append(None)

    async with LLMCallPool(strategy, config=ProcessorConfig(max_workers=50)) as pool:
        await asyncio.gather(*(caller(number) for number in range(5000)))
    assert len(outcomes) == 5000
    assert sum(result is not None and result.success for result in outcomes) >= 5000 * 6 // 7
    assert pool._calls == {}
    assert strategy.active == 0
    assert tasks_left() == []
