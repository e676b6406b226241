"""Functions as strategies."""

from __future__ import annotations

import asyncio
import functools
import threading
import time

import pytest

from batch_llm import (
    CallableStrategy,
    CallOutcome,
    DefaultErrorClassifier,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    process_prompts,
)

from ..helpers import quick


async def plain(prompt):
    return prompt.upper()


@pytest.mark.parametrize(
    ("answer", "output", "usage", "metadata"),
    [
        ("x", "x", {}, None),
        (None, None, {}, None),
        (("x", "y"), ("x", "y"), {}, None),
        (("x", {"input_tokens": 3}), "x", {"input_tokens": 3, "total_tokens": 3}, None),
        (
            ("x", {"prompt_tokens": 3, "completion_tokens": 2}, {"m": 1}),
            "x",
            {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
            {"m": 1},
        ),
        (("x", {"my": "data"}), ("x", {"my": "data"}), {}, None),
        (CallOutcome("x"), "x", {}, None),
        (CallOutcome("x", {"total_tokens": 9}, {"m": 1}), "x", {"total_tokens": 9}, {"m": 1}),
        (("x", {}), "x", {}, None),
    ],
)
async def test_what_a_function_may_return(answer, output, usage, metadata):
    async def answers(prompt):
        return answer

    result = (await process_prompts(answers, ["a"])).results[0]
    assert (result.output, result.token_usage, result.metadata) == (output, usage, metadata)


async def test_a_function_gets_what_it_asks_for():
    seen = []

    async def asks(prompt, *, attempt, timeout, state):
        seen.append((prompt, attempt, timeout, state.get("tries", 0)))
        state.set("tries", attempt)
        if attempt < 3:
            raise ConnectionError("again")
        return "done"

    batch = await process_prompts(asks, ["a"], config=quick(timeout_per_item=7))
    assert batch.outputs() == ["done"]
    assert seen == [("a", 1, 7, 0), ("a", 2, 7, 1), ("a", 3, 7, 2)]


async def test_kinds_of_functions():
    class Callable:
        async def __call__(self, prompt, **more):
            return prompt, {}, {"asked": sorted(more)}

        async def method(self, prompt, state=None):
            return prompt + "m"

    async def two(other, prompt):
        return other + prompt

    for given, output in (
        (Callable(), "a"),
        (Callable().method, "am"),
        (functools.partial(two, "o"), "oa"),
        (lambda prompt: plain(prompt), "A"),
        (str.upper, "A"),
    ):
        assert (await process_prompts(given, ["a"])).outputs() == [output]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (5, "must be a function that takes a prompt, not int"),
        (lambda prompt: prompt, "must be async (async def)"),
    ],
)
def test_what_cannot_be_called_is_refused(function, words):
    with pytest.raises(TypeError) as caught:
        CallableStrategy(function)
    assert words in str(caught.value)


def test_a_wrong_signature_is_refused():
    async def nothing():
        pass

    async def too_much(prompt, other):
        pass

    async def misnamed(prompt, *, timout):
        pass

    for function in (nothing, too_much, misnamed):
        with pytest.raises(TypeError, match="cannot be called with a prompt"):
            CallableStrategy(function)
    with pytest.raises(ValueError, match="max_concurrency must be a positive integer"):
        CallableStrategy(plain, max_concurrency=True)


async def test_sync_functions_run_in_threads_side_by_side():
    threads = set()

    def slow(prompt):
        threads.add(threading.current_thread().name)
        while ticks < 3:  # for ever, if the loop were held up
            time.sleep(0.005)
        time.sleep(0.05)
        return prompt

    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    batch = await process_prompts(slow, ["a"] * 40, concurrency=20)
    ticking.cancel()
    assert batch.succeeded == 40
    assert 2 <= len(threads) <= 64
    assert threading.main_thread().name not in threads


async def test_a_sync_function_that_takes_too_long_is_given_up():
    release = threading.Event()

    def hangs(prompt):
        release.wait(30)

    batch = await process_prompts(hangs, ["a"], config=quick(timeout_per_item=0.05))
    release.set()
    assert batch.results[0].error_category == "framework_timeout"


async def test_hooks_may_be_sync_or_async():
    said = []

    async def prepare():
        said.append("prepare")

    def cleanup():
        said.append("cleanup")

    def on_error(exception, attempt, state):
        said.append(f"{type(exception).__name__} {attempt} {state.get('x')}")

    async def fails(prompt, state):
        state.set("x", 1)
        raise KeyError("no")

    strategy = CallableStrategy(fails, prepare=prepare, cleanup=cleanup, on_error=on_error, dry_run=lambda p: p + "?")
    await process_prompts(strategy, ["a"])
    assert said == ["prepare", "KeyError 1 1", "cleanup"]
    batch = await process_prompts(strategy, ["a"], config=ProcessorConfig(dry_run=True))
    assert batch.outputs() == ["a?"]
    assert repr(strategy).startswith("CallableStrategy(test_hooks")


async def test_its_own_classifier_and_width():
    class Picky(DefaultErrorClassifier):
        def classify(self, exception):
            info = super().classify(exception)
            info.error_category = "picky"
            return info

    active = peak = 0

    async def counts(prompt):
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        await asyncio.sleep(0.002)
        active -= 1
        raise ValueError("no")

    strategy = CallableStrategy(counts, error_classifier=Picky(), max_concurrency=3)
    batch = await process_prompts(strategy, ["a"] * 30, concurrency=20)
    assert peak == 3
    assert {result.error_category for result in batch} == {"picky"}


async def test_equal_scopes_share_limits():
    strategies = [CallableStrategy(plain, scope="shared") for _ in range(3)]
    config = ProcessorConfig(concurrency=10, max_requests_per_minute=1200, quota_burst_seconds=0.001)
    items = [LLMWorkItem(str(number), strategies[number % 3], "x") for number in range(6)]
    batch = await process_prompts(plain, items, config=config)
    assert batch.wall_time_seconds > 0.2  # five more at 20 a second


def test_a_strategy_has_one_scope_under_three_names():
    for name in ("scope", "quota_scope", "concurrency_scope"):
        assert CallableStrategy(plain, **{name: "a"}).quota_scope == "a"
    assert CallableStrategy(plain, scope="a", quota_scope="a").quota_scope == "a"
    with pytest.raises(ValueError, match="scope='a' and quota_scope='b'; give only one"):
        CallableStrategy(plain, scope="a", quota_scope="b")


async def test_functions_are_strategies_everywhere():
    async with ParallelBatchProcessor(max_workers=2) as processor:
        for number in range(5):
            await processor.add_work(LLMWorkItem(str(number), plain, "x"))
        batch = await processor.process_all()
    assert batch.outputs() == ["X"] * 5
    items = [LLMWorkItem(str(number), plain, "x") for number in range(2)]
    assert items[0].strategy is items[1].strategy


async def test_exceptions_and_cancellation_pass_unchanged():
    class Mine(Exception):
        pass

    async def raises(prompt):
        raise Mine("here")

    result = (await process_prompts(raises, ["a"], config=quick())).results[0]
    assert type(result.exception) is Mine
    assert result.error == "Mine: here"
