"""Where control keeps its files: the state directory of the user, and the sockets in it. Used within the package.

Only the user may enter these directories. One that belongs to somebody else is refused, for whoever owns a directory
decides what is in it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from .._forks import process

STATE_VARIABLE = "BATCH_LLM_STATE"
"""The environment variable that moves the state directory."""
_LONGEST_SOCKET = 100
"""Bytes of a socket's path; systems allow 103 to 107."""


def state_directory() -> Path:
    """Return the state directory of this user; it may not exist yet."""
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given).absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "batch-llm"
    state = os.environ.get("XDG_STATE_HOME")
    # A relative one is invalid, and to be ignored.
    return (Path(state) if state and os.path.isabs(state) else Path.home() / ".local" / "state") / "batch-llm"


def runs_directory(*, make: bool) -> Path:
    """Return the directory of the registry.

    Args:
        make: Whether to make it.

    Raises:
        OSError: If it cannot be made, or is another user's.
    """
    path = state_directory() / "runs"
    if make:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        _make(path.parent)
        private_directory(path)
    else:
        for folder in (path.parent, path):
            if os.path.lexists(folder):
                check_own(folder)
    return path


def private_directory(path: Path) -> Path:
    """Make a directory that only this user can enter, if it is not there.

    Raises:
        OSError: If that is not possible, or it is another user's.
    """
    _make(path)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o700)
    return path


def _make(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    check_own(path)


def check_own(path: Path) -> None:
    """Check that a directory is one, and this user's.

    Raises:
        OSError: If it is not.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is not a directory; set {STATE_VARIABLE} to another directory")
    if os.name != "posix":
        return
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user; set {STATE_VARIABLE} to a directory of your own")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(
            f"{path} is writable by other users; run `chmod go-w {path}`, or set {STATE_VARIABLE} to another directory"
        )


def log_file(run_id: str) -> str:
    """Return where the output of a detached run goes.

    Raises:
        OSError: If the state directory cannot be used.
    """
    return str(runs_directory(make=True) / f"{run_id}.log")


def socket_directory(run_id: str) -> Path:
    """Make the directory of a run's socket and token.

    Raises:
        OSError: If that is not possible.
    """
    parent = state_directory() / "open"
    path = parent / run_id
    if len(os.fsencode(path / "socket")) <= _LONGEST_SOCKET:
        private_directory(parent)
        path.mkdir(mode=0o700)
        return path
    # The name of a socket has little room.
    return Path(tempfile.mkdtemp(prefix=f"batch-llm-{process()}-"))


def write_private(path: Path, text: str) -> None:
    """Write a new file that only this user can read.

    Raises:
        OSError: If it is there already, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
