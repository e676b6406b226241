"""A store, a cache and shared limits are files: what is none is refused at once, and stays."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets of POSIX")

NAMES = {
    "pipe": "a named pipe",
    "socket": "a socket",
    "device": "a device",
    "link": "a named pipe",
    "folder": "a folder",
}
CODE = """
import sys
from batch_llm import *
async def ask(prompt):
    return prompt
def go(path, what):
    if what == "inspect":
        return inspect(path)
    if what == "limits":
        return run(ask, ["a"], config=ProcessorConfig(shared_limits=path, max_requests_per_minute=600))
    kept = {"jsonl": JsonlArtifactStore, "sqlite": SqliteArtifactStore}.get(what, str)(path)
    return run(ask, ["a"], **{"cache" if what == "cache" else "store": kept})
try:
    go(*sys.argv[1:])
except Exception as error:
    print(type(error).__name__, error)
else:
    print("nothing was said")
"""


@pytest.fixture
def place(tmp_path, request):
    path = tmp_path / "it.db"
    if request.param == "socket":
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(str(path))
            yield path, NAMES[request.param]
        return
    if request.param == "folder":
        path.mkdir()
    elif request.param == "device":
        path.symlink_to(os.devnull)
    elif request.param == "link":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    else:
        os.mkfifo(path)
    yield path, NAMES[request.param]


@pytest.mark.parametrize("what", ["store", "cache", "jsonl", "sqlite", "limits", "inspect"])
@pytest.mark.parametrize("place", NAMES, indirect=True)
def test_what_is_no_file_is_refused_at_once(place, what):
    path, name = place
    before = os.stat(path).st_mode
    done = subprocess.run([sys.executable, "-c", CODE, str(path), what], capture_output=True, text=True, timeout=60)
    assert f" {name}" in done.stdout, done.stdout + done.stderr
    assert str(path) in done.stdout
    assert "file" in done.stdout
    assert stat.S_IFMT(os.stat(path).st_mode) == stat.S_IFMT(before)
