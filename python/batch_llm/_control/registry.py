"""The registry: a file for each run of this user, running or past. Used within the package, and by the command line.

A run writes its own file. Whoever reads the registry repairs it: a run whose endpoint does not answer any more, though
it has not said that it ended, has died; what it has left behind is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ControlError
from . import places

if TYPE_CHECKING:
    from .shapes import RunInfo

MOST_KEPT = 200
"""Past runs that are kept."""
LONGEST_ENTRY = 1 << 18
"""Longest file that is read, bytes."""
REPLACE_TIMES = 20
"""How often a file is tried to be replaced that somebody reads."""
LIVE = frozenset({"starting", "running", "finishing"})
"""States of runs whose process is there."""


@dataclass
class Entry:
    """What the registry knows of a run.

    Args:
        id: Its id.
        name: Its name.
        pid: Its process.
        host: The machine of the process.
        user: Whose it is.
        started_at: When it began, seconds since 1970.
        state: ``"starting"``, ``"running"``, ``"finishing"`` (its output is being written), ``"ended"`` or ``"died"``.
        program: ``"cli"`` or ``"python"``.
        store: Its store, an absolute path or a URL.
        address: Where its endpoint listens: ``{"socket": path}`` or ``{"port": number}``.
        directory: The directory of the endpoint's socket and token.
        log: The file with the output of a detached run.
        ended_at: When it ended.
        exit_code: Its exit code, or what the command line would have returned for such a run.
        status: What ``status`` said last.
    """

    id: str
    name: str
    pid: int = 0
    host: str = ""
    user: str = ""
    started_at: float = 0.0
    state: str = "running"
    program: str = "python"
    store: str | None = None
    address: dict[str, Any] | None = None
    directory: str | None = None
    log: str | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    status: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def is_live(self) -> bool:
        """Whether its process is there, as far as the entry says."""
        return self.state in LIVE

    @property
    def token_file(self) -> Path | None:
        """The file with the endpoint's token."""
        return None if self.directory is None else Path(self.directory) / "token"

    def shown(self) -> RunInfo:
        """Return what ``ps`` shows of it."""
        names = (
            "id", "name", "state", "pid", "host", "user", "program", "started_at", "ended_at", "exit_code", "store",
            "log",
        )  # fmt: skip
        shown: Any = {name: getattr(self, name) for name in names}
        info: RunInfo = shown
        return info


def new_entry(name: str, **more: Any) -> Entry:
    """Return the entry of a run of this process."""
    found = Entry(id=secrets.token_hex(4), name=name, started_at=time.time())
    found.pid, found.host, found.user = os.getpid(), socket.gethostname(), user()
    return dataclasses.replace(found, **more)


