"""Ctrl-C, in real processes: the first ends a run gently, the second at once, the third is everybody's.

What was done is with the ``KeyboardInterrupt`` that follows, or is returned where that is wanted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send")

PRELUDE = """
import asyncio, os, sys, time
from batch_llm import last_interrupted, process_prompts, process_stream, run, stream, ProcessorConfig
done = []
begun = []
async def slow(prompt):
    begun.append(prompt)
    if len(begun) == 5:
        say("ready")
    if prompt == "interrupt":
        while not os.path.exists(INTERRUPTED):
            await asyncio.sleep(0.01)
        prompt = "0.4"  # ends a little later
    await asyncio.sleep(float(prompt))
    done.append(prompt)
    return prompt
def say(*words):
    print(*words, flush=True)
"""


class Script:
    """A script in a process of its own. Its prompts "interrupt" are answered after an interrupt, whenever that is."""

    def __init__(self, text, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        self.sent = Path(self.folder.name, "sent")
        code = PRELUDE + f"INTERRUPTED = {str(self.sent)!r}\n" + textwrap.dedent(text)
        command = [sys.executable, *arguments, "-c", code]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.timer = threading.Timer(60, self.process.kill)
        self.timer.start()

    def wait_for(self, line):
        for said in self.process.stdout:
            if said.strip() == line:
                return
        raise AssertionError(f"it ended without {line!r}: {self.process.stderr.read()}")

    def interrupt(self, after=0.1):
        time.sleep(after)
        self.process.send_signal(signal.SIGINT)
        self.sent.touch()

    def end(self):
        out, err = self.process.communicate()
        self.timer.cancel()
        self.folder.cleanup()
        return self.process.returncode, out.split(), err


GENTLY = {
    "asyncio.run": """
        async def main():
            return await process_prompts(slow, ["interrupt"] * 50, concurrency=5)
        batch = asyncio.run(main())
        """,
    "uvloop": """
        import uvloop
        async def main():
            return await process_prompts(slow, ["interrupt"] * 50, concurrency=5)
        batch = uvloop.run(main())
        """,
    "run": """
        batch = run(slow, ["interrupt"] * 50, concurrency=5)
        """,
    "a busy reader": """
        def source():
            for number in range(50):
                if number == 10:
                    time.sleep(1.0)
                yield "interrupt"
        batch = run(slow, source(), concurrency=5)
        """,
    "anyio": """
        import anyio
        async def main():
            return await process_prompts(slow, ["interrupt"] * 50, concurrency=5)
        batch = anyio.run(main)
        """,
}
REPORT = """
say(batch.termination.kind, batch.succeeded, len(done), batch.not_sent, batch.total_items, batch.failed)
"""
RETURN = 'concurrency=5, on_interrupt="return"'


def raising(text):
    """The same in a ``try`` statement."""
    body = textwrap.indent(textwrap.dedent(text), "    ")
    return f"""
try:
{body}
    say("not reached")
except KeyboardInterrupt as error:
    batch = error.partial_result
    assert batch is last_interrupted()
    assert "last_interrupted" in str(error)
"""


@pytest.mark.parametrize("follows", ["raise", "return"])
@pytest.mark.parametrize("way", GENTLY)
def test_the_first_one_lets_what_is_on_end(way, follows):
    text = textwrap.dedent(GENTLY[way])
    text = text.replace("concurrency=5", RETURN) if follows == "return" else raising(text)
    script = Script(text + REPORT)
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said[:3]) == (0, ["interrupted", "5", "5"]), err
    if way != "a busy reader":  # a generator is read no further
        assert said[3:] == ["45", "50", "0"]
    assert "interrupt again to stop at once" in err
    assert "Traceback" not in err


STREAMS = {
    "process_stream": """
        async def main():
            results = process_stream(slow, ["interrupt"] * 50, concurrency=5)
            got = [result async for result in results]
            say(results.termination.kind, sum(result.success for result in got))
        asyncio.run(main())
        """,
    "stream": """
        results = stream(slow, ["interrupt"] * 50, concurrency=5)
        got = list(results)
        say(results.termination.kind, sum(result.success for result in got))
        """,
}


@pytest.mark.parametrize("way", STREAMS)
def test_streams_yield_what_is_done(way):
    script = Script(STREAMS[way].replace("concurrency=5", RETURN))
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["interrupted", "5"]), err


ENDINGS = {
    "process_stream": """
        async def main():
            async for result in process_stream(slow, ["interrupt"] * 50, concurrency=5):
                got.append(result)
        got = []
        asyncio.run(main())
        """,
    "stream": """
        got = []
        for result in stream(slow, ["interrupt"] * 50, concurrency=5):
            got.append(result)
        """,
}


@pytest.mark.parametrize("way", ENDINGS)
def test_streams_raise_after_the_last_result(way):
    say = """
