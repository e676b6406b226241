"""What a run that ended early did not get to: a state of its own, counted apart, with a result for each."""

from __future__ import annotations

import asyncio
import threading

import pytest

from batch_llm import (
    BatchResult,
    GuardrailConfig,
    LLMWorkItem,
    MetricsObserver,
    ParallelBatchProcessor,
    ProcessorConfig,
    RetryConfig,
    process_prompts,
    process_stream,
    run,
    stream,
)

from ..helpers import Echo, Scripted, until
from ..served import answer, serve


def limited(**options):
    return ProcessorConfig(concurrency=2, guardrails=GuardrailConfig(**options), retry=RetryConfig(max_attempts=1))


PROMPTS = [f"{number}" for number in range(2000)]


def whole(batch):
    """The sums, after a look whether each prompt has one result in its place."""
    assert batch.total_items == 2000 == batch.succeeded + batch.failed + batch.not_sent
    assert (len(batch.successes), len(batch.failures), len(batch.unsent)) == (
        batch.succeeded,
        batch.failed,
        batch.not_sent,
    )
    assert sorted(result.submission_index for result in batch.results) == list(range(2000))
    assert {result.item_id for result in batch.results} == {f"item_{number}" for number in range(2000)}
    stats = batch.stats
    assert (stats.total, stats.processed) == (2000, 2000)
    assert (stats.succeeded, stats.failed, stats.not_sent) == (batch.succeeded, batch.failed, batch.not_sent)
    assert sum(stats.error_counts.values()) == batch.failed
    return batch.succeeded, batch.failed, batch.not_sent


async def test_a_deadline():
    batch = await process_prompts(Echo(0.05), PROMPTS, config=limited(batch_timeout=0.3))
    succeeded, failed, not_sent = whole(batch)
    assert succeeded > 0
    assert failed <= 2
    assert not_sent > 1900
    assert {result.error_category for result in batch.unsent} == {"batch_deadline_exceeded"}


@pytest.mark.parametrize("preserve_order", [False, True])
async def test_an_error_that_ends_all(preserve_order):
    strategy = Scripted(lambda prompt, attempt: ConnectionError("gone") if prompt == "5" else prompt)
    config = limited(abort_on_error_categories=frozenset({"connection_error"}))
    batch = await process_prompts(strategy, PROMPTS, config=config, preserve_order=preserve_order)
    assert whole(batch)[1] == 1
    assert [result.error_category for result in batch.failures] == ["connection_error"]
    if preserve_order:
        assert [result.submission_index for result in batch.results] == list(range(2000))


def test_without_async():
    strategy = Scripted(lambda prompt, attempt: ConnectionError("gone") if prompt == "5" else prompt)
    config = limited(abort_on_error_categories=frozenset({"connection_error"}))
    whole(run(strategy, PROMPTS, config=config))


def test_a_native_strategy():
    def reply(body, number):
        return answer("chat") if number < 20 else (401, {"error": {"message": "no"}}, {})

    with serve(reply) as served:
        config = limited(abort_on_error_categories=frozenset({"authentication"}))
        batch = run(served.strategy(), PROMPTS, config=config)
        sent = len(served.bodies)
    assert whole(batch)[0] == 20
    assert sum(result.attempts for result in batch.results) == sent


@pytest.mark.parametrize("ordered", [False, True])
async def test_streams(ordered):
    """Those of a list are all given out; however many there are, few wait."""
    results = process_stream(Echo(0.01), PROMPTS, config=limited(batch_timeout=0.2), ordered=ordered)
    got = [result async for result in results]
    assert len(got) == 2000
    assert sum(result.not_sent for result in got) == results.stats.not_sent > 1800
    if ordered:
        assert [result.submission_index for result in got] == list(range(2000))


async def test_a_generator_is_read_no_further():
    read = []

    def prompts():
        for prompt in PROMPTS:
            read.append(prompt)
            yield prompt

    batch = await process_prompts(Echo(0.05), prompts(), config=limited(batch_timeout=0.2))
    assert batch.total_items == len(read) < 500
    assert batch.not_sent > 0


