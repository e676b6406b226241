"""``batch-llm run --detach``: a run that outlives its terminal; and the exit codes of all runs, for ``wait``.

The command starts itself once more, in a session of its own, with its output in a log file beside the registry. The
environment tells the second one its id, so that the first can print it at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from .._control import ControlOptions, Entry, log_file, new_entry, read, write
from .._shown import escaped

RUN_ID = "BATCH_LLM_RUN_ID"
"""The environment variable with the id of a detached run."""
BEGIN_SECONDS = 10.0
"""How long a detached run may take to begin until only its id is printed: its input is checked first."""
LOG_BYTES = 4_000
"""How much is shown of the log of a run that could not begin."""


class Registration:
    """How a run of the command line is registered.

    Args:
        name: Its name; None: that of its store or input.
    """

    def __init__(self, name: str | None) -> None:
        # Not for programs that the run starts in turn.
        self._detached = os.environ.pop(RUN_ID, None)
        entry = None if self._detached is None else read(self._detached)
        self._entry = new_entry(name or "run") if entry is None else entry
        self.options = ControlOptions(name, self._entry.id, "cli", self._entry.log)

    @property
    def is_detached(self) -> bool:
        """Whether this is the second process of ``--detach``."""
        return self._detached is not None

    @contextlib.contextmanager
    def exits(self) -> Iterator[None]:
        """Write down the exit code of what is done inside."""
        code = 1
        try:
            yield
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise
        except click.ClickException as error:
            code = error.exit_code
            raise
        finally:
            entry = read(self._entry.id)
            if entry is not None:
                entry.state, entry.exit_code, entry.ended_at = "ended", code, entry.ended_at or time.time()
                with contextlib.suppress(OSError):
                    write(entry)


def detach(arguments: list[str], name: str, *, as_json: bool) -> int:
    """Start a command once more, detached; print the id of its run.

    Args:
        arguments: What comes after ``batch-llm run``.
        name: The name of the run until it has one.
        as_json: Whether to print JSON.

    Returns:
        The exit code: that of the run, if it could not begin.

    Raises:
        OSError: If there is no process, or the state directory cannot be used.
    """
    entry = new_entry(name, state="starting", program="cli")
    entry.log = log_file(entry.id)
    command = [sys.executable, "-m", "batch_llm", "run", *arguments]
    with open(os.open(entry.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as log:
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
        # Written before it starts, for it reads that.
        write(entry)
        process = subprocess.Popen(  # noqa: S603 - this program
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, RUN_ID: entry.id},
            **apart,
        )
    found = _started(entry, process)
    if found is None:
        click.echo(_end_of(entry.log), err=True, nl=False)
        return process.returncode
    if as_json:
        shown = {"version": 1, "command": "run", "run": entry.id, "data": {"run": found.shown()}}
        click.echo(json.dumps(shown))
    else:
        click.echo(entry.id)
        click.echo(f"Running; see: batch-llm status {entry.id}; log: {entry.log}", err=True)
    # It goes on without us.
    process.returncode = 0
    return 0


def _started(entry: Entry, process: subprocess.Popen[Any]) -> Entry | None:
    """Wait until a run has begun, or its input takes long to check; None: it could not begin."""
    end = time.monotonic() + BEGIN_SECONDS
    while True:
        found = read(entry.id) or entry
        if found.state in ("running", "finishing") or (found.state == "ended" and found.status is not None):
            return found
        if process.poll() is not None:
            found = read(entry.id) or entry
            return found if found.status is not None else None
        if time.monotonic() >= end:
            return found
        time.sleep(0.05)


def _end_of(log: str) -> str:
    """The end of a log, for a terminal."""
    try:
        with open(log, "rb") as file:
            file.seek(max(os.path.getsize(log) - LOG_BYTES, 0))
            return escaped(file.read(LOG_BYTES).decode("utf-8", "replace"))
    except OSError:
        return ""