say(batch.termination.kind, len(got), sum(result.success for result in got), batch.total_items, batch.not_sent)
say(batch.stats.total, batch.stats.succeeded)
assert "5 results were yielded before, and 45 for prompts that were not sent are in" in str(last_interrupted.said)
"""
    script = Script(
        raising(ENDINGS[way]).replace("assert batch is", "last_interrupted.said = error; assert batch is") + say
    )
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["interrupted", "5", "5", "45", "45", "50", "5"]), err
    assert "Traceback" not in err


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("way", ENDINGS)
def test_an_interrupted_stream_does_not_read_a_long_list(way, ordered):
    text = ENDINGS[way].replace("* 50", "* 300_000").replace("concurrency=5", f"concurrency=5, ordered={ordered}")
    script = Script(raising(text) + "say(len(got), batch.total_items == batch.not_sent, batch.stats.total < 2000)")
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["5", "True", "True"]), err


def test_a_frame_comes_with_it_too():
    script = Script(
        """
        import pandas
        from batch_llm import run_frame
        frame = pandas.DataFrame({"text": ["interrupt"] * 50})
        try:
            run_frame(frame, "{text}", slow, concurrency=5)
        except KeyboardInterrupt as error:
            partial = error.partial_result
        say(partial is last_interrupted(), len(partial), partial.output.notna().sum())
        say(set(partial.output_error.dropna()))
        """
    )
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["True", "50", "5", "{'not", "sent:", "the", "run", "was", "interrupted'}"]), err


PROCESSORS = {
    "main": "asyncio.run(main())",
    "a task": "asyncio.run(in_a_task())",
    "gather": "asyncio.run(in_a_gather())",
    "anyio": "import anyio; anyio.run(main)",
    "uvloop": "import uvloop; uvloop.run(main())",
}


@pytest.mark.parametrize("way", PROCESSORS)
def test_a_processor_that_is_cancelled_by_it(way):
    script = Script(
        """
        import signal
        from batch_llm import CallableStrategy, LLMWorkItem, ParallelBatchProcessor
        async def main():
            async with ParallelBatchProcessor(max_workers=5) as processor:
                for prompt in ["0.1"] * 5 + ["50"] * 20:
                    await processor.add_work(LLMWorkItem(str(id(prompt)), CallableStrategy(slow), prompt))
                adding = asyncio.create_task(wait())
                await processor.process_all()
        async def in_a_task():
            await asyncio.create_task(main())
        async def in_a_gather():
            await asyncio.gather(main(), asyncio.sleep(60))
        async def wait():
            while len(done) < 5:
                await asyncio.sleep(0.01)
            say("five")
        assert last_interrupted() is None
        try:
            """
        + PROCESSORS[way]
        + """
        except KeyboardInterrupt as error:
            batch = error.partial_result
            assert batch is last_interrupted()
            assert "10 results are in batch_llm.last_interrupted()" in str(error)
        say(batch.succeeded, batch.failed, batch.not_sent, batch.termination.kind)
        say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        """
    )
    script.wait_for("five")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["5", "5", "15", "interrupted", "True"]), err
    assert "Traceback" not in err


def test_processors_that_are_cancelled_together_raise_one_exception():
    script = Script(
        """
        import signal
        from batch_llm import CallableStrategy, LLMWorkItem, ParallelBatchProcessor
        async def one():
            async with ParallelBatchProcessor(max_workers=5) as processor:
                for number in range(10):
                    await processor.add_work(LLMWorkItem(str(number), CallableStrategy(slow), "50"))
                await processor.process_all()
        async def main():
            await asyncio.gather(one(), one())
        try:
            asyncio.run(main())
        except KeyboardInterrupt as error:
            batch = error.partial_result
            assert batch is last_interrupted()
            assert not isinstance(error.__context__, KeyboardInterrupt)
        say(batch.failed, batch.not_sent, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        """
    )
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["5", "5", "True"]), err
    assert "Traceback" not in err


def test_a_processor_that_is_cancelled_otherwise_is_none():
    script = Script(
        """
        from batch_llm import CallableStrategy, LLMWorkItem, ParallelBatchProcessor
        async def main():
            async with ParallelBatchProcessor(max_workers=5) as processor:
                await processor.add_work(LLMWorkItem("a", CallableStrategy(slow), "50"))
                await asyncio.wait_for(processor.process_all(), 0.1)
        try:
            asyncio.run(main())
        except asyncio.TimeoutError:
            say(last_interrupted())
        """
    )
    assert script.end()[1] == ["None"]


def test_nothing_runs_on_in_a_script():
    script = Script(
        """
        run(slow, ["interrupt"] * 50, concurrency=5)
        say("not reached")
        """
    )
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert code != 0
    assert said == []
    assert err.rstrip().splitlines()[-1].startswith("KeyboardInterrupt: the run was interrupted; 5 results are in")


def test_one_that_does_not_end_the_wait_is_heard_too():
    """So it is with one that comes just before the wait begins. Here another thread gets it."""
    script = Script(
        """
        import signal
        run(slow, ["0"])  # so that there are other threads
        begun.clear()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        run(slow, ["interrupt"] * 50, concurrency=5)
        say("not reached")
        """
    )
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code != 0, said) == (True, [])
    assert err.rstrip().splitlines()[-1].startswith("KeyboardInterrupt: the run was interrupted; 5 results are in")


@pytest.mark.parametrize("way", ["asyncio.run", "uvloop", "run"])
def test_the_second_one_cancels_at_once(way):
    text = textwrap.dedent(GENTLY[way]).replace('"interrupt"', '"1000"')
    script = Script(raising(text) + REPORT)
    script.wait_for("ready")
    script.interrupt(0.4)
    script.interrupt(0.4)
    code, said, err = script.end()  # kills what takes a minute
    assert (code, said[:3]) == (0, ["interrupted", "0", "0"]), err


def test_the_third_one_ends_the_program():
    script = Script(
        """
        async def deaf(prompt):
            begun.append(prompt)
            if len(begun) == 5:
                say("ready")
            while True:
                try:
                    await asyncio.sleep(50)
                except asyncio.CancelledError:
                    pass
        run(deaf, ["a"] * 5)
        say("not reached")
        """
    )
    script.wait_for("ready")
    for _ in range(3):
        script.interrupt(0.4)
    code, said, err = script.end()
    assert code != 0
    assert said == []
    assert "KeyboardInterrupt" in err


def test_after_a_run_ctrl_c_is_what_it_was():
    script = Script(
        """
        run(slow, ["0"])
        import signal
        say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        say("ready")
        time.sleep(30)
        """
    )
    script.wait_for("ready")
    script.interrupt()
    _, _, err = script.end()
    assert "KeyboardInterrupt" in err


def test_a_program_that_handles_the_signal_itself_is_left_alone():
    script = Script(
        """
        import signal
        signal.signal(signal.SIGINT, lambda *_: say("mine"))
        batch = run(slow, ["1"] * 5, concurrency=5)
        say(batch.termination.kind, batch.succeeded)
        """
    )
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert (code, said) == (0, ["mine", "completed", "5"]), err


def test_the_repl_of_asyncio():
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = [
        "from batch_llm import process_prompts, run",
        "batch = await process_prompts(str.upper, ['a', 'b'])",
        "print('one', batch.succeeded)",
        "print('two', run(str.upper, ['a', 'b']).succeeded)",
    ]
    out, _ = process.communicate("\n".join(lines) + "\n", timeout=60)
    assert "one 2" in out
    assert "two 2" in out


def test_runs_that_are_interrupted_together_say_so_once():
    script = Script(
        """
        async def main():
            runs = [process_prompts(slow, ["interrupt"] * 50, concurrency=5, on_interrupt="return") for _ in range(2)]
            batches = await asyncio.gather(*runs)
            say(*(batch.termination.kind for batch in batches))
        asyncio.run(main())
        """
    )
    script.wait_for("ready")
    script.interrupt()
    _, said, err = script.end()
    assert said == ["interrupted"] * 2
    assert err == "Interrupted: waiting up to 5 s for 10 requests in flight; interrupt again to stop at once\n"


def test_nothing_is_said_of_what_is_not_in_flight():
    script = Script(
        """
        def source():
            say("ready")
            while True:
                time.sleep(0.01)
            yield
        batch = run(slow, source(), on_interrupt="return")
        """
    )
    script.wait_for("ready")
    script.interrupt()
    assert script.end()[2] == "Interrupted: stopping at once\n"


def test_what_an_interrupt_of_the_user_s_code_leaves():
    from batch_llm import last_interrupted, run

    async def ask(prompt):
        if prompt == "c":
            raise KeyboardInterrupt
        return prompt

    with pytest.raises(KeyboardInterrupt) as raised:
        run(ask, ["a", "b", "c", "d"], concurrency=1)
    assert last_interrupted() is raised.value.partial_result
    assert raised.value.partial_result.succeeded == 2
