"""Where the command line writes to: pipes, devices, sockets, links, and what cannot be written."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading

import pytest

from .on_files import IDS, ask, command, names, rows_of, with_inputs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files and signals of POSIX")


@pytest.fixture
def at(at):
    return with_inputs(at)


# What is written through


def test_a_pipe_is_written_through(at, provider):
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((at / "pipe").read_text()), daemon=True)
    reader.start()
    ask("in.jsonl", "-o", "pipe")
    reader.join(30)
    assert rows_of(got[0]) == IDS
    assert stat.S_ISFIFO(os.lstat("pipe").st_mode)
    assert names(at) == {"in.jsonl", "rows.csv", "pipe"}


@pytest.mark.parametrize("arguments", [[], ["--output-format", "csv"], ["--unordered"]])
@pytest.mark.parametrize("name", ["device", "link"])
def test_a_device_stays(at, provider, name, arguments):
    try:
        os.mknod("device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.close(os.open("device", os.O_WRONLY))
    except PermissionError:
        pytest.skip("devices are made by root")
    (at / "link").symlink_to("device")
    ask("in.jsonl", "-o", name, *arguments)
    assert provider.stats.requests == 20
    status = os.lstat("device")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(1, 3)
    assert names(at) == {"in.jsonl", "rows.csv", "device", "link"}


def test_a_terminal_shows_what_it_would_obey(at, provider):
    (at / "in.jsonl").write_text('{"prompt": "a", "title": "\\u001b[2J\\u009b2J\\u202e"}\n')
    import pty

    ours, theirs = pty.openpty()
    try:
        for kind in ("jsonl", "csv"):
            ask("in.jsonl", "-o", os.ttyname(theirs), "--output-format", kind)
            shown = os.read(ours, 100_000).decode()
            assert "u001b[2J" in shown
            assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", shown)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_socket_is_written_through(at, provider):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()
        got = []

        def read():
            connection, _ = server.accept()
            with connection, connection.makefile() as file:
                got.append(file.read())

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        ask("in.jsonl", "-o", "socket")
        reader.join(30)
    assert rows_of(got[0]) == IDS


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "link"])
def test_an_open_file_is_added_to(at, provider, name):
    (at / "link").symlink_to("/dev/stdout")
    (at / "log").write_text('{"id": "before"}\n')
    with open("log", "a") as log:
        process = command("in.jsonl", "-o", name, stdout=log)
        assert "20 of 20 answered" in process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert rows_of((at / "log").read_text()) == ["before", *IDS]
    assert names(at) == {"in.jsonl", "rows.csv", "log", "link"}


def test_an_open_file_by_its_number(at, provider):
    with open("out", "w") as file:
        ask("in.jsonl", "-o", f"/dev/fd/{file.fileno()}")
        assert rows_of((at / "out").read_text()) == IDS
    with open("in.jsonl") as file:
        assert "for reading only" in ask("in.jsonl", "-o", f"/dev/fd/{file.fileno()}", code=1).stderr
    assert "Bad file descriptor" in ask("in.jsonl", "-o", "/dev/fd/987", code=1).stderr
    assert provider.stats.requests == 20


def test_whoever_has_read_enough_ends_the_run_quietly(at, provider):
    (at / "in.jsonl").write_text('{"prompt": "a"}\n' * 20_000)
    with command("in.jsonl", "-c", "4") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
    assert provider.stats.requests < 20_000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device")
def test_a_full_device_is_said(at, provider):
    done = ask("in.jsonl", "-o", "/dev/full", code=1)
    assert "/dev/full cannot be written: No space left on device" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stdout_is_said(at, provider, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full, command("in.jsonl", stdout=full, env=environment) as process:
        said = process.stderr.read()
    assert process.returncode == 1
    assert said.startswith("Error: stdout cannot be written: No space left on device"), said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [["models"], ["--help"], ["run", "in.jsonl", "-m", "openai:gpt-5-mini", "--dry-run"]]
)
def test_every_command_says_that_stdout_is_full(at, provider, arguments, unbuffered):
    with open("/dev/full", "wb") as full:
        line = [sys.executable, "-m", "batch_llm", *arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.stderr.endswith("Error: the output cannot be written: No space left on device; free some space\n")
    assert (done.returncode, done.stderr.count("Traceback")) == (1, 0)


def test_a_closed_stdin_is_said(at, provider):
    with command("-", preexec_fn=lambda: os.close(0)) as process:
        assert process.stderr.read() == "Error: stdin cannot be read: it is closed\n"
    assert process.returncode == 1
    assert provider.stats.requests == 0


def test_a_working_directory_that_is_gone_is_not_needed(at, provider):
    (at / "gone").mkdir()
    # A file, as the installed command is: with -c, Python 3.13.0 itself needs the directory.
    program = at / "program.py"
    program.write_text("import os, runpy\nos.rmdir('../gone')\nrunpy.run_module('batch_llm', run_name='__main__')\n")
    arguments = [sys.executable, str(program), "run", "-", "-m", "openai:gpt-5-mini", "-q"]
    done = subprocess.run(arguments, cwd=at / "gone", input='{"prompt": "a"}\n', capture_output=True, text=True)
    assert (done.returncode, rows_of(done.stdout)) == (0, ["row-1"]), done.stderr


# Links


def test_a_link_stays_and_its_file_is_replaced(at, provider):
    (at / "real").mkdir()
    (at / "real" / "old.jsonl").write_text("old")
    (at / "old.jsonl").symlink_to("real/old.jsonl")
    (at / "new.jsonl").symlink_to("other/new.jsonl")
    (at / "second.jsonl").symlink_to("new.jsonl")
    for name, real in (("old.jsonl", "real/old.jsonl"), ("second.jsonl", "other/new.jsonl")):
        ask("in.jsonl", "-o", name)
        assert (at / name).is_symlink()
        assert rows_of((at / real).read_text()) == IDS
    (at / "link.csv").symlink_to("rows.csv")
    ask("link.csv", "-i")
    assert (at / "link.csv").is_symlink()
    assert "Question" in (at / "rows.csv").read_text()
    assert names(at / "real") == {"old.jsonl"}


def test_another_name_of_a_file_keeps_what_was_there(at, provider):
    before = (at / "rows.csv").read_text()
    os.link("rows.csv", "backup.csv")
    ask("rows.csv", "-i")
    assert (at / "backup.csv").read_text() == before
    assert (at / "rows.csv").read_text() != before


# What is rejected


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "folder"], 1, "folder cannot be written: Is a directory; give a file in that folder"),
        (["-o", "missing/"], 1, "missing/ cannot be written: Is a directory"),
        (["-o", "in.jsonl/out.jsonl"], 1, "in.jsonl/out.jsonl cannot be written: Not a directory"),
        (
            ["-o", "/proc/nowhere/out.jsonl"],
            1,
            "/proc/nowhere/out.jsonl cannot be written: .*its folder cannot be created",
        ),
        (["-o", "x" * 260 + ".jsonl"], 1, "File name too long; choose a shorter name"),
        (["-o", "x" * 248 + ".jsonl"], 1, "--store x.* cannot be written: File name too long"),
        (["-o", "loop.jsonl"], 1, "loop.jsonl cannot be written: .*points to itself"),
        (["-o", "in.jsonl"], 2, "FILE and the output are the same file, in.jsonl; .*--in-place"),
        (["-o", "./folder/../in.jsonl"], 2, "FILE and the output are the same file"),
        (["-o", "hard.jsonl"], 2, "FILE and the output are the same file"),
        (["-o", "out.jsonl", "--report", "out.jsonl"], 2, "the output and --report are the same file"),
        (["-o", "out.jsonl", "--store", "in.jsonl"], 2, "FILE and --store are the same file"),
        (
            ["-o", "out.db", "--output-format", "jsonl", "--store", "out.db"],
            2,
            "the output and --store are the same file",
        ),
        (["-o", "out.jsonl", "--cache", "out.jsonl.store.db"], 2, "--store and --cache are the same file"),
        (
            ["--schema", "yes.json", "-o", "out.jsonl", "--report", "yes.json"],
            2,
            "--schema and --report are the same file",
        ),
        (["-s", "@in.jsonl", "-o", "./in.jsonl"], 2, "FILE and the output are the same file"),
        (
            ["-p", "@yes.json", "-o", "yes.json", "--output-format", "csv"],
            2,
            "--prompt and the output are the same file",
        ),
        (["-o", "out.jsonl", "--report", "-"], 2, "--report needs a file"),
        (["-o", "out.jsonl", "--report", "folder"], 1, "--report folder cannot be written: Is a directory"),
        (["-o", "out.jsonl", "--report", "/proc/nowhere/r.html"], 1, "--report /proc/nowhere/r.html cannot be written"),
        (["-o", "out.jsonl", "--cache", "/proc/nowhere/c.db"], 1, "--cache /proc/nowhere/c.db cannot be written"),
        (["-o", "out.jsonl", "--cache", "folder"], 1, "--cache folder cannot be written: Is a directory"),
        (["-o", "out.jsonl", "--store", "/proc/nowhere/s.db"], 1, "--store /proc/nowhere/s.db cannot be written"),
        (["-o", "out.jsonl", "--store", "pipe.db"], 1, "--store pipe.db cannot be written: it must be a file"),
        (["-o", "out.jsonl", "--cache", "/dev/null"], 1, "--cache /dev/null cannot be written: it must be a file"),
        (["-o", ""], 1, "cannot be written: the path is empty"),
        (["-o", "pipe", "--output-format", "parquet"], 2, "Parquet can be written to files only"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_sent(at, provider, arguments, code, words):
    (at / "folder").mkdir()
    (at / "yes.json").write_text("{}")
    (at / "loop.jsonl").symlink_to("loop.jsonl")
    os.link("in.jsonl", "hard.jsonl")
    os.mkfifo("pipe")
    os.mkfifo("pipe.db")
    if "/proc/nowhere" in str(arguments) and sys.platform != "linux":
        pytest.skip("there is no /proc")
    before = names(at)
    done = ask("in.jsonl", *arguments, code=code)
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert provider.stats.requests == 0
    assert names(at) == before


def test_the_input_in_place_must_be_there(at, provider):
    assert "none.csv" in ask("none.csv", "-i", code=1).stderr
    os.mkfifo("pipe.csv")
    assert "needs a file" in ask("pipe.csv", "-i", code=2).stderr
    assert names(at) == {"in.jsonl", "rows.csv", "pipe.csv"}


def test_a_disk_that_is_full_costs_nothing_that_was_answered(at, provider):
    (at / "in.jsonl").write_text("".join(json.dumps({"prompt": "a", "text": "x" * 100_000}) + "\n" for _ in range(200)))
    limited = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000)); "
        "runpy.run_module('batch_llm', run_name='__main__')"
    )
    arguments = ["run", "in.jsonl", "-m", "openai:gpt-5-mini", "-q", "-o", "out.jsonl"]
    process = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    assert "out.jsonl cannot be written: File too large" in process.stderr
    kept = int(re.search(r"(\d+) rows were answered; to resume from out.jsonl.store.db", process.stderr)[1])
    assert kept > 50
    assert not [name for name in names(at) if name == "out.jsonl" or name.startswith(".")]
    asked = provider.stats.requests
    ask("in.jsonl", "-o", "out.jsonl")
    assert len((at / "out.jsonl").read_text().splitlines()) == 200
    assert provider.stats.requests - asked <= 200 - kept
