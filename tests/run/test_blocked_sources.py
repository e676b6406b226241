"""Ctrl-C while a source blocks: the reading ends, and then the run as ever."""

from __future__ import annotations

import os
import textwrap

import pytest

from .test_interrupts import Script, raising

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send")

BEGIN = """
import os, queue, socket, sqlite3, threading
from batch_llm import read_in_thread, run_frame
def announced(prompt, seconds=0.3):
    threading.Timer(seconds, say, ["ready"]).start()  # by then the source blocks
    return prompt
async def answer(prompt):
    return prompt
def in_python():
    yield "a"
    yield announced("b")
    queue.Queue().get()
def in_a_read():
    yield "a"
    yield announced("b")
    os.read(os.pipe()[0], 1)
def in_a_socket():
    yield "a"
    yield announced("b")
    here, there = socket.socketpair()
    here.recv(1)
def in_a_sleep():
    yield "a"
    yield announced("b")
    while True:
        time.sleep(0.01)
def in_an_iterator_of_its_own():
    there = queue.Queue()
    there.put("a")
    there.put(announced("b", 2.0))  # the run has not begun
    return iter(there.get, None)
def in_c():
    read, write = os.pipe()
    os.write(write, announced("a\\nb\\n", 2.0).encode())
    globals()["open_end"] = write
    return iter(os.fdopen(read))
"""
SOURCES = ["in_python", "in_a_read", "in_a_socket", "in_a_sleep", "in_an_iterator_of_its_own", "in_c"]


def said_by(*parts: str) -> list[str]:
    script = Script("\n".join([BEGIN, *map(textwrap.dedent, parts)]))
    script.wait_for("ready")
    script.interrupt()
    code, said, err = script.end()
    assert code == 0, err
    assert "Traceback" not in err
    return said


@pytest.mark.parametrize("source", [*(f"{name}()" for name in SOURCES), "read_in_thread(in_a_read())"])
def test_run(source):
    run = raising(f"batch = run(answer, {source})")
    assert said_by(run, "say(batch.termination.kind, batch.succeeded, batch.total_items)") == ["interrupted", "2", "2"]


@pytest.mark.parametrize("source", ["in_python", "in_c"])
def test_on_an_event_loop(source):
    text = raising(f"batch = asyncio.run(process_prompts(answer, {source}()))")
    assert said_by(text, "say(batch.termination.kind, batch.total_items)") == ["interrupted", "2"]


def test_what_is_in_flight_ends():
    said = said_by(
        """
        async def answer(prompt):
            if prompt == "b":
                await asyncio.sleep(1.0)
            return prompt
        """,
        raising("batch = run(answer, in_python())"),
        "say(batch.succeeded, batch.total_items)",
    )
    assert said == ["2", "2"]


@pytest.mark.parametrize("source", ["in_a_read()", "read_in_thread(in_a_read())"])
@pytest.mark.parametrize("kind", ["stream", "asyncio.run"])
def test_streams(kind, source):
    loop = f"for result in stream(answer, {source}): got.append(result)"
    if kind == "asyncio.run":
        loop = f"""
            async def main():
                async for result in process_stream(answer, {source}):
                    got.append(result)
            asyncio.run(main())
            """
    said = said_by("got = []", raising(loop), "say(batch.termination.kind, len(got) + batch.not_sent)")
    assert said == ["interrupted", "2"]


def test_the_end_is_returned_where_that_is_wanted():
    said = said_by(
        """
        batch = run(answer, in_a_read(), on_interrupt="return")
        say(batch.termination.kind, batch.succeeded)
        """
    )
    assert said == ["interrupted", "2"]


def test_functions_of_rows():
    said = said_by(
        """
        import pandas
        def prompt_of(row):
            if row["text"] == "c":
                announced("")
                queue.Queue().get()
            return row["text"]
        """,
        raising("batch = run_frame(pandas.DataFrame({'text': list('abcd')}), prompt_of, answer)"),
        "say(*batch['output'].fillna('-'))\nsay(batch['output_error'].notna().sum())",
    )
    assert said == ["a", "b", "-", "-", "2"]


def test_functions_of_rows_are_not_called_for_the_rest():
    said = said_by(
        """
        import pandas
        def prompt_of(row):
            if row["text"] == 300:
                announced("")
            time.sleep(0.002 if row["text"] < 300 else 0.1)
            return f"{row['text']}"
        """,
        raising("batch = run_frame(pandas.DataFrame({'text': range(2000)}), prompt_of, answer)"),
        "say(batch['output'].notna().sum() < 400)",
    )
    assert said == ["True"]


def test_a_source_that_hears_of_it_may_clean_up():
    said = said_by(
        """
        def source():
            try:
                yield from in_a_read()
            except KeyboardInterrupt:
                say("cleaned")
                yield "c"
        """,
        raising("batch = run(answer, source())"),
        "say(batch.termination.kind, batch.total_items)",
    )
    assert said[:2] == ["cleaned", "interrupted"]
    assert said[2] in ("2", "3")  # whether "c" is taken is open


def test_a_run_within_a_source_ends_gently_itself():
    said = said_by(
        """
        async def slow(prompt):
            await asyncio.sleep(1.0)
            return prompt
        def source():
            announced("")
            inner = run(slow, ["x", "y"], on_interrupt="return")
            say("inner", inner.succeeded)
            yield "a"
        """,
        raising("batch = run(answer, source())"),
        "say(batch.termination.kind)",
    )
    assert said == ["inner", "2", "interrupted"]
