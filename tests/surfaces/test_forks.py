"""Forked children, while runs are on in their parent: nothing hangs, and nothing of the parent's is used."""

from __future__ import annotations

import json
import multiprocessing
import os
import textwrap
import time
from typing import Any

import pytest

from batch_llm import ProcessorConfig, stream

from ..helpers import script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = """
import multiprocessing, signal, tempfile, threading, warnings
import batch_llm
from batch_llm.testing import SimulatedProvider
warnings.simplefilter("ignore")
run = batch_llm.run  # not that of the helpers
provider = SimulatedProvider().__enter__()
folder = tempfile.mkdtemp()
new = lambda: llm("openai:gpt-5-mini", base_url=provider.base_url, api_key="any")
native = new()

def forked(do, leave=sys.exit):
    "The exit code of a child that does something, and then ends as programs do; -14 if it hangs."
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        leave(0 if do() else 3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def program(text: str) -> list[str]:
    """What a program said."""
    done = script(BEGIN + textwrap.dedent(text), timeout=150.0)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "destroyed" not in done.stderr
    return done.stdout.split()


def test_children_of_a_busy_parent_answer_and_end():
    said = program(
        """
        stop, rounds = False, [0, 0, 0]

        async def quick(prompt):
            return prompt

        def busy(number, *arguments, **options):
            while not stop:
                assert run(*arguments, [f"q{i}" for i in range(500)], **options).failed == 0
                rounds[number] += 1

        threads = [
            threading.Thread(target=busy, args=(0, native)),
            threading.Thread(target=busy, args=(1, quick), kwargs={"store": f"{folder}/s.db", "resume": "force"}),
            threading.Thread(target=busy, args=(2, lambda prompt: prompt)),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)

        def stored():
            return run(quick, ["a", "b"], store=f"{folder}/{os.getpid()}.db", cache=f"{folder}/c{os.getpid()}.db")

        ways = {
            "old": lambda: run(native, ["a", "b"]),
            "new": lambda: run(new(), ["a", "b"]),
            "plain": lambda: run(lambda prompt: prompt, ["a", "b"]),
            "stored": stored,
        }
        codes = [forked(lambda: way().succeeded == 2) for _ in range(3) for way in ways.values()]
        before = list(rounds)
        time.sleep(1.0)
        stop = True
        for thread in threads:
            thread.join()
        print(set(codes), all(now > then for now, then in zip(rounds, before)), sep="|")
        """
    )
    assert said == ["{0}|True"]


def test_a_child_that_is_forked_within_a_run_leaves_the_run_alone():
    said = program(
        """
        codes = []

        async def ask(prompt):
            if prompt == "5":
                codes.append(forked(lambda: True, leave=os._exit))
            await asyncio.sleep(0.01)
            return prompt

        async def main():
            return (await process_prompts(ask, [str(number) for number in range(50)], concurrency=3)).succeeded

        print(run(ask, [str(number) for number in range(50)], concurrency=3).succeeded, asyncio.run(main()), codes)
        """
    )
    assert "".join(said) == "5050[0,0]"


def test_a_child_frees_what_its_parent_is_at_without_a_word():
    said = program(
        """
        import gc

        class Cleaning(Echo):
            async def cleanup(self):
                await asyncio.sleep(0)

        class Watching(BaseObserver):
            async def on_event(self, event, data):
                await asyncio.sleep(0)

        done = []

        async def main():
            options = {"store": f"{folder}/s.db", "observers": [Watching()]}
            done.append((await process_prompts(Cleaning(0.3), ["x"] * 20, concurrency=4, **options)).succeeded)

        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(1)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        print(forked(lambda: gc.collect() is not None), forked(lambda: run(Echo(), ["x"]).succeeded == 1))
        for thread in threads:
            thread.join()
        print(*done)
        """
    )
    assert said == ["0", "0", "20"]


def test_a_pool_is_new_in_a_child():
    said = program(
        """
        async def ask(prompt):
            await asyncio.sleep(0.2)
            return prompt

        pool = LLMCallPool(ask)

        async def child():
            return await pool.submit("x") == "x"

        async def main():
            call = asyncio.create_task(pool.submit("y"))
            await asyncio.sleep(0.05)

            def in_child():
                asyncio._set_running_loop(None)
                return asyncio.new_event_loop().run_until_complete(child())

            code = forked(in_child, leave=os._exit)
            answer = await call
            await pool.aclose()
            return code, answer

        print(*asyncio.run(main()))
        """
    )
    assert said == ["0", "y"]


def test_multiprocessing_forks_with_a_strategy_of_the_parent():
    said = program(
        """
        print(run(native, ["x"]).succeeded)

        def job(number):
            return run(native, [f"{number}-{i}" for i in range(20)]).succeeded

        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(*pool.map_async(job, range(6)).get(60))
        """
    )
    assert said == ["1", *["20"] * 6]


def test_an_interrupt_in_a_child_is_the_childs_own():
    said = program(
        """
        async def ask(prompt):
            await asyncio.sleep(1.0)
            return prompt

        def leave():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            except KeyboardInterrupt:
                return True

        results = stream(ask, ["x", "y"], concurrency=1)
        next(results)
        print(forked(leave), len(list(results)))
        """
    )
    assert said == ["0", "1"]


_barrier: Any = None
_counts: Any = None
_is_over: Any = None


def _use(*shared: Any) -> None:
    global _barrier, _counts, _is_over
    _barrier, _counts, _is_over = shared


def _count(path: str, number: int, wait: float) -> float:
    async def ask(prompt: str) -> str:
        return prompt

    config: Any = ProcessorConfig(
        concurrency=5, max_requests_per_minute=1200, quota_burst_seconds=1, shared_limits=path
    )
    _barrier.wait(60)
    start = time.monotonic()
    time.sleep(wait)
    with stream(ask, (f"{number}-{place}" for place in range(10**6)), config=config) as results:
        for _ in results:
            _counts[number] += 1
            if _is_over.is_set():
                break
    return time.monotonic() - start


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_processes_get_equal_shares_of_limits(tmp_path, how):
    if how == "fork":
        # The application has used the package before it forks.
        with stream(_echo, ["x"]) as results:
            assert len(list(results)) == 1
    path, context = str(tmp_path / "limits.json"), multiprocessing.get_context(how)
    counts, is_over = context.Array("q", 4), context.Event()

    def are_equal() -> bool:
        equal = sum(counts) / 4
        return equal >= 60 and all(abs(count - equal) <= 0.15 * equal for count in counts)

    with context.Pool(4, _use, (context.Barrier(4), counts, is_over)) as pool:
        jobs = [(path, number, wait) for number, wait in enumerate((0.0, 0.1, 0.2, 0.3))]
        running = pool.starmap_async(_count, jobs, chunksize=1)
        end = time.monotonic() + 90
        while not are_equal():
            # Where the machine leaves one behind, it catches up.
            assert time.monotonic() < end, list(counts)
            assert not running.ready(), running.get()
            time.sleep(0.05)
        is_over.set()
        seconds = max(running.get(60))
    assert sum(counts) < 20 * seconds + 20 + 4, list(counts)
    assert json.loads((tmp_path / "limits.json").read_text()).keys() == {"leases", "groups"}


async def _echo(prompt: str) -> str:
    return prompt
