"""The messages between an endpoint and its clients: one line of JSON each way. Used within the package.

::

    {"version": 1, "token": "...", "command": "set", "arguments": {"concurrency": 8}, "by": {...}, "reason": null}
    {"version": 1, "data": {...}}
    {"version": 1, "error": {"code": "refused", "message": "..."}}

Not HTTP: a line has no headers to disagree about, its length is its bound, and no web page can send one that has a
token. A connection takes any number of requests, one after the other.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from ..errors import ERROR_MESSAGE_LIMIT, ControlError

VERSION = 1
LONGEST_REQUEST = 1 << 18
"""Bytes of a request, at most."""
LONGEST_ANSWER = 1 << 23
"""Bytes of an answer, at most."""


class Lines:
    """Reads lines from a socket, each bounded in length and time.

    Args:
        connection: The socket.
        longest: Bytes of a line, at most.
    """

    def __init__(self, connection: socket.socket, longest: int) -> None:
        self._connection, self._longest = connection, longest
        self._rest = bytearray()

    def read(self, seconds: float) -> bytes | None:
        """Return the next line; None: the other side has closed the connection.

        Raises:
            ControlError: If it is too long.
            OSError: If it did not come in time, or the connection is broken.
        """
        end = time.monotonic() + seconds
        looked = 0
        while (at := self._rest.find(b"\n", looked)) < 0:
            if len(self._rest) > self._longest:
                raise ControlError("bad_request", f"a message is longer than {self._longest:,} bytes")
            looked = len(self._rest)
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("no message came in time")
            self._connection.settimeout(left)
            more = self._connection.recv(65_536)
            if not more:
                return None
            self._rest += more
        line = bytes(self._rest[:at])
        del self._rest[: at + 1]
        if len(line) > self._longest:
            raise ControlError("bad_request", f"a message is longer than {self._longest:,} bytes")
        return line


def parsed(line: bytes) -> dict[str, Any]:
    """Return a message.

    Raises:
        ControlError: If it is no JSON object of this version.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("bad_request", f"a message is not JSON: {error!s:.{ERROR_MESSAGE_LIMIT}}") from None
    if not isinstance(message, dict):
        raise ControlError("bad_request", "a message must be a JSON object")
    if message.get("version") != VERSION:
        raise ControlError(
            "bad_request",
            f"the message has version {message.get('version')!r:.20}, this is version {VERSION}; use the same version "
            "of batch-llm on both sides",
        )
    return message


def line_of(message: dict[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps({"version": VERSION, **message}, default=str).encode() + b"\n"


def error_of(error: ControlError) -> dict[str, Any]:
    """Return an error as a message."""
    return {"error": {"code": error.code, "message": str(error)}}
