"""Files that the command line replaces: edits meanwhile, ends before the end, interrupts; and those of a batch."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch_llm import BatchResult, WorkItemResult, _files
from batch_llm._files import replaced
from batch_llm.cli import files
from batch_llm.testing import SimulatedProvider

from .on_files import IDS, ask, command, mode, names, rows_of, with_inputs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files and signals of POSIX")


@pytest.fixture
def at(at):
    return with_inputs(at)


# In place


def change(monkeypatch, edit):
    """Have the input edited at the last moment at which that is noticed."""
    look = files._Seen.has_changed

    def edited(self):
        edit()
        return look(self)

    monkeypatch.setattr(files._Seen, "has_changed", edited)


def _appended(path):
    with path.open("a") as file:
        file.write("r20,late\n")


def _changed_unseen(path):
    before = path.stat()
    path.write_text(path.read_text().replace("Question 3", "Question 4"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(path):
    path.with_name("new").write_text("id,prompt\n")
    path.with_name("new").replace(path)


@pytest.mark.parametrize("edit", [_appended, _changed_unseen, _replaced, Path.unlink])
def test_an_input_that_was_edited_meanwhile_is_left_as_it_is(at, provider, monkeypatch, edit):
    path = at / "rows.csv"
    after = []
    change(monkeypatch, lambda: (edit(path), after.append(path.read_text() if path.exists() else None)))
    (at / "rows.new.csv").write_text("mine")
    done = ask("rows.csv", "-i", code=1)
    assert "rows.csv was changed during the run and was not replaced" in done.stderr
    assert "rows.new-2.csv" in done.stderr
    assert "20 of 20 answered" in done.stderr
    assert [path.read_text() if path.exists() else None] == after
    assert (at / "rows.new.csv").read_text() == "mine"
    assert (at / "rows.new-2.csv").read_text().count("Simulated reply") == 20
    assert not [name for name in names(at) if name.startswith(".")]


def test_an_input_that_was_only_touched_is_replaced(at, provider, monkeypatch):
    path = at / "rows.csv"
    change(monkeypatch, lambda: path.write_text(path.read_text()))
    ask("rows.csv", "-i")
    assert path.read_text().count("Simulated reply") == 20


def test_of_a_large_input_size_and_time_count(at, provider, monkeypatch):
    monkeypatch.setattr(files, "_READ_AT_MOST", 100)
    path = at / "rows.csv"
    ask("rows.csv", "-i")
    change(monkeypatch, lambda: path.write_text(path.read_text()))
    assert "was changed" in ask("rows.csv", "-i", code=1).stderr


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_file_on_which_something_is_mounted_is_overwritten(at, provider, monkeypatch, number):
    replace = os.replace

    def busy(source, target):
        if str(target).endswith("out.jsonl"):
            raise OSError(number, "busy")
        replace(source, target)

    (at / "out.jsonl").write_text("old" * 100_000)
    inode = (at / "out.jsonl").stat().st_ino
    monkeypatch.setattr(_files.os, "replace", busy)
    ask("in.jsonl", "-o", "out.jsonl")
    assert rows_of((at / "out.jsonl").read_text()) == IDS
    assert (at / "out.jsonl").stat().st_ino == inode
    assert names(at) == {"in.jsonl", "rows.csv", "out.jsonl", "out.jsonl.store.db"}


def test_answers_are_kept_when_the_output_cannot_be_replaced(at, provider, monkeypatch):
    def fails(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(_files.os, "replace", fails)
    done = ask("in.jsonl", "-o", "out.jsonl", "--no-store", code=1)
    assert "out.jsonl could not be written (Operation not permitted); the answers are in" in done.stderr
    assert rows_of((at / "out.new.jsonl").read_text()) == IDS
    assert names(at) == {"in.jsonl", "rows.csv", "out.new.jsonl"}


# Ends before the end


@pytest.mark.parametrize("unordered", [[], ["--unordered"]])
def test_a_run_that_ends_early_says_so_in_each_row_that_it_did_not_reach(at, provider, unordered):
    prompts = [f"Question {number}" for number in range(3000)]
    (at / "in.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    arguments = ["--budget", "0.0005", "--max-tokens", "50", *unordered]
    done = ask("in.jsonl", "-o", "out.jsonl", *arguments, "--json", code=4)
    told = json.loads(done.stderr)
    assert told["total"] == 3000
    assert told["failed"] == 0
    assert 0 < told["succeeded"] == 3000 - told["not_sent"] < 100
    found = [json.loads(line) for line in (at / "out.jsonl").read_text().splitlines()]
    assert sorted(row["prompt"] for row in found) == sorted(prompts)
    if not unordered:
        assert [row["prompt"] for row in found] == prompts
        assert [row["id"] for row in found] == [f"row-{number}" for number in range(1, 3001)]
    assert all((row["output"] is None) == (row["error_category"] == "batch_budget_exceeded") for row in found)
    assert all("budget" in row["error"] or "max_total_cost" in row["error"] for row in found if row["output"] is None)
    done = ask("in.jsonl", "-o", "out.jsonl", *arguments, code=4)
    assert re.search(
        r"[\d,]+ of 3,000 answered.*ended early.*rows were not sent; the output marks them", done.stderr, re.DOTALL
    )


def test_a_run_without_an_answer_leaves_what_was_there(at, provider):
    (at / "out.jsonl").write_text("old")
    done = ask("in.jsonl", "-o", "out.jsonl", "--budget", "0.0000001", code=4)
    assert "out.jsonl is unchanged" in done.stderr
    assert (at / "out.jsonl").read_text() == "old"
    done = ask("in.jsonl", "-o", "other.jsonl", "--budget", "0.0000001", code=4)
    assert "other.jsonl was not written" in done.stderr
    assert "0 of 20 answered" in done.stderr
    assert not (at / "other.jsonl").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [["in.jsonl", "-o", "out.jsonl"], ["rows.csv", "-i"]])
def test_an_interrupt_leaves_what_was_there(at, monkeypatch, arguments, number):
    name = arguments[-1] if "-o" in arguments else "rows.csv"
    (at / "out.jsonl").write_text("old")
    (at / "in.jsonl").write_text("".join(json.dumps({"prompt": f"{number}"}) + "\n" for number in range(1000)))
    (at / "rows.csv").write_text("prompt\n" + "".join(f"{number}\n" for number in range(1000)))
    before = (at / name).read_bytes()
    with SimulatedProvider(latency=0.05) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        process = command(*arguments, "-c", "4")
        while provider.stats.requests < 8 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert f"{name} is unchanged" in errors
    assert "of 1,000 answered" in errors
    assert f"To resume from {name}.store.db" in errors
    assert (at / name).read_bytes() == before
    assert not [one for one in names(at) if one.startswith(".")]


def test_an_interrupt_ends_what_goes_to_stdout_where_it_is(at, monkeypatch):
    (at / "in.jsonl").write_text("".join(json.dumps({"prompt": f"{number}"}) + "\n" for number in range(1000)))
    with SimulatedProvider(latency=0.05) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        process = command("in.jsonl", "-c", "4", "--output-format", "csv")
        while provider.stats.requests < 8 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output.startswith("id,")
    assert re.search(r"\d of 1,000 answered.*[\d,]+ rows were not sent$", errors, re.DOTALL | re.MULTILINE), errors


def test_an_interrupt_before_anything_is_sent(at, provider):
    os.mkfifo("input")
    process = command("input", "--format", "jsonl", "-o", "out.jsonl")
    with open("input", "w"):  # it reads now, or is about to
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "out.jsonl" not in names(at)


# The library


def some_batch():
    return BatchResult([WorkItemResult("a", True, "answer", context={"n": 1})])


@pytest.mark.parametrize("write", [BatchResult.report, BatchResult.to_jsonl])
def test_files_of_a_batch_appear_when_they_are_whole(tmp_path, monkeypatch, write):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    write(some_batch(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert "answer" in path.read_text()
    assert mode(path) == 0o640
    whole = path.read_text()
    monkeypatch.setattr(_files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        write(some_batch(), path)
    assert path.read_text() == whole
    assert names(tmp_path) == {"file", "link"}


@pytest.mark.parametrize("write", [BatchResult.report, BatchResult.to_jsonl])
def test_files_of_a_batch_go_through_pipes_and_say_what_is_wrong(tmp_path, write):
    reader, writer = os.pipe()
    # A page is longer than what fits into a pipe.
    with open(reader) as file, ThreadPoolExecutor(1) as pool:
        found = pool.submit(file.read)
        write(some_batch(), f"/dev/fd/{writer}")
        os.close(writer)
        assert "answer" in found.result(60)
    with pytest.raises(IsADirectoryError):
        write(some_batch(), tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        write(some_batch(), tmp_path / "missing" / "file")
    assert caught.value.filename == str(tmp_path / "missing" / "file")
    umask = os.umask(0o027)
    try:
        write(some_batch(), tmp_path / "file")
    finally:
        os.umask(umask)
    assert mode(tmp_path / "file") == 0o640


def test_a_block_that_raises_leaves_nothing(tmp_path):
    def fail():
        with replaced(tmp_path / "file") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == set()


def test_halves_of_surrogate_pairs_are_written_as_escapes(tmp_path):
    batch = BatchResult([WorkItemResult("a", True, "half \ud83d of a smile")])
    batch.to_jsonl(tmp_path / "batch.jsonl")
    assert BatchResult.from_jsonl(tmp_path / "batch.jsonl").results[0].output == "half \ud83d of a smile"
    batch.report(tmp_path / "run.html")
    assert "half \\\\ud83d of a smile" in (tmp_path / "run.html").read_text(encoding="utf-8")
