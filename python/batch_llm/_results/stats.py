"""The counters of a run, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BatchTermination:
    """Why a run ended.

    Args:
        kind: ``"completed"``; or ``"batch_timeout"``, ``"budget_exceeded"``, ``"fail_fast"``: a guardrail; or
            ``"interrupted"``: by Ctrl-C, or the interrupt of a notebook; or ``"artifact_error"``: the store could not
            be written; or ``"provider_outage"``: the provider was down for too long. In an exception's
            ``partial_result`` also ``"cancelled"``: the awaiting task was cancelled; or ``"failed"``: by any
            other exception, which ``reason`` names. ``KeyboardInterrupt`` of the user's own code interrupts too.
        reason: The same in words; None when it completed.
        error_category: For ``"fail_fast"`` the category that ended it.
        triggering_item_id: For ``"fail_fast"`` the item that failed.
    """

    kind: str = "completed"
    reason: str | None = None
    error_category: str | None = None
    triggering_item_id: str | None = None


@dataclass
class ProcessingStats:
    """Counters of a run. ``total_cached_tokens`` and ``cached_input_tokens`` are two names for the same number.

    ``bound_by`` has the seconds during which each reason kept further attempts from starting: ``"workers"`` (all were
    busy), ``"concurrency"`` and ``"pace"`` (the provider's limits, as found), ``"quota:requests"``,
    ``"quota:tokens"`` and their like (a limit was used up), ``"cooldown"``, ``"outage"`` (the provider was down),
    ``"slow_start"``, ``"budget"`` (the rest is reserved), ``"estimates"``, ``"other_runs"`` (sharing a limit),
    ``"source"`` (nothing was waiting), ``"backoff"`` (all remaining items waited for a retry), ``"consumer"``
    (results were not taken), ``"paused"``.
    ``processed == succeeded + failed + not_sent``; the last were never sent, because the run ended before.
    ``replayed`` of the items had their results already, from a store, a cache or an equal request; their tokens are in
    no counter. ``limits`` are those in force, set by you or (``learned``) reported by the provider, with what is left
    of each; ``concurrency`` is the limit that ``"auto"`` has found.
    """

    total: int = 0
    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: float | None = None
    error_counts: dict[str, int] = field(default_factory=dict)
    rate_limit_count: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    total_cached_tokens: int = 0
    # The twelve above keep 0.3.0's order, for callers that pass them by position. New ones go below.
    replayed: int = 0
    bound_by: dict[str, float] = field(default_factory=dict)
    budget_tokens_used: float = 0.0
    budget_cost_used: float = 0.0
    budget_unknown_usage_attempts: int = 0
    limits: list[dict[str, Any]] = field(default_factory=list)
    concurrency: float = 0.0
    not_sent: int = 0

    def explain(self) -> str:
        """Return what limited the run, for what share of its time, and what to change: one line per reason."""
        from .explain import explain

        return explain(self)

    def copy(self) -> dict[str, Any]:
        """Return the counters as a new dict."""
        return {**vars(self), "error_counts": dict(self.error_counts)}
