"""Files that are written: replaced in one step when they are whole; devices, pipes and the like are written through.

``BatchResult.report()`` and ``to_jsonl()`` use :func:`replaced`. The command line (``cli.files``) uses the parts: it
also locks its output, and keeps what it has written where the output cannot be replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

__all__ = ["Destination", "Lock", "LockedError", "Replacement", "open_stream", "replaced"]

SUFFIX = ".part"
"""Ends names of unfinished files whose writer has a :class:`Lock`."""
UNLOCKED_SUFFIX = ".tmp"
_LONGEST_STEM = 200
"""Bytes of a name that names beside it begin with; with what is added they keep below 255."""
_LONGEST_CHAIN = 40
"""Links that lead to a file, at most."""


@dataclass(frozen=True)
class Destination:
    """Where a path leads to.

    Args:
        given: The path as it was given.
        path: The file itself: links are followed, so that they stay when it is replaced.
        descriptor: An open file that the path stands for, as ``/dev/stdout`` does.
        is_stream: Whether it is written through: a device, a pipe, a socket, an open file.
    """

    given: str
    path: str
    descriptor: int | None
    is_stream: bool

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Destination:
        """Find out where a path leads to.

        Raises:
            OSError: If that cannot be found out, or is a folder.
        """
        given = os.fspath(path)
        if not given:
            raise FileNotFoundError(errno.ENOENT, "the path is empty", given)
        descriptor = _descriptor(given)
        if descriptor is not None:
            return cls(given, given, descriptor, is_stream=True)
        try:
            kind = os.stat(given).st_mode
        except FileNotFoundError:
            if given.endswith(_SEPARATORS):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), given) from None
            return cls(given, os.path.realpath(given), None, is_stream=False)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), given)
        if not stat.S_ISREG(kind):
            return cls(given, given, None, is_stream=True)
        return cls(given, os.path.realpath(given), None, is_stream=False)

    def make_folder(self) -> None:
        """Make the folder it is to be in.

        Raises:
            OSError: If that is not possible.
        """
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)

    def beside(self, suffix: str) -> str:
        """Return the path of a hidden file in the same folder; the same for all paths that lead to this file."""
        folder, _ = os.path.split(self.path)
        return os.path.join(folder, f".{self._stem()}{suffix}")

    def _stem(self) -> str:
        name = os.path.basename(self.path)
        encoded = os.fsencode(name)
        return name if len(encoded) <= _LONGEST_STEM else hashlib.sha256(encoded).hexdigest()


_SEPARATORS = (os.sep,) if os.altsep is None else (os.sep, os.altsep)


def _descriptor(path: str) -> int | None:
    """The number of an open file of this process that a path stands for, through any number of links.

    Such a path is not opened again: that would truncate the file, or write at its start where others have appended.
    """
    own = re.compile(rf"/dev/fd|/proc/(self|thread-self|{os.getpid()})(/task/\d+)?/fd")
    for _ in range(_LONGEST_CHAIN):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder or ".")
        if name.isdecimal() and own.fullmatch(folder):
            return int(name)
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def open_stream(destination: Destination) -> BinaryIO:
    """Open what is written through. A pipe without a reader is waited for.

    Raises:
        OSError: If it cannot be written.
    """
    if destination.descriptor is not None:
        present = {1: sys.stdout, 2: sys.stderr}.get(destination.descriptor)
        if present is not None:
            present.flush()
        _check_writable(destination.descriptor)
        return open(os.dup(destination.descriptor), "wb")
    if stat.S_ISSOCK(os.stat(destination.path).st_mode):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(destination.path)
            return open(connection.detach(), "wb")
    # Neither created nor truncated: it exists.
    return open(destination.path, "wb", opener=lambda path, _: os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0)))


def _check_writable(descriptor: int) -> None:
    os.fstat(descriptor)
    if sys.platform != "win32":
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "the file is open for reading only")


class Replacement:
    """A file beside another, whose place it takes when it is whole. Nobody can guess its name, or read it meanwhile.

    Args:
        destination: What is replaced, or made.
        mode: Permissions of a new file; those of one that is there stay. None: what the umask leaves.
        suffix: The end of its name.

    Raises:
        OSError: If the file or its folder cannot be written.
    """

    def __init__(self, destination: Destination, mode: int | None, suffix: str) -> None:
        self.destination = destination
        self._mode = mode
        if os.path.exists(destination.path) and not os.access(destination.path, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is write-protected", destination.given)
        folder, name = os.path.split(destination.beside("."))
        try:
            descriptor, self.path = tempfile.mkstemp(suffix, name, folder)
        except OSError as error:
            error.filename = destination.given
            raise
        self.file: BinaryIO = open(descriptor, "wb")  # noqa: SIM115 - closed by commit() and discard()

    def commit(self) -> None:
        """Put it in its place, on disk.

        A file that cannot be replaced because something is mounted on it is overwritten.

        Raises:
            OSError: If that is not possible; then the file is still there, at ``path``.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        target = self.destination.path
        try:
            before: os.stat_result | None = os.stat(target)
        except FileNotFoundError:
            before = None
        if before is not None and not stat.S_ISREG(before.st_mode):
            raise FileExistsError(errno.EEXIST, "the path is no longer a regular file", self.destination.given)
        if before is not None:
            self._be_like(target, before)
        else:
            os.chmod(self.path, 0o666 & ~_umask() if self._mode is None else self._mode)
        try:
            os.replace(self.path, target)
        except OSError as error:
            if before is None or error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            with open(self.path, "rb") as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
            os.unlink(self.path)
        _sync_folder(os.path.dirname(target))

    def keep(self) -> str:
        """Give it its own name beside the file that it cannot replace, and return that."""
        with contextlib.suppress(OSError):
            self.file.close()
        stem, suffix = os.path.splitext(self.destination.path)
        kept, self.path = self.path, ""
        for number in itertools.count(1):
            name = f"{stem}.new{'' if number == 1 else f'-{number}'}{suffix}"
            if os.path.lexists(name):
                continue
            try:
                os.rename(kept, name)
            except FileExistsError:  # Windows
                continue
            except OSError:
                return kept  # hidden, but there
            return name
        raise AssertionError

    def discard(self) -> None:
        """Remove it; do nothing if it has replaced the file or was kept."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _be_like(self, target: str, before: os.stat_result) -> None:
        """Take over owner, permissions and extended attributes, as far as that is allowed."""
        if hasattr(os, "chown"):
            for owner in (before.st_uid, -1):
                try:
                    os.chown(self.path, owner, before.st_gid)
                    break
                except OSError:
                    continue
        if hasattr(os, "listxattr"):
            with contextlib.suppress(OSError):
                for name in os.listxattr(target):
                    with contextlib.suppress(OSError):
                        os.setxattr(self.path, name, os.getxattr(target, name))
        os.chmod(self.path, before.st_mode & 0o777)


def _umask() -> int:
    # There is no other way to learn it.
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _sync_folder(folder: str) -> None:
    """Have the disk know the new name; where folders cannot be synchronised that is left to the system."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], mode: int | None = None) -> Iterator[IO[str]]:
    """Write a text file, UTF-8, that appears when the block has ended, and not at all if it raises.

    Halves of surrogate pairs are written as JSON would, as escapes.

    Args:
        path: Where; a device, a pipe or the like is written through.
        mode: Permissions of a new file; None: what the umask leaves.

    Raises:
        OSError: If it cannot be written.
    """
    destination = Destination.of(path)
    if destination.is_stream:
        with _text(open_stream(destination)) as file:
            yield file
        return
    replacement = Replacement(destination, mode, UNLOCKED_SUFFIX)
    try:
        with _text(replacement.file) as file:
            yield file
            file.flush()
            replacement.commit()
    finally:
        replacement.discard()


