"""A server of Redis."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    path = tmp_path_factory.mktemp("redis") / "socket"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--daemonize", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=path.parent) as server:
        while not path.exists():
            assert server.poll() is None
            time.sleep(0.02)
        yield f"unix://{path}"
        server.terminate()
