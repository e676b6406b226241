"""Middlewares, observers, metrics and progress."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from batch_llm import (
    BaseMiddleware,
    BaseObserver,
    LLMWorkItem,
    MetricsObserver,
    ParallelBatchProcessor,
    ProcessingEvent,
    RetryConfig,
    WorkItemResult,
)
from batch_llm._pipeline.observer_queue import TIMEOUTS_UNTIL_SILENCE

from ..helpers import Echo, Scripted, quick, run, until


class Tagger(BaseMiddleware):
    def __init__(self, name, log):
        self.name, self.log = name, log

    async def before_process(self, work_item):
        self.log.append(f"{self.name}_before")
        work_item.prompt = f"{self.name}:{work_item.prompt}"
        return work_item

    async def after_process(self, result):
        self.log.append(f"{self.name}_after")
        return result


class Events(BaseObserver):
    def __init__(self):
        self.events = []

    async def on_event(self, event, data):
        await asyncio.sleep(0)
        self.events.append((event.name, dict(data)))
        data.clear()  # each observer has a dict of its own

    def names(self, item_id):
        return [name for name, data in self.events if data.get("item_id") == item_id]


async def test_order_of_middlewares_and_fresh_copies_per_attempt():
    log = []
    strategy = Scripted(lambda prompt, attempt: RuntimeError("x") if attempt == 1 else prompt)
    batch, _ = await run(strategy, ["p"], middlewares=[Tagger("first", log), Tagger("second", log)])
    assert batch.results[0].output == "second:first:p"  # not twice, though there were two attempts
    assert log == ["first_before", "second_before"] * 2 + ["second_after", "first_after"]


async def test_skipping():
    class Skip(BaseMiddleware):
        async def before_process(self, work_item):
            return None if work_item.prompt == "no" else work_item

    strategy, events = Echo(), Events()
    batch, _ = await run(strategy, ["no", "yes"], middlewares=[Skip()], observers=[events])
    skipped = next(result for result in batch.results if not result.success)
    assert (skipped.error, skipped.item_id, skipped.context) == ("Skipped by middleware", "item-0", 0)
    assert strategy.calls == [("yes", 1)]
    assert events.names("item-0") == ["ITEM_STARTED", "ITEM_FAILED"]


async def test_a_failing_before_process_fails_the_item_and_nothing_is_sent():
    class Redact(BaseMiddleware):
        async def before_process(self, work_item):
            raise RuntimeError("redaction failed")

    strategy = Echo()
    batch, _ = await run(strategy, ["secret"], middlewares=[Redact()])
    assert batch.results[0].error == "RuntimeError: redaction failed"
    assert strategy.calls == []


async def test_a_replaced_item_brings_its_own_strategy():
    class Other(Echo):
        prepared = cleaned = 0

        async def prepare(self):
            self.prepared += 1

        async def cleanup(self):
            self.cleaned += 1

    other, original = Other(), Echo()

    class Replace(BaseMiddleware):
        async def before_process(self, work_item):
            return LLMWorkItem("replaced", other, "new prompt", "new context")

    batch, _ = await run(original, ["old"], middlewares=[Replace()])
    (result,) = batch.results
    assert (result.item_id, result.output, result.context) == ("replaced", "new prompt", "new context")
    assert (other.prepared, other.cleaned, original.calls) == (1, 1, [])


@pytest.mark.parametrize("returned", [None, "not a result", 7])
async def test_after_process_that_returns_nonsense_leaves_the_result(returned):
    class Odd(BaseMiddleware):
        async def after_process(self, result):
            return returned

    batch, _ = await run(Echo(), ["p"], middlewares=[Odd()])
    assert batch.results[0].output == "p"


async def test_after_process_may_fail_or_turn_a_success_into_a_failure():
    class Fails(BaseMiddleware):
        async def after_process(self, result):
            raise RuntimeError("bug")

    class Judge(BaseMiddleware):
        async def after_process(self, result):
            result.success = False
            return result

    batch, _ = await run(Echo(), ["p"], middlewares=[Fails()])
    assert batch.succeeded == 1
    batch, processor = await run(Echo(), ["p"], middlewares=[Judge()])
    assert batch.failed == 1
    assert (await processor.get_stats())["failed"] == 1


async def test_on_error_of_middlewares_is_asked_once_until_one_helps():
    asked = []

    class Silent(BaseMiddleware):
        async def on_error(self, work_item, error):
            asked.append(("silent", str(error)))
            raise LookupError("no idea")

    class Helps(BaseMiddleware):
        async def on_error(self, work_item, error):
            asked.append(("helps", work_item.item_id))
            return WorkItemResult(work_item.item_id, True, output="fallback")

    events = Events()
    strategy = Scripted(lambda prompt, attempt: RuntimeError("down"))
    batch, _ = await run(strategy, ["p"], middlewares=[Silent(), Helps(), Silent()], observers=[events])
    assert batch.results[0].output == "fallback"
    assert asked == [("silent", "down"), ("helps", "item-0")]
    assert [name for name in events.names("item-0") if name != "ITEM_STARTED"] == ["ITEM_COMPLETED"]


async def test_events_arrive_in_full_in_order_and_alike_for_all():
    first, second = Events(), Events()
    strategy = Scripted(
        lambda prompt, attempt: (
            ValueError("final") if prompt == "bad" else RuntimeError("x") if attempt == 1 else prompt
        )
    )
    await run(strategy, ["good", "bad"], quick(max_workers=2), observers=[first, second])
    assert [name for name, _ in first.events] == [name for name, _ in second.events]
    names = [name for name, _ in first.events]
    assert names[:3] == ["BATCH_STARTED", "WORKER_STARTED", "WORKER_STARTED"]
    assert names[-3:] == ["WORKER_STOPPED", "WORKER_STOPPED", "BATCH_COMPLETED"]
    assert first.names("item-0") == ["ITEM_STARTED", "ITEM_STARTED", "ITEM_COMPLETED"]
    assert first.names("item-1") == ["ITEM_STARTED", "ITEM_FAILED"]
    failed = next(data for name, data in first.events if name == "ITEM_FAILED")
    assert failed == {"item_id": "item-1", "error_type": "ValueError", "attempt": 1}
    completed = next(data for name, data in first.events if name == "ITEM_COMPLETED")
    assert completed["tokens"] == 15
    assert completed["attempt"] == 2
    assert completed["duration"] >= 0


@pytest.mark.parametrize("end", ["exhausted", "prepare", "skipped", "limited"])
async def test_every_item_has_exactly_one_terminal_event(end):
    class Unprepared(Echo):
        async def prepare(self):
            raise RuntimeError("no")

    class Skip(BaseMiddleware):
        async def before_process(self, work_item):
            return None

    events = Events()
    strategy = (
        Unprepared()
        if end == "prepare"
        else Scripted(lambda p, a: RuntimeError("429") if end == "limited" else RuntimeError("x"))
    )
    config = quick(retry=RetryConfig(2, 0.001, max_rate_limit_retries=1))
    await run(strategy, ["p"] * 5, config, observers=[events], middlewares=[Skip()] if end == "skipped" else [])
    for number in range(5):
        terminal = [name for name in events.names(f"item-{number}") if name in ("ITEM_FAILED", "ITEM_COMPLETED")]
        assert terminal == ["ITEM_FAILED"]


async def test_slow_and_failing_observers_do_not_hold_up_items(monkeypatch, caplog):
    monkeypatch.setattr("batch_llm.parallel.OBSERVER_CALLBACK_TIMEOUT", 0.02)

    class Slow(BaseObserver):
        calls = 0

        async def on_event(self, event, data):
            self.calls += 1
            await asyncio.sleep(1000)

    class Fails(BaseObserver):
        async def on_event(self, event, data):
            raise RuntimeError("observer bug")

    slow, good = Slow(), Events()
    batch, _ = await run(Echo(), ["p"] * 50, observers=[slow, Fails(), good])
    assert batch.succeeded == 50
    assert slow.calls == TIMEOUTS_UNTIL_SILENCE
    assert sum(name == "ITEM_COMPLETED" for name, _ in good.events) == 50
    assert any("receives no more events" in record.message for record in caplog.records)


async def test_metrics_are_exact_and_export_word_for_word():
    metrics = MetricsObserver()
    strategy = Scripted(lambda prompt, attempt: ValueError("x") if prompt == "bad" else prompt)
    await run(strategy, ["good", "good", "bad"], observers=[metrics])
    snapshot = await metrics.get_metrics()
    assert await metrics.export_dict() == snapshot
    assert (snapshot["items_processed"], snapshot["items_succeeded"], snapshot["items_failed"]) == (3, 2, 1)
    assert snapshot["error_counts"] == {"ValueError": 1}
    assert len(snapshot["processing_times"]) == 2
    snapshot["processing_times"].clear()
    snapshot["error_counts"].clear()
    assert len(metrics.metrics["processing_times"]) == 2
    exported = json.loads(await metrics.export_json())
    assert exported["processing_times_count"] == 2
    assert "processing_times" not in exported
    await metrics.on_event(ProcessingEvent.ITEM_FAILED, {"error_type": 'a"b\\c\nd'})
    text = await metrics.export_prometheus()
    assert "# HELP batch_llm_items_processed Total items processed\n# TYPE batch_llm_items_processed counter\n" in text
    assert "batch_llm_items_processed 4\n" in text
    assert 'batch_llm_errors_total{error_type="a\\"b\\\\c\\nd"} 1' in text
    assert text.endswith("\n")
    metrics.reset()
    assert (await metrics.get_metrics())["avg_processing_time"] == 0


async def test_metrics_of_a_long_run_stay_bounded():
    from batch_llm.observers import metrics as module

    metrics = MetricsObserver()
    for _ in range(5 * module.MAX_SAMPLES):
        await metrics.on_event(ProcessingEvent.ITEM_COMPLETED, {"duration": 2.0})
    assert len(metrics.metrics["processing_times"]) <= 2 * module.MAX_SAMPLES
    assert (await metrics.get_metrics())["avg_processing_time"] == 2.0
    assert metrics.metrics["items_processed"] == 5 * module.MAX_SAMPLES


@pytest.mark.parametrize("is_async", [True, False])
async def test_progress_is_called_by_interval_and_at_the_end(is_async):
    calls = []
    if is_async:

        async def progress(completed, total, item_id):
            calls.append((completed, total))

    else:

        def progress(completed, total, item_id):
            calls.append((completed, total))

    await run(Echo(), ["x"], quick(progress_interval=1), progress_callback=progress)
    assert calls == [(1, 1)]
    calls.clear()
    await run(Echo(), ["x"] * 7, quick(progress_interval=3), progress_callback=progress)
    assert calls[-1] == (7, 7)
    assert len(calls) <= 3


class CallableProgress:
    calls = 0

    async def __call__(self, completed, total, item_id):
        self.calls += 1


async def test_an_object_with_an_async_call_is_awaited():
    progress = CallableProgress()
    await run(Echo(), ["x"] * 2, quick(progress_interval=2), progress_callback=progress)
    assert progress.calls == 1


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_slow_progress_callback_neither_holds_up_nor_piles_up(is_async):
    # The first call ends when all items were asked about: with a callback that held them up, never.
    all_asked, told = threading.Event(), []
    active = peak = 0

    def script(prompt, attempt):
        if len(strategy.calls) == 500:
            all_asked.set()
            while active and not is_async:  # its thread must be free when the last call is due
                time.sleep(0.001)
        return prompt

    async def slow_async(completed, total, item_id):
        nonlocal active, peak
        told.append(completed)
        active += 1
        peak = max(peak, active)
        await until(all_asked.is_set)
        active -= 1

    def slow_sync(completed, total, item_id):
        nonlocal active, peak
        told.append(completed)
        active += 1
        peak = max(peak, active)
        all_asked.wait(1000)
        active -= 1

    strategy = Scripted(script)
    callback = slow_async if is_async else slow_sync
    # A thread goes on after its timeout; no other call begins meanwhile.
    config = quick(progress_interval=1, progress_callback_timeout=None if is_async else 0.001)
    batch, _ = await run(strategy, ["x"] * 500, config, progress_callback=callback)
    assert batch.succeeded == 500
    assert peak == 1
    await until(lambda: told[-1] == 500)  # a thread may begin late
    assert len(told) < 20


async def test_a_progress_callback_over_its_time_is_cancelled_with_a_warning(caplog):
    cancelled = []

    async def endless(completed, total, item_id):
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.append(completed)

    config = quick(progress_interval=1, progress_callback_timeout=0.02)
    await run(Echo(), ["x"], config, progress_callback=endless)
    assert cancelled == [1]
    assert any("Progress callback exceeded timeout of" in record.message for record in caplog.records)


async def test_the_last_progress_call_is_not_lost_when_the_context_is_left():
    calls = []

    async def progress(completed, total, item_id):
        await asyncio.sleep(0.02)
        calls.append(completed)

    async with ParallelBatchProcessor(config=quick(progress_interval=10), progress_callback=progress) as processor:
        for number in range(20):
            await processor.add_work(LLMWorkItem(str(number), Echo(), "x"))
        await processor.process_all()
    assert calls[-1] == 20


async def test_a_failing_progress_callback_is_a_warning(caplog):
    def fails(completed, total, item_id):
        raise RuntimeError("progress bug")

    batch, _ = await run(Echo(), ["x"], quick(progress_interval=1), progress_callback=fails)
    assert batch.succeeded == 1
    assert any("Progress callback failed" in record.message for record in caplog.records)


async def test_the_progress_bar_shows_the_count(capsys):
    await run(Scripted(lambda p, a: ValueError("x") if p == "b" else p), "aabaa", progress_bar=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "1 failed" in shown
