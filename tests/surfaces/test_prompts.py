"""``process_prompts()`` and ``process_stream()``: sources, order, bounds, early ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import pytest

from batch_llm import (
    BaseMiddleware,
    GuardrailConfig,
    LLMCallStrategy,
    LLMWorkItem,
    MetricsObserver,
    ProcessorConfig,
    RetryConfig,
    llm,
    process_prompts,
    process_stream,
)
from batch_llm.testing import FakeRateLimitError, FakeStrategy, SimulatedProvider

from ..helpers import Deaf, Echo, quick, until


async def upper(prompt):
    await asyncio.sleep(0)
    return prompt.upper()


def tasks_left():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def drain(stream, into):
    async for result in stream:
        into.append(result.output)


class Lively(Echo):
    """Counts how often it is prepared and cleaned up."""

    def __init__(self, delay=0.0):
        super().__init__(delay)
        self.life = []

    async def prepare(self):
        self.life.append("prepare")

    async def cleanup(self):
        await asyncio.sleep(0)
        self.life.append("cleanup")


# Entries


async def test_entries_of_all_kinds():
    entries = [
        "a",
        ("x", "b"),
        ("y", "c", {"k": 1}),
        {"prompt": "d"},
        {"id": 7, "prompt": "e", "context": 2},
        {"item_id": "z", "prompt": "f"},
        LLMWorkItem("own", FakeStrategy("mine"), "g"),
        {"id": "ours", "prompt": "h", "priority": 1, "sample": 1},
    ]
    batch = await process_prompts(upper, entries, preserve_order=True)
    got = [(result.item_id, result.output, result.context) for result in batch]
    assert got == [
        ("item_0", "A", None),
        ("x", "B", None),
        ("y", "C", {"k": 1}),
        ("item_3", "D", None),
        ("7", "E", 2),
        ("z", "F", None),
        ("own", "mine", None),
        ("ours", "H", None),
    ]
    assert [result.submission_index for result in batch] == list(range(8))
    assert batch.termination.kind == "completed"
    assert batch.wall_time_seconds > 0
    assert batch.stats.total == 8


async def test_messages_are_prompts_of_strategies_that_take_them():
    messages = [{"role": "user", "content": "hello"}]
    strategy = FakeStrategy("yes")
    await process_prompts(strategy, [messages, ("a", messages), {"messages": messages}])
    assert strategy.calls == [messages] * 3


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (3, "prompts[1] is int (3)"),
        (True, "prompts[1] is bool"),
        (None, "prompts[1] is NoneType"),
        (("a",), "prompts[1] is a tuple of length 1"),
        (("a", "b", "c", "d"), "prompts[1] is a tuple of length 4"),
        ((None, "b"), "prompts[1]: its id must be"),
        ((True, "b"), "prompts[1]: its id must be"),
        (("a", 5), "prompts[1]: item 'a': prompt must be a string, not int"),
        ({"prompt": "x", "contxt": 1}, "did you mean 'context'?"),
        ({"role": "user", "content": "x"}, "write messages as a list"),
        ({"id": "x"}, "either 'prompt' or 'messages'"),
    ],
)
async def test_a_wrong_entry_is_named_and_what_came_before_is_done(entry, words):
    strategy = Echo()
    got = []
    with pytest.raises(TypeError) as caught:
        await drain(process_stream(strategy, ["before", entry, "after"]), got)
    assert words in str(caught.value)
    assert got == ["before"]
    with pytest.raises(TypeError) as caught:
        await process_prompts(Echo(), ["before", entry])
    assert caught.value.partial_result.outputs() == ["before"]


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("hello", "use call() for one"),
        (b"hello", "not a single bytes"),
        ({"a": "b"}, "prompts.items()"),
        (5, "not int (5)"),
        (None, "not NoneType"),
    ],
)
@pytest.mark.parametrize("way", [process_prompts, process_stream])
async def test_wrong_sources_are_refused_before_anything_starts(way, prompts, words):
    with pytest.raises(TypeError) as caught:
        await way(upper, prompts)
    assert words in str(caught.value)


async def test_a_data_frame_is_refused_with_a_hint():
    import pandas

    with pytest.raises(TypeError, match="one of its columns"):
        await process_prompts(upper, pandas.DataFrame({"text": ["a"]}))
    batch = await process_prompts(upper, pandas.Series(["a", "b"]), preserve_order=True)
    assert batch.outputs() == ["A", "B"]


async def test_repeated_ids_are_warned_of_once():
    with pytest.warns(UserWarning, match="'a' is used more than once") as warned:
        batch = await process_prompts(upper, [("a", "x"), ("a", "y"), ("a", "z")])
    assert len(warned) == 1
    assert sorted(result.submission_index for result in batch) == [0, 1, 2]


async def test_messages_and_context_with_a_native_strategy():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    with SimulatedProvider() as provider:
        strategy = llm("openai:gpt-5-mini", base_url=provider.base_url, api_key="any")
        entries = [messages, ("a", messages, 1), {"messages": messages, "context": 2}]
        batch = await process_prompts(strategy, entries, preserve_order=True)
        assert [result.context for result in batch] == [None, 1, 2]
        assert batch.succeeded == 3
        with pytest.raises(ValueError, match=r"prompts\[1\]: item 'item_1'"):
            await process_prompts(strategy, [messages, [{"role": "nobody", "content": "x"}]])
    assert all(result.timing.execution_seconds > 0 for result in batch)


# Strategies and options


class Agent:
    __module__ = "pydantic_ai.agent"


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Echo, "not the class Echo: create one"),
        (5, "not int (5)"),
        (Agent(), "PydanticAIStrategy(agent)"),
        (lambda: None, "cannot be called with a prompt"),
    ],
)
async def test_what_is_no_strategy_is_refused(strategy, words):
    with pytest.raises(TypeError) as caught:
        process_stream(strategy, ["a"])
    assert words in str(caught.value)


async def test_a_model_s_name_is_a_strategy(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with SimulatedProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        batch = await process_prompts("openai:gpt-5-mini", ["Hello"])
    assert batch.succeeded == 1
    with pytest.raises(ValueError, match="openai"):
        await process_prompts("opnai:gpt-5-mini", ["Hello"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observer": []}, "did you mean 'observers'?"),
        ({"max_workers": 5}, "use concurrency"),
        ({"max_requests_per_minute": 5}, "config=ProcessorConfig(max_requests_per_minute=...)"),
        ({"preserve_ordr": True}, "did you mean 'preserve_order'?"),
    ],
)
async def test_unknown_options_are_refused_with_the_nearest(options, words):
    with pytest.raises(TypeError) as caught:
        await process_prompts(upper, ["a"], **options)
    assert words in str(caught.value)


async def test_two_numbers_for_one_thing_are_refused():
    with pytest.raises(ValueError, match="one of them"):
        await process_prompts(upper, ["a"], concurrency=3, config=ProcessorConfig(concurrency=4))
    with pytest.raises(ValueError, match="one of them"):
        await process_prompts(upper, ["a"], progress=print, progress_callback=print)
    config = ProcessorConfig(max_workers=7)
    strategy = Echo(0.01)
    await process_prompts(strategy, ["x"] * 50, config=config)
    assert strategy.peak == 7
    strategy = Echo(0.01)
    await process_prompts(strategy, ["x"] * 50, config=config, concurrency=3)
    assert strategy.peak == 3
    assert config == ProcessorConfig(max_workers=7)  # the user's own is left as it is


async def test_hooks_and_observers_are_heard():
    class Marks(BaseMiddleware):
        async def before_process(self, item):
            item.prompt += "!"
            return item

    metrics, seen, progress = MetricsObserver(), [], []
    batch = await process_prompts(
        upper,
        ["a", "b"],
        observers=(metrics,),
        middlewares=[Marks()],
        post_processor=seen.append,
        progress=lambda *numbers: progress.append(numbers),
        config=quick(progress_interval=1),
    )
    assert sorted(batch.outputs()) == ["A!", "B!"]
    assert len(seen) == 2
    assert (await metrics.get_metrics())["items_succeeded"] == 2
    assert progress[-1][0] == 2


async def test_an_empty_source():
    assert (await process_prompts(upper, [])).total_items == 0
    assert [result async for result in process_stream(upper, iter(()))] == []


# The life of a strategy


async def test_a_strategy_lives_as_long_as_the_run():
    strategy = Lively()
    await process_prompts(strategy, ["a"] * 10)
    assert strategy.life == ["prepare", "cleanup"]


async def test_overlapping_runs_share_a_strategy_s_life():
    strategy = Lively(0.01)
    first = process_stream(strategy, ["a"] * 3, concurrency=1)
    await anext(first)
    await process_prompts(strategy, ["b"] * 2)
    assert strategy.life == ["prepare"]
    async for _ in first:
        pass
    assert strategy.life == ["prepare", "cleanup"]


async def test_a_cleanup_that_fails_is_logged_and_the_batch_survives(caplog):
    class Fails(Lively):
        async def cleanup(self):
            raise RuntimeError("no way")

    batch = await process_prompts(Fails(), ["a"])
    assert batch.succeeded == 1
    assert "Fails.cleanup() failed: RuntimeError: no way" in caplog.text


async def test_a_dry_run_neither_prepares_nor_cleans_up():
    strategy = Lively()
    await process_prompts(strategy, ["a"], config=ProcessorConfig(dry_run=True))
    assert (strategy.life, strategy.calls) == ([], [])


async def test_a_strategy_may_recommend_a_classifier():
    from batch_llm import DefaultErrorClassifier

    class Picky(DefaultErrorClassifier):
        def classify(self, exception):
            info = super().classify(exception)
            info.is_retryable, info.error_category = True, "picky"
            return info

    class Bad(LLMCallStrategy):
        def recommended_error_classifier(self):
            return Picky()

        async def execute(self, prompt, attempt, timeout, state=None):
            raise ValueError("no")

    batch = await process_prompts(Bad(), ["a"], config=quick())
    assert (batch.results[0].attempts, batch.results[0].error_category) == (3, "picky")
    batch = await process_prompts(Bad(), ["a"], config=quick(), error_classifier=DefaultErrorClassifier())
    assert batch.results[0].attempts == 1


# Sources that are read while the run is on


async def test_async_sources_are_closed():
    closed = []

    async def source():
        try:
            for number in range(100):
                await asyncio.sleep(0)
                yield str(number)
        finally:
            closed.append(True)

    batch = await process_prompts(upper, source())
    assert (batch.succeeded, closed) == (100, [True])
    async with process_stream(upper, source()) as stream:
        await anext(stream)
    assert closed == [True, True]


async def test_an_error_of_the_source_comes_after_what_was_accepted():
    def source():
        yield from ("a", "b", "c")
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        await drain(process_stream(Echo(0.01), source()), got)
    assert sorted(got) == ["a", "b", "c"]
    assert tasks_left() == []


async def test_the_source_is_not_read_further_than_needed():
    read = 0

    def source():
        nonlocal read
        for number in range(1_000_000):
            read = number + 1
            yield str(number)

    taken = 0
    async with process_stream(Echo(), source(), concurrency=4) as stream:
        async for _ in stream:
            taken += 1
            if taken % 50 == 0:
                await asyncio.sleep(0.005)
            assert read <= taken + 4 + 64 + 64 + 64  # in work, ahead, untaken (and a portion that is being taken)
            if taken == 1000:
                break


async def test_small_bounds_are_kept():
    strategy = Echo()
    config = ProcessorConfig(concurrency=1, max_queue_size=1, max_result_queue_size=1)
    taken = 0
    async for _ in process_stream(strategy, (str(number) for number in range(50)), config=config):
        await asyncio.sleep(0.002)
        taken += 1
        assert len(strategy.calls) <= taken + 3
    assert taken == 50


async def test_a_slow_consumer_shows_in_what_bound_the_run():
    config = ProcessorConfig(concurrency=2, max_queue_size=2, max_result_queue_size=2)
    stream = process_stream(Echo(), map(str, range(20)), config=config)
    async for _ in stream:
        await asyncio.sleep(0.005)
    bound = stream.stats.bound_by
    assert max(bound, key=bound.get) == "consumer"
    assert "finished results waited to be consumed" in stream.stats.explain()


@pytest.mark.parametrize("concurrency", [1, 7, "auto"])
async def test_an_ordered_stream_keeps_the_order_whatever_takes_long(concurrency):
    async def uneven(prompt):
        await asyncio.sleep(0.02 if int(prompt) % 10 == 0 else 0)
        return prompt

    prompts = [str(number) for number in range(200)]
    stream = process_stream(uneven, prompts, concurrency=concurrency, ordered=True)
    assert [result.output async for result in stream] == prompts


async def test_the_head_of_an_ordered_stream_holds_up_reading_not_itself():
    started = asyncio.Event()
    read = 0

    async def first_is_slow(prompt):
        if prompt == "0":
            await started.wait()
        return prompt

    def source():
        nonlocal read
        for number in range(10_000):
            read = number + 1
            yield str(number)

    config = ProcessorConfig(concurrency=2, max_queue_size=4, max_result_queue_size=8)
    async with process_stream(first_is_slow, source(), config=config, ordered=True) as stream:
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert read <= 2 + 8 + 1
        started.set()
        assert (await first).output == "0"
        assert (await anext(stream)).output == "1"


async def test_an_ordered_stream_with_priorities_does_not_wait_for_itself():
    config = ProcessorConfig(concurrency=1, max_queue_size=4, max_result_queue_size=2)
    items = [{"id": number, "prompt": "x", "priority": number} for number in range(100)]
    stream = process_stream(Echo(), items, config=config, ordered=True)
    assert [int(result.item_id) async for result in stream] == list(range(100))


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
    assert sum("failed after" in line for line in lines) == 3
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
