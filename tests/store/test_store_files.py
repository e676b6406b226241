"""Files of stores: what is refused, damaged, used by several processes, or of an earlier version."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from batch_llm import (
    ArtifactFormatError,
    ArtifactIOError,
    JsonlArtifactStore,
    ParallelBatchProcessor,
    ResponseCache,
    SqliteArtifactStore,
    inspect,
    llm,
    process_prompts,
    process_stream,
    run,
    stream,
)

from ..helpers import Echo
from .common import PROMPTS, SUFFIXES

# Files


def test_what_makes_no_sense_is_refused_at_once(tmp_path):
    for options, error in (
        ({"store": "a.txt"}, ValueError),
        ({"store": 7}, TypeError),
        ({"store": "a.db", "artifact_store": "b.db"}, ValueError),
        ({"resume": "reuse_all"}, ValueError),
        ({"store": "a.db", "resume": "sometimes"}, ValueError),
        ({"cache": 7}, TypeError),
        ({"dedupe": "yes"}, TypeError),
    ):
        with pytest.raises(error):
            ParallelBatchProcessor(**options)
    for kind in (JsonlArtifactStore, SqliteArtifactStore, ResponseCache):
        with pytest.raises(ValueError, match="only shells replace '~'"):
            kind("~/a.db")
    for options in ({"busy_timeout_seconds": 0}, {"durability": "some"}):
        with pytest.raises(ValueError, match=r"busy_timeout|some"):
            SqliteArtifactStore("a.db", **options)
    with pytest.raises(TypeError, match="encoder"):
        JsonlArtifactStore("a.jsonl", encoder=1)
    assert repr(JsonlArtifactStore("a.jsonl")) == "JsonlArtifactStore('a.jsonl')"


def test_files_of_others_are_left_alone(tmp_path):
    strategy = Echo()
    foreign = tmp_path / "a.jsonl"
    foreign.write_text('{"mine": 1}\n')
    text = tmp_path / "b.db"
    text.write_text("not a database, but long enough to look at" * 100)
    other = tmp_path / "c.db"
    sqlite3.connect(other).execute("CREATE TABLE a (b)").connection.close()
    newer = tmp_path / "d.db"
    run(strategy, ["a"], store=newer)
    sqlite3.connect(newer).execute("PRAGMA user_version = 99").connection.close()
    cache = tmp_path / "e.db"
    run(strategy, ["a"], cache=cache)
    calls = len(strategy.calls)
    for path, words in (
        (foreign, "not a store"),
        (text, "not an SQLite"),
        (other, "not a store"),
        (newer, "newer"),
        (cache, "not a store"),
    ):
        before = path.read_bytes()
        with pytest.raises(ArtifactFormatError, match=words):
            run(strategy, ["a"], store=path)
        with pytest.raises(ArtifactFormatError, match=words):
            inspect(path)
        assert path.read_bytes() == before
    assert len(strategy.calls) == calls
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "nothing.db")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(ArtifactFormatError):
        inspect(tmp_path / "x.txt")


def test_a_text_file_has_one_writer(tmp_path):
    store = tmp_path / "a.jsonl"
    results = stream(Echo(0.01), PROMPTS, store=store, concurrency=2)
    next(results)
    with pytest.raises(ArtifactIOError, match=r"another process \(\d+\)|another process") as caught:
        run(Echo(), ["a"], store=store)
    assert ".db" in str(caught.value)
    results.close()
    run(Echo(), ["a"], store=store)


def test_a_damaged_database_is_said(tmp_path):
    store = tmp_path / "a.db"
    run(Echo(), PROMPTS, store=store)
    content = bytearray(store.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    store.write_bytes(content)
    with pytest.raises(ArtifactFormatError, match="damaged"):
        run(Echo(), PROMPTS, store=store)
    with pytest.raises(ArtifactFormatError, match="damaged"):
        inspect(store)
    assert store.read_bytes() == content


async def test_a_database_that_another_process_holds(tmp_path):
    store = SqliteArtifactStore(tmp_path / "a.db", busy_timeout_seconds=0.05)
    program = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = None

    def prompts():
        nonlocal other
        for number in range(1000):
            if number == 500:
                command = [sys.executable, "-c", program, store.path]
                other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                assert other.stdout.readline() == b"held\n"
            yield str(number)

    with pytest.raises(ArtifactIOError, match="busy_timeout_seconds") as caught:
        await process_prompts(Echo(0.001), prompts(), store=store, concurrency=5)
    other.communicate(b"")
    batch = caught.value.partial_result
    assert batch.termination.kind == "artifact_error"
    stored = inspect(store.path).succeeded
    assert batch.succeeded - 5 <= stored <= batch.succeeded
    again = await process_prompts(Echo(0.001), map(str, range(1000)), artifact_store=store, resume="reuse_successes")
    assert (again.succeeded, again.stats.replayed) == (1000, stored)


def test_a_torn_line_is_said_and_asked_again(tmp_path, caplog):
    store, strategy = tmp_path / "a.jsonl", Echo()
    run(strategy, PROMPTS, store=store, control=False)
    # The last line says what limited the run; before it stands the last result.
    whole = b"".join(line for line in store.read_bytes().splitlines(keepends=True) if b"bound_over_time" not in line)
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last + 1, len(whole), 7):
        store.write_bytes(whole[:length])
        strategy.calls.clear()
        with caplog.at_level(logging.WARNING):
            batch = run(strategy, PROMPTS, store=store)
        assert (batch.succeeded, len(strategy.calls)) == (100, 1)
        assert any("torn" in record.getMessage() for record in caplog.records)


def test_several_processes_write_to_one_database(tmp_path):
    store = tmp_path / "a.db"
    program = (
        "import sys, batch_llm\n"
        "from batch_llm.testing import FakeStrategy\n"
        "name = sys.argv[1]\n"
        "prompts = [(f'{name}-{n}', f'{name} {n}') for n in range(500)]\n"
        f"batch = batch_llm.run(FakeStrategy('answer', latency=0.001), prompts, store={str(store)!r}, concurrency=20)\n"
        "assert batch.succeeded == 500, batch.summary()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    view = inspect(store)
    assert (view.succeeded, view.runs, view.records) == (1500, 3, 1500)


async def test_looking_into_a_store_in_use(tmp_path):
    store = tmp_path / "a.db"
    async with process_stream(Echo(0.001), map(str, range(500)), concurrency=5, store=store) as results:
        seen = 0
        async for _ in results:
            seen += 1
            if seen % 100 == 0:
                assert inspect(store).succeeded >= seen
    view = inspect(store)
    assert view.succeeded == view.items == 500
    frame = view.to_pandas()
    assert len(frame) == 500
    assert len(view.to_polars()) == view.to_arrow().num_rows == 500
    assert SqliteArtifactStore.read_results(store).succeeded == 500
    assert len(list(SqliteArtifactStore(store).iter_results(successes_only=True))) == 500
    assert view.batch().total_input_tokens == view.input_tokens == 5000
    assert "500 succeeded" in view.summary()


DATA = Path(__file__).parents[1] / "data"


@SUFFIXES
def test_stores_of_earlier_versions_open(tmp_path, suffix):
    for old in sorted(DATA.glob(f"store-*{suffix}")):
        store = tmp_path / old.name
        store.write_bytes(old.read_bytes())
        assert inspect(store).succeeded == 3
        strategy = llm("openai:gpt-5-mini", api_key="none", base_url="http://127.0.0.1:9/v1", temperature=0.5)
        batch = run(strategy, [("1", "One?"), ("2", "Two?", {"page": 2}), ("3", ["Three?"])], store=store)
        assert (batch.stats.replayed, batch.succeeded) == (3, 3), batch.failures
    assert list(DATA.glob(f"store-*{suffix}"))
