"""Running a batch: what goes in comes out, once each, in the promised order."""

from __future__ import annotations

import asyncio
import logging

import pytest

from batch_llm import (
    BatchProcessor,
    BatchResult,
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    WorkItemResult,
)

from ..helpers import USAGE, Echo, Scripted, quick, run


@pytest.mark.parametrize(("items", "workers"), [(0, 5), (1, 1), (1, 20), (7, 3), (200, 20), (1000, 200)])
async def test_every_item_has_one_result(items, workers):
    batch, processor = await run(Echo(), [f"p{n}" for n in range(items)], quick(max_workers=workers))
    assert (batch.total_items, batch.succeeded, batch.failed) == (items, items, 0)
    assert {result.item_id for result in batch.results} == {f"item-{n}" for n in range(items)}
    assert all(result.output == f"p{result.context}" for result in batch.results)
    stats = await processor.get_stats()
    assert stats["processed"] == stats["succeeded"] == stats["total"] == items
    assert stats["total_tokens"] == 15 * items


async def test_one_worker_keeps_the_order_even_when_items_fail_and_wait():
    strategy = Scripted(lambda prompt, attempt: RuntimeError("no") if prompt == "1" and attempt < 3 else prompt)
    batch, _ = await run(strategy, "0123", quick(max_workers=1))
    assert [result.output for result in batch.results] == ["0", "1", "2", "3"]
    assert strategy.calls == [("0", 1), ("1", 1), ("1", 2), ("1", 3), ("2", 1), ("3", 1)]


async def test_a_failing_item_does_not_hold_its_worker_while_it_waits():
    from batch_llm import RetryConfig

    strategy = Scripted(lambda prompt, attempt: RuntimeError("no") if prompt == "bad" and attempt == 1 else prompt)
    config = quick(max_workers=2, retry=RetryConfig(initial_wait=0.2, jitter=False))
    batch, _ = await run(strategy, ["bad", "bad", *["good"] * 20], config)
    assert batch.succeeded == 22
    # With both workers held, no good item could have come before the second attempts.
    assert [result.output for result in batch.results][-2:] == ["bad", "bad"]


async def test_never_more_in_work_than_workers():
    strategy = Echo(0.001)
    await run(strategy, ["x"] * 100, quick(max_workers=7))
    assert strategy.peak == 7


async def test_results_of_a_second_run_are_its_own():
    strategy = Echo()
    first, processor = await run(strategy, ["a", "b"])
    await processor.add_work(LLMWorkItem("later", strategy, "c"))
    second = await processor.process_all()
    assert [result.item_id for result in second.results] == ["later"]
    assert first.total_items == 2
    assert (await processor.get_stats())["total"] == 1


async def test_items_may_join_a_running_batch_from_anywhere():
    strategy = Echo(0.001)
    processor = ParallelBatchProcessor(config=quick(max_workers=2))
    added = 0

    async def more(result):
        nonlocal added
        if added < 20:
            added += 1
            await processor.add_work(LLMWorkItem(f"more-{added}", strategy, "more"))

    processor.post_processor = more
    await processor.add_work(LLMWorkItem("first", strategy, "x"))
    batch = await processor.process_all()
    assert batch.total_items == 21


async def test_a_full_queue_holds_producers_back_and_never_the_run_itself():
    strategy = Echo(0.001)
    processor = ParallelBatchProcessor(config=quick(max_workers=2, max_queue_size=3))
    depth = []

    async def from_within(result):
        # More than fits, from the only places that could make room: waiting here would be for ever.
        if result.item_id.startswith("seed") and result.item_id.count("-") == 1:
            for number in range(5):
                await processor.add_work(LLMWorkItem(f"{result.item_id}-{number}", strategy, "x"))

    processor.post_processor = from_within
    for number in range(10):  # before the run the bound does not apply
        await processor.add_work(LLMWorkItem(f"seed-{number}", strategy, "x"))
    running = asyncio.create_task(processor.process_all())
    await asyncio.sleep(0)
    for number in range(30):
        await processor.add_work(LLMWorkItem(f"outer-{number}", strategy, "x"))
        stats = await processor.get_stats()
        depth.append(stats["total"] - stats["processed"])
    batch = await running
    assert batch.total_items == batch.succeeded == 10 + 50 + 30


