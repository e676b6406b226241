"""The counters of a run: the engine's, and what it does not know. Used by ``run``."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from .._json_values import without_secrets
from .._results import BatchTermination, ProcessingStats

if TYPE_CHECKING:
    from .._core import RunHandle
    from .._results import WorkItemResult

LONGEST_ERROR = 500
"""Characters of an error that are kept."""


class LoopTime:
    """For how much of the time the loop's thread is busy: running, or waiting for a processor."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._began = time.monotonic(), _busy()
        self._share = 0.0

    def look(self) -> float:
        """Return the share, from 0 to 1; in other threads, what it was when the loop last looked."""
        if threading.get_ident() == self._thread:
            passed = time.monotonic() - self._began[0]
            if passed > 0:
                self._share = min((_busy() - self._began[1]) / passed, 1.0)
        return self._share


def _busy() -> float:
    """Seconds for which this thread ran, or could have run (known on Linux only)."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            waited = int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = 0.0
    return time.thread_time() + waited


def _name_batches(seconds: dict[str, list[float]]) -> None:
    """Call what a run waits for by its name: its requests are in batches."""
    waits = [seconds.pop(name) for name in ("source", "last_items") if name in seconds]
    seconds["batches"] = [round(sum(times), 3) for times in zip(*waits, strict=True)]


class Counters:
    """Counts what was never sent, and completes the engine's counters."""

    def __init__(self) -> None:
        self._start_time = time.time()
        self._not_sent: Counter[str] = Counter()  # by the name of the error
        self._failure = ""
        self._termination = BatchTermination()
        self.loop = LoopTime()
        self.endpoints: dict[int, str] = {}
        """What requests are sent to, by the number of the queue; set by the pipeline."""

    def stats(
        self,
        handle: RunHandle,
        results: list[WorkItemResult[Any, Any]],
        sent_live: dict[str, int],
        *,
        waits_in_batches: bool,
    ) -> ProcessingStats:
        """Return the counters of the run; ``results``: what is left of them if the engine has failed."""
        try:
            counts: dict[str, Any] = handle.stats()
        except RuntimeError:
            # The engine has failed: what is in the results is what is known.
            succeeded = sum(1 for result in results if result.success)
            processed = len(results)
            counts = {"processed": processed, "succeeded": succeeded, "failed": processed - succeeded}
        else:
            self._set_apart(counts)
            bound_by = counts["bound_by"]
            if waits_in_batches and bound_by.keys() & {"source", "last_items"}:
                waits = (bound_by.pop(name, 0.0) for name in ("source", "last_items"))
                bound_by["batches"] = sum(waits)
                _name_batches(counts["bound_over_time"]["seconds"])
            counts["sent_live"] = sent_live
            counts["endpoints"] = [
                {"name": self.endpoints.get(queue, ""), "attempts": attempts, "seconds": seconds}
                for queue, (attempts, seconds) in enumerate(counts["endpoints"])
                if attempts
            ]
        if self._termination.kind != "completed":
            counts["ended"], counts["ended_reason"] = self._termination.kind, self._termination.reason or ""
        mine = {"start_time": self._start_time, "loop_busy": self.loop.look(), "failure": self._failure}
        return ProcessingStats(**{**counts, **mine})

    def ends_early(self, termination: BatchTermination) -> None:
        """Keep why the run ends early."""
        self._termination = termination

    def failed(self, error: BaseException, result: WorkItemResult[Any, Any]) -> None:
        """Keep the error of the first item that failed; one that was not sent has not."""
        if not (self._failure or result.not_sent or isinstance(error, asyncio.CancelledError)):
            self._failure = (without_secrets(result.error) or "")[:LONGEST_ERROR]

    def count_not_sent(self, result: WorkItemResult[Any, Any]) -> None:
        """Count a result whose item was never sent."""
        if result.not_sent:
            self._not_sent[result._error_name or "unknown"] += 1

    def _set_apart(self, counts: dict[str, Any]) -> None:
        """Count separately what was never sent: the engine counts it as failed."""
        if not self._not_sent:
            return
        counts["not_sent"] = not_sent = sum(self._not_sent.values())
        counts["failed"] -= not_sent
        errors = Counter(counts["error_counts"])
        errors.subtract(self._not_sent)
        counts["error_counts"] = {name: count for name, count in errors.items() if count > 0}
