"""Inspect stores of results without the program that wrote them: ``batch_llm.inspect(path)``."""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ._core import JournalView, format_of
from ._logs import log_event
from ._results import WorkItemResult, over_time_of
from ._shown import amount, line
from ._store import UnreadableRecordError, log_ignored, read, result_of
from ._values import as_text
from .artifacts import SqliteArtifactStore
from .errors import ArtifactFormatError
from .results import BatchResult

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Inspection", "inspect"]

PAGE = 1000
"""Records read at a time."""
EXAMPLES = 5
"""Failed items that a summary shows."""
LONGEST = 160
"""Longest error or prompt in a summary, characters."""


class StoredRow(NamedTuple):
    """The last result of an item: its place in the store, the run that made it, when (seconds since 1970), its cost."""

    place: int
    result: WorkItemResult[Any, Any]
    run: int
    recorded_at: float
    cost: float | None


@dataclass(frozen=True)
class Inspection:
    """A snapshot of the contents of a store. :func:`inspect` returns one.

    Args:
        path: The file, folder or URL.
        created_at: When it was created.
        updated_at: When its last record was written.
        runs: The number of runs that have written to it.
        records: The number of records; an item that was retried in a later run has several.
        succeeded: Items whose last record is a success.
        failed: Items whose last record is a failure.
        errors: The number of failed items by category.
        failed_attempts: Failed attempts that were billed.
        input_tokens: Tokens of all prompts, including failed attempts.
        output_tokens: Tokens of all answers, including failed attempts.
        cached_input_tokens: Input tokens that came from the provider's cache.
        cost: The total cost, as far as prices are known.
        records_without_cost: Records with tokens whose price is unknown.
        identities: What produced the answers: JSON values.
        user_metadata: The ``user_metadata`` that the store was created with.
        damaged_records: Records that are damaged.
        events: What was done to its runs from outside, and how they ended, in order: JSON objects with ``type`` and
            ``at``; see the guide "Control".
        bound_over_time: What limited its last runs over time, by the number of the run: as in
            ``ProcessingStats.bound_over_time``, and ``began_at``, when the run began (seconds since 1970). Of a run
            that is on, or was killed, as of some time before.
        torn_bytes: Bytes of an incomplete last record: it is still being written, or its writer was killed.
    """

    path: str
    created_at: datetime.datetime
    updated_at: datetime.datetime
    runs: int
    records: int
    succeeded: int
    failed: int
    errors: dict[str, int]
    failed_attempts: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost: float
    records_without_cost: int
    identities: list[dict[str, Any]]
    user_metadata: Any
    damaged_records: int
    torn_bytes: int
    events: list[dict[str, Any]]
    bound_over_time: dict[int, dict[str, Any]]
    _view: JournalView = field(repr=False, compare=False)
    _decoders: tuple[Callable[[Any], Any] | None, Callable[[Any], Any] | None] = field(repr=False, compare=False)
    _reported: list[str] = field(default_factory=list, repr=False, compare=False)

    @property
    def items(self) -> int:
        """The number of items that have a record."""
        return self.succeeded + self.failed

    def results(self, *, successes_only: bool = False) -> Iterator[WorkItemResult[Any, Any]]:
        """Iterate over the last result of every item.

        Outputs that were models or similar types are JSON values here, unless an ``output_decoder`` was given. Results
        have prompts if the store has them; by default, those of failed items.

        Args:
            successes_only: Whether to skip failed items.

        Raises:
            ArtifactError: If the file can no longer be read.
        """
        for page in self._pages(None, PAGE, successes_only=successes_only):
            for row in page:
                yield row.result

    def _pages(
        self, after: int | None, size: int, *, successes_only: bool = False, item_id: str | None = None
    ) -> Iterator[list[StoredRow]]:
        """Iterate over pages of last results; for what cannot be read, there is an empty page each.

        Args:
            after: The place after which they begin.
            size: How many records are read at a time.
            successes_only: Whether to skip failed items.
            item_id: Only results of items with this id.
        """
        output_decoder, context_decoder = self._decoders
        while page := self._view.page(after, size):
            found: list[StoredRow] = []
            for place, found_id, index, success, category, body, of_run in page:
                after = place
                if (successes_only and not success) or (item_id is not None and found_id != item_id):
                    continue
                try:
                    record = read(body)
                    context = record.get("context")
                    if context is not None and context_decoder is not None:
                        context = context_decoder(context)
                    item = _Item(found_id, context)
                    result = result_of(item, record, success, category, output_decoder or _as_it_is, {})
                except UnreadableRecordError as error:
                    self._tell_unreadable(found_id, error)
                    yield []
                    continue
                result.submission_index, result.prompt = index, record.get("prompt")
                found.append(StoredRow(place, result, *of_run))
            if found:
                yield found

    def failures(self) -> Iterator[WorkItemResult[Any, Any]]:
        """Iterate over the failed items; what succeeded is not decoded.

        Raises:
            ArtifactError: If the file can no longer be read.
        """
        for item_id, record, category in self._failures(self.failed):
            result = result_of(_Item(item_id, None), record, False, category, _as_it_is, {})
            result.prompt = record.get("prompt")
            yield result

    def _tell_unreadable(self, item_id: str, error: Exception) -> None:
        if self._reported:
            return
        self._reported.append(item_id)
        log_event(
            logging.WARNING,
            "record_unreadable",
            "%s: the record of item %s cannot be read and is ignored: %s (further ones are not reported)",
            self.path,
            item_id,
            error,
            path=self.path,
            item_id=item_id,
        )

    def batch(self, *, successes_only: bool = False) -> BatchResult[Any, Any]:
        """Read all results into a batch, for tables, JSON and reports.

        Raises:
            ArtifactError: If the file can no longer be read.
        """
        return BatchResult(list(self.results(successes_only=successes_only)))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame with a row per item; see :meth:`~batch_llm.BatchResult.to_pandas`."""
        return self.batch().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """Return a Polars data frame; see :meth:`~batch_llm.BatchResult.to_pandas`."""
        return self.batch().to_polars()

    def to_arrow(self) -> pyarrow.Table:
        """Return an Arrow table; see :meth:`~batch_llm.BatchResult.to_pandas`."""
        return self.batch().to_arrow()

    def compact(self, path: str | os.PathLike[str], *, remove: bool = False) -> tuple[int, int]:
        """Copy the segments of a folder or bucket into one SQLite file, which is a store too.

        Args:
            path: The file. It must not exist yet.
            remove: Whether to remove the segments afterwards. No run may be writing to them.

        Returns:
            How many records were copied, and how many segments were removed.

        Raises:
            ArtifactError: If the file cannot be written, or a segment cannot be removed.
            ValueError: If this store is one file already.
        """
        target = SqliteArtifactStore(path)
        return self._view.compact(target.path, target, remove)

    def summary(self) -> str:
        """Return a one-screen summary of the contents, with some of the failed items and their prompts.

        Raises:
            ArtifactError: If the file can no longer be read.
        """
        lines = [
            f"{line(self.path)}: {self.items:,} items, {self.succeeded:,} succeeded, {self.failed:,} failed",
            f"runs: {self.runs:,}, from {self.created_at:%Y-%m-%d %H:%M:%S} to {self.updated_at:%Y-%m-%d %H:%M:%S} UTC",
            f"tokens: {self.input_tokens:,} in ({self.cached_input_tokens:,} cached), {self.output_tokens:,} out",
        ]
        if self.cost or not self.records_without_cost:
            lines.append(f"cost: ${amount(self.cost)}")
        if self.records_without_cost:
            lines.append(f"cost unknown for {self.records_without_cost:,} records")
        if self.failed_attempts:
            lines.append(f"{self.failed_attempts:,} failed attempts were billed")
        lines += [f"failed: {count:,} x {name}" for name, count in sorted(self.errors.items(), key=lambda one: -one[1])]
        lines += self._examples()
        if self.damaged_records or self.torn_bytes:
            lines.append(f"damaged: {self.damaged_records:,} records, {self.torn_bytes:,} bytes at the end")
        return "\n".join(map(line, lines))

    def _examples(self) -> list[str]:
        """The first failed items, and their prompts."""
        lines: list[str] = []
        shown = 0
        for item_id, record, _ in self._failures(min(self.failed, EXAMPLES)):
            shown += 1
            lines.append(f"{_short(item_id)}: {_short(record.get('error'))}")
            if record.get("prompt") is not None:
                lines.append(f"    prompt: {_short(record['prompt'])}")
        if self.failed > shown > 0:
            lines.append(f"... and {self.failed - shown:,} more that failed")
        return lines

    def _failures(self, most: int) -> Iterator[tuple[str, dict[str, Any], str | None]]:
        """Ids, records and categories of failed items; what succeeded is not decoded."""
        after: int | None = None
        while most > 0 and (page := self._view.page(after, PAGE)):
            for place, item_id, _, success, category, body, _ in page:
                after = place
                if success or most <= 0:
                    continue
                try:
                    yield item_id, read(body), category
                except UnreadableRecordError as error:
                    self._tell_unreadable(item_id, error)
                else:
                    most -= 1


def _short(value: Any) -> str:
    """A value on one line, not too long."""
    text = as_text(value)
    # Not all of it: a prompt may be a book.
    short = " ".join(text[: 4 * LONGEST].split())
    return f"{short[: LONGEST - 3]}..." if len(short) > LONGEST or len(text) > 4 * LONGEST else short


@dataclass
class _Item:
    item_id: str
    context: Any
    strategy: Any = None


def _is_event(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(event.get("type"), str) and isinstance(event.get("at"), (int, float))


def _json(text: str | None) -> Any:
    """Parse a text, if it is JSON: the file is untrusted."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _instant(seconds: float) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return datetime.datetime.fromtimestamp(0, datetime.timezone.utc)


