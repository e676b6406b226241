"""S3 on this machine: moto's server, and a front before it that fails when it is told to."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

KEY, SECRET = "AKIATHEKEYOFTHETESTS", "the-secret-of-the-tests"


def program() -> str | None:
    """moto's server, if it is installed."""
    beside = Path(sys.executable).with_name("moto_server")
    return str(beside) if beside.exists() else shutil.which("moto_server")


PAGE = 50
"""Objects in a page of a listing; S3 has 1,000, which would take long to make."""


@contextmanager
def moto_server(program: str) -> Iterator[str]:
    """Start moto's server; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its log of requests would fill a pipe.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], env=environment, **quiet)
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "moto_server has ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def ask(url: str, method: str, body: bytes | None = None) -> bytes:
    """Send a request; the body of its answer."""
    # The server looks at whose signature it is, and not at the signature.
    signed = f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"Authorization": signed, "Content-Type": "text/plain"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as answer:
        content: bytes = answer.read()
        return content


class Front:
    """Passes requests on to a server, or answers some itself. Use it in a ``with`` statement."""

    def __init__(self, behind: str) -> None:
        self.behind = behind.removeprefix("http://")
        self.fails: dict[str, tuple[int, int]] = {}
        """By method: the status of an answer, and how many requests get it."""
        self.requests: list[tuple[str, str]] = []
        """Methods and paths."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def count(self, method: str) -> int:
        """How many requests of a method there were."""
        return sum(known == method for known, _ in self.requests)


ERROR = f"<Error><Code>Denied</Code><Message>no</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>"


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def passed_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            front.requests.append((self.command, self.path))
            status, left = front.fails.get(self.command, (0, 0))
            if left:
                front.fails[self.command] = status, left - 1
                self.answer(status, {}, ERROR.encode())
                return
            connection = http.client.HTTPConnection(front.behind, timeout=30)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                self.answer(answer.status, dict(answer.headers), answer.read())
            finally:
                connection.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.passed_on()

        def do_PUT(self) -> None:
            self.passed_on()

        def do_DELETE(self) -> None:
            self.passed_on()

    return Handler