async def test_an_interrupt_of_the_program_itself():
    results = process_stream(Echo(0.05), PROMPTS, concurrency=5)
    got = []
    async for result in results:
        got.append(result)
        if len(got) == 10:
            results.interrupt()
    assert len(got) == 2000
    assert results.termination.kind == "interrupted"
    assert 1980 <= sum(result.not_sent for result in got) <= 1990


def test_a_second_interrupt_reads_no_further():
    class Slow(list):
        def __iter__(self):
            for prompt in super().__iter__():
                if int(prompt) >= 500:
                    threading.Event().wait(0.05)
                yield prompt

    results = stream(Echo(0.05), Slow(PROMPTS), concurrency=5)
    got = []
    for result in results:
        got.append(result)
        if len(got) == 10:
            results.interrupt()
        if len(got) == 520:
            results.interrupt()
    assert 520 <= len(got) < 2000


async def test_what_a_store_has_is_found_after_an_early_end(tmp_path):
    store = tmp_path / "run.db"
    named = [(prompt, prompt) for prompt in PROMPTS]
    await process_prompts(Echo(0.05), named[1000:1010], store=store)
    batch = await process_prompts(Echo(0.05), named, config=limited(batch_timeout=0.2), store=store)
    assert batch.total_items == 2000
    assert sum(result.reused == "store" for result in batch.results) == 10


async def test_an_attempt_that_was_on_has_failed():
    processor = ParallelBatchProcessor(config=limited(batch_timeout=0.1, abort_mode="cancel_active"))
    for number in range(5):
        await processor.add_work(LLMWorkItem(f"{number}", Echo(30), "x"))
    batch = await processor.process_all()
    assert (batch.succeeded, batch.failed, batch.not_sent) == (0, 2, 3)
    assert (await processor.get_stats())["not_sent"] == 3


async def test_a_cancelled_run():
    processor = ParallelBatchProcessor(config=limited())
    strategy = Echo(1000)
    for number in range(5):
        await processor.add_work(LLMWorkItem(f"{number}", strategy, "x"))
    running = asyncio.ensure_future(processor.process_all())
    await until(lambda: strategy.active == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    batch = processor.partial_result()
    assert (batch.failed, batch.not_sent) == (2, 3)


async def test_an_item_that_was_cancelled_by_name_is_no_such_one():
    results = process_stream(Echo(0.05), ["x"] * 5, concurrency=1)
    got = [await results.__anext__()]
    assert results.cancel("item_4")
    got += [result async for result in results]
    (cancelled,) = [result for result in got if not result.success]
    assert (cancelled.error_category, cancelled.not_sent) == ("cancelled", False)


async def test_it_is_told_apart_everywhere(tmp_path):
    observer = MetricsObserver()
    strategy = Scripted(lambda prompt, attempt: ConnectionError("gone") if prompt == "5" else prompt)
    config = limited(abort_on_error_categories=frozenset({"connection_error"}))
    seen = []
    batch = await process_prompts(strategy, PROMPTS, config=config, observers=[observer], post_processor=seen.append)
    succeeded, failed, not_sent = whole(batch)
    assert len(seen) == 2000
    metrics = await observer.get_metrics()
    assert (metrics["items_failed"], metrics["items_not_sent"]) == (failed, not_sent)
    summary = batch.summary()
    assert f"{succeeded:,} succeeded" in summary
    assert f"1 failed, {not_sent:,} not sent" in summary
    assert "batch_aborted" not in summary
    assert "not sent" in batch._repr_html_()
    rows = batch.to_records()
    assert sum(row["not_sent"] for row in rows) == not_sent
    assert "not_sent" not in BatchResult(batch.successes).to_records()[0]
    again = BatchResult.from_json(batch.to_json())
    assert (again.failed, again.not_sent, again.stats.not_sent) == (failed, not_sent, not_sent)


async def test_what_is_wrong_with_the_rest_of_a_list_matters_no_more():
    results = process_stream(Echo(0.05), [*PROMPTS[:300], 3, "x"], concurrency=5)
    got = []
    async for result in results:
        got.append(result)
        if len(got) == 10:
            results.interrupt()
    assert len(got) == 300
    assert results.termination.kind == "interrupted"
