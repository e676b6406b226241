"""The command line's other files: who may read them, and that no two commands write one at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from ..cli_helpers import lines, write_lines
from ..served import serve

REPLY = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


MASKED = "import os, runpy; os.umask({}); runpy.run_module('batch_llm', run_name='__main__')"


def command(*arguments, url, mask=None):
    program = ["-m", "batch_llm"] if mask is None else ["-c", MASKED.format(mask)]
    common = ["in.jsonl", "-m", "openai-compatible:m", "--base-url", url, "-q"]
    return [sys.executable, *program, "run", *common, *arguments]


def run(folder, *arguments, url, mask=None):
    return subprocess.run(
        command(*arguments, url=url, mask=mask), cwd=folder, capture_output=True, text=True, timeout=60
    )


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@POSIX
@pytest.mark.parametrize("arguments", [(), ("--no-store",)])
def test_what_holds_prompts_is_the_users_alone(tmp_path, arguments):
    write_lines(tmp_path / "in.jsonl", {"prompt": "a"})
    modes = {}

    def reply(body, number):
        modes.update((path.name, mode(path)) for path in tmp_path.iterdir())
        return REPLY

    with serve(reply) as served:
        url = served.root + "/v1"
        done = run(tmp_path, "-o", "o.jsonl", "--report", "r.html", "--cache", "c.db", *arguments, url=url, mask=0)
        assert done.returncode == 0, done.stderr
        modes.update((path.name, mode(path)) for path in tmp_path.iterdir())
        assert {".o.jsonl.lock", "r.html", "o.jsonl", "c.db"} <= set(modes)
        assert {name: oct(one) for name, one in modes.items() if one & 0o077 and name != "in.jsonl"} == {}
        # As the store is, and as a file that is there is.
        if not arguments:
            (tmp_path / "r.html").unlink()
            os.chmod(tmp_path / "o.jsonl.store.db", 0o640)
            assert run(tmp_path, "-o", "o.jsonl", "--report", "r.html", url=url).returncode == 0
            assert mode(tmp_path / "r.html") == 0o640
        os.chmod(tmp_path / "r.html", 0o644)
        assert run(tmp_path, "-o", "o.jsonl", "--report", "r.html", *arguments, url=url).returncode == 0
        assert mode(tmp_path / "r.html") == 0o644


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("-o", "o.jsonl"), ("-o", "other.jsonl", "--report", "o.jsonl")),
        (("-o", "o.jsonl", "--report", "r.html"), ("-o", "r.html", "--output-format", "jsonl")),
        (("-o", "o.jsonl", "--report", "r.html"), ("-o", "other.jsonl", "--report", "./r.html")),
    ],
)
def test_a_report_is_written_by_one_command(tmp_path, first, second):
    write_lines(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "b"})
    began, go_on = threading.Event(), threading.Event()

    def reply(body, number):
        began.set()
        assert go_on.wait(60)
        return REPLY

    with serve(reply) as served, serve(lambda body, number: REPLY) as other:
        running = subprocess.Popen(command(*first, url=served.root + "/v1"), cwd=tmp_path, stderr=subprocess.PIPE)
        try:
            assert began.wait(60)
            done = run(tmp_path, *second, url=other.root + "/v1")
        finally:
            go_on.set()
            said = running.communicate(timeout=60)[1]
        assert running.returncode == 0, said
        assert done.returncode == 1
        assert "is being written by another command" in done.stderr
        assert not other.bodies
        assert [row["output"] for row in lines(tmp_path / "o.jsonl")] == ["hello", "hello"]
        # Afterwards it may.
        assert run(tmp_path, *second, url=other.root + "/v1").returncode == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".lock")]


@POSIX
@pytest.mark.parametrize("kind", ["loop", "folder", "link", "pipe"])
@pytest.mark.parametrize("option", ["-o", "--report"])
def test_what_is_in_the_place_of_a_lock_is_named(tmp_path, kind, option):
    write_lines(tmp_path / "in.jsonl", {"prompt": "a"})
    lock = tmp_path / ".it.jsonl.lock"
    victim = tmp_path / "victim"
    victim.write_text("precious")
    {
        "loop": lambda: lock.symlink_to(lock.name),
        "folder": lock.mkdir,
        "link": lambda: lock.symlink_to(victim),
        "pipe": lambda: os.mkfifo(lock),
    }[kind]()
    arguments = ("-o", "it.jsonl") if option == "-o" else ("-o", "-", "--report", "it.jsonl")
    with serve(lambda body, number: REPLY) as served:
        done = run(tmp_path, *arguments, url=served.root + "/v1")
        assert not served.bodies
    assert done.returncode == 1
    assert ".it.jsonl.lock: " in done.stderr
    assert "remove it if no other command writes" in done.stderr
    assert victim.read_text() == "precious"