async def test_many_producers_at_a_full_queue_all_get_through():
    strategy = Echo(0.0)
    processor = ParallelBatchProcessor(config=quick(max_workers=3, max_queue_size=2))
    await processor.add_work(LLMWorkItem("first", Echo(0.05), "x"))
    running = asyncio.create_task(processor.process_all())
    await asyncio.sleep(0)
    producers = [
        asyncio.create_task(processor.add_work(LLMWorkItem(f"p-{number}", strategy, "x"))) for number in range(200)
    ]
    await asyncio.sleep(0)
    for producer in producers[50:60]:
        producer.cancel()  # some give up while they wait
    await asyncio.gather(*producers, return_exceptions=True)
    batch = await running
    gave_up = sum(producer.cancelled() for producer in producers)
    assert batch.succeeded == 201 - gave_up


async def test_get_stats_is_consistent_at_any_time():
    strategy = Scripted(lambda prompt, attempt: ValueError("odd") if int(prompt) % 2 else prompt)
    processor = ParallelBatchProcessor(config=quick(max_workers=10))
    for number in range(300):
        await processor.add_work(LLMWorkItem(str(number), strategy, str(number)))
    assert (await processor.get_stats())["total"] == 300
    running = asyncio.create_task(processor.process_all())
    polls = 0
    while not running.done():
        stats = await processor.get_stats()
        assert stats["processed"] == stats["succeeded"] + stats["failed"]
        polls += 1
        await asyncio.sleep(0)
    assert polls > 1
    stats = await processor.get_stats()
    assert (stats["succeeded"], stats["failed"], stats["error_counts"]) == (150, 150, {"ValueError": 150})


async def test_contexts_odd_ids_and_unicode_survive():
    contexts = [None, 0, "text", [1, {"a": (2,)}], {"k": object()}]
    looped: dict = {}
    looped["self"] = looped  # a circular reference breaks nothing
    contexts.append(looped)
    strategy = Echo()
    processor = ParallelBatchProcessor(config=quick())
    ids = ["a b", "ünïcödé-✓", "x" * 1000, "\n\t.", "0", "日本語"]
    for item_id, context in zip(ids, contexts, strict=True):
        await processor.add_work(LLMWorkItem(item_id, strategy, f"«{item_id}» 🎉", context))
    batch = await processor.process_all()
    by_id = {result.item_id: result for result in batch.results}
    for item_id, context in zip(ids, contexts, strict=True):
        assert by_id[item_id].context is context
        assert by_id[item_id].output == f"«{item_id}» 🎉"


async def test_duplicate_ids_are_processed_with_one_warning(caplog):
    strategy = Echo()
    processor = ParallelBatchProcessor(config=quick())
    for _ in range(5):
        await processor.add_work(LLMWorkItem("same", strategy, "x"))
    with caplog.at_level(logging.WARNING):
        batch = await processor.process_all()
    assert batch.succeeded == 5
    assert sum("more than once" in record.message for record in caplog.records) == 1


async def test_post_processor_sees_the_very_results_and_cannot_break_anything(caplog):
    seen = []

    def broken(result):
        seen.append(result)
        result.output = result.output.upper()
        raise RuntimeError("post-processor bug")

    batch, processor = await run(Echo(), ["a", "b"], post_processor=broken)
    assert batch.succeeded == 2
    assert {id(result) for result in seen} == {id(result) for result in batch.results}
    assert {result.output for result in batch.results} == {"A", "B"}
    assert (await processor.get_stats())["failed"] == 0


async def test_post_processor_awaits_any_awaitable_and_sees_failures():
    done = []

    def returns_a_task(result):
        async def later():
            await asyncio.sleep(0.001)
            done.append(result.success)

        return asyncio.get_running_loop().create_task(later())

    await run(Scripted(lambda p, a: ValueError("x") if p == "b" else p), "ab", post_processor=returns_a_task)
    assert sorted(done) == [False, True]


async def test_a_hanging_post_processor_is_given_up(monkeypatch):
    monkeypatch.setattr("batch_llm.base.POST_PROCESSOR_EXECUTION_TIMEOUT", 0.02)

    async def hangs(result):
        await asyncio.sleep(999)

    batch, _ = await run(Echo(), ["a", "b"], post_processor=hangs)
    assert batch.succeeded == 2


async def test_a_second_process_all_at_the_same_time_is_refused():
    processor = ParallelBatchProcessor(config=quick())
    await processor.add_work(LLMWorkItem("a", Echo(0.01), "x"))
    running = asyncio.create_task(processor.process_all())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already running"):
        await processor.process_all()
    assert (await running).succeeded == 1


