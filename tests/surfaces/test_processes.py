"""How programs end and loops nest: SIGTERM, ``nest_asyncio``, plain functions that wait for threads or never return."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from batch_llm import CallableStrategy, LLMCallPool, ProcessorConfig, RetryConfig, process_prompts, run, stream
from batch_llm import _threads as threads
from batch_llm._run.dispatch import Dispatch
from batch_llm._turns import waited
from batch_llm.testing import SimulatedProvider

from ..helpers import script, until

ONCE = RetryConfig(max_attempts=1, initial_wait=0.01, max_wait=0.02)
SLOW = RetryConfig(max_attempts=100, initial_wait=0.01, max_wait=0.02)
"""For a machine so slow that the time of what answers at once may be over too: it is called again."""


# The end of the command line


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_the_command_line_as_ctrl_c_does(tmp_path, number):
    with SimulatedProvider(latency=0.05) as provider:
        environment = {**os.environ, "OPENAI_API_KEY": "any", "OPENAI_BASE_URL": provider.base_url}
        lines = [json.dumps({"prompt": f"Question {number}"}) for number in range(3000)]
        (tmp_path / "in.jsonl").write_text("\n".join(lines))
        command = [sys.executable, "-m", "batch_llm", "run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl"]
        process = subprocess.Popen(
            [*command, "-c", "10"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        while provider.stats.requests < 50:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors


# Loops in loops

NESTED = """
nest = __import__({which!r})
if not {late}:
    nest.apply()
import batch_llm
if {late}:
    nest.apply()

async def client(prompt):
    await asyncio.sleep(0.02)
    return prompt

async def new_run(prompt):
    return asyncio.run(client(prompt))

async def same_loop(prompt):
    await asyncio.sleep(0.001)
    return asyncio.get_running_loop().run_until_complete(client(prompt))

def plain(prompt):
    return asyncio.run(client(prompt))

prompts = [str(number) for number in range(30)]

async def main():
    for ask in (new_run, same_loop, plain):
        batch = await process_prompts(ask, prompts, concurrency=10, preserve_order=True)
        assert batch.outputs() == prompts
    assert len([result async for result in process_stream(new_run, prompts, concurrency=5)]) == 30
    assert await call(new_run, "x") == "x"

asyncio.run(main())
for ask in (new_run, same_loop, plain):
    assert batch_llm.run(ask, prompts, concurrency=10).succeeded == 30
    assert len(list(stream(ask, prompts, concurrency=10))) == 30
