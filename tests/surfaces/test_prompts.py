"""``process_prompts()`` and ``process_stream()``: sources, order, bounds, early ends."""

from __future__ import annotations

import asyncio

import pytest

from batch_llm import (
    BaseMiddleware,
    LLMCallStrategy,
    LLMWorkItem,
    MetricsObserver,
    ProcessorConfig,
    llm,
    process_prompts,
    process_stream,
)
from batch_llm.testing import FakeStrategy, SimulatedProvider

from ..helpers import Echo, quick
from .common import Lively, tasks_left


async def upper(prompt):
    await asyncio.sleep(0)
    return prompt.upper()


async def drain(stream, into):
    async for result in stream:
        into.append(result.output)


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
