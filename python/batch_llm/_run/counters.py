"""The counters of a run: the engine's, and what it does not know. Used by ``run``."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from .._results import ProcessingStats

if TYPE_CHECKING:
    from .._core import RunHandle
    from .._results import WorkItemResult


class Counters:
    """Counts what was never sent, and completes the engine's counters."""

    def __init__(self) -> None:
        self._start_time = time.time()
        self._not_sent: Counter[str] = Counter()  # by the name of the error

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
            if waits_in_batches and "source" in counts["bound_by"]:
                counts["bound_by"]["batches"] = counts["bound_by"].pop("source")
            counts["sent_live"] = sent_live
        return ProcessingStats(**{**counts, "start_time": self._start_time})

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
