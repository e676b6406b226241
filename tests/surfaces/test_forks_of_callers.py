"""A child that is forked by whoever reads a blocking stream, or by a source: it never waits for its parent's loop."""

from __future__ import annotations

import os
import textwrap

import pytest

from ..helpers import script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = """
import signal, warnings
warnings.simplefilter("ignore")
async def ask(prompt):
    await asyncio.sleep(0.02)
    return prompt
prompts = (str(number) for number in range(200))

def begun():
    "Fork; the child is killed if it hangs."
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
    return pid

def ended(pid):
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def program(text: str) -> str:
    done = script(BEGIN + textwrap.dedent(text), timeout=60.0)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


def test_the_child_leaves_a_with_block():
    said = program(
        """
        with stream(ask, prompts) as results:
            next(results)
            pid = begun()
            if pid == 0:
                sys.exit(5)
            ended(pid)
            print(sum(1 for _ in results))
        """
    )
    assert said == "child 5\n199"


def test_the_child_reads_on():
    said = program(
        """
        results = stream(ask, prompts)
        next(results)
        pid = begun()
        if pid == 0:
            try:
                for _ in results:
                    pass
            except RuntimeError as error:
                assert "started before a fork" in str(error)
                assert not list(results)
                results.close()
                sys.exit(5)
        ended(pid)
        print(sum(1 for _ in results))
        """
    )
    assert said == "child 5\n199"


def test_the_child_has_runs_of_its_own():
    said = program(
        """
        with stream(ask, prompts) as results:
            next(results)
            pid = begun()
            if pid == 0:
                results.close()
                sys.exit(batch_of(3))
            ended(pid)
            print(sum(1 for _ in results))
        """.replace("batch_of(3)", "sum(1 for _ in stream(ask, ['a', 'b', 'c']))")
    )
    assert said == "child 3\n199"


@pytest.mark.parametrize("leave", ["sys.exit(5)", "return"])
def test_a_source_forks(leave):
    said = program(
        f"""
        def source():
            yield "a"
            pid = begun()
            if pid == 0:
                {leave}
            ended(pid)
            yield "b"
        try:
            print(sum(1 for _ in stream(ask, source())))
        except RuntimeError as error:
            assert "started before a fork" in str(error)
            sys.exit(5)
        """
    )
    assert said == "child 5\n2"
