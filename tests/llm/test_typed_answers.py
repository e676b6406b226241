"""Answers that are read into types where results are taken, without a task or a message for each."""

import asyncio
import time

import pytest
from pydantic import BaseModel, field_validator

from batch_llm import LLMWorkItem, OpenAIStrategy, ParallelBatchProcessor, ProcessorConfig, process_prompts
from batch_llm.testing import SimulatedProvider


class Point(BaseModel):
    x: int
    y: int


def answers(*texts):
    return SimulatedProvider(replies=list(texts))


async def test_results_counts_and_progress_are_those_of_any_run():
    seen = []
    with answers('{"x": 1, "y": 2}') as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, response_model=Point)
        config = ProcessorConfig(max_workers=20, progress_interval=100)
        processor = ParallelBatchProcessor(
            config=config, progress_callback=lambda done, total, last: seen.append((done, total))
        )
        for number in range(500):
            await processor.add_work(LLMWorkItem(str(number), strategy, f"prompt {number}", context=number))
        batch = await processor.process_all()
    assert (batch.succeeded, batch.failed, provider.stats.requests) == (500, 0, 500)
    assert {result.output for result in batch.results if result.output != Point(x=1, y=2)} == set()
    assert sorted(result.context for result in batch.results) == list(range(500))
    assert batch.total_input_tokens == provider.stats.input_tokens
    assert all(result.attempts == 1 and result.metadata["model"] == "m" for result in batch.results)
    assert all(result.timing.attempts[0].execution_seconds > 0 for result in batch.results)
    assert seen[-1] == (500, 500)


async def test_an_answer_that_does_not_fit_is_shown_to_the_model():
    with answers('{"x": 1, "y": 2}', '{"x": 1}') as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, response_model=Point)
        config = ProcessorConfig(max_workers=10)
        prompts = [f"prompt {number}" for number in range(200)]
        batch = await process_prompts(strategy, prompts, config=config)
    attempts = {result.attempts for result in batch.results}
    assert len(batch.results) == 200
    assert provider.stats.requests > 200
    assert {1, 2} <= attempts
    assert all(result.success or result.error_category == "validation_error" for result in batch.results)


async def test_slow_validators_let_the_loop_do_its_other_work():
    turns = 0
    reads: list[int] = []

    class Slow(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def _slow(cls, value):
            time.sleep(0.003)  # longer than answers are read at a time
            reads.append(turns)
            return value

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with answers('{"x": 1}') as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, response_model=Slow)
        counter = asyncio.create_task(count_turns())
        batch = await process_prompts(strategy, [str(number) for number in range(60)], concurrency=60)
        counter.cancel()
    assert batch.succeeded == 60
    # No two were read in the same turn of the loop.
    assert len(set(reads)) == 60


@pytest.mark.parametrize("error", [ValueError, KeyError])
async def test_what_a_parser_raises_fails_its_item_alone(error):
    def parse(text):
        if text.endswith("7"):
            raise error("not this one")
        return text

    with SimulatedProvider(replies=["{excerpt}"]) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, response_parser=parse)
        config = ProcessorConfig(max_workers=10)
        batch = await process_prompts(strategy, [f"n {number}" for number in range(40)], config=config)
    failed = sorted(result.prompt for result in batch.results if not result.success)
    assert failed == ["n 17", "n 27", "n 37", "n 7"]
    assert all("not this one" in result.error for result in batch.results if not result.success)


async def test_items_of_two_strategies_in_a_run_are_each_read_by_their_own():
    class Other(BaseModel):
        x: int

    with answers('{"x": 1, "y": 2}') as provider:
        first = OpenAIStrategy("m", base_url=provider.base_url, response_model=Point)
        second = OpenAIStrategy("m", base_url=provider.base_url, response_model=Other)
        processor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=10))
        for number in range(100):
            strategy = first if number % 3 else second
            await processor.add_work(LLMWorkItem(str(number), strategy, f"prompt {number}", context=number % 3))
        batch = await processor.process_all()
    assert batch.succeeded == 100
    assert all(type(result.output) is (Point if result.context else Other) for result in batch.results)