def _as_it_is(output: Any) -> Any:
    return output


def inspect(
    path: str | os.PathLike[str],
    *,
    output_decoder: Callable[[Any], Any] | None = None,
    context_decoder: Callable[[Any], Any] | None = None,
) -> Inspection:
    """Inspect a store, even while a run is writing to it. The store is not modified.

    ::

        print(batch_llm.inspect("runs/tagging.db").summary())

    Args:
        path: The file, folder or URL.
        output_decoder: Converts stored JSON values to outputs.
        context_decoder: Converts stored JSON values to contexts.

    Raises:
        FileNotFoundError: If there is no file, or no segment in the folder or bucket.
        ArtifactError: If it cannot be read, or is not a store.
    """
    path = os.fspath(path)
    if "://" not in path and not os.path.exists(path):
        raise FileNotFoundError(f"there is no store {path!r}")
    kind = format_of(path)
    if kind is None:
        raise ArtifactFormatError(f"{path} is not a store of batch-llm")
    view = JournalView(path, kind)
    log_ignored(path, view.ignored)
    sums = view.sums()
    if kind == "segments" and not sums["created_at"]:
        raise FileNotFoundError(f"there is no store at {path}: it contains no segments; check the path")
    for name in ("created_at", "updated_at"):
        sums[name] = _instant(sums[name])
    sums["identities"] = [one for one in map(_json, sums["identities"]) if isinstance(one, dict)]
    sums["user_metadata"] = _json(sums["user_metadata"])
    sums["events"] = [event for event in map(_json, sums["events"]) if _is_event(event)]
    over_time = ((run, over_time_of(_json(text))) for run, text in sums["bound_over_time"])
    sums["bound_over_time"] = {run: found for run, found in over_time if found is not None}
    return Inspection(path=path, **sums, _view=view, _decoders=(output_decoder, context_decoder))
