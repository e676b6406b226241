"""The cache of answers, and equal requests that share a call."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3

import pytest

from batch_llm import (
    ArtifactFormatError,
    CallableStrategy,
    CallOutcome,
    LLMCallPool,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProcessorConfig,
    ResponseCache,
    RetryConfig,
    inspect,
    process_prompts,
    process_stream,
    run,
    stream,
)
from batch_llm.testing import FakeStrategy, SimulatedProvider

from ..helpers import Echo, Scripted, until

PROMPTS = [f"prompt {number}" for number in range(50)]


def numbered():
    """Answers every call otherwise."""
    numbers = itertools.count()
    return Scripted(lambda prompt, attempt: f"{prompt} {next(numbers)}")


async def test_answers_are_kept_across_runs(tmp_path):
    cache, strategy = tmp_path / "cache.db", numbered()
    first = await process_prompts(strategy, PROMPTS, cache=cache)
    again = await process_prompts(strategy, [*PROMPTS, "new"], cache=cache)
    assert len(strategy.calls) == 51
    assert again.stats.replayed == 50
    assert [result.reused for result in again.in_input_order()] == ["cache"] * 50 + [None]
    assert again.in_input_order().outputs()[:50] == first.in_input_order().outputs()
    assert again.total_input_tokens == 510
    assert again.stats.total_input_tokens == 10
    assert cache.stat().st_mode & 0o777 == 0o600


async def test_samples_stay_samples(tmp_path):
    cache, strategy = tmp_path / "cache.db", numbered()
    first = await process_prompts(strategy, ["a"] * 3, cache=cache)
    again = await process_prompts(strategy, ["a"] * 4, cache=cache)
    assert len(set(first.outputs())) == 3
    assert len(set(again.outputs())) == 4
    assert len(strategy.calls) == 4


async def test_what_is_no_answer_is_not_kept(tmp_path):
    cache = tmp_path / "cache.db"

    async def answer(prompt):
        if prompt == "fails":
            raise ValueError("no")
        return CallOutcome(prompt, {}, {"finish_reason": prompt})

    reasons = ["fails", "length", "content_filter", "refusal", "stop", "tool_calls"]
    config = ProcessorConfig(retry=RetryConfig(max_attempts=1), concurrency=2)
    for _ in range(2):
        batch = await process_prompts(answer, reasons, cache=cache, config=config)
    assert [result.reused for result in batch.in_input_order()] == [None] * 4 + ["cache"] * 2


async def test_answers_grow_old(tmp_path):
    path, strategy = tmp_path / "cache.db", numbered()
    await process_prompts(strategy, PROMPTS, cache=path)
    batch = await process_prompts(strategy, PROMPTS, cache=ResponseCache(path, ttl_seconds=3600))
    assert batch.stats.replayed == 50
    database = sqlite3.connect(path)
    database.execute("UPDATE answers SET made_at = made_at - 7200 WHERE id <= 20")
    database.commit()
    database.close()
    batch = await process_prompts(strategy, PROMPTS, cache=ResponseCache(path, ttl_seconds=3600))
    assert batch.stats.replayed == 30


async def test_a_cache_has_a_size(tmp_path):
    path = tmp_path / "cache.db"
    strategy = FakeStrategy("x" * 1000)
    await process_prompts(strategy, map(str, range(200)), cache=ResponseCache(path, max_bytes=50_000))
    database = sqlite3.connect(path)
    (size,) = database.execute("SELECT sum(length(body)) FROM answers").fetchone()
    database.close()
    assert 20_000 < size <= 50_000
    # What was used last is there.
    batch = await process_prompts(strategy, ["199", "0"], cache=path)
    assert {result.item_id: result.reused for result in batch} == {"item_0": "cache", "item_1": None}


@pytest.mark.parametrize("kind", ["cache", "store"])
def test_a_stream_that_is_over_has_its_file_closed(tmp_path, kind):
    over = stream(Echo(), PROMPTS, **{kind: tmp_path / "it.db"})
    assert len(list(over)) == 50
    # The last connection to close it removes the files beside it.
    assert [path.name for path in tmp_path.iterdir()] == ["it.db"]
    over.close()


async def test_cache_and_store_together(tmp_path):
    cache, store, strategy = tmp_path / "cache.db", tmp_path / "store.db", numbered()
    await process_prompts(strategy, PROMPTS, cache=cache)
    batch = await process_prompts(strategy, PROMPTS, cache=cache, store=store)
    assert batch.stats.replayed == 50
    view = inspect(store)
    assert (view.succeeded, view.input_tokens, view.cost) == (50, 0, 0.0), "all there, and nothing paid again"
    batch = await process_prompts(strategy, PROMPTS, cache=cache, store=store)
    assert {result.reused for result in batch} == {"store"}
    assert len(strategy.calls) == 50


async def test_a_run_that_is_over_takes_nothing_from_a_store(tmp_path):
    store, strategy = tmp_path / "a.db", Echo()
    run(strategy, ["a", "b"], store=store)
    processor = ParallelBatchProcessor(store=store)
    await processor.add_work(LLMWorkItem("1", strategy, "a"))
    added = []

    async def add(result):
        if not added:  # joins the run that is on
            added.append(result.item_id)
            await processor.add_work(LLMWorkItem("2", strategy, "b"))

    processor.post_processor = add
    batch = await processor.process_all()
    assert sorted(result.item_id for result in batch) == ["1", "2"]
    await processor.add_work(LLMWorkItem("3", strategy, "b"))  # for the next one
    batch = await processor.process_all()
    assert [(result.item_id, result.reused) for result in batch] == [("3", "store")]
    assert strategy.calls == [("a", 1), ("b", 1)]


async def test_reused_answers_cost_nothing_whoever_calculates(tmp_path):
    from batch_llm import SqliteArtifactStore

    store = SqliteArtifactStore(tmp_path / "a.db", cost_calculator=lambda result: 1.0)
    await process_prompts(Echo(), ["a", "b", "b"], store=store, dedupe=True)
    assert inspect(store.path).cost == 2.0


async def test_a_changed_parameter_is_another_question(tmp_path):
    cache = tmp_path / "cache.db"
    with SimulatedProvider() as provider:
        for temperature, requests in ((0.0, 50), (0, 50), (0.5, 100)):
            strategy = OpenAIStrategy("a", api_key="none", base_url=provider.base_url, temperature=temperature)
            await process_prompts(strategy, PROMPTS, cache=cache)
            assert provider.stats.requests == requests


async def test_a_store_is_no_cache(tmp_path):
    store = tmp_path / "a.db"
    run(Echo(), ["a"], store=store)
    with pytest.raises(ArtifactFormatError, match="not a cache"):
        await process_prompts(Echo(), ["a"], cache=store)
    for options in ({"ttl_seconds": 0}, {"max_bytes": -1}, {"ttl_seconds": "1"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ResponseCache(store, **options)


# Equal requests


async def test_equal_requests_share_a_call(tmp_path):
    strategy = numbered()
    prompts = [("1", "a", None), ("2", "b"), ("3", "a"), ("4", "b"), ("5", "a")]
    batch = await process_prompts(strategy, prompts, dedupe=True, concurrency=1)
    assert len(strategy.calls) == 2
    assert batch.succeeded == batch.stats.succeeded == batch.stats.total == 5
    assert batch.stats.replayed == 3
    assert batch.stats.total_input_tokens == 20
    outputs = {result.item_id: result.output for result in batch}
    assert outputs["1"] == outputs["3"] == outputs["5"]
    assert outputs["2"] == outputs["4"] != outputs["1"]
    assert {result.item_id for result in batch if result.reused == "duplicate"} == {"3", "4", "5"}
    assert batch.results[0].token_usage is not batch.results[1].token_usage


async def test_without_it_they_do_not():
    strategy = numbered()
    await process_prompts(strategy, ["a"] * 5)
    assert len(strategy.calls) == 5


async def test_samples_are_asked_for_by_number():
    strategy = numbered()
    prompts = [{"prompt": prompt, "sample": n} for prompt in "ab" for n in range(3)] * 2
    batch = await process_prompts(strategy, prompts, dedupe=True)
    assert len(strategy.calls) == 6
    assert len(set(batch.outputs())) == 6
    with pytest.raises(ValueError, match="sample"):
        LLMWorkItem("1", strategy, "a", sample="x")


async def test_contexts_and_ids_are_their_own():
    contexts = [object(), object()]
    batch = await process_prompts(Echo(), [("x", "a", contexts[0]), ("y", "a", contexts[1])], dedupe=True)
    assert {result.item_id: result.context for result in batch} == dict(zip("xy", contexts, strict=True))


async def test_failures_are_shared():
    strategy = Scripted(lambda prompt, attempt: ValueError("no"))
    config = ProcessorConfig(retry=RetryConfig(max_attempts=1))
    batch = await process_prompts(strategy, ["a"] * 4, dedupe=True, config=config)
    assert (batch.failed, len(strategy.calls)) == (4, 1)


@pytest.mark.parametrize("ordered", [False, True])
async def test_shared_in_a_stream(ordered):
    strategy = Echo(0.001)
    prompts = (str(number % 100) for number in range(5000))
    results = [r async for r in process_stream(strategy, prompts, dedupe=True, ordered=ordered, concurrency=7)]
    assert len(results) == 5000
    assert len(strategy.calls) == 100
    assert all(result.output == str(result.submission_index % 100) for result in results)


async def test_shared_by_items_that_join():
    strategy = Echo(0.01)
    processor = ParallelBatchProcessor(max_workers=2, dedupe=True)
    await processor.start()
    for number in range(20):
        await processor.add_work(LLMWorkItem(str(number), strategy, f"prompt {number % 4}"))
    await processor.finish()
    results = [result async for result in processor.results()]
    assert sorted(result.submission_index for result in results) == list(range(20))
    assert all(result.item_id == str(result.submission_index) for result in results)
    assert len(strategy.calls) == 4


async def test_shared_in_a_pool():
    strategy = Echo(0.01)
    async with LLMCallPool(strategy, dedupe=True) as pool:
        answers = await asyncio.gather(*(pool.submit(f"prompt {number % 3}") for number in range(30)))
        assert answers == [f"prompt {number % 3}" for number in range(30)]
        assert len(strategy.calls) == 3


async def test_a_broken_off_run_answers_everybody():
    asked = []

    async def waits(prompt):
        asked.append(prompt)
        await asyncio.sleep(1000)

    processor = ParallelBatchProcessor(max_workers=2, dedupe=True)
    for number in range(10):
        await processor.add_work(LLMWorkItem(str(number), CallableStrategy(waits), f"prompt {number % 2}"))
    running = asyncio.ensure_future(processor.process_all())
    await until(lambda: len(asked) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    results = processor.partial_result().results
    assert sorted(result.submission_index for result in results) == list(range(10))
    assert all(result.error.startswith("CancelledError") for result in results)


async def test_a_cancelled_call_is_not_shared_by_later_ones(tmp_path):
    strategy = Echo(0.05)
    stream = process_stream(strategy, [("one", "a"), ("two", "a"), ("three", "b")], dedupe=True, concurrency=1)
    waiting = asyncio.ensure_future(anext(stream))
    for _ in range(1000):
        if strategy.calls and stream.cancel("one"):
            break
        await asyncio.sleep(0.001)
    results = [await waiting, *[result async for result in stream]]
    categories = {result.item_id: result.error_category for result in results}
    assert categories["one"] == "cancelled"
    assert categories["three"] is None


async def test_shared_and_stored(tmp_path):
    store, strategy = tmp_path / "a.db", numbered()
    await process_prompts(strategy, ["a", "a", "b"], dedupe=True, store=store)
    assert (inspect(store).succeeded, len(strategy.calls)) == (3, 2)
    assert inspect(store).input_tokens == 20
    batch = await process_prompts(strategy, ["a", "b", "a", "a"], dedupe=True, store=store)
    assert len(strategy.calls) == 2
    assert batch.stats.replayed == 4
