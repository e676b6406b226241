"""Items of native strategies that begin and end without the event loop; what is different for them, and what is not."""

from __future__ import annotations

import asyncio
import time

import pytest

from batch_llm import (
    LLMWorkItem,
    MetricsObserver,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProcessorConfig,
    RetryConfig,
    Tool,
    process_prompts,
    process_stream,
)
from batch_llm._run import mailbox
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick


class Counting(OpenAIStrategy[str]):
    """Counts the attempts that Python has sent."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.launched = 0

    def _launch(self, handle, flight, prompt, client) -> None:
        self.launched += 1
        super()._launch(handle, flight, prompt, client)


def processor_of(strategy, prompts, **options):
    processor = ParallelBatchProcessor(**options)
    return processor, [LLMWorkItem(f"item-{n}", strategy, prompt) for n, prompt in enumerate(prompts)]


async def added(processor, items):
    for item in items:
        await processor.add_work(item)
    return processor


async def test_no_python_runs_until_results_are_handed_over():
    with SimulatedProvider() as provider:
        strategy = Counting("m", base_url=provider.base_url)
        processor, items = processor_of(strategy, [f"{n}" for n in range(100)], config=ProcessorConfig(max_workers=5))
        run = asyncio.create_task((await added(processor, items)).process_all())
        for _ in range(3):
            await asyncio.sleep(0)
        # The loop does nothing for as long as this takes; the run goes on.
        end = time.monotonic() + 30
        while provider.stats.requests < 100 and time.monotonic() < end:
            time.sleep(0.01)
        assert provider.stats.requests == 100
        batch = await run
    assert (batch.succeeded, strategy.launched) == (100, 0)
    assert provider.stats.peak_concurrency <= 5


async def test_results_are_those_of_attempts_that_python_sends():
    prompts = ["a", "b", [{"role": "user", "content": "c"}], "d", ["e", "f"]]
    batches = []
    for observers in ([], [MetricsObserver()]):
        with SimulatedProvider() as provider:
            strategy = Counting("m", base_url=provider.base_url)
            processor, items = processor_of(
                strategy, prompts, config=ProcessorConfig(max_workers=1), observers=observers
            )
            batches.append(await (await added(processor, items)).process_all())
            assert strategy.launched == (len(prompts) if observers else 0)
    for one, other in zip(batches[0].results, batches[1].results, strict=True):
        assert one == other
        assert (
            (one.attempts, one.submission_index)
            == (other.attempts, other.submission_index)
            == (1, one.submission_index)
        )
        assert set(one.metadata) == set(other.metadata)
        (attempt,) = one.timing.attempts
        assert 0 < attempt.execution_seconds <= batches[0].wall_time_seconds
    assert batches[0].total_output_tokens == batches[1].total_output_tokens > 0


async def test_failed_first_attempts_go_on_as_usual():
    config = quick(max_workers=20, retry=RetryConfig(max_attempts=30, initial_wait=0.01, max_wait=0.02))
    faults = [Fault("500", every=3), Fault("429", every=7, retry_after=0.01), Fault("reset", every=11)]
    with SimulatedProvider(faults=faults) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        processor, items = processor_of(strategy, [f"{n}" for n in range(300)], config=config)
        batch = await (await added(processor, items)).process_all()
        statuses = provider.stats.statuses
    assert batch.succeeded == 300
    assert {result.item_id for result in batch.results} == {item.item_id for item in items}
    assert statuses[200] == 300
    attempts = sum(result.attempts for result in batch.results)
    # What meets a connection that was of use before, and breaks, is sent again at once.
    assert attempts <= provider.stats.requests <= attempts + statuses[0]
    assert attempts > 400
    for result in batch.results:
        assert len(result.timing.attempts) == result.attempts
    assert batch.total_output_tokens == provider.stats.output_tokens


async def test_slow_first_attempts_are_timed_out():
    limit = 0.5
    with SimulatedProvider(faults=[Fault("hang", on=(2,))]) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        # Where a machine is slow, what is answered may be late too, and is requested again.
        config = quick(max_workers=3, timeout_per_item=limit, retry=RetryConfig(50, 0.01, max_wait=0.02))
        processor, items = processor_of(strategy, ["a", "b", "c", "d"], config=config)
        batch = await (await added(processor, items)).process_all()
    assert batch.succeeded == 4
    assert max(result.attempts for result in batch.results) >= 2, "one was not answered at first"
    for result in batch.results:
        *failed, _ = result.timing.attempts
        assert len(failed) == result.attempts - 1
        for attempt in failed:
            assert attempt.error_type == "FrameworkTimeoutError"
            assert attempt.execution_seconds >= limit


async def test_what_is_answered_is_kept_when_a_run_is_cancelled():
    with SimulatedProvider(faults=[Fault("hang", between=(31, 40))]) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        processor, items = processor_of(strategy, [f"{n}" for n in range(60)], config=ProcessorConfig(max_workers=10))
        run = asyncio.create_task((await added(processor, items)).process_all())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The loop hears of nothing before the cancellation. An answer waits for it before the next request is sent.
        end = time.monotonic() + 60
        while provider.stats.requests < 40 and time.monotonic() < end:
            time.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        batch = processor.partial_result()
        assert batch.succeeded == 30
        by_error = {True: 0, False: 0}
        for result in batch.results:
            if not result.success:
                assert result.error_category == "cancelled"
                by_error[result.attempts == 1] += 1
        assert by_error == {True: 10, False: 20}
        assert len({result.item_id for result in batch.results}) == 60
        # Their requests are gone.
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        assert (await process_prompts(strategy, ["again"])).succeeded == 1


async def test_a_cancelled_item_is_given_up_in_mid_request():
    with SimulatedProvider(faults=[Fault("hang", on=(1,))]) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        processor, items = processor_of(strategy, ["a", "b", "c"], config=ProcessorConfig(max_workers=1))
        run = asyncio.create_task((await added(processor, items)).process_all())
        while provider.stats.requests < 1:
            await asyncio.sleep(0.01)
        assert processor.cancel("item-0")
        batch = await run
    assert [result.success for result in sorted(batch.results, key=lambda one: one.item_id)] == [False, True, True]


async def test_items_of_several_strategies_share_a_run():
    with SimulatedProvider() as one, SimulatedProvider() as two:
        strategies = [Counting("m", base_url=provider.base_url) for provider in (one, two)]
        processor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=4))
        for n in range(200):
            await processor.add_work(LLMWorkItem(f"{n}", strategies[n % 2], f"{n}"))
        batch = await processor.process_all()
        assert (one.stats.requests, two.stats.requests) == (100, 100)
    assert batch.succeeded == 200
    assert sum(strategy.launched for strategy in strategies) < 200


async def test_tools_and_parsers_keep_their_say():
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    with SimulatedProvider() as provider:
        tools = OpenAIStrategy("m", base_url=provider.base_url, tools=[Tool.of(weather)], tool_choice="required")
        batch = await process_prompts(tools, [f"{n}" for n in range(20)])
        assert all(result.tool_calls[0].name == "weather" for result in batch.results)
        parsed = OpenAIStrategy("m", base_url=provider.base_url, response_parser=len)
        batch = await process_prompts(parsed, [f"{n}" for n in range(20)])
        assert all(isinstance(result.output, int) for result in batch.results)


async def test_a_key_of_a_function_is_asked_for_each_request():
    asked = []
    with SimulatedProvider(api_key="right") as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, api_key=lambda: asked.append(1) or "right")
        batch = await process_prompts(strategy, [f"{n}" for n in range(20)])
    assert (batch.succeeded, len(asked)) == (20, 20)


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_slow_consumer_holds_the_run_back(ordered):
    with SimulatedProvider() as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        prompts = (f"{n}" for n in range(5000))
        stream = process_stream(strategy, prompts, concurrency=5, ordered=ordered)
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 20:
                await asyncio.sleep(0.3)
                held = provider.stats.requests
        assert (seen, provider.stats.requests) == (5000, 5000)
    assert held < 1000


async def test_progress_tells_every_item():
    told = []
    with SimulatedProvider() as provider:
        strategy = Counting("m", base_url=provider.base_url)
        config = ProcessorConfig(max_workers=5, progress_interval=10)
        processor, items = processor_of(
            strategy,
            [f"{n}" for n in range(95)],
            config=config,
            progress_callback=lambda done, total, item: told.append((done, total)),
        )
        await (await added(processor, items)).process_all()
    assert told[-1] == (95, 95)
    assert strategy.launched == 0


def test_runs_one_after_another_in_loops_of_their_own():
    with SimulatedProvider() as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        for _ in range(20):
            batch = asyncio.run(process_prompts(strategy, [f"{n}" for n in range(50)], concurrency=7))
            assert batch.succeeded == 50
        assert provider.stats.requests == 1000


def test_long_prompts_are_staged_by_their_length():
    # As texts that differ: what they have in common is in memory once.
    long = "x" * (9 << 20)
    with SimulatedProvider() as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url)
        items = [LLMWorkItem(f"{n}", strategy, f"{n}{long}") for n in range(10)]
        processor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=1))
        looked_at = []

        async def stage():
            from batch_llm._run.run import Run

            run = Run(processor._pipeline(), items, [])
            looked_at.append(run.handle.stage(0, items, strategy, strategy._client, True))
            looked_at.append(run.handle.stage(2, items, strategy, strategy._client, True))
            run.handle.unstage(0, 2)
            looked_at.append(run.handle.stage(0, items[:1], strategy, strategy._client, True))
            run.handle.close()
            run._mailbox.unwatch()

        asyncio.run(stage())
    # Two of 9 MB are more than 16.
    assert looked_at == [2, 0, 1]


@pytest.mark.parametrize("count", [1, 3, 200])
async def test_a_loop_that_is_slow_to_read_its_messages_loses_no_result(count, monkeypatch):
    # Accepted and answered before the first message is read, which says that the run has no items.
    # The turn of the loop is over then.
    monkeypatch.setattr(mailbox, "TURN_SECONDS", -1.0)
    with SimulatedProvider() as server:
        strategy = OpenAIStrategy("m", "any", server.base_url)
        processor, items = processor_of(strategy, ["x"] * count, max_workers=200)
        for item in items:
            await processor.add_work(item)
        run = asyncio.ensure_future(processor.process_all())
        await asyncio.sleep(0)
        time.sleep(0.3)
        assert (await run).succeeded == count
