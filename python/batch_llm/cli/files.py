"""Files that the command line writes: checked, locked and opened before anything is sent; replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from .._files import SUFFIX, Destination, Lock, LockedError, LockPathError, Replacement, open_stream
from .._shown import escaped_json

PRIVATE = 0o600
"""Permissions of new files: those of stores."""
STDOUT = "-"
INPUT, OUTPUT = "FILE", "the output"
"""Names of the input and the output in messages about both."""
_READ_AT_MOST = 64 << 20
"""Bytes of a file that is compared by its content."""

_REMEDIES = {
    errno.EISDIR: "give a file in that folder",
    errno.EACCES: "make the file and its folder writable",
    errno.EPERM: "make the file and its folder writable",
    errno.EROFS: "choose another folder",
    errno.ENOENT: "its folder cannot be created; choose another one",
    errno.ENOTDIR: "part of its path is a file; choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "the link points to itself; choose another file",
    errno.ENOSPC: "free some space",
}


def problem(name: str, error: OSError) -> click.ClickException:
    """Return the error that a file cannot be written, with the reason and a remedy."""
    reason = error.strerror or str(error)
    if isinstance(error, LockPathError):
        return click.ClickException(
            f"{name} cannot be locked: {error.filename}: {reason}; remove it if no other command writes {name}"
        )
    remedy = _REMEDIES.get(error.errno or 0)
    return click.ClickException(f"{name} cannot be written: {reason}{'' if remedy is None else f'; {remedy}'}")


@contextlib.contextmanager
def _locked(name: str, destination: Destination, remedy: str) -> Iterator[None]:
    """Lock a file.

    Raises:
        click.ClickException: If another command has it, or its folder cannot be made.
    """
    try:
        destination.make_folder()
        lock = Lock(destination)
    except LockedError as error:
        who = "another command" if error.holder is None else f"another command ({error.holder})"
        raise click.ClickException(f"{name} is being written by {who}; wait for it to end, or {remedy}") from error
    except OSError as error:
        raise problem(name, error) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def reserved(name: str, path: str | None) -> Iterator[None]:
    """Lock a file that is written later; a device, a pipe or the like is not locked.

    Args:
        name: Its name in messages.
        path: Where it is; None: nothing is to be written.

    Raises:
        click.ClickException: If another command has it, or it cannot be written.
    """
    if path is None:
        yield
        return
    try:
        destination = Destination.of(path)
    except OSError as error:
        raise problem(name, error) from error
    with contextlib.nullcontext() if destination.is_stream else _locked(name, destination, "name another file"):
        yield


class Output:
    """Where answers go.

    Args:
        path: A file; a device, a pipe or the like; ``-`` for stdout.

    Raises:
        click.ClickException: If it cannot be written, as far as that can be seen.
    """

    def __init__(self, path: str) -> None:
        self.name = "stdout" if path == STDOUT else path
        self._destination: Destination | None = None
        if path != STDOUT:
            try:
                self._destination = Destination.of(path)
            except OSError as error:
                raise problem(path, error) from error

    @property
    def is_stream(self) -> bool:
        """Whether rows cannot be taken back once they are written."""
        return self._destination is None or self._destination.is_stream

    @property
    def path(self) -> str | None:
        """The file, links resolved; None for a stream."""
        return None if self._destination is None or self.is_stream else self._destination.path

    @contextlib.contextmanager
    def opened(self, *, mode: int = PRIVATE, is_input: bool = False) -> Iterator[Sink]:
        """Lock it and open it for rows. Without :meth:`Sink.commit`, no file appears.

        Args:
            mode: Permissions of a new file.
            is_input: Whether the rows come from this file too: then it is only replaced if it has not changed
                meanwhile.

        Raises:
            click.ClickException: If it cannot be written, or another process writes it.
        """
        if self.is_stream:
            yield from self._opened_stream()
            return
        assert self._destination is not None
        remedy = "run this command on a copy of the file" if is_input else "name another file"
        with _locked(self.name, self._destination, remedy):
            try:
                seen = _Seen(self._destination.path) if is_input else None
                replacement = Replacement(self._destination, mode, SUFFIX)
            except OSError as error:
                raise problem(self.name, error) from error
            try:
                yield Sink(self.name, replacement.file, replacement, seen)
            finally:
                replacement.discard()

    def _opened_stream(self) -> Iterator[Sink]:
        try:
            file = _stdout() if self._destination is None else open_stream(self._destination)
        except OSError as error:
            raise problem(self.name, error) from error
        try:
            yield Sink(self.name, _Stream(file))
        finally:
            if self._destination is not None:
                with contextlib.suppress(OSError):
                    file.close()


def _stdout() -> Any:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    sys.stdout.flush()
    return sys.stdout.buffer


class _Stream:
    """A stream that is written line by line, so that its reader gets lines as they come."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._is_terminal = file, file.isatty()

    def write(self, data: Any) -> int:
        """Write; for a terminal, escape control characters."""
        text = bytes(data)
        self._file.write(escaped_json(text.decode("utf-8", "replace")).encode() if self._is_terminal else text)
        if text.endswith(b"\n"):
            self._file.flush()
        return len(text)

    def flush(self) -> None:
        """Flush."""
        self._file.flush()


