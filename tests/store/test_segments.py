"""Stores of segments, in folders and buckets: what they do wherever they are, and with several processes at once."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch_llm import ArtifactError, SegmentArtifactStore, inspect, process_stream, run
from batch_llm.cli.main import main
from batch_llm.testing import FakeStrategy, SimulatedProvider

from ..cli_helpers import ask as cli_ask
from ..cli_helpers import lines, write_lines
from ..helpers import Echo
from .test_crashes import ROOT, Round

UNWRITTEN = 800
"""More than the killed program answers in the half second that may be unwritten: 50 workers, 0.1 s each."""


def ask(store: object, *prompts: object, **options: object) -> tuple[int, list[object]]:
    """How many of the prompts were sent, and the answers."""
    strategy = Echo()
    batch = run(strategy, list(prompts), store=store, **options)
    return len(strategy.calls), [result.output for result in batch.results]


@pytest.fixture(params=["folder", "url", "bucket"])
def place(request, tmp_path):
    if request.param == "bucket":
        return f"{request.getfixturevalue('bucket')}/a/run"
    return f"{tmp_path}/run/" if request.param == "folder" else (tmp_path / "run").as_uri()


def test_a_run_finds_what_another_has_written(place):
    assert ask(place, "a", "b") == (2, ["a", "b"])
    assert ask(place, "b", "a", "c") == (1, ["b", "a", "c"])
    assert ask(place, "a", resume="force")[0] == 1


def test_a_repeated_run_in_another_process_asks_nothing_again(place):
    program = "import sys; from tests.store.test_segments import ask; print(ask(sys.argv[1], 'a', 'b')[0])"
    both = [
        subprocess.run([sys.executable, "-c", program, place], cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [one.stdout.strip() for one in both] == ["2", "0"]


def test_equal_requests_and_samples_have_their_own_results(place):
    same = ["a", "a", "a"]
    assert ask(place, *same)[0] == 3
    assert ask(place, *same, "a")[0] == 1
    samples = [{"prompt": "b", "sample": number} for number in range(2)]
    assert ask(place, *samples)[0] == 2
    assert ask(place, *samples, {"prompt": "b", "sample": 2})[0] == 1
    assert ask(place, "x", "x", dedupe=True)[0] == 1


def test_failures_are_tried_again_and_stored_with_their_prompts(place):
    def fail(prompt):
        raise ValueError("bad")

    for _ in range(2):
        batch = run(FakeStrategy(fail), ["a"], store=place)
        assert not batch.results[0].reused
    assert run(FakeStrategy(fail), ["a"], store=place, resume="reuse_all").results[0].reused == "store"
    view = inspect(place)
    assert (view.items, view.failed, view.runs) == (1, 1, 2)
    assert "prompt: a" in view.summary()
    store = SegmentArtifactStore(place, include_prompt=True, fsync=True)
    ask(store, "b")
    assert {result.prompt for result in store.iter_results(successes_only=True)} == {"b"}


async def test_a_result_is_stored_before_it_is_seen(place):
    program = "import sys; from batch_llm import inspect; print(len(list(inspect(sys.argv[1]).results())))"
    async with process_stream(Echo(), ["a", "b"], store=place, concurrency=1) as results:
        async for _ in results:
            seen = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", program, place], capture_output=True, text=True
            )
            assert int(seen.stdout) >= 1
            break


def test_a_worker_continues_while_its_result_is_written(place):
    strategy = Echo()
    before = set(names(place))
    run(strategy, [f"{number}" for number in range(60)], store=place, concurrency=1)
    # If the worker waited, each result would have a segment of its own.
    assert len(set(names(place)) - before) < 40


def names(place: str) -> list[str]:
    if not place.startswith("s3:"):
        folder = Path(place.removeprefix("file://"))
        return os.listdir(folder) if folder.exists() else []
    from . import test_buckets

    return test_buckets.names(place)


def test_a_folder_that_exists_is_a_store_and_files_are_the_users_alone(tmp_path):
    assert ask(tmp_path, "a")[0] == 1
    assert ask(str(tmp_path), "a")[0] == 0
    modes = {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert os.name == "nt" or modes == {0o600}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:hunter2@host/a", r"http://\.\.\..*use s3://, gs://, az:// or file:///"),
        ("s3://key:hunter2@bucket/a", "credentials belong in the environment"),
        ("s3://bucket/a?sig=hunter2", "credentials belong in the environment"),
        ("file://host/a", "has three slashes"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_can(url, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        ask(url, "a")
    assert "hunter2" not in str(caught.value)


# Several processes


def test_two_processes_at_once_share_a_store(place):
    program = """if True:
        import sys
        from batch_llm import run
        from tests.helpers import Echo
        prompts = [f"{sys.argv[2]} {number}" for number in range(200)]
        run(Echo(0.002), prompts, store=sys.argv[1], concurrency=10)
    """
    both = [subprocess.Popen([sys.executable, "-c", program, place, name], cwd=ROOT) for name in ("a", "b")]
    assert [one.wait() for one in both] == [0, 0]
    view = inspect(place)
    assert (view.items, view.runs, view.damaged_records) == (400, 2, 0)
    prompts = [f"{name} {number}" for name in ("a", "b") for number in range(200)]
    strategy = Echo(0.002)
    assert run(strategy, prompts, store=place).succeeded == 400
    assert not strategy.calls


async def test_what_others_write_during_a_run_is_found(place):
    """As a task that an engine runs again on a host whose worker has been on for long."""
    strategy, other_is_there = Echo(), asyncio.Event()

    async def prompts():
        yield "mine"
        await other_is_there.wait()
        for number in itertools.count():
            # Each is asked for once by the other process; it looks every few seconds.
            yield f"theirs {number}"
            await asyncio.sleep(0.05)
            if number == 999:
                return

    async with process_stream(strategy, prompts(), store=place) as stream:
        results = aiter(stream)
        assert (await anext(results)).output == "mine"
        program = "import sys; from tests.store.test_segments import ask; "
        program += "ask(sys.argv[1], *[f'theirs {number}' for number in range(1000)])"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, place], check=True, cwd=ROOT)
        other_is_there.set()
        async for result in results:
            if result.reused:
                break
    assert result.reused == "store"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_program_continues_where_it_was(tmp_path):
    rng = random.Random(3)
    with SimulatedProvider(latency=0.1, latency_spread=0.05, count_questions=True) as provider:
        home = tmp_path / "round"
        (home / "store").mkdir(parents=True)
        one = Round(provider, home / "store", UNWRITTEN)
        while not one.kill_after(rng.randrange(100, 1_500) if one.kills < 5 else 1 << 30, rng.uniform(0, 0.3)):
            pass
        one.finish()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_and_reads_for_itself(place):
    ask(place, "a")
    child = os.fork()
    if child == 0:
        os._exit(0 if ask(place, "a", "b")[0] == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ask(place, "a", "b")[0] == 0


# Damage


def test_what_cannot_be_read_is_passed_over_with_one_warning(tmp_path, caplog):
    store = f"{tmp_path}/"
    ask(store, "a")
    ask(store, "b")
    (tmp_path / "notes.txt").write_text("mine" * 1000)
    (tmp_path / ("x" * 200)).write_text("")
    segments = sorted(tmp_path.glob("*-*.jsonl"))
    damaged = next(segment for segment in segments if '"output":"b"' in segment.read_text())
    damaged.write_bytes(damaged.read_bytes()[:-20])
    others = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with caplog.at_level(logging.WARNING, "batch_llm"):
        assert ask(f"{tmp_path}/./", "a", "b")[0] == 1
    warnings = [record.getMessage() for record in caplog.records if "are ignored" in record.getMessage()]
    assert len(warnings) == 1
    assert "3 files" in warnings[0]
    assert len(warnings[0]) < 500
    assert all((tmp_path / name).read_bytes() == content for name, content in others.items())


# Inspecting and compacting


def test_compacted_segments_are_an_ordinary_store(place, tmp_path):
    ask(SegmentArtifactStore(place, user_metadata={"team": "a"}), "a", "b")
    ask(place, "b", "c")
    target = str(tmp_path / "out.db")
    shown = CliRunner().invoke(main, ["compact", place, target])
    assert shown.exit_code == 0, shown.output
    assert "3 records" in shown.output
    assert {*tmp_path.glob("out.db*")} == {tmp_path / "out.db"}
    assert ask(target, "a", "b", "c")[0] == 0
    assert ask(place, "a")[0] == 0, "nothing is removed unless requested"
    view = inspect(target)
    assert {result.output for result in view.results()} == {"a", "b", "c"}
    assert view.user_metadata == {"team": "a"}
    again = CliRunner().invoke(main, ["compact", place, target])
    assert again.exit_code == 1
    assert "must be a new file" in again.output
    shown = CliRunner().invoke(main, ["compact", place, str(tmp_path / "other.db"), "--delete"])
    assert "segments removed" in shown.output
    assert not names(place)
    assert ask(place, "a")[0] == 1
    assert ask(str(tmp_path / "other.db"), "a", "b", "c")[0] == 0


def test_a_failed_compaction_leaves_nothing_behind(tmp_path):
    store = f"{tmp_path}/run/"
    ask(store, "a")
    (tmp_path / "no").write_text("a file, not a folder")
    with pytest.raises((ArtifactError, ValueError)):
        inspect(store).compact(tmp_path / "no" / "out.db", remove=True)
    ask(tmp_path / "one.db", "a")
    with pytest.raises(ValueError, match="one file already"):
        inspect(tmp_path / "one.db").compact(tmp_path / "out.db")
    assert ask(store, "a")[0] == 0


def test_the_command_line_inspects_folders_and_urls(place):
    ask(place, "a")
    shown = CliRunner().invoke(main, ["inspect", place])
    assert shown.exit_code == 0
    assert "1 items, 1 succeeded" in shown.output
    shown = CliRunner().invoke(main, ["inspect", place, "--json"])
    assert json.loads(shown.output)["succeeded"] == 1


def test_the_command_line_resumes_from_folders_and_urls(place, provider, at):
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    write_lines(at / "in.jsonl", *rows)
    for output in ("one.jsonl", "two.jsonl"):
        cli_ask("in.jsonl", "-o", output, "--store", place)
    assert lines(at / "one.jsonl") == lines(at / "two.jsonl")
    assert os.name == "nt" or (at / "one.jsonl").stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        cli_ask("in.jsonl", "--in-place", "--store", place)
    assert [row["prompt"] for row in lines(at / "in.jsonl")] == ["a", "b"]
    assert provider.stats.requests == 2
    # Nothing but segments is put beside them, and no folder is called like a URL.
    assert all(name.rpartition("/")[2].count("-") == 2 for name in names(place))
    assert not (at / "s3:").exists()


@pytest.mark.parametrize("command", [["inspect"], ["compact", "out.db"]])
def test_a_place_without_segments_is_an_error_with_a_remedy(command, place, at):
    arguments = [command[0], place, *command[1:]]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code in (1, 2)
    assert "check the path" in shown.output or "does not exist" in shown.output
    assert not (at / "out.db").exists()