def _text(file: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")


class LockedError(OSError):
    """Another process writes the same file. ``holder`` names it, if known."""

    def __init__(self, holder: str | None) -> None:
        super().__init__(errno.EAGAIN, "another process is writing to it")
        self.holder = holder

    def __reduce__(self) -> tuple[type[LockedError], tuple[str | None]]:
        return type(self), (self.holder,)


class LockPathError(OSError):
    """The file of a lock cannot be made or opened. ``filename`` is where it is to be."""

    @classmethod
    def of(cls, error: OSError, path: str) -> LockPathError:
        """Say of an error of the system which file it is about."""
        return cls(error.errno, error.strerror or str(error), path)


class Lock:
    """The right to write a file, which one process has at a time. It ends with the process, however that ends.

    It is the lock of a file beside it, because the file itself is replaced. Some file systems have no locks: then it
    has no effect.

    Args:
        destination: What is written.

    Raises:
        LockedError: If another process has it.
        LockPathError: If the lock file cannot be created.
    """

    def __init__(self, destination: Destination) -> None:
        self._path = destination.beside(".lock")
        self._descriptor: int | None = None
        has_locks = False
        while self._descriptor is None:
            descriptor = _open_lock(self._path)
            try:
                has_locks = _lock(descriptor)
                if not has_locks or _is(descriptor, self._path):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:  # it was removed by its last holder, or we are not to have it
                    os.close(descriptor)
        if has_locks:
            _write_holder(self._descriptor)
            _remove_abandoned(destination)

    def release(self) -> None:
        """Give it back. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # On Windows an open file cannot be removed; elsewhere it must be removed while it is locked.
        if sys.platform == "win32":
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        if sys.platform != "win32":
            os.close(descriptor)


_AT = 1 << 20
"""The byte that is locked on Windows, where what is locked cannot be read."""


def _open_lock(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise LockPathError.of(error, path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LockPathError(errno.EINVAL, "the path is not a regular file", path)
    return descriptor


def _lock(descriptor: int) -> bool:
    """Take the lock; False where there are none."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _AT, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise LockedError(_holder(descriptor)) from None
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise LockedError(_holder(descriptor)) from None
        return False
    return True


def _is(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())


def _holder(descriptor: int) -> str | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        number, host = os.read(descriptor, 300).decode("utf-8", "replace").split()
    except (OSError, ValueError):
        return None
    if not number.isdecimal():
        return None
    return f"process {number}" if host == socket.gethostname() else f"process {number} on {host!r}"


def _remove_abandoned(destination: Destination) -> None:
    """Remove what killed writers have left behind; the holder of the lock is the only writer."""
    folder, start = os.path.split(destination.beside("."))
    abandoned = re.compile(rf"{re.escape(start)}[a-z0-9_]{{8}}{re.escape(SUFFIX)}")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if abandoned.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
