"""``run()`` and ``stream()``: without async, in scripts and where a loop is running."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading

import pytest

from batch_llm import ProcessorConfig, process_prompts, run, stream
from batch_llm import blocking as module
from batch_llm.testing import FakeStrategy

from ..helpers import Echo
from .test_prompts import Lively, upper


def left():
    """Tasks on the loop of blocking runs."""
    return asyncio.run_coroutine_threadsafe(_count(), module._thread().loop).result(5)


async def _count():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about")


def test_run_returns_a_batch():
    batch = run(upper, ["a", ("x", "b", 3)], preserve_order=True)
    assert [(result.item_id, result.output, result.context) for result in batch] == [
        ("item_0", "A", None),
        ("x", "B", 3),
    ]
    assert batch.termination.kind == "completed"
    assert run(upper, []).total_items == 0
    assert left() == []


async def test_run_works_where_a_loop_is_running():
    assert run(upper, ["a"]).outputs() == ["A"]
    assert [result.output for result in stream(upper, ["b"])] == ["B"]


def test_strategies_live_on_one_loop_whatever_the_call():
    loops = set()

    async def where(prompt):
        loops.add(asyncio.get_running_loop())
        return threading.current_thread().name

    for _ in range(3):
        assert run(where, ["a"]).outputs() == ["batch-llm loop"]
    assert [result.output for result in stream(where, ["a"])] == ["batch-llm loop"]
    assert len(loops) == 1


def test_the_source_is_read_in_the_caller_s_thread():
    database = sqlite3.connect(":memory:")
    database.execute("create table prompts (id, text)")
    database.executemany("insert into prompts values (?, ?)", [(number, f"p{number}") for number in range(2000)])
    batch = run(upper, database.execute("select id, text from prompts"), preserve_order=True)
    assert [result.item_id for result in batch] == [str(number) for number in range(2000)]
    got = list(stream(upper, database.execute("select id, text from prompts")))
    assert len(got) == 2000
    database.close()


def test_async_sources_are_read_on_the_loop():
    async def source():
        for number in range(10):
            await asyncio.sleep(0)
            yield str(number)

    assert run(upper, source()).succeeded == 10


def test_errors_of_the_source_come_after_what_was_accepted():
    def source():
        yield from ("a", "b")
        raise OSError("gone")

    got = []

    def drain():
        for result in stream(upper, source()):
            got.append(result.output)

    with pytest.raises(OSError, match="gone"):
        drain()
    assert sorted(got) == ["A", "B"]
    with pytest.raises(TypeError, match=r"prompts\[1\]") as caught:
        run(upper, ["a", 5])
    assert caught.value.partial_result.outputs() == ["A"]
    with pytest.raises(TypeError, match="not a single str"):
        run(upper, "a")
    assert left() == []


def test_an_ordered_stream():
    prompts = [str(number) for number in range(300)]
    strategy = FakeStrategy(str, latency=0.0001)
    assert [result.output for result in stream(strategy, prompts, ordered=True)] == prompts


def test_a_stream_is_not_read_further_than_needed():
    read = 0

    def source():
        nonlocal read
        for number in range(1_000_000):
            read = number + 1
            yield str(number)

    config = ProcessorConfig(concurrency=4, max_queue_size=8, max_result_queue_size=8)
    taken = 0
    with stream(Echo(), source(), config=config) as results:
        for _ in results:
            taken += 1
            assert read <= taken + 4 + 8 + 8 + 16
            if taken == 1000:
                break
    assert left() == []


def test_a_stream_can_be_left_closed_and_forgotten():
    strategy = Lively(0.001)
    with stream(strategy, map(str, range(100_000)), concurrency=5) as results:
        for _ in results:
            break
    assert strategy.life == ["prepare", "cleanup"]
    assert left() == []
    assert list(results) == []
    results.close()

    for _ in stream(Lively(0.001), map(str, range(100_000)), concurrency=5):
        break
    gc.collect()
    wait_for(lambda: left() == [])

    unused = stream(upper, ["a"])
    del unused


class Held:
    """Answers when it may, in a thread that iterates over a stream of ten prompts."""

    def __init__(self):
        self.asked, self.may_answer, self.outcome = threading.Event(), asyncio.Event(), None
        self.stream = stream(self._ask, [str(number) for number in range(10)])
        self.thread = threading.Thread(target=self._iterate)
        self.thread.start()
        assert self.asked.wait(60)

    async def _ask(self, prompt):
        self.loop = asyncio.get_running_loop()
        self.asked.set()
        await self.may_answer.wait()
        return prompt

    def _iterate(self):
        try:
            self.outcome = [result.success for result in self.stream]
        except BaseException as error:
            self.outcome = error

    def end(self):
        self.loop.call_soon_threadsafe(self.may_answer.set)
        self.thread.join(60)
        return self.outcome


def test_a_second_thread_takes_nothing_from_the_one_that_iterates():
    held = Held()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="iterated by one thread at a time"):
            next(held.stream)
    assert held.end() == [True] * 10


def test_another_thread_may_close_a_stream():
    held = Held()
    held.stream.close()
    assert True not in held.end()


def test_steering():
    results = stream(Echo(0.001), list(map(str, range(1000))), concurrency=1)
    next(results)
    results.pause()
    results.set_concurrency(7)
    results.resume()
    next(results)
    assert results.stats.succeeded >= 2
    results.interrupt()
    rest = list(results)
    assert results.termination.kind == "interrupted"
    assert rest
    assert rest[-1].item_id

    begun = threading.Barrier(3)

    async def waits(prompt):
        asyncio.get_running_loop().run_in_executor(None, begun.wait)
        await asyncio.sleep(30)

    def cancel():
        begun.wait(20)
        results.cancel("item_0")
        results.cancel("item_1")

    results = stream(waits, ["a", "b"], concurrency=2)
    threading.Thread(target=cancel).start()
    assert {result.error_category for result in results} == {"cancelled"}


def test_a_run_within_a_run():
    def nested(prompt):
        return run(upper, [prompt]).outputs()[0]

    assert run(nested, ["a"]).outputs() == ["A"]  # a plain function has a thread of its own

    async def waits_for_itself(prompt):
        return run(upper, [prompt])

    result = run(waits_for_itself, ["a"], config=ProcessorConfig(max_workers=1)).results[0]
    assert "Await process_prompts() there" in result.error

    async def awaits(prompt):
        return (await process_prompts(upper, [prompt])).outputs()[0]

    assert run(awaits, ["a"]).outputs() == ["A"]


def test_many_threads_at_once():
    outcomes = []

    def work(number):
        if number % 2:
            outcomes.append(run(Echo(0.0005), [str(i) for i in range(100)]).succeeded)
        else:
            outcomes.append(len(list(stream(Echo(0.0005), [str(i) for i in range(100)]))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == [100] * 16
    assert left() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_has_a_loop_of_its_own():
    assert run(upper, ["a"]).succeeded == 1
    child = os.fork()
    if child == 0:
        try:
            code = 0 if module._present is None else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(upper, ["a"]).succeeded == 1