class Sink:
    """An output that is open.

    Args:
        name: Its name in messages.
        file: Takes what is written.
        replacement: The file that takes the place of another; None for a stream.
        seen: The file that is replaced, as it was when it was read.

    Attributes:
        naming: A context in which an error of the system is one of the output.
    """

    def __init__(self, name: str, file: Any, replacement: Replacement | None = None, seen: _Seen | None = None) -> None:
        self.name, self.file = name, file
        self._replacement, self._seen = replacement, seen
        self.naming = _Naming(self)

    @property
    def is_stream(self) -> bool:
        """Whether rows cannot be taken back once they are written."""
        return self._replacement is None

    @property
    def folder(self) -> Path | None:
        """Where the file is; None for a stream."""
        return None if self._replacement is None else Path(self._replacement.path).parent

    def failed(self, error: OSError) -> Exception:
        """Return what to raise when rows cannot be written."""
        if isinstance(error, BrokenPipeError):
            return ClosedPipe()
        if self.is_stream and self.name == "stdout":
            # What it has buffered fails once more when the interpreter exits, with another exit code.
            silence_stdout()
        return problem(self.name, error)

    def commit(self) -> str | None:
        """Replace the file.

        Returns:
            The message if that was not possible: where the rows are instead. None on success.
        """
        try:
            self.file.flush()
        except OSError as error:
            raise self.failed(error) from error
        if self._replacement is None:
            return None
        if self._seen is not None and self._seen.has_changed():
            return self._leave_beside("was changed during the run and was not replaced")
        try:
            self._replacement.commit()
        except OSError as error:
            return self._leave_beside(f"could not be written ({error.strerror or error})")
        return None

    def _leave_beside(self, why: str) -> str:
        assert self._replacement is not None
        return f"{self.name} {why}; the answers are in {self._replacement.keep()}"


class _Naming:
    """Adds the file's name to an OSError. Entered for every row: hence not a generator."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise self._sink.failed(error) from error


class ClosedPipe(Exception):  # noqa: N818 - nothing is wrong
    """The reader of the output has closed it."""


def silence_stdout() -> None:
    """Write nothing more to stdout, not even when the interpreter exits."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _Seen:
    """The state of a file, to check later whether it has changed. Small files are compared by content."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._state, self._content = self._look()

    def _look(self) -> tuple[Any, bytes | None]:
        status = os.stat(self._path)
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if status.st_size > _READ_AT_MOST:
            return state, None
        with open(self._path, "rb") as file:
            return state, hashlib.sha256(file.read(_READ_AT_MOST + 1)).digest()

    def has_changed(self) -> bool:
        """Whether the file has changed or is gone."""
        try:
            state, content = self._look()
        except OSError:
            return True
        return content != self._content if self._content is not None else state != self._state


def check(name: str, path: str, *, is_kept: bool = False) -> None:
    """Check that a file can be written.

    Args:
        name: Its name in messages.
        path: Where it is.
        is_kept: Whether it must be a file, and no device or pipe.

    Raises:
        click.ClickException: If it cannot.
    """
    try:
        destination = Destination.of(path)
        if destination.is_stream:
            if is_kept:
                raise OSError(errno.EINVAL, "it must be a file")
            return
        destination.make_folder()
        folder = os.path.dirname(destination.path)
        if os.path.exists(destination.path) and not os.access(destination.path, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is write-protected")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "its folder is write-protected")
    except OSError as error:
        raise problem(name, error) from error


def check_apart(paths: Mapping[str, str | None]) -> None:
    """Check that files are different.

    Args:
        paths: By their names for the user.

    Raises:
        click.UsageError: If two are one; names them.
    """
    seen: dict[Any, str] = {}
    for name, path in paths.items():
        if path is None or (path != STDOUT and not _is_plain(path)):
            continue
        for key in _keys(path):
            other = seen.setdefault(key, name)
            if other == name:
                continue
            also = ", or add columns to it with --in-place" if (other, name) == (INPUT, OUTPUT) else ""
            raise click.UsageError(f"{other} and {name} are the same file, {path}; name two different files{also}")


def _is_plain(path: str) -> bool:
    with contextlib.suppress(OSError):
        return not Destination.of(path).is_stream
    return True


def _keys(path: str) -> Iterator[Any]:
    """Return what identifies a file: its resolved name, or its inode."""
    if path == STDOUT:
        yield path
        return
    yield os.path.normcase(os.path.realpath(path))
    with contextlib.suppress(OSError):
        status = os.stat(path)
        yield status.st_dev, status.st_ino


def mode_beside(store: str | None) -> int:
    """Return the permissions of a new output: those of the store, which has the same content."""
    with contextlib.suppress(OSError, TypeError):
        if Path(str(store)).is_file():  # segments in a folder are private
            return Path(str(store)).stat().st_mode & 0o666
    return PRIVATE