def user() -> str:
    """Return this user's name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without a list of users
        return str(os.geteuid()) if hasattr(os, "geteuid") else "unknown"


def write(entry: Entry) -> None:
    """Write an entry, in one step.

    Raises:
        OSError: If that is not possible.
    """
    folder = places.runs_directory(make=True)
    unfinished = folder / f"{entry.id}.{os.getpid()}.{secrets.token_hex(4)}.new"
    try:
        places.write_private(unfinished, json.dumps({"version": 1, **dataclasses.asdict(entry)}, default=str))
        _replace(unfinished, folder / f"{entry.id}.json")
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _replace(new: Path, old: Path) -> None:
    # On Windows, a file cannot be replaced while somebody reads it.
    for _ in range(REPLACE_TIMES if os.name == "nt" else 0):
        try:
            os.replace(new, old)
            return
        except PermissionError:
            time.sleep(0.01)
    os.replace(new, old)


def read(run_id: str) -> Entry | None:
    """Return the entry of a run; None: there is none that can be read."""
    if not run_id.isalnum():
        return None
    return _read(places.runs_directory(make=False) / f"{run_id}.json")


def _read(path: Path) -> Entry | None:
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_ENTRY + 1)
        found = json.loads(text) if len(text) <= LONGEST_ENTRY else None
        if not isinstance(found, dict):
            return None
        names = {one.name for one in dataclasses.fields(Entry)}
        entry = Entry(**{name: value for name, value in found.items() if name in names})
        if not all(isinstance(value, str) for value in (entry.id, entry.name, entry.state, entry.host)):
            return None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return entry if isinstance(entry.pid, int) and isinstance(entry.started_at, (int, float)) else None


def entries() -> list[Entry]:
    """Return all runs, the newest first, and repair the registry.

    Raises:
        ControlError: If the state directory cannot be used.
    """
    try:
        folder = places.runs_directory(make=False)
        paths = list(folder.glob("*.json"))
    except OSError as error:
        raise ControlError("state_directory", f"the state directory cannot be used: {error}") from error
    found = sorted(filter(None, map(_read, paths)), key=lambda entry: -entry.started_at)
    repaired = [repair(entry) for entry in found]
    for old in [entry for entry in repaired if not entry.is_live][MOST_KEPT:]:
        with contextlib.suppress(OSError):
            (folder / f"{old.id}.json").unlink()
            (folder / f"{old.id}.log").unlink()
    return [entry for entry in repaired if (folder / f"{entry.id}.json").exists()]


def repair(entry: Entry) -> Entry:
    """Return the entry as it is now: a run whose process is gone has died, and what it left behind is removed."""
    if not entry.is_live or entry.host != socket.gethostname() or _is_there(entry):
        return entry
    # It may have said meanwhile that it ended.
    again = read(entry.id)
    if again is not None and not again.is_live:
        return again
    died = dataclasses.replace(entry, state="died", ended_at=time.time())
    clear(died)
    died.address = died.directory = None
    with contextlib.suppress(OSError):
        write(died)
    return died


def clear(entry: Entry) -> None:
    """Remove the socket and the token of a run."""
    if entry.directory is None:
        return
    folder = Path(entry.directory)
    # Nothing but what an endpoint makes: the path is from a file.
    is_ours = folder.name == entry.id or folder.name.startswith("batch-llm-")
    with contextlib.suppress(OSError):
        places.check_own(folder)
        if is_ours and {path.name for path in folder.iterdir()} <= {"socket", "token"}:
            shutil.rmtree(folder)


def _is_there(entry: Entry) -> bool:
    if not process_exists(entry.pid):
        return False
    if entry.state != "running" or entry.address is None:
        return True
    # Another process may have its number by now; a socket has one owner.
    try:
        connect(entry.address, 2.0).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True  # too busy to take a connection
    return True


def connect(address: dict[str, Any], timeout: float) -> socket.socket:
    """Connect to an endpoint.

    Raises:
        OSError: If nobody listens.
    """
    path, port = address.get("socket"), address.get("port")
    if isinstance(path, str):
        family: Any = getattr(socket, "AF_UNIX", None)
        if family is None:
            raise ConnectionRefusedError("this system has no Unix sockets")
        connection = socket.socket(family, socket.SOCK_STREAM)
        where: Any = path
    else:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        where = ("127.0.0.1", port if isinstance(port, int) else 0)
    connection.settimeout(timeout)
    try:
        connection.connect(where)
    except BaseException:
        connection.close()
        raise
    return connection


def process_exists(pid: int) -> bool:
    """Whether there is a process with this number."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        import ctypes

        # os.kill() would end it.
        kernel: Any = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, pid)
        if handle:
            kernel.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only its parent has not noticed yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(1024).rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def find(run: str | os.PathLike[str] | None) -> Entry:
    """Return the run that is meant.

    Args:
        run: Its id or the beginning of it, its name, or the path or URL of its store; the newest one of several, a
            running one before others. None: the only one that is running.

    Raises:
        ControlError: If there is none, or it cannot be told which one of several.
    """
    known = entries()
    if run is None:
        return _only([entry for entry in known if entry.is_live], "is in progress", "several runs are in progress")
    wanted = os.fspath(run)
    ways: tuple[Callable[[Entry], bool], ...] = (
        lambda entry: entry.id == wanted,
        lambda entry: len(wanted) >= 4 and entry.id.startswith(wanted),
        lambda entry: entry.name == wanted,
        lambda entry: entry.store is not None and entry.store == store_name(wanted),
    )
    for way in ways:
        matching = [entry for entry in known if way(entry)]
        live = [entry for entry in matching if entry.is_live]
        if live:
            return _only(live, "", f"several runs in progress match {wanted!r}")
        if matching:
            return matching[0]
    raise ControlError(
        "unknown_run",
        f"there is no run {wanted!r}; `batch-llm ps --all` lists all (if you meant an item, name its run first)",
    )


def _only(found: list[Entry], none: str, several: str) -> Entry:
    if not found:
        raise ControlError("unknown_run", f"no run {none}; `batch-llm ps --all` lists past ones")
    if len(found) > 1:
        shown = ", ".join(f"{entry.id} ({entry.name})" for entry in found[:10])
        raise ControlError("several_runs", f"{several}: {shown}; give the id of one")
    return found[0]


def store_name(path: str) -> str:
    """Return how a store is named in the registry."""
    return path if "://" in path else os.path.realpath(path)
