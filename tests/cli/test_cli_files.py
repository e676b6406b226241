"""What the command line does with files: locks, temporary files, permissions."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from batch_llm._files import Destination, Lock, LockedError
from batch_llm.cli import files

from .on_files import IDS, ask, mode, names, rows_of, with_inputs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files and signals of POSIX")


@pytest.fixture
def at(at):
    return with_inputs(at)


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
