"""``read_in_thread()``: a source that blocks holds up neither results nor an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading

import pytest

from batch_llm import GuardrailConfig, ProcessorConfig, process_prompts, process_stream, read_in_thread, run, stream
from batch_llm._run import source as source_module

from ..helpers import Echo
from ..surfaces.test_blocking import left, wait_for
from ..surfaces.test_prompts import upper


class Silence:
    """A source that falls silent after five prompts until it may go on, and answers that come in the silence only."""

    def __init__(self):
        self.has_begun, self.goes_on = threading.Event(), threading.Event()
        self.closed_by = None

    def __iter__(self):
        return self.prompts()

    def prompts(self):
        try:
            yield from "abcde"
            self.has_begun.set()
            assert self.goes_on.wait(30)
            yield "f"
        finally:
            self.closed_by = threading.current_thread().name

    async def ask(self, prompt):
        while not self.has_begun.is_set():
            await asyncio.sleep(0.001)
        return prompt


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "batch-llm source"]


@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"concurrency": 5}, {"dedupe": True}])
def test_results_come_while_the_source_is_silent(options):
    source = Silence()
    got = []
    for result in stream(source.ask, read_in_thread(source), **options):
        got.append(result.output)
        if len(got) == 5:
            source.goes_on.set()
    assert sorted(got) == list("abcdef")
    wait_for(lambda: not readers())


async def test_it_does_not_block_an_event_loop():
    source = Silence()
    got = []
    async for result in process_stream(source.ask, read_in_thread(source)):
        got.append(result.output)
        if len(got) == 5:
            source.goes_on.set()
    assert sorted(got) == list("abcdef")

    source = Silence()
    batch = asyncio.create_task(process_prompts(source.ask, read_in_thread(source)))
    while not source.has_begun.is_set():
        await asyncio.sleep(0.001)
    source.goes_on.set()
    assert (await batch).succeeded == 6


def test_one_thread_reads_it_all():
    seen = contextvars.ContextVar("seen", default="")
    seen.set("by the caller")

    def rows():
        assert seen.get() == "by the caller"
        database = sqlite3.connect(":memory:")  # which belongs to the thread that has opened it
        database.execute("create table prompts (id, text)")
        database.executemany("insert into prompts values (?, ?)", [(number, f"p{number}") for number in range(2000)])
        yield from database.execute("select id, text from prompts")
        database.close()

    batch = run(upper, read_in_thread(rows()), preserve_order=True)
    assert [result.item_id for result in batch] == [str(number) for number in range(2000)]
    assert len(list(stream(upper, read_in_thread(rows())))) == 2000


@pytest.mark.parametrize("make", [list, iter, lambda texts: dict.fromkeys(texts).keys(), lambda texts: map(str, texts)])
def test_any_plain_iterable(make):
    texts = [str(number) for number in range(700)]
    assert [result.output for result in stream(upper, read_in_thread(make(texts)), ordered=True)] == texts


def test_a_cursor_of_another_thread_is_an_error_and_without_it_none():
    database = sqlite3.connect(":memory:")
    database.execute("create table prompts (text)")
    database.executemany("insert into prompts values (?)", [(f"p{number}",) for number in range(300)])

    def rows():
        for (text,) in database.execute("select text from prompts"):
            yield text

    assert len(list(stream(upper, rows()))) == 300
    with pytest.raises(sqlite3.ProgrammingError):
        list(stream(upper, read_in_thread(rows())))
    database.close()


def test_errors_come_after_what_was_read():
    def source(error):
        yield from ("a", "b")
        raise error

    got = []

    def drain():
        for result in stream(upper, read_in_thread(source(OSError("gone")))):
            got.append(result.output)

    with pytest.raises(OSError, match="gone"):
        drain()
    assert sorted(got) == ["A", "B"]
    with pytest.raises(TypeError, match=r"prompts\[1\]") as caught:
        run(upper, read_in_thread(["a", 5]))
    assert caught.value.partial_result.outputs() == ["A"]
    with pytest.raises(SystemExit):
        run(upper, read_in_thread(source(SystemExit(3))))
    assert left() == []
    wait_for(lambda: not readers())


def test_leaving_early_does_not_wait_for_the_source():
    source = Silence()
    prompts = source.prompts()
    with stream(source.ask, read_in_thread(prompts)) as results:
        next(results)
    assert left() == []
    assert source.closed_by is None  # its next() is still on
    source.goes_on.set()
    wait_for(lambda: not readers())
    assert source.closed_by == "batch-llm source"


def test_a_guardrail_ends_the_run_while_the_source_is_silent():
    source = Silence()
    config = ProcessorConfig(guardrails=GuardrailConfig(batch_timeout=0.2))
    batch = run(source.ask, read_in_thread(source), config=config)
    source.goes_on.set()
    assert batch.termination.kind == "batch_timeout"


def test_files_stay_open(tmp_path):
    (tmp_path / "prompts.txt").write_text("a\n" * 5000)
    with open(tmp_path / "prompts.txt") as file:
        with stream(upper, read_in_thread(file), concurrency=1) as results:
            next(results)
        wait_for(lambda: not readers())
        assert not file.closed


def test_it_is_not_read_further_than_needed():
    read = 0

    def source():
        nonlocal read
        for number in range(1_000_000):
            read = number + 1
            yield str(number)

    config = ProcessorConfig(concurrency=4, max_queue_size=8, max_result_queue_size=8)
    with stream(Echo(), read_in_thread(source()), config=config) as results:
        for taken, _ in enumerate(results, 1):
            assert read <= taken + 4 + 8 + 8 + 16
            if taken == 1000:
                break


def test_what_cannot_be_read_so():
    async def source():
        yield "a"

    with pytest.raises(TypeError, match="pass it directly"):
        read_in_thread(source())
    for wrong in ("text", {"a": 1}, 5):
        with pytest.raises(TypeError, match="must be an iterable"):
            read_in_thread(wrong)


async def test_a_source_that_blocks_the_loop_is_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr(source_module, "BLOCKED_SECONDS", -1.0)
    await process_prompts(upper, read_in_thread(["a", "b"]))
    assert [record for record in caplog.records if record.name.startswith("batch_llm")] == []
    await process_prompts(upper, [str(number) for number in range(1000)])
    assert [record.event for record in caplog.records] == ["source_blocked"]
    assert "read_in_thread(prompts)" in caplog.text