print("done")
"""


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("which", ["nest_asyncio", "nest_asyncio2"])
def test_loops_within_loops_make_no_noise(which, late):
    pytest.importorskip(which)
    done = script(NESTED.format(which=which, late=late), timeout=120.0)
    # A loop of the library's own that is freed at exit may say that its descriptors are gone.
    noise = re.sub(
        r"Exception ignored in: <function BaseEventLoop.__del__.*?Invalid file descriptor: -1\n",
        "",
        done.stderr,
        flags=re.DOTALL,
    )
    assert (done.stdout, noise) == ("done\n", "")


# Plain functions and their threads


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("plain", [True, False])
def test_a_time_out_begins_when_the_function_does(plain, most, monkeypatch):
    monkeypatch.setattr("batch_llm.callable_strategy.THREADS", 5)
    on, peak, lock, calls = 0, 0, threading.Lock(), []

    def begin(prompt):
        nonlocal on, peak
        with lock:
            calls.append(prompt)
            on += 1
            peak = max(peak, on)

    def end():
        nonlocal on
        with lock:
            on -= 1

    def function(prompt):
        begin(prompt)
        time.sleep(0.2)
        end()
        return prompt

    async def coroutine(prompt):
        begin(prompt)
        await asyncio.sleep(0.2)
        end()
        return prompt

    bound = most or (5 if plain else None)
    if bound is None:
        pytest.skip("nothing waits")
    # Each takes a fifth of its time, and the last ones wait for longer than that.
    limit, looks = 1.0, []
    time_out = Dispatch._time_out

    def look(self, flight, category):
        # What it has of its own time: not less than before, not more than after. It is over if the limit is reached.
        before = flight.elapsed() - waited(flight.notes)
        time_out(self, flight, category)
        after, wait = flight.elapsed() - waited(flight.notes), waited(flight.notes)
        looks.append((wait, before, after, flight.timed_out))

    monkeypatch.setattr(Dispatch, "_time_out", look)
    config = ProcessorConfig(timeout_per_item=limit, retry=SLOW, concurrency=50)
    strategy = CallableStrategy(function if plain else coroutine, threads=True, max_concurrency=most)
    batch = run(strategy, [str(number) for number in range(50)], config=config)
    assert batch.failures == []
    assert set(calls) == {str(number) for number in range(50)}
    over = [timed_out for *_, timed_out in looks].count(True)
    assert sum(result.attempts for result in batch) == 50 + over
    assert peak <= bound + over, "what a plain function does goes on"
    assert all(after >= limit if timed_out else before < limit for _, before, after, timed_out in looks)
    assert any(wait > limit / 2 for wait, *_ in looks), "the engine takes no account of the wait"


def test_a_thousand_functions_run_at_once():
    ready = threading.Barrier(1000)

    def together(prompt):
        ready.wait(60)
        return prompt

    config = ProcessorConfig(concurrency=1000, timeout_per_item=90.0, retry=ONCE)
    assert run(together, [str(number) for number in range(1000)], config=config).failed == 0


def test_a_function_that_never_returns_times_out_and_leaves_the_others_their_turn():
    released = threading.Event()

    def ask(prompt, attempt):
        if (prompt, attempt) == ("0", 1):
            released.wait(60)
        return prompt

    config = ProcessorConfig(timeout_per_item=0.3, retry=SLOW, concurrency=5)
    strategy = CallableStrategy(ask, threads=True, max_concurrency=1)
    try:
        batch = run(strategy, ["0", "1", "2"], config=config).in_input_order()
        assert not released.is_set()
    finally:
        released.set()
    assert batch.outputs() == ["0", "1", "2"]
    assert batch.results[0].timing.attempts[0].error_type == "FrameworkTimeoutError"


def test_an_async_function_that_ignores_its_cancellation_leaves_the_others_their_turn():
    released = threading.Event()

    async def ask(prompt, attempt):
        while (prompt, attempt) == ("0", 1) and not released.is_set():
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                pass
        return prompt

    config = ProcessorConfig(timeout_per_item=0.3, retry=SLOW, concurrency=5)
    try:
        batch = run(CallableStrategy(ask, max_concurrency=1), ["0", "1", "2"], config=config).in_input_order()
        assert not released.is_set()
    finally:
        released.set()
    assert batch.outputs() == ["0", "1", "2"]
    assert batch.results[0].timing.attempts[0].error_type == "FrameworkTimeoutError"


def test_functions_that_never_return_hold_a_bounded_number_of_threads(monkeypatch):
    monkeypatch.setattr(threads, "MOST_LOST", 10)
    released = threading.Event()
    before = threading.active_count()

    def ask(prompt):
        released.wait(60)
        return prompt

    config = ProcessorConfig(timeout_per_item=0.05, retry=ONCE, concurrency=5)
    try:
        batch = run(ask, [str(number) for number in range(40)], config=config)
        assert threading.active_count() <= before + 10 + 5 + 2
    finally:
        released.set()
    assert batch.failed == 40
    assert any("threads are blocked by functions" in str(result.error) for result in batch.results)


def test_a_system_that_gives_few_threads_slows_down_and_fails_nothing(monkeypatch):
    started, most = [], 3

    class Few(threading.Thread):
        def start(self):
            if self.name.startswith("batch-llm function"):
                if len(started) >= most:
                    raise RuntimeError("can't start new thread")
                started.append(self)
            super().start()

    monkeypatch.setattr(threads.threading, "Thread", Few)
    monkeypatch.setattr(threads, "_idle", [])

    def ask(prompt):
        time.sleep(0.02)
        return prompt

    config = ProcessorConfig(timeout_per_item=1.0, retry=ONCE, concurrency=50)
    assert run(ask, [str(number) for number in range(150)], config=config).failed == 0
    assert len(started) == most


def test_threads_end_when_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(threads, "_idle", [])

    def ask(prompt):
        time.sleep(0.01)
        return threading.current_thread()

    used = {result.output for result in run(ask, [str(number) for number in range(20)], concurrency=10).results}
    for thread in used:
        thread.join(20)
    assert not any(thread.is_alive() for thread in used)


def test_a_program_ends_although_a_function_does_not_return():
    done = script(
        """
        def ask(prompt):
            time.sleep(100)

        config = ProcessorConfig(timeout_per_item=0.1, retry=RetryConfig(max_attempts=1))
        print(__import__("batch_llm").run(ask, ["x"], config=config).failed)
        """
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


# A source that is slow


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_results_come_while_a_slow_source_is_being_read(tmp_path, ordered, stored):
    read = []
    readers = set()

    def slow():
        # If results came at its end alone, it would have none.
        while not seen_at:
            readers.add(threading.current_thread())
            read.append(len(read))
            time.sleep(0.05)
            yield str(len(read))

    async def quick(prompt):
        return prompt

    options = {"store": tmp_path / "s.db"} if stored else {}
    seen_at = []
    with stream(quick, slow(), ordered=ordered, **options) as results:
        for _ in results:
            seen_at.append(len(read))
    assert len(seen_at) == len(read)
    assert readers == {threading.current_thread()}


async def test_an_async_stream_does_so_too():
    from batch_llm import process_stream

    def slow():
        while True:
            time.sleep(0.05)
            yield "x"

    async def quick(prompt):
        return prompt

    results = process_stream(quick, slow())
    await anext(aiter(results))  # comes although the source has no end
    await results.aclose()


async def test_a_pool_whose_call_ends_the_program_closes_with_it():
    asked = []

    async def ask(prompt):
        asked.append(prompt)
        if prompt == "leave":
            raise SystemExit(4)
        await asyncio.sleep(1000)

    pool = LLMCallPool(ask)
    waiting = asyncio.ensure_future(pool._submit_contained("wait", None))
    await until(lambda: asked)
    with pytest.raises(SystemExit):
        await pool.submit("leave")
    assert isinstance(await waiting, SystemExit)
    with pytest.raises(SystemExit):
        await pool.submit("later")
    await pool.aclose()


async def test_what_waits_for_its_turn_can_be_cancelled():
    asked, gate = [], asyncio.Event()

    async def ask(prompt):
        asked.append(prompt)
        await gate.wait()
        return prompt

    strategy = CallableStrategy(ask, max_concurrency=1)
    calls = [asyncio.ensure_future(strategy.execute(str(number), 1, 10.0)) for number in range(10)]
    await until(lambda: asked)
    for number in (1, 3, 5):
        calls[number].cancel()
    gate.set()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [number for number, answer in enumerate(done) if isinstance(answer, tuple)] == [0, 2, 4, 6, 7, 8, 9]
    assert (await process_prompts(strategy, ["x"])).succeeded == 1
