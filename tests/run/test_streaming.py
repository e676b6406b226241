"""A processor whose items come, and whose results go, while it runs; and steering it."""

from __future__ import annotations

import asyncio

import pytest

from batch_llm import (
    BatchAdmissionClosedError,
    GuardrailConfig,
    LLMWorkItem,
    MetricsObserver,
    ParallelBatchProcessor,
    ProcessorConfig,
    SimpleBatchProcessor,
    SimpleResult,
    SimpleWorkItem,
    WorkItemResult,
)

from ..helpers import Echo, quick, until
from ..surfaces.test_prompts import Lively, tasks_left


def item(name, strategy, prompt="x"):
    return LLMWorkItem(name, strategy, prompt)


async def test_items_in_and_results_out_while_it_runs():
    strategy = Lively(0.001)
    metrics = MetricsObserver()
    processor = ParallelBatchProcessor(config=quick(max_workers=3), observers=[metrics])
    await processor.add_work(item("first", strategy))
    await processor.start()
    await processor.start()

    async def add():
        for number in range(50):
            await processor.add_work(item(str(number), strategy))
        await processor.finish()
        await processor.finish()

    adding = asyncio.ensure_future(add())
    got = [result.item_id async for result in processor.results()]
    await adding
    assert sorted(got) == sorted(["first", *map(str, range(50))])
    assert strategy.life == ["prepare", "cleanup"]
    assert processor.termination.kind == "completed"
    assert not processor.aborted
    assert (await processor.get_stats())["succeeded"] == 51
    assert (await metrics.get_metrics())["items_succeeded"] == 51
    assert [result async for result in processor.results()] == []
    assert tasks_left() == []


async def test_the_simple_names():
    processor = SimpleBatchProcessor[str](config=quick())
    await processor.add_work(SimpleWorkItem[str]("a", Echo(), "x"))
    result = (await processor.process_all()).results[0]
    assert isinstance(result, WorkItemResult)
    assert SimpleResult[str]("a", True).success


async def test_a_processor_can_be_used_again():
    strategy = Echo()
    async with ParallelBatchProcessor(config=quick()) as processor:
        for _ in range(2):
            await processor.start()
            await processor.add_work(item("a", strategy))
            await processor.finish()
            assert [result.item_id async for result in processor.results()] == ["a"]
            await processor.add_work(item("b", strategy))
            assert (await processor.process_all()).succeeded == 1


async def test_states_are_kept():
    processor = ParallelBatchProcessor(config=quick(max_workers=1))
    for call in (processor.finish(), anext(processor.results()), processor.wait_for_abort()):
        with pytest.raises(RuntimeError, match="no run was started"):
            await call
    await processor.start()
    with pytest.raises(RuntimeError, match="already running"):
        await processor.process_all()
    await processor.add_work(item("a", Echo(0.05)))
    await processor.finish()
    with pytest.raises(BatchAdmissionClosedError, match=r"finish\(\) was called"):
        await processor.add_work(item("b", Echo()))
    assert [result.item_id async for result in processor.results()] == ["a"]

    strategy = Echo(0.5)
    await processor.add_work(item("a", strategy))
    running = asyncio.ensure_future(processor.process_all())
    await until(lambda: strategy.active)
    with pytest.raises(RuntimeError, match=r"process_all\(\) is running"):
        await processor.start()
    await running
    await processor.shutdown()
    with pytest.raises(RuntimeError, match="closed"):
        await processor.start()


async def test_an_early_end_is_heard_by_whoever_feeds():
    guardrails = GuardrailConfig(batch_timeout=0.05)
    processor = ParallelBatchProcessor(config=quick(max_workers=1, guardrails=guardrails))
    await processor.start()
    await processor.add_work(item("a", Echo(0.2)))
    termination = await processor.wait_for_abort()
    assert termination.kind == "batch_timeout"
    assert processor.aborted
    with pytest.raises(BatchAdmissionClosedError, match="the batch_timeout"):
        await processor.add_work(item("b", Echo()))
    assert [result.item_id async for result in processor.results()] == ["a"]


async def test_untaken_results_hold_up_the_run():
    strategy = Echo()
    processor = ParallelBatchProcessor(config=ProcessorConfig(concurrency=1, max_result_queue_size=3))
    await processor.start()
    for number in range(20):
        await processor.add_work(item(str(number), strategy))
    await processor.finish()
    await asyncio.sleep(0.05)
    assert len(strategy.calls) <= 4
    assert len([result async for result in processor.results()]) == 20


async def test_a_full_queue_makes_add_work_wait():
    strategy = Echo(0.005)
    processor = ParallelBatchProcessor(config=ProcessorConfig(concurrency=1, max_queue_size=2))
    await processor.start()
    for number in range(20):
        await processor.add_work(item(str(number), strategy))
        assert number - len(strategy.calls) <= 3
    await processor.finish()
    assert len([result async for result in processor.results()]) == 20


async def test_leaving_a_started_run_ends_it():
    strategy = Lively(30)
    async with ParallelBatchProcessor(config=quick(max_workers=2)) as processor:
        await processor.start()
        for number in range(5):
            await processor.add_work(item(str(number), strategy))
        await until(lambda: strategy.active == 2)
    await until(lambda: tasks_left() == [])
    assert strategy.life == ["prepare", "cleanup"]


async def test_steering_a_processor():
    strategy = Echo(0.002)
    processor = ParallelBatchProcessor(config=quick(max_workers=1))
    processor.pause()
    processor.resume()
    assert not processor.cancel("nothing")
    for number in range(60):
        await processor.add_work(item(str(number), strategy))
    running = asyncio.ensure_future(processor.process_all())
    await until(lambda: strategy.calls)
    processor.pause()
    before = len(strategy.calls)
    await asyncio.sleep(0.05)
    assert len(strategy.calls) <= before + 1  # one may have been about to begin
    assert processor.cancel("59")
    processor.set_concurrency(5)
    with pytest.raises(ValueError, match="positive integer"):
        processor.set_concurrency(True)
    processor.resume()
    batch = await running
    assert strategy.peak == 5
    assert batch.by_id()["59"].error_category == "cancelled"
    assert (batch.succeeded, batch.failed) == (59, 1)
