"""Invalid rows, which wait for their place in the output. Used by ``run``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .reading import Row
from .spool import Spool


class InvalidRows:
    """Rows with a problem, in order. One thread may add rows while another takes them out.

    Args:
        folder: Where they are stored if there are many.

    Attributes:
        count: How many there were.
        first: Number and problem of the first one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._spool = Spool(folder)
        self._next: Row | None = None
        self.count = 0
        self.first: tuple[int, str] | None = None

    def add(self, row: Row) -> None:
        """Add a row."""
        problem = row.problem or ""
        self.count += 1
        self.first = self.first or (row.number, problem)
        self._spool.put(json.dumps([row.number, row.raw, problem, row.item_id, row.texts()]))

    def before(self, number: int | None) -> Iterator[Row]:
        """Take out the rows with smaller numbers; None: all."""
        while True:
            if self._next is None:
                line = self._spool.take()
                if line is None:
                    return
                place, raw, problem, item_id, texts = json.loads(line)
                self._next = Row((), place, raw, problem).with_texts(texts)
                self._next.item_id = item_id
            if number is not None and self._next.number >= number:
                return
            row, self._next = self._next, None
            yield row

    def close(self) -> None:
        """Delete the rest."""
        self._spool.close()
