"""Runs that end early, are steered, or are many: ``process_prompts()`` and ``process_stream()``."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import pytest

from batch_llm import (
    GuardrailConfig,
    ProcessorConfig,
    RetryConfig,
    process_prompts,
    process_stream,
)
from batch_llm.testing import FakeRateLimitError, FakeStrategy

from ..helpers import Deaf, Echo, quick, until
from .common import Lively, tasks_left

# Early ends


async def test_leaving_the_loop_early_cancels_and_cleans_up():
    strategy = Lively(30.0)
    strategy.delay = 0.0

    class Slow(Lively):
        cancelled = 0

        async def execute(self, prompt, attempt, timeout, state=None):
            try:
                await asyncio.sleep(0 if prompt == "0" else 30)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return prompt, {}

    slow = Slow()
    async with process_stream(slow, map(str, range(1000)), concurrency=5) as stream:
        async for _ in stream:
            break
    assert slow.cancelled in (4, 5)
    assert slow.life == ["prepare", "cleanup"]
    assert tasks_left() == []
    assert [result async for result in stream] == []


async def test_a_stream_that_is_forgotten_is_cancelled():
    slow = Lively(30.0)
    stream = process_stream(slow, map(str, range(1000)), concurrency=5)
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: slow.active)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert slow.life == ["prepare", "cleanup"]

    async for _ in process_stream(Lively(0.001), map(str, range(1000)), concurrency=5):
        break
    gc.collect()
    await until(lambda: tasks_left() == [])


async def test_an_exception_in_the_body_stays_the_primary_one():
    async def body():
        async with process_stream(Lively(0.001), map(str, range(1000))) as stream:
            async for _ in stream:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await body()
    assert tasks_left() == []


async def test_cancelling_whoever_waits_winds_everything_up():
    slow = Lively(30.0)
    waiting = asyncio.ensure_future(process_prompts(slow, ["a"] * 10))
    await until(lambda: slow.active)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slow.life == ["prepare", "cleanup"]
    assert tasks_left() == []


async def test_a_deaf_strategy_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr("batch_llm.base.WORKER_CANCELLATION_TIMEOUT", 0.05)
    deaf = Deaf()
    stream = process_stream(deaf, ["a"])
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: deaf.active)
    waiting.cancel()
    await asyncio.wait({waiting})
    deaf.released.set()
    await until(lambda: tasks_left() == [])


async def test_guardrails_end_the_input_and_all_that_was_accepted_has_a_result():
    def endless():
        number = 0
        while True:
            yield str(number)
            number += 1

    config = ProcessorConfig(concurrency=2, guardrails=GuardrailConfig(batch_timeout=0.05))
    batch = await process_prompts(Echo(0.01), endless(), config=config)
    assert batch.termination.kind == "batch_timeout"
    assert batch.total_items == batch.stats.total
    assert batch.not_sent == len(batch.unsent) > 0
    assert {result.error_category for result in batch.unsent} == {"batch_deadline_exceeded"}


async def test_a_deadline_ends_a_run_whose_source_says_nothing():
    async def silent():
        yield "a"
        await asyncio.sleep(30)
        yield "b"

    config = ProcessorConfig(guardrails=GuardrailConfig(batch_timeout=0.05))
    batch = await process_prompts(Echo(), silent(), config=config)
    assert (batch.termination.kind, batch.succeeded, batch.total_items) == ("batch_timeout", 1, 1)
    assert tasks_left() == []


# Steering


async def test_pause_resume_and_width():
    strategy = Echo(0.001)
    stream = process_stream(strategy, map(str, range(10_000)), concurrency=1)
    with pytest.raises(RuntimeError, match="has not started"):
        stream.pause()
    async with stream:
        await anext(stream)
        stream.pause()
        before = len(strategy.calls)
        await asyncio.sleep(0.05)
        assert len(strategy.calls) <= before + 1  # one may have been about to begin
        stream.set_concurrency(9)
        stream.resume()
        async for result in stream:
            if result.submission_index == 500:
                break
        assert strategy.peak == 9
        with pytest.raises(ValueError, match="positive integer"):
            stream.set_concurrency(0)
        assert stream.stats.succeeded >= 500


async def test_single_items_are_cancelled():
    begun = asyncio.Event()

    async def waits(prompt):
        begun.set()
        await asyncio.sleep(30 if prompt == "slow" else 0.001)
        return prompt

    prompts = [("one", "slow"), ("two", "quick"), ("three", "slow"), ("four", "quick")]
    stream = process_stream(waits, prompts, concurrency=1)
    waiting = asyncio.ensure_future(anext(stream))
    await begun.wait()
    for _ in range(1000):  # it may not have been read yet
        if stream.cancel("three"):  # not started
            break
        await asyncio.sleep(0.01)
    assert stream.cancel("one")  # on
    assert not stream.cancel("five")
    with pytest.raises(RuntimeError, match="one task at a time"):
        await anext(stream)
    first = await waiting
    results = {first.item_id: first, **{result.item_id: result async for result in stream}}
    assert sorted(results) == ["four", "one", "three", "two"]
    assert results["one"].error_category == results["three"].error_category == "cancelled"
    assert results["two"].success
    assert results["four"].success
    assert results["one"].attempts == 1
    assert results["three"].attempts == 0


async def test_interrupting_lets_what_is_on_end_and_yields_everything():
    strategy = Echo(0.05)
    stream = process_stream(strategy, map(str, range(100_000)), concurrency=5)
    results = [await anext(stream)]
    stream.interrupt()
    results += [result async for result in stream]
    assert stream.termination.kind == "interrupted"
    assert sum(result.success for result in results) == len(strategy.calls)
    assert {result.error_category for result in results if not result.success} == {"interrupted"}
    assert len(results) == stream.stats.total


async def test_interrupting_twice_cancels_at_once(caplog):
    caplog.set_level(logging.WARNING)
    strategy = Echo(1000)
    stream = process_stream(strategy, map(str, range(100)), concurrency=5)
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: strategy.active == 5)
    stream.interrupt()
    await asyncio.sleep(0.02)
    assert not stream._live.is_over
    stream.interrupt()
    results = [await waiting] + [result async for result in stream]
    assert {result.error_category for result in results} == {"interrupted"}
    assert "Interrupted: waiting up to 5 s for 5 requests in flight; interrupt again to stop at once" in caplog.text


async def test_the_grace_after_an_interrupt_ends():
    strategy = Echo(1000)
    stream = process_stream(strategy, ["a"], config=ProcessorConfig(interrupt_grace_seconds=0.02))
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: strategy.active)
    stream.interrupt()
    assert (await waiting).error_category == "interrupted"


# Timing, and everything at once


async def test_timing_says_where_the_time_went():
    strategy = FakeStrategy("x", latency=0.02, failure_schedule=[ConnectionError("reset"), FakeRateLimitError()])
    config = ProcessorConfig(concurrency=1, retry=RetryConfig(initial_wait=0.05, jitter=False))
    batch = await process_prompts(strategy, ["a", "b"], config=config, preserve_order=True)
    timing = batch.results[0].timing
    assert [attempt.success for attempt in timing.attempts] == [False, False, True]
    assert [attempt.error_type for attempt in timing.attempts] == ["ConnectionError", "FakeRateLimitError", None]
    assert [attempt.error_category for attempt in timing.attempts[:2]] == ["connection_error", "rate_limit"]
    assert timing.attempts[1].retry_backoff_seconds >= 0.049
    assert timing.execution_seconds >= 0.059
    assert timing.total_seconds >= timing.execution_seconds + timing.retry_backoff_seconds
    assert batch.results[1].timing.queue_seconds >= 0.1
    assert batch.results[0].timing.attempts[2].started_at >= 0.09


async def test_quota_waits_are_told_apart():
    config = ProcessorConfig(concurrency=5, max_requests_per_minute=1200, quota_burst_seconds=0.001)
    batch = await process_prompts(Echo(), ["a"] * 5, config=config, preserve_order=True)
    assert batch.results[-1].quota_wait_seconds > 0.02
    assert sum(result.quota_wait_seconds for result in batch) > 0.1
    last = batch.results[-1]
    assert last.admission_wait_seconds == last.timing.admission_wait_seconds == 0
    assert last.timing.cooldown_wait_seconds == 0


async def test_failures_that_are_alike_are_logged_a_few_times(caplog):
    strategy = FakeStrategy("x", failure_schedule=[ConnectionError("reset")] * 50 + [ValueError("no")] * 50)
    await process_prompts(strategy, ["a"] * 100, config=quick(concurrency=5))
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("failed and will be retried" in line for line in lines) == 3
    assert sum("failed after" in line and "ValueError: no" in line for line in lines) == 3
    # How many items use up their attempts on these depends on the order in which they come back.
    assert sum("failed after" in line and "ConnectionError" in line for line in lines) <= 3
    assert sum("further ones like this are logged at DEBUG" in line for line in lines) == 2


async def test_thousands_of_streams_items_and_ends():
    async def one(number):
        got = 0
        async with process_stream(Echo(), map(str, range(50)), concurrency=3, ordered=number % 2 == 0) as stream:
            async for _ in stream:
                got += 1
                if number % 5 == 0 and got == 20:
                    break
        return got

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = await asyncio.gather(*(one(number) for number in range(200)))
    assert counts == [20 if number % 5 == 0 else 50 for number in range(200)]
    assert tasks_left() == []
