"""The counters of a run, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .verdict import Verdict


@dataclass(frozen=True)
class BatchTermination:
    """Why a run ended.

    Args:
        kind: One of ``"completed"``; ``"batch_timeout"``, ``"budget_exceeded"`` or ``"fail_fast"``, if a guardrail
            ended the run; ``"interrupted"``, by Ctrl-C, a notebook's interrupt or a ``KeyboardInterrupt`` from your own
            code; ``"artifact_error"``, if the store could not be written; ``"provider_outage"``, if the provider was
            down for too long; or ``"in_batch"``, if the run left requests in batches at the provider. In an exception's
            ``partial_result``, also ``"cancelled"``, if the awaiting task was cancelled, or ``"failed"``, if any other
            exception ended the run; ``reason`` names it.
        reason: The reason in words; None if the run completed.
        error_category: For ``"fail_fast"``, the category that ended the run.
        triggering_item_id: For ``"fail_fast"``, the item that failed.
    """

    kind: str = "completed"
    reason: str | None = None
    error_category: str | None = None
    triggering_item_id: str | None = None


@dataclass
class ProcessingStats:
    """Counters of a run. ``total_cached_tokens`` and ``cached_input_tokens`` are two names for the same number.

    ``bound_by`` has the seconds for which each reason kept further attempts from starting: ``"workers"`` (all were
    busy), ``"concurrency"`` and ``"pace"`` (the provider's limits on concurrency and request rate, as found),
    ``"quota:requests"``, ``"quota:tokens"`` and similar (a limit was used up), ``"cooldown"``, ``"outage"`` (the
    provider was down), ``"slow_start"``, ``"budget"`` (the rest was reserved), ``"estimates"`` (token estimates were
    pending), ``"other_runs"`` (runs that share a limit), ``"source"`` (no items were waiting), ``"batches"`` (the same,
    with requests in batches), ``"backoff"`` (all remaining items waited for a retry), ``"tools"`` (the tools of
    conversations were working), ``"prompt_cache"`` (the first request with a prefix wrote the provider's prompt
    cache, and the others waited to read it), ``"consumer"`` (results were not consumed), ``"store"`` (results were
    being written), ``"last_items"`` (all items had been sent), ``"paused"``.

    ``bound_over_time`` has the same over time: in ``seconds`` a list for each reason, with its seconds in each interval
    of the run, to the millisecond. An ``interval`` is a second long; there are at most 240 of them, so in a longer run
    it is 2, 4, 8, ... seconds. ``end`` is the length of the run in seconds; the last interval may be shorter than the
    others. Empty if nothing has run.

    ``prompt_cache`` counts requests to providers with a prompt cache, by what they found there: ``"hit"``; nothing,
    because they were the ``"first"`` with their prefix, or the entry had ``"expired"`` or was still ``"unwritten"``, or
    a hook had ``"changed"`` the prefix; nothing, although an entry should have been there (``"absent"``); or they share
    no prefix that is long enough (``"short"``; ``"too_short"`` if ``cache_prompt="1h"`` was set, or if the system
    prompt and the tools have at least half of the tokens that the provider caches).

    ``sent_live`` counts requests that ``lane="auto"`` sent one by one instead of in batches, by reason: ``"price"``
    (batches cost as much), ``"cache"`` (the provider's prompt cache made them cheaper than a batch), ``"deadline"`` (a
    batch would probably end after it), ``"fallback"`` (if the batches failed, there would be no time to send more
    requests one by one), ``"late"`` (their batches had to be cancelled) and ``"unfit"`` (they cannot be in a batch).

    ``processed == succeeded + failed + not_sent``; the last were never sent, because the run ended first. ``replayed``
    items got their results from a store, a cache or an identical request; their tokens are in no counter. ``limits``
    are the limits in force, set by you or (``learned``) reported by the provider, and what is left of each.
    ``concurrency`` is the limit that ``"auto"`` found. ``endpoints`` has, for each set of limits that strategies share
    (a provider, a key and a model; or the run's own), its ``name``, the number of ``attempts`` and the ``seconds`` for
    which these were in flight, in all. ``loop_busy`` is the share of the time for which the event loop was busy, from
    0 to 1, as far as it is known. ``failure`` is the error of the first failed item. ``ended`` and ``ended_reason`` say
    why the run ended early, as in :class:`BatchTermination`; empty if it did not.
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
    cache_write_tokens: int = 0
    prompt_cache: dict[str, int] = field(default_factory=dict)
    sent_live: dict[str, int] = field(default_factory=dict)
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    loop_busy: float = 0.0
    failure: str = ""
    ended: str = ""
    ended_reason: str = ""
    bound_over_time: dict[str, Any] = field(default_factory=dict)

    def explain(self) -> str:
        """Return what limited the run most, in one sentence; then one line per reason, with its share of the time.

        If all items failed, or the run ended early, the sentence says why.
        """
        from .explain import explain

        return explain(self)

    def verdict(self) -> Verdict:
        """Return what limited the run most, in one sentence with one thing to do."""
        from .verdict import verdict

        return verdict(self)

    def copy(self) -> dict[str, Any]:
        """Return the counters as a new dict."""
        return {**vars(self), "error_counts": dict(self.error_counts)}
