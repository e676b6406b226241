"""Attempts in a coroutine in Rust: whatever a strategy's ``execute`` does, they behave like ``async def``."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import inspect
import sys
import weakref

import pytest

from batch_llm import (
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    RetryConfig,
    RetryState,
    WorkItemResult,
)
from batch_llm._core import Flight, Runner, Timing
from batch_llm._run import mailbox as _mailbox

from ..helpers import USAGE, quick, run


class Doing(LLMCallStrategy[str]):
    """Does in ``execute`` what a function says."""

    def __init__(self, what):
        self.what = what

    def execute(self, prompt, attempt, timeout, state=None):
        return self.what(prompt)


async def answer(prompt):
    await asyncio.sleep(0)
    return prompt, USAGE


class Awaitable:
    def __init__(self, prompt):
        self.prompt = prompt

    def __await__(self):
        return answer(self.prompt).__await__()


@pytest.mark.parametrize(
    "what",
    [
        answer,
        Awaitable,
        lambda prompt: asyncio.ensure_future(answer(prompt)),
        lambda prompt: asyncio.gather(answer(prompt)) and answer(prompt),
        lambda prompt: asyncio.wait_for(answer(prompt), 5),
    ],
    ids=["coroutine", "awaitable", "task", "another", "wait_for"],
)
async def test_whatever_can_be_awaited_is(what):
    batch, _ = await run(Doing(what), ["a", "b", "c"])
    assert sorted(result.output for result in batch.results) == ["a", "b", "c"]


async def test_a_coroutine_that_looks_at_itself_and_at_the_garbage():
    async def curious(prompt):
        for _ in range(2):
            task = asyncio.current_task()
            runner = task.get_coro()
            assert isinstance(runner, Runner)
            assert inspect.isawaitable(runner)
            assert repr(task)
            with pytest.raises(ValueError, match="already executing"):
                runner.send(None)
            flight = runner.flight
            assert flight.executing
            assert flight.item.prompt == prompt
            gc.collect()
            await asyncio.sleep(0)
        return prompt, USAGE

    batch, _ = await run(Doing(curious), ["a"] * 20)
    assert batch.succeeded == 20, batch.results[0].error


async def test_a_debugging_loop():
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        batch, _ = await run(Doing(answer), ["a"] * 20)
    finally:
        loop.set_debug(False)
    assert batch.succeeded == 20


async def test_a_cancellation_is_thrown_in_where_the_strategy_waits():
    seen = []

    async def waiting(prompt):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as error:
            seen.append(type(error))
            await asyncio.sleep(0)  # it may take its time
            raise

    batch, _ = await run(Doing(waiting), ["a"] * 3, quick(timeout_per_item=0.02, retry=RetryConfig(max_attempts=1)))
    assert seen == [asyncio.CancelledError] * 3
    assert all("FrameworkTimeoutError" in result.error for result in batch.results)
    assert all(result.exception.elapsed >= 0.02 for result in batch.results)


async def test_the_state_of_an_item_is_made_when_it_is_looked_into():
    states = []

    class Noting(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            states.append(state)
            assert isinstance(state, RetryState)
            if attempt == 1:
                assert "key" not in state
                assert state == RetryState()
                state.set("key", attempt)
                raise RuntimeError("again")
            return state.get("key"), USAGE

    batch, _ = await run(Noting(), ["a"])
    assert batch.results[0].output == 1
    assert states[0] is states[1]
    assert states[0].data == {"key": 1}
    assert repr(states[0]) == "RetryState({'key': 1})"
    with pytest.raises(AttributeError, match="no attribute 'dat'"):
        _ = states[0].dat


async def test_nothing_of_an_item_is_kept_after_it():
    class Thing:
        pass

    async def holding(prompt):
        thing = Thing()
        things.append(weakref.ref(thing))
        thing.cycle = thing, asyncio.current_task()
        await asyncio.sleep(0)
        if prompt == "fail":
            raise ValueError("no")
        return prompt, {}

    things = []
    batch, processor = await run(Doing(holding), ["a", "fail"] * 10)
    assert batch.total_items == 20
    del batch, processor
    gc.collect()
    assert len(things) == 20
    assert not any(thing() for thing in things)


async def test_a_runner_that_is_over_has_let_go_of_everything():
    runners = []

    async def noting(prompt):
        runners.append(asyncio.current_task().get_coro())
        await asyncio.sleep(0)
        return prompt, USAGE

    await run(Doing(noting), ["a"] * 3)
    for runner in runners:
        assert runner.flight is runner.task is None
        with pytest.raises(RuntimeError, match="cannot reuse"):
            runner.send(None)
        runner.close()


def test_a_flight_that_has_not_begun():
    flight = Flight(0, LLMWorkItem("a", Doing(answer), "x"), 1, Timing())
    assert flight.elapsed() == 0.0


async def test_a_task_goes_on_with_the_item_that_starts_next():
    tasks = set()

    async def noting(prompt):
        tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        return prompt, USAGE

    batch, _ = await run(Doing(noting), [str(number) for number in range(200)], quick(max_workers=4))
    assert batch.succeeded == 200
    # Before Python 3.12 each attempt has a task of its own.
    assert len(tasks) == (4 if sys.version_info >= (3, 12) else 200)


NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


@pytest.mark.parametrize("before", [0, 1])
async def test_no_item_sees_the_context_variables_of_another(before):
    if before:
        NUMBER.set(before)

    async def setting(prompt):
        assert NUMBER.get() == before
        if int(prompt) % 3 == 0:
            NUMBER.set(2)
        if int(prompt) % 2:
            await asyncio.sleep(0)
        return prompt, USAGE

    batch, _ = await run(Doing(setting), [str(number) for number in range(100)], quick(max_workers=3))
    assert batch.succeeded == 100, next(result.error for result in batch.results if not result.success)


async def test_variables_that_cannot_be_compared_are_others():
    class Odd:
        def __eq__(self, other):
            raise ValueError("ambiguous")

        __hash__ = None

    variable = contextvars.ContextVar("odd")
    variable.set(Odd())
    mine = variable.get()

    async def setting(prompt):
        assert variable.get() is mine
        variable.set(Odd())
        await asyncio.sleep(0)
        return prompt, USAGE

    batch, _ = await run(Doing(setting), ["a"] * 50, quick(max_workers=3))
    assert batch.succeeded == 50


@pytest.mark.parametrize("waits", [True, False])
async def test_a_task_that_was_cancelled_too_late_goes_on_with_no_other_item(waits):
    async def cancelling(prompt):
        if waits:
            await asyncio.sleep(0)
        if int(prompt) % 5 == 0:
            asyncio.current_task().cancel()
        return prompt, USAGE

    batch, _ = await run(Doing(cancelling), [str(number) for number in range(100)], quick(max_workers=3))
    assert batch.succeeded == 100, next(result.error for result in batch.results if not result.success)


async def test_items_are_added_from_inside_any_item_without_waiting_for_room():
    async def adding(prompt):
        if len(prompt) < 6:
            for letter in "ab":
                await processor.add_work(LLMWorkItem(prompt + letter, strategy, prompt + letter))
        await asyncio.sleep(0)
        return prompt, USAGE

    strategy = Doing(adding)
    processor = ParallelBatchProcessor(config=quick(max_workers=1, max_queue_size=1))
    await processor.add_work(LLMWorkItem("a", strategy, "a"))
    batch = await processor.process_all()
    assert batch.succeeded == 2**6 - 1


async def test_items_of_several_strategies_one_after_another():
    async def waits_not(prompt):
        return prompt, USAGE

    strategies = [Doing(answer), Doing(waits_not), Doing(answer)]
    processor = ParallelBatchProcessor(config=quick(max_workers=3))
    for number in range(300):
        await processor.add_work(LLMWorkItem(str(number), strategies[number * number % 7 % 3], str(number)))
    batch = await processor.process_all()
    assert sorted(int(result.output) for result in batch.results) == list(range(300))


async def test_nothing_begins_in_a_task_when_the_run_is_broken_off(monkeypatch):
    # Every turn is over after one message: other items are to start, and wait for theirs.
    monkeypatch.setattr(_mailbox, "TURN_SECONDS", -1.0)
    started = []

    async def ending(prompt):
        started.append(processor._run.closing)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if sys.version_info >= (3, 11):
                asyncio.current_task().uncancel()
        return prompt, USAGE

    strategy = Doing(ending)
    processor = ParallelBatchProcessor(config=quick(max_workers=100))
    for number in range(200):
        await processor.add_work(LLMWorkItem(str(number), strategy, str(number)))
    running = asyncio.create_task(processor.process_all())
    while not started:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(started)
    assert processor.partial_result().total_items == 200


async def test_results_have_all_fields_of_their_class():
    batch, _ = await run(Doing(answer), ["a"])
    assert list(vars(batch.results[0])) == [field.name for field in dataclasses.fields(WorkItemResult)]


async def test_others_have_their_turn_while_items_end_at_once():
    async def instant(prompt):
        nonlocal done
        done += 1
        return prompt, USAGE

    async def other():
        while not running.done():
            turns.append(done)
            await asyncio.sleep(0)

    done, turns = 0, []
    running = asyncio.ensure_future(run(Doing(instant), ["a"] * 20_000, quick(max_workers=5)))
    await other()
    assert (await running)[0].succeeded == 20_000
    assert len({count for count in turns if 0 < count < 20_000}) >= 3


async def test_many_ways_to_end_at_once():
    """A stress: successes, failures, cancellations from inside, odd answers and timeouts, some with, some without
    waiting, next to one another."""

    async def many(prompt):
        number = int(prompt)
        if number % 3:
            await asyncio.sleep(0.0001 * (number % 5))
        kind = number % 11
        if kind == 1:
            raise ValueError("permanent")
        if kind == 2:
            raise asyncio.CancelledError
        if kind == 3:
            return "no pair"
        if kind == 4:
            return [prompt, None]
        if kind == 5 and number % 2:
            await asyncio.Event().wait()
        return prompt, USAGE

    numbers = [str(number) for number in range(3000)]
    config = quick(max_workers=100, timeout_per_item=1.0, retry=RetryConfig(max_attempts=1))
    processor = ParallelBatchProcessor(config=config)
    for number in numbers:
        await processor.add_work(LLMWorkItem(number, Doing(many), number))
    batch = await processor.process_all()
    assert sorted(result.item_id for result in batch.results) == sorted(numbers)
    for result in batch.results:
        number = int(result.item_id)
        kind = number % 11
        bad = kind in (1, 2, 3) or (kind == 5 and number % 2 == 1)
        # On a slow machine the time of one that would be answered may be over too.
        late = not result.success and result.error_category == "framework_timeout"
        assert late or result.success is not bad, result
        if late:
            assert result.timing.attempts[0].execution_seconds >= 1.0
        elif kind == 5:
            assert result.success


async def test_items_that_ended_at_once_have_one_result_when_the_run_is_cancelled():
    """Also where tasks do not begin eagerly, as before Python 3.12 or with a task factory."""
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coroutine, **more: asyncio.Task(coroutine, loop=loop, **more)
    )

    async def instant_or_endless(prompt):
        if prompt == "wait":
            await asyncio.sleep(60)
        return prompt, USAGE

    processor = ParallelBatchProcessor(config=quick(max_workers=5))
    for number, prompt in enumerate(["now"] * 20 + ["wait"]):
        await processor.add_work(LLMWorkItem(str(number), Doing(instant_or_endless), prompt))
    running = asyncio.create_task(processor.process_all())
    while processor.partial_result().total_items < 20:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    ids = [result.item_id for result in processor.partial_result().results]
    assert sorted(ids, key=int) == [str(number) for number in range(21)]


async def test_results_of_plain_values_are_no_work_for_the_garbage_collector():
    async def answering(prompt):
        return [prompt] if prompt == "list" else prompt, USAGE

    strategy = Doing(answering)
    contexts = {"plain": 7, "list": None, "holder": []}
    processor = ParallelBatchProcessor(config=quick(max_workers=2))
    for prompt, context in contexts.items():
        await processor.add_work(LLMWorkItem(prompt, strategy, prompt, context))
    batch = await processor.process_all()
    assert {result.item_id: gc.is_tracked(result) for result in batch.results} == {
        "plain": False,
        "list": True,
        "holder": True,
    }


async def test_a_result_in_a_cycle_is_collected():
    class Holder:
        result = None

    holder = Holder()
    processor = ParallelBatchProcessor(config=quick())
    await processor.add_work(LLMWorkItem("a", Doing(answer), "a", holder))
    holder.result = (await processor.process_all()).results[0]
    gone = weakref.ref(holder)
    del holder, processor
    gc.collect()
    assert gone() is None


async def test_a_result_has_all_its_attributes():
    batch, _ = await run(Doing(answer), ["a"])
    (result,) = batch.results
    assert list(vars(result)) == [field.name for field in dataclasses.fields(WorkItemResult)]
    assert dataclasses.replace(result, error="new").error == "new"
