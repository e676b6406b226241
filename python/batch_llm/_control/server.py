"""The endpoint of a run: a Unix socket in a directory of its own; on Windows a port of the loopback interface.

Threads of its own answer, so a blocked event loop cannot keep anyone from asking what is going on. Each request is
bounded in size and time, and there are so many connections at most. Used by ``run_control``.
"""

from __future__ import annotations

import atexit
import contextlib
import hmac
import os
import secrets
import shutil
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._forks import in_child
from ..errors import ERROR_MESSAGE_LIMIT, ControlError
from . import places, registry
from .protocol import LONGEST_REQUEST, Lines, error_of, line_of, parsed

MOST_CONNECTIONS = 32
"""Connections at once, at most."""
IDLE_SECONDS = 60.0
"""How long a connection may be without a request."""
SEND_SECONDS = 10.0
"""How long an answer may take to be read."""

_open: weakref.WeakSet[Endpoint] = weakref.WeakSet()


def has_unix_sockets() -> bool:
    """Whether this system has Unix sockets that belong to users; Windows' do not in Python."""
    return sys.platform != "win32" and hasattr(socket, "AF_UNIX")


class Endpoint:
    """Listens until it is closed.

    Args:
        run_id: The id of the run.
        answer: Answers a request; called in threads of the endpoint. It raises ``ControlError`` for what cannot be
            done.

    Raises:
        OSError: If it cannot be opened.
    """

    def __init__(self, run_id: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._answer = answer
        self._token = secrets.token_urlsafe(32)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        places.runs_directory(make=True)
        self.directory: Path = places.socket_directory(run_id)
        listener: socket.socket | None = None
        try:
            places.write_private(self.directory / "token", self._token)
            if has_unix_sockets():
                path = str(self.directory / "socket")
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listener.bind(path)
                os.chmod(path, 0o600)
                self.address: dict[str, Any] = {"socket": path}
            else:
                listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
                if exclusive is not None:
                    listener.setsockopt(socket.SOL_SOCKET, exclusive, 1)
                listener.bind(("127.0.0.1", 0))
                self.address = {"port": listener.getsockname()[1]}
            listener.listen(MOST_CONNECTIONS)
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), name="batch-llm control", daemon=True).start()
        except BaseException:
            if listener is not None:
                listener.close()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        _open.add(self)

    def close(self) -> None:
        """Take no more requests, and remove the files. Idempotent."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            connections = list(self._connections)
        _open.discard(self)
        # Wakes the thread that waits for connections: one on Linux, the other elsewhere.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            registry.connect(self.address, 0.5).close()
        self._listener.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # what is being answered may still be

    def abandon(self) -> None:
        """Close the descriptors and nothing else: they are the parent's."""
        self._closing.set()
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._closing.wait(0.1):  # else there is no descriptor left at the moment
                    return
                continue
            if self._closing.is_set():
                connection.close()
                return
            with self._lock:
                is_busy = len(self._connections) >= MOST_CONNECTIONS
                if not is_busy:
                    self._connections.add(connection)
            if is_busy:
                self._refuse(connection)
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), name="batch-llm control", daemon=True).start()
            except RuntimeError:  # no thread left, or the interpreter is exiting
                self._forget(connection)

    def _refuse(self, connection: socket.socket) -> None:
        problem = ControlError("busy", f"the run has {MOST_CONNECTIONS} connections already; close some")
        with contextlib.suppress(OSError), connection:
            connection.settimeout(0.1)
            connection.sendall(line_of(error_of(problem)))

    def _serve(self, connection: socket.socket) -> None:
        lines = Lines(connection, LONGEST_REQUEST)
        try:
            while not self._closing.is_set():
                try:
                    line = lines.read(IDLE_SECONDS)
                    if line is None:
                        return
                    answer = {"data": self._answered(parsed(line))}
                    goes_on = True
                except ControlError as error:
                    # After a message that nobody understood, or that came without the token, nothing is believed.
                    answer, goes_on = error_of(error), error.code not in ("bad_request", "unauthorized")
                connection.settimeout(SEND_SECONDS)
                connection.sendall(line_of(answer))
                if not goes_on:
                    return
        except (OSError, ValueError):
            pass  # it went away, or was closed
        finally:
            self._forget(connection)

    def _answered(self, request: dict[str, Any]) -> dict[str, Any]:
        token = request.pop("token", None)
        if not hmac.compare_digest(str(token).encode(), self._token.encode()):
            raise ControlError("unauthorized", "the token is wrong; it is in the file 'token' beside the run's socket")
        try:
            return self._answer(request)
        except ControlError:
            raise
        except Exception as error:  # a bug must not take the endpoint along
            raise ControlError("refused", f"{type(error).__name__}: {error!s:.{ERROR_MESSAGE_LIMIT}}") from error

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()


def _close_all() -> None:
    for endpoint in list(_open):
        endpoint.close()


def _abandon_all() -> None:
    for endpoint in list(_open):
        endpoint.abandon()
    _open.clear()


atexit.register(_close_all)
in_child(_abandon_all)
