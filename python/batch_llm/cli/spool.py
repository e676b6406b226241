"""Lines that wait: in memory while they are few, then in a file without a name. Used by what writes rows."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import IO

IN_MEMORY = 4 << 20
"""Characters stored in memory."""


class Spool:
    """Lines, taken out in the order in which they were put in. Several threads may use it.

    Args:
        folder: Where the file is made if there has to be one; None: where the system has its temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._first: deque[str] = deque()
        self._size = 0
        self._file: IO[str] | None = None
        self._in_file = 0
        self._read_to = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._first) + self._in_file

    def put(self, line: str) -> None:
        """Add a line, which has no line end in it."""
        with self._lock:
            if not self._in_file and self._size < IN_MEMORY:
                self._first.append(line)
                self._size += len(line)
                return
            if self._file is None:
                # Halves of surrogate pairs stay what they are.
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - it is closed by `close`
                    "w+", encoding="utf-8", errors="surrogatepass", newline="\n", dir=self._folder
                )
            self._file.write(line + "\n")
            self._in_file += 1

    def take(self) -> str | None:
        """Take the first line out; None: there is none."""
        with self._lock:
            if not self._first and self._in_file:
                self._refill()
            if not self._first:
                return None
            line = self._first.popleft()
            self._size -= len(line)
            return line

    def _refill(self) -> None:
        assert self._file is not None
        self._file.seek(self._read_to)
        while self._in_file and self._size < IN_MEMORY:
            line = self._file.readline().removesuffix("\n")
            self._first.append(line)
            self._size += len(line)
            self._in_file -= 1
        self._read_to = self._file.tell()
        if self._in_file:
            self._file.seek(0, 2)
        else:
            self._file.seek(0)
            self._file.truncate()
            self._read_to = 0

    def close(self) -> None:
        """Let go of all of it."""
        with self._lock:
            self._first.clear()
            if self._file is not None:
                self._file.close()
