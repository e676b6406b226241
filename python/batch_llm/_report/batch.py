"""What reports, tables and charts need of a batch: they are made of one, and a batch offers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .._results import BatchTermination, ProcessingStats, WorkItemResult
    from ..prices import Price


class Batch(Protocol):
    """The results of a run, with their sums; see :class:`~batch_llm.BatchResult`."""

    total_items: int
    succeeded: int
    failed: int
    not_sent: int
    termination: BatchTermination
    stats: ProcessingStats | None
    wall_time_seconds: float | None
    prices: Mapping[str, Price] | None

    @property
    def results(self) -> Sequence[WorkItemResult[Any, Any]]:
        """All results."""
        ...

    @property
    def successes(self) -> Sequence[WorkItemResult[Any, Any]]:
        """The successful results."""
        ...

    @property
    def failures(self) -> Sequence[WorkItemResult[Any, Any]]:
        """The failed ones."""
        ...

    @property
    def unsent(self) -> Sequence[WorkItemResult[Any, Any]]:
        """Those of items that were never sent."""
        ...
