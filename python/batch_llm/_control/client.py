"""Asks the endpoint of a run. Used by ``attached``."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from ..errors import ControlError
from . import registry
from .protocol import LONGEST_ANSWER, Lines, line_of, parsed

ANSWER_SECONDS = 15.0
"""How long an answer may take."""


def asker() -> dict[str, Any]:
    """Return who asks, for the record."""
    return {"user": registry.user(), "host": socket.gethostname(), "pid": os.getpid()}


class Client:
    """A connection to a run's endpoint.

    Args:
        entry: The run.

    Raises:
        ControlError: If it does not listen, or its token cannot be read.
    """

    def __init__(self, entry: registry.Entry) -> None:
        if entry.address is None or entry.token_file is None:
            raise ControlError("not_running", f"the run {entry.id} has no endpoint: it is {entry.state}")
        try:
            self._token = entry.token_file.read_text(encoding="utf-8")
            self._connection = registry.connect(entry.address, ANSWER_SECONDS)
        except OSError as error:
            raise ControlError("unreachable", f"the run {entry.id} does not answer: {error}") from error
        self._lines = Lines(self._connection, LONGEST_ANSWER)

    def ask(
        self, command: str, arguments: dict[str, Any] | None = None, *, reason: str | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Send a command, and return the answer.

        Args:
            command: Its name.
            arguments: Its arguments.
            reason: Why, for the record.
            dry_run: Whether only to say what would be done.

        Raises:
            ControlError: If the run refuses, or does not answer.
        """
        request = {
            "token": self._token, "command": command, "arguments": arguments or {}, "by": asker(), "reason": reason,
            "dry_run": dry_run,
        }  # fmt: skip
        try:
            self._connection.settimeout(ANSWER_SECONDS)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # It may have said why it takes no more, and hung up.
                self._connection.sendall(line_of(request))
            line = self._lines.read(ANSWER_SECONDS)
        except OSError as error:
            raise ControlError("unreachable", f"the run does not answer: {error}") from error
        if line is None:
            raise ControlError("unreachable", "the run has closed the connection: it is over, or has died")
        answer = parsed(line)
        problem = answer.get("error")
        if problem is not None:
            parts = problem if isinstance(problem, dict) else {}
            raise ControlError(
                str(parts.get("code", "refused")), str(parts.get("message", "the run rejected the command"))
            )
        data = answer.get("data")
        if not isinstance(data, dict):
            raise ControlError("unreachable", "the answer of the run has no data")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
