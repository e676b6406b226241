"""The life of strategies: prepared once whatever races, cleaned up after every item."""

from __future__ import annotations

import asyncio
import gc

import pytest

from batch_llm import LLMWorkItem, ParallelBatchProcessor, WorkItemResult

from ..helpers import Echo, Scripted, quick, run


class Counted(Echo):
    def __init__(self, fail_first=0, delay=0.0):
        super().__init__(delay)
        self.prepares = self.cleanups = 0
        self.fail_first = fail_first

    async def prepare(self):
        self.prepares += 1
        number = self.prepares
        await asyncio.sleep(0.001)
        if number <= self.fail_first:
            raise RuntimeError(f"prepare {number} failed")

    async def execute(self, prompt, attempt, timeout, state=None):
        assert self.prepares > self.fail_first, "executed before it was prepared"
        return await super().execute(prompt, attempt, timeout, state)

    async def cleanup(self):
        self.cleanups += 1


@pytest.mark.parametrize("repeat", range(10))
async def test_prepare_once_and_cleanup_per_item_under_a_race(repeat):
    strategy = Counted()
    batch, _ = await run(strategy, ["x"] * 100, quick(max_workers=20))
    assert batch.succeeded == 100
    assert (strategy.prepares, strategy.cleanups) == (1, 100)


async def test_each_instance_is_prepared_by_itself_and_all_at_once():
    strategies = [Counted() for _ in range(30)]
    processor = ParallelBatchProcessor(config=quick(max_workers=30))
    for number, strategy in enumerate(strategies):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    await processor.process_all()
    assert [strategy.prepares for strategy in strategies] == [1] * 30


async def test_prepare_holds_for_the_life_of_the_processor():
    strategy = Counted()
    _, processor = await run(strategy, ["x"] * 3)
    await processor.add_work(LLMWorkItem("later", strategy, "x"))
    await processor.process_all()
    assert strategy.prepares == 1


async def test_a_new_strategy_at_an_old_address_is_prepared():
    processor = ParallelBatchProcessor(config=quick())
    prepared = 0
    for number in range(50):
        strategy = Counted()
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
        await processor.process_all()
        prepared += strategy.prepares
        del strategy
        processor._results.clear()
        gc.collect()
    assert prepared == 50
    assert len(processor._known._known) <= 2  # what is gone is forgotten


async def test_a_failed_prepare_fails_its_item_and_the_next_one_tries_again():
    strategy = Counted(fail_first=1)
    batch, _ = await run(strategy, ["a", "b", "c"], quick(max_workers=1))
    first, *rest = batch.results
    assert (first.success, first.error, first.token_usage) == (False, "RuntimeError: prepare 1 failed", {})
    assert all(result.success for result in rest)
    assert (strategy.prepares, strategy.cleanups) == (2, 3)
    assert strategy.calls == [("b", 1), ("c", 1)]


async def test_a_prepare_that_always_fails_is_called_per_item_and_cleaned_up():
    strategy = Counted(fail_first=999)
    batch, _ = await run(strategy, ["x"] * 10, quick(max_workers=3))
    assert batch.failed == 10
    assert (strategy.prepares, strategy.cleanups) == (10, 10)


async def test_a_failing_cleanup_changes_nothing():
    class Untidy(Echo):
        async def cleanup(self):
            raise RuntimeError("cleanup bug")

    batch, _ = await run(Untidy(), ["a", "b"])
    assert batch.succeeded == 2


async def test_hanging_prepare_and_cleanup_are_given_up(monkeypatch):
    monkeypatch.setattr("batch_llm._llm.lifecycle.STRATEGY_PREPARE_TIMEOUT", 0.02)
    monkeypatch.setattr("batch_llm._pipeline.strategy_hooks.STRATEGY_CLEANUP_TIMEOUT", 0.02)

    class Hangs(Echo):
        async def prepare(self):
            await asyncio.sleep(999)

        async def cleanup(self):
            await asyncio.sleep(999)

    batch, _ = await run(Hangs(), ["a"])
    assert "Hangs.prepare() did not end" in batch.results[0].error


async def test_cleanup_comes_after_the_last_attempt_and_before_the_result():
    order = []

    class Ordered(Scripted):
        async def cleanup(self):
            order.append("cleanup")

    strategy = Ordered(lambda p, a: (order.append(f"attempt {a}"), RuntimeError("x") if a == 1 else p)[1])
    await run(strategy, ["p"], post_processor=lambda result: order.append("result"))
    assert order == ["attempt 1", "attempt 2", "cleanup", "result"]


async def test_processors_and_strategies_are_freed():
    import weakref

    strategy = Counted()
    batch, processor = await run(strategy, ["x"] * 50)
    failing = Scripted(lambda p, a: RuntimeError("kept in the result"))
    failed, other = await run(failing, ["x"] * 5)
    references = [weakref.ref(thing) for thing in (strategy, processor, failing, other)]
    del strategy, processor, failing, other, batch
    gc.collect()
    # Results keep exceptions, and these must not keep the run.
    assert all(isinstance(result, WorkItemResult) for result in failed.results)
    assert [reference() for reference in references[:2]] == [None, None]
    assert references[3]() is None
