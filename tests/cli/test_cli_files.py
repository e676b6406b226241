"""What the command line does with files: locks, devices, links, edits meanwhile, what cannot be written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch_llm import BatchResult, WorkItemResult, _files
from batch_llm._files import Destination, Lock, LockedError, replaced
from batch_llm.cli import files
from batch_llm.cli.main import main
from batch_llm.testing import SimulatedProvider

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files and signals of POSIX")

ROWS = [{"id": f"r{number}", "prompt": f"Question {number}"} for number in range(20)]


@pytest.fixture
def provider(monkeypatch):
    with SimulatedProvider() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "rows.csv").write_text("id,prompt\n" + "".join(f"{row['id']},{row['prompt']}\n" for row in ROWS))
    return tmp_path


def ask(*arguments, code=0, stdin=None):
    done = CliRunner().invoke(
        main, ["run", *map(str, arguments), "-m", "openai:gpt-5-mini", "-q"], input=stdin, catch_exceptions=False
    )
    assert done.exit_code == code, (done.output, done.exception)
    return done


def command(*arguments, **options):
    """Begin the command in a process of its own."""
    line = [sys.executable, "-m", "batch_llm", "run", *map(str, arguments), "-m", "openai:gpt-5-mini", "-q"]
    return subprocess.Popen(line, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def rows_of(text):
    return [json.loads(line)["id"] for line in text.splitlines()]


IDS = [row["id"] for row in ROWS]


def names(folder):
    return {path.name for path in folder.iterdir()}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# One writer at a time


HOLD = """
import sys
from batch_llm._files import Destination, Lock
lock = Lock(Destination.of(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path):
    """A file that another process writes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["in.jsonl", "-o", "out.jsonl"], "out.jsonl"),
        (["in.jsonl", "-o", "sub/../out.jsonl"], "out.jsonl"),
        (["in.jsonl", "-o", "link.jsonl"], "link.jsonl"),
        (["in.jsonl", "-o", "folder/out.jsonl"], "folder/out.jsonl"),
        (["rows.csv", "-i"], "rows.csv"),
    ],
)
def test_a_second_command_on_one_output_sends_nothing(at, provider, arguments, name):
    (at / "sub").mkdir()
    (at / "link.jsonl").symlink_to("out.jsonl")
    (at / "folder").symlink_to(at)
    before = names(at)
    with held("rows.csv" if "-i" in arguments else "out.jsonl") as process:
        done = ask(*arguments, code=1)
        assert name in done.stderr
        assert f"process {process.pid}" in done.stderr
        assert "wait for it to end" in done.stderr
        assert provider.stats.requests == 0
        process.kill()
        process.wait()
        # What the dead one has left behind stops nobody.
        ask(*arguments)
    assert not [one for one in names(at) - before if one.startswith(".")]


def test_the_lock_of_a_file_is_had_by_one_at_a_time(tmp_path):
    tries = """
import os, sys
from batch_llm._files import Destination, Lock, LockedError
had = 0
while had < 100:
    try:
        lock = Lock(Destination.of(sys.argv[1]))
    except LockedError:
        continue
    os.close(os.open(sys.argv[1] + ".had", os.O_CREAT | os.O_EXCL))
    os.unlink(sys.argv[1] + ".had")
    lock.release()
    had += 1
"""
    target = tmp_path / "out.jsonl"
    processes = [
        subprocess.Popen([sys.executable, "-c", tries, str(target)], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=120)[1] for process in processes] == [""] * 4
    assert names(tmp_path) == set()


def test_a_lock_is_of_a_process_and_ends_with_it(tmp_path):
    target = Destination.of(tmp_path / "out.jsonl")
    first = Lock(target)
    with pytest.raises(LockedError) as caught:
        Lock(target)
    assert caught.value.holder == f"process {os.getpid()}"
    first.release()
    first.release()
    Lock(target).release()
    Path(target.beside(".lock")).write_text("nonsense")
    Lock(target).release()
    assert names(tmp_path) == set()


def test_where_there_are_no_locks_it_works_all_the_same(at, provider, monkeypatch):
    def fails(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fails)
    ask("in.jsonl", "-o", "out.jsonl")
    assert rows_of((at / "out.jsonl").read_text()) == IDS


def test_what_a_killed_command_has_left_is_removed_by_the_next(at, provider):
    left = [at / ".out.jsonl.abcd_123.part", at / ".out.jsonl.lock"]
    others = [at / ".out.jsonl.abcdefgh.part.gz", at / ".other.jsonl.abcdefgh.part", at / ".out.jsonl.abcdefgh.tmp"]
    for path in left + others:
        path.write_text("")
    ask("in.jsonl", "-o", "out.jsonl")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


# The temporary file


def test_nobody_can_guess_the_temporary_file_or_read_it(tmp_path):
    target = tmp_path / "out.jsonl"
    seen = set()
    for _ in range(2):
        with files.Output(str(target)).opened():
            path = tmp_path / next(name for name in names(tmp_path) if name.endswith(".part"))
            assert mode(path) == 0o600
            seen.add(path.name)
        assert names(tmp_path) == set()
    assert len(seen) == 2
    assert all(re.fullmatch(r"\.out\.jsonl\.[a-z0-9_]{8}\.part", name) for name in seen)


def test_a_link_that_waits_in_place_of_the_temporary_file_is_not_followed(at, provider):
    (at / "precious").write_text("mine")
    (at / ".out.jsonl.part").symlink_to("precious")
    ask("in.jsonl", "-o", "out.jsonl")
    assert (at / "precious").read_text() == "mine"


def test_names_of_any_length_work(at, provider):
    for name in ("x" * 249 + ".jsonl", "é" * 120 + ".jsonl"):
        ask("in.jsonl", "-o", name, "--no-store")
        assert rows_of((at / name).read_text()) == IDS


# Permissions


def test_a_new_output_is_as_private_as_its_store(at, provider):
    ask("in.jsonl", "-o", "out.jsonl", "--report", "run.html")
    assert mode("out.jsonl") == mode("out.jsonl.store.db") == 0o600
    os.unlink("out.jsonl")
    os.chmod("out.jsonl.store.db", 0o640)
    ask("in.jsonl", "-o", "out.jsonl")
    assert mode("out.jsonl") == 0o640
    ask("in.jsonl", "-o", "other.jsonl", "--no-store")
    assert mode("other.jsonl") == 0o600


@pytest.mark.parametrize("arguments", [["in.jsonl", "-o", "rows.csv"], ["rows.csv", "-i"]])
def test_what_is_there_keeps_its_permissions_owner_and_attributes(at, provider, arguments):
    path = at / "rows.csv"
    path.chmod(0o664)
    with contextlib.suppress(PermissionError):
        os.chown(path, 4321, 4322)
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(path, "user.origin", b"survey")
    listed = getattr(os, "listxattr", lambda path: [])
    before, attributes = path.stat(), listed(path)
    ask(*arguments)
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert listed(path) == attributes


@contextlib.contextmanager
def nobody():
    """Be a user who is not root."""
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)
    else:
        yield


@pytest.mark.parametrize(
    ("protect", "arguments"),
    [
        (["."], ["in.jsonl", "-o", "out.jsonl"]),
        (["."], ["rows.csv", "-i"]),
        (["out.jsonl"], ["in.jsonl", "-o", "out.jsonl"]),
        (["locked"], ["in.jsonl", "-o", "locked/sub/out.jsonl"]),
        (["locked"], ["in.jsonl", "-o", "out.jsonl", "--report", "locked/run.html"]),
        (["locked"], ["in.jsonl", "-o", "out.jsonl", "--cache", "locked/cache.db"]),
        (["locked"], ["in.jsonl", "-o", "out.jsonl", "--store", "locked/store.db"]),
        (["store.db"], ["in.jsonl", "-o", "out.jsonl", "--store", "store.db"]),
    ],
)
def test_what_is_write_protected_is_said_before_anything_is_sent(provider, monkeypatch, protect, arguments):
    at = Path(tempfile.mkdtemp())  # everybody may enter the folder it is in
    monkeypatch.chdir(at)
    try:
        for name, text in (("in.jsonl", '{"prompt": "a"}\n'), ("rows.csv", "prompt\na\n")):
            (at / name).write_text(text)
        for name in ("out.jsonl", "store.db"):
            (at / name).touch()
        for path in at.iterdir():
            path.chmod(0o666)
        (at / "locked").mkdir()
        at.chmod(0o777)
        for name in protect:
            (at / name).chmod((at / name).stat().st_mode & ~0o222)
        with nobody():
            done = ask(*arguments, code=1)
        named = arguments[-1] if arguments[-1] != "-i" else "rows.csv"
        assert f"{named} cannot be written" in done.stderr
        assert "writable" in done.stderr
        assert provider.stats.requests == 0
    finally:
        monkeypatch.chdir("/")
        shutil.rmtree(at)


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
    write(some_batch(), f"/dev/fd/{writer}")
    os.close(writer)
    with open(reader) as file:
        assert "answer" in file.read()
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
    assert "half \\ud83d of a smile" in (tmp_path / "run.html").read_text(encoding="utf-8")
