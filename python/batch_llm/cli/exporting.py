"""Results of a store as rows of Parquet, CSV or JSON Lines, a page at a time. Used by ``reading_commands``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import click

from .._values import as_text, clean
from .._view import NOT_SENT, SUCCEEDED, answer_of, counts_of, prompt_of, retries_of, state_of

if TYPE_CHECKING:
    from .._view import Item

FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a cell begins with that a spreadsheet takes for a formula."""
_TEXT, _INTEGER, _NUMBER, _BOOLEAN = "string", "int64", "double", "bool"
COLUMNS: dict[str, str] = {
    "id": _TEXT, "submission_index": _INTEGER, "state": _TEXT, "prompt": _TEXT, "output": _TEXT, "error": _TEXT,
    "error_category": _TEXT, "attempts": _INTEGER, "retries": _INTEGER, "input_tokens": _INTEGER,
    "output_tokens": _INTEGER, "cached_input_tokens": _INTEGER, "cost": _NUMBER, "execution_seconds": _NUMBER,
    "waited_seconds": _NUMBER, "model": _TEXT, "finish_reason": _TEXT, "lane": _TEXT, "reused": _TEXT, "run": _INTEGER,
    "recorded_at": _NUMBER, "messages": _TEXT,
}  # fmt: skip
"""The columns, and what is in them. They do not depend on the results, so rows need not wait for each other."""
_STATES = {SUCCEEDED: "succeeded", NOT_SENT: "not_sent"}


class Rows(Protocol):
    """Takes rows."""

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write a page of rows."""

    def close(self) -> None:
        """Write the rest."""


def row_of(item: Item, cost: float | None) -> dict[str, Any]:
    """Return an item as a row."""
    result = item.result
    metadata = result.metadata or {}
    usage = counts_of(result)
    timing = result.timing
    state = state_of(result)
    return {
        "id": clean(result.item_id),
        "submission_index": result.submission_index,
        "state": _STATES.get(state, "failed"),
        "prompt": prompt_of(result),
        "output": answer_of(result) if result.success else None,
        "error": None if result.success else answer_of(result),
        "error_category": result.error_category,
        "attempts": result.attempts,
        "retries": retries_of(result),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cached_input_tokens": usage.get("cached_input_tokens"),
        "cost": cost,
        "execution_seconds": timing.execution_seconds if timing.attempts else None,
        "waited_seconds": timing.total_seconds - timing.execution_seconds if timing.attempts else None,
        **{name: _text(metadata.get(name)) for name in ("model", "finish_reason", "lane")},
        "reused": result.reused,
        "run": item.run or None,
        "recorded_at": item.recorded_at,
        "messages": None if result.messages is None else as_text(result.messages),
    }


def _text(value: Any) -> str | None:
    return None if value is None else as_text(value)


class JsonLines:
    """A JSON object per line; a column without a value is left out."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write a page of rows."""
        for row in rows:
            there = {name: value for name, value in row.items() if value is not None}
            self._file.write(json.dumps(there, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Nothing is left."""


class Csv:
    """CSV. Cells that a spreadsheet would take for formulas get an apostrophe, unless they are numbers.

    Args:
        file: Where it is written.
        escape: Whether they do.
    """

    def __init__(self, file: BinaryIO, *, escape: bool) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=False)
        self._writer = csv.writer(self._text)  # RFC 4180
        self._writer.writerow(COLUMNS)
        self._escape = escape

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write a page of rows."""
        for row in rows:
            self._writer.writerow([self._cell(row[name]) for name in COLUMNS])

    def _cell(self, value: Any) -> Any:
        if isinstance(value, str):
            value = value.replace("\0", "\ufffd")
            return f"'{value}" if self._escape and value.startswith(FORMULA) else value
        return value

    def close(self) -> None:
        """Write the rest; the file stays open."""
        self._text.flush()
        self._text.detach()


class Parquet:
    """Parquet; a row group per page.

    Raises:
        click.ClickException: If pyarrow is not installed.
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise click.ClickException(
                "Parquet needs pyarrow; install it with: pip install 'batch-llm[parquet]'"
            ) from None
        self._arrow: Any = pyarrow
        self._schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])
        self._writer: Any = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write a page of rows."""
        self._writer.write_table(self._arrow.Table.from_pylist(rows, self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


def pages(found: Iterator[list[Item]], cost_of: Callable[[Item], float | None], size: int) -> Iterator[list[Any]]:
    """Iterate over rows, some at a time."""
    rows: list[Any] = []
    for page in found:
        rows += [row_of(item, cost_of(item)) for item in page]
        if len(rows) >= size:
            yield rows
            rows = []
    if rows:
        yield rows