async def test_dry_run_calls_nothing_of_the_strategy():
    class Untouchable(Echo):
        async def prepare(self):
            raise AssertionError("prepared in a dry run")

        async def cleanup(self):
            raise AssertionError("cleaned up in a dry run")

    strategy = Untouchable()
    batch, _ = await run(strategy, ["hello world"], quick(dry_run=True))
    (result,) = batch.results
    assert result.output == "[DRY-RUN] Mock output for prompt: hello world..."
    assert result.token_usage == {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    assert strategy.calls == []


def test_batch_result_counts_whatever_it_is_given():
    results = [
        WorkItemResult("a", True, token_usage={"input_tokens": 5000, "cached_input_tokens": 4500}),
        WorkItemResult("b", False, token_usage={"output_tokens": 7, "input_tokens": None}),
        WorkItemResult("c", True, token_usage=None),
    ]
    batch = BatchResult(results, total_items=99, succeeded=99)
    assert (batch.total_items, batch.succeeded, batch.failed) == (3, 2, 1)
    assert (batch.total_input_tokens, batch.total_output_tokens, batch.total_cached_tokens) == (5000, 7, 4500)
    assert batch.cache_hit_rate() == 90.0
    assert batch.effective_input_tokens() == 950
    assert BatchResult([]).cache_hit_rate() == 0.0


async def test_a_subclass_of_the_base_runs_its_own_process_item():
    class Upper(BatchProcessor):
        async def _worker(self, worker_id):
            raise AssertionError("the engine has workers of its own")

        async def _process_item(self, work_item):
            if work_item.prompt == "bad":
                raise ValueError("bad prompt")
            return WorkItemResult(work_item.item_id, True, work_item.prompt.upper())

    with pytest.raises(TypeError):
        BatchProcessor()  # type: ignore[abstract]
    processor = Upper(max_workers=2)
    await processor.add_work(LLMWorkItem("a", Echo(), "x"))
    await processor.add_work(LLMWorkItem("b", Echo(), "bad"))
    batch = await processor.process_all()
    assert {result.item_id: (result.output, result.error) for result in batch.results} == {
        "a": ("X", None),
        "b": (None, "ValueError: bad prompt"),
    }


async def test_token_usage_of_the_first_attempt_is_the_very_dict():
    given = dict(USAGE)

    class Fixed(Echo):
        async def execute(self, prompt, attempt, timeout, state=None):
            return prompt, given

    batch, _ = await run(Fixed())
    assert batch.results[0].token_usage is given
    assert batch.results[0].attempts == 1


async def test_the_callers_config_is_not_touched():
    config = ProcessorConfig(max_workers=3)
    processor = ParallelBatchProcessor(max_workers=9, rate_limit_cooldown=7.0, config=config)
    assert config.max_workers == 3
    assert config.rate_limit.cooldown_seconds == 300.0
    assert processor.config.max_workers == processor.max_workers == 9
    assert processor.config.rate_limit.cooldown_seconds == 7.0
    assert ParallelBatchProcessor(config).config.max_workers == 3  # the config in the first place


async def test_a_strategy_may_accept_other_prompts_and_return_metadata():
    class Adding(LLMCallStrategy[int]):
        def check_prompt(self, prompt):
            if not isinstance(prompt, list):
                raise TypeError("give a list of numbers")

        async def execute(self, prompt, attempt, timeout, state=None):
            return sum(prompt), {"input_tokens": len(prompt)}, {"how": "added"}

    batch, processor = await run(Adding(), [[1, 2, 3]])
    assert batch.results[0].output == 6
    assert batch.results[0].metadata == {"how": "added"}
    assert batch.results[0].tool_calls == []
    with pytest.raises(TypeError, match="item 'x': give a list of numbers"):
        await processor.add_work(LLMWorkItem("x", Adding(), {"a": 1}))


async def test_every_item_of_a_known_strategy_is_still_looked_at():
    strategy = Echo()
    processor = ParallelBatchProcessor(config=quick(max_prompt_length=5))
    await processor.add_work(LLMWorkItem("short", strategy, "12345"))
    with pytest.raises(ValueError, match="'long': prompt has 6 characters"):
        await processor.add_work(LLMWorkItem("long", strategy, "123456"))
    processor = ParallelBatchProcessor(config=quick())
    await processor.add_work(LLMWorkItem("good", strategy, "x"))
    with pytest.raises(TypeError, match="'bad': prompt must be a string, not int"):
        await processor.add_work(LLMWorkItem("bad", strategy, 7))  # type: ignore[arg-type]
    assert (await processor.process_all()).succeeded == 1
