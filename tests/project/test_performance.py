"""Throughput, memory, and waiting for locks, as ratios and counts: ``make bench-smoke``.

What a machine is able to do is no one's promise, so no time is compared with a number: only one way of doing something
with another on the same machine, a large run with a small one, or what was counted with what was expected. Bounds are
several times what is measured. Figures are printed; those of the documents come from ``make bench``.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from types import SimpleNamespace

import pytest

from batch_llm import (
    BaseMiddleware,
    GeminiCachedStrategy,
    LLMCallStrategy,
    LLMWorkItem,
    MetricsObserver,
    ParallelBatchProcessor,
    process_prompts,
    process_stream,
    run_frame,
)
from batch_llm._gemini import _Lock

from ..helpers import Echo, quick

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(300)]

ROUNDS = 3
"""Of each measurement the best is taken: what else the machine does makes it slower, never faster."""


class Instant(LLMCallStrategy[str]):
    """Answers at once."""

    async def execute(self, prompt, attempt, timeout, state=None):
        return prompt, {"input_tokens": 1}


@pytest.fixture
def say(capsys):
    """Print a figure."""

    def print_it(text):
        with capsys.disabled():
            sys.stdout.write(f"\n    {text}")

    return print_it


async def seconds(count, strategy, workers=200, **options):
    """The time of a run, without the time in which its items are made."""
    processor = ParallelBatchProcessor(config=quick(max_workers=workers), **options)
    strategies = strategy if isinstance(strategy, list) else [strategy]
    for number in range(count):
        await processor.add_work(LLMWorkItem(str(number), strategies[number % len(strategies)], "x"))
    gc.collect()
    began = time.perf_counter()
    batch = await processor.process_all()
    took = time.perf_counter() - began
    assert batch.succeeded == count
    return took


async def best(count, make_strategy=Instant, **options):
    return min([await seconds(count, make_strategy(), **options) for _ in range(ROUNDS)])


# Throughput


async def test_ten_workers_are_nearly_ten_times_as_fast_as_one(say):
    one, ten = [await best(50, lambda: Echo(0.01), workers=workers) for workers in (1, 10)]
    say(f"10 workers are {one / ten:.1f} times as fast as one")
    assert one / ten > 5


async def test_an_item_costs_no_more_in_a_large_run_than_in_a_small_one(say):
    await seconds(2_000, Instant())
    small, large = await best(4_000) / 4_000, await best(40_000) / 40_000
    say(f"{1e6 * small:.1f} us an item among 4,000, {1e6 * large:.1f} us among 40,000")
    assert large < 3 * small


async def test_an_item_costs_no_more_with_many_workers_than_with_few(say):
    few, many = await best(10_000, workers=10), await best(10_000, workers=2_000)
    say(f"{100 * few:.1f} us an item with 10 workers, {100 * many:.1f} us with 2,000")
    assert many < 4 * few


async def test_an_item_costs_less_than_with_gather_a_semaphore_and_time_limits(say):
    count = 10_000
    strategy = Instant()

    async def gathered():
        semaphore = asyncio.Semaphore(200)

        async def one(prompt):
            async with semaphore:
                return await asyncio.wait_for(strategy.execute(prompt, 1, 10.0), 10.0)

        began = time.perf_counter()
        await asyncio.gather(*(one("x") for _ in range(count)))
        return time.perf_counter() - began

    ours, theirs = await best(count), min([await gathered() for _ in range(ROUNDS)])
    say(f"{1e6 * ours / count:.1f} us an item; with asyncio.gather {1e6 * theirs / count:.1f} us")
    # The extension may be a debug build, which is several times slower.
    assert ours < 3 * theirs


async def test_a_strategy_per_item_is_not_faster_than_one_for_all(say):
    shared = await best(5_000)
    apart = min([await seconds(5_000, [Instant() for _ in range(5_000)]) for _ in range(ROUNDS)])
    say(f"a strategy per item takes {apart / shared:.1f} times as long as one for all")
    assert apart > 0.8 * shared


async def test_hooks_cost_a_bounded_multiple(say):
    plain = await best(5_000)
    hooked = min(
        [
            await seconds(5_000, Instant(), middlewares=[BaseMiddleware()], observers=[MetricsObserver()])
            for _ in range(ROUNDS)
        ]
    )
    say(f"with a middleware and an observer an item costs {hooked / plain:.1f} times as much")
    assert hooked < 40 * plain


async def test_a_run_leaves_the_loop_to_others(say):
    """While 20,000 items that never wait are worked off, another task has its turns."""
    turns = 0

    async def another():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(another())
    await seconds(20_000, Instant())
    task.cancel()
    say(f"another task has {turns:,} turns while 20,000 items are worked off")
    assert turns > 20


# Memory


async def peak_of_a_stream(count):
    """Bytes that Python had at most, beside the prompts themselves."""
    gc.collect()
    tracemalloc.start()
    try:
        seen = 0
        async for result in process_stream(Instant(), (f"prompt {number}" for number in range(count))):
            seen += result.success
        assert seen == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_the_memory_of_a_stream_does_not_grow_with_its_length(say):
    await peak_of_a_stream(500)
    short, long = await peak_of_a_stream(3_000), await peak_of_a_stream(30_000)
    say(f"a stream of 3,000 has {short / 1e6:.2f} MB at most, one of 30,000 {long / 1e6:.2f} MB")
    assert long < 3 * short


async def test_a_result_takes_a_bounded_number_of_bytes(say):
    count = 10_000
    await process_prompts(Instant(), ["x"] * 100)
    gc.collect()
    tracemalloc.start()
    try:
        batch = await process_prompts(Instant(), ["x"] * count)
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert batch.succeeded == count
    say(f"{each:.0f} bytes a result")
    assert each < 3_000


async def test_runs_leave_nothing_behind(say):
    async def once():
        await process_prompts(Instant(), [(number, "x", {"n": number}) for number in range(500)])
        gc.collect()
        return len(gc.get_objects())

    for _ in range(3):
        before = await once()
    for _ in range(5):
        after = await once()
    say(f"{after - before:+} objects after 5 runs of 500 items")
    assert after - before < 500


# Waiting for locks


class Slow(Instant):
    """Takes its time to get ready; notes how many did at once."""

    getting_ready = most_at_once = times = 0

    async def prepare(self):
        kind = type(self)
        kind.times += 1
        kind.getting_ready += 1
        kind.most_at_once = max(kind.most_at_once, kind.getting_ready)
        await asyncio.sleep(0.05)
        kind.getting_ready -= 1


async def test_strategies_get_ready_beside_each_other(say):
    class Many(Slow):
        pass

    took = await seconds(20, [Many() for _ in range(20)], workers=20)
    say(f"20 strategies get ready in {took / 0.05:.1f} times the time of one, {Many.most_at_once} at once")
    assert Many.times == Many.most_at_once == 20


async def test_a_strategy_gets_ready_once_and_nobody_waits_longer_for_it(say):
    class One(Slow):
        pass

    took = await seconds(200, One(), workers=200)
    say(f"200 workers wait {took / 0.05:.1f} times the time that one strategy takes to get ready")
    assert (One.times, One.most_at_once) == (1, 1)


async def test_who_waits_for_a_renewal_of_a_cache_waits_for_one(say):
    pytest.importorskip("google.genai")
    created = 0

    async def create(**_):
        nonlocal created
        created += 1
        await asyncio.sleep(0.05)
        return SimpleNamespace(name=f"cache-{created}", expire_time=None)

    async def nothing(**_):
        return []

    async def answer(**_):
        return SimpleNamespace(text="x", usage_metadata=None)

    client = SimpleNamespace(
        aio=SimpleNamespace(
            caches=SimpleNamespace(list=nothing, create=create), models=SimpleNamespace(generate_content=answer)
        )
    )
    strategy = GeminiCachedStrategy("gemini-x", client, lambda response: response.text, ["document"])  # type: ignore[arg-type]
    began = time.perf_counter()
    await asyncio.gather(*(strategy.execute("x", 1, 10.0) for _ in range(500)))
    say(f"500 calls wait {(time.perf_counter() - began) / 0.05:.1f} times the time of the renewal of their cache")
    assert created == 1


async def test_a_lock_goes_from_one_to_the_next_in_order():
    lock, order = _Lock(), []

    async def hold(number):
        async with lock.held():
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(hold(number) for number in range(1_000)))
    assert order == list(range(1_000))


def test_the_rows_of_a_frame_cost_no_more_in_a_large_one_than_in_a_small_one(say):
    pandas = pytest.importorskip("pandas")

    def took(rows):
        frame = pandas.DataFrame({"text": [f"row {number}" for number in range(rows)]})
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            assert len(run_frame(frame, "{text}", Instant())) == rows
            times.append(time.perf_counter() - began)
        return min(times) / rows

    took(100)
    small, large = took(1_000), took(10_000)
    say(f"{1e6 * small:.0f} us a row of 1,000, {1e6 * large:.0f} us of 10,000")
    assert large < 3 * small
