"""Guardrails as the pipeline sees them: errors for what they end, costs, and when to end a run."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from .._endings import FAILURES
from .._logs import log_event
from .._results import BatchTermination
from .._shown import amount
from ..core.guardrails import AbortMode, AttemptUsage
from ..errors import (
    ERROR_MESSAGE_LIMIT,
    BatchAbortedError,
    BatchBudgetExceeded,
    BatchDeadlineExceeded,
    BatchInterruptedError,
    GuardrailError,
    InBatchError,
    ItemCancelledError,
    ItemDeadlineExceeded,
    ProviderOutageError,
    StoreWriteError,
    TokenEstimateExceedsLimit,
    TokenEstimationError,
)

if TYPE_CHECKING:
    from .._core import Flight
    from .._items import LLMWorkItem
    from .._jobs import JobRun
    from .._results import WorkItemResult
    from .._run import JobOfRun, Run
    from ..core.guardrails import GuardrailConfig
    from .fail_early import FailEarly
    from .outages import Outages


_ERRORS: dict[str, type[GuardrailError]] = {
    kind.category: kind
    for kind in (
        BatchAbortedError,
        BatchBudgetExceeded,
        BatchDeadlineExceeded,
        BatchInterruptedError,
        InBatchError,
        ItemCancelledError,
        ItemDeadlineExceeded,
        ProviderOutageError,
        TokenEstimateExceedsLimit,
        TokenEstimationError,
        StoreWriteError,
    )
}
KINDS = {
    BatchDeadlineExceeded.category: "batch_timeout",
    BatchBudgetExceeded.category: "budget_exceeded",
    BatchAbortedError.category: "fail_fast",
    BatchInterruptedError.category: "interrupted",
    StoreWriteError.category: "artifact_error",
    ProviderOutageError.category: "provider_outage",
    InBatchError.category: "in_batch",
}


class Guards:
    """What a run may not exceed.

    Args:
        config: The user's.
        outages: The outages of the run.
        early: Knows whether the first answers have ended the run.
        job: What the run is a part of.
        grace: How long attempts in flight may continue after the job was stopped, seconds.
    """

    def __init__(
        self, config: GuardrailConfig, outages: Outages, early: FailEarly, job: JobOfRun | None, grace: float
    ) -> None:
        self._grace = grace
        self._config = config
        self._job = job
        self.job_run: JobRun | None = None
        """The run, as its job knows it."""
        self._job_over: str | None = None
        self._early = early
        self._outages = outages
        self._run: Run
        self._cancel = AbortMode(config.abort_mode) is AbortMode.CANCEL_ACTIVE
        self._of_job = frozenset() if job is None else job.abort_on_error_categories
        self._categories = self._of_job.union(config.abort_on_error_categories)
        self._fatal: WorkItemResult[Any, Any] | None = None
        self._problem: str | None = None
        # The last error of items that wait, where something may end them.
        self._notes_causes = bool(config.total_timeout_per_item or config.batch_timeout or self._categories)
        self._notes_causes = (
            self._notes_causes or config.max_total_tokens is not None or config.max_total_cost is not None
        )
        self._notes_causes = self._notes_causes or job is not None
        self._errors: dict[int, BaseException] = {}

    def begin(self, run: Run) -> None:
        """Attach to a run."""
        self._run = run
        self._early.begin(run, cancel=self._cancel)

    def failed(self, flight: Flight, error: BaseException) -> None:
        """Store the error of an item's last attempt."""
        if self._notes_causes:
            self._errors[flight.index] = error

    def error(
        self,
        category: str,
        item: LLMWorkItem[Any, Any, Any],
        detail: str = "",
        index: int | None = None,
        cause: BaseException | None = None,
        queue: int | None = None,
    ) -> GuardrailError:
        """Return the error of an item that a guardrail ends; its cause is the error of its last attempt.

        ``queue``: the queue of the item's scope.
        """
        if cause is None and index is not None:
            cause = self._errors.get(index)
        item_id = item.item_id
        text = self._text(category, item_id, detail, cause, queue)
        error = _ERRORS[category](text, item_id=item_id)
        error.__cause__ = cause
        return error

    def _text(self, category: str, item_id: str, detail: str, cause: BaseException | None, queue: int | None) -> str:
        # Not all at once: a run that ends may leave a million items.
        name = repr(item_id)
        if category == BatchInterruptedError.category:
            return f"the run was interrupted before item {name} finished"
        if category == InBatchError.category:
            return f"item {name} is waiting in a batch; run again with the same store to collect it"
        if category == BatchAbortedError.category:
            return f"the run ended before item {name} finished: {self._reason(category)}"
        if category == BatchBudgetExceeded.category:
            return f"the budget ({self._caps()}) was used up before item {name} finished"
        if category == BatchDeadlineExceeded.category == self._job_over:
            return f"the job's batch_timeout ({self._job_timeout} s) expired before item {name} finished"
        if category == BatchDeadlineExceeded.category:
            limit = self._config.batch_timeout
            return f"the batch_timeout ({limit} s) expired before item {name} finished"
        if category == ItemDeadlineExceeded.category:
            limit = self._config.total_timeout_per_item
            return f"item {name} exceeded total_timeout_per_item ({limit} s), including waits"
        if category == StoreWriteError.category:
            return f"the run stopped before item {name} finished: the store could not be written"
        if category == ProviderOutageError.category:
            return f"the provider was down {self._outages.words(queue)} before item {name} finished"
        if category == TokenEstimateExceedsLimit.category:
            return f"item {name} {detail}; split it or raise the limit"
        if category == TokenEstimationError.category:
            return f"the tokens of item {name} could not be estimated: {cause!r:.{ERROR_MESSAGE_LIMIT}}"
        assert category == ItemCancelledError.category, category
        return f"item {name} was cancelled"

    def ended(self, flight: Flight, result: WorkItemResult[Any, Any]) -> None:
        """Count what a success cost, and forget the item's errors."""
        if self._errors:
            self._errors.pop(flight.index, None)
        if result.success and self._config.cost_function is not None:
            usage = dict(result.token_usage or {})
            for name, count in (flight.usage or {}).items():
                if name in usage:
                    usage[name] -= count
            self.spend(flight, usage, True)

    def spend(self, flight: Flight, usage: Any, success: bool) -> None:
        """Call the user's cost function; the run ends if it fails, because then the cost is unknown."""
        function = self._config.cost_function
        if function is None or not usage:
            return
        try:
            cost = function(AttemptUsage(flight.item.item_id, flight.attempt, flight.item.strategy, usage, success))
            if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not math.isfinite(cost) or cost < 0:
                raise ValueError(f"it must return a finite cost >= 0, not {cost!r}")
        except FAILURES as error:
            self._problem = f"the cost_function failed ({type(error).__name__}: {error}); the cost is unknown"
            log_event(
                logging.ERROR,
                "cost_unknown",
                "Item %s: %s",
                flight.item.item_id,
                self._problem,
                item_id=flight.item.item_id,
            )
            self._run.end_early(cancel=self._cancel)
            return
        self._run.engine.spend(float(cost))

    def is_fatal(self, category: str) -> bool:
        """Whether one failure of this category ends the run."""
        return category in self._categories

    def item_failed(self, result: WorkItemResult[Any, Any]) -> None:
        """End the run if a failure is one that concerns all items."""
        category = result.error_category
        if self.job_run is not None and not result.not_sent:
            self.job_run.failed(category or result._error_name or "unknown")
        if self._fatal is None and category in self._categories:
            self._fatal = result
            self._run.end_early(cancel=self._cancel)
            if self.job_run is not None and category is not None and category in self._of_job:
                self.job_run.stop(category)

    def job_is_over(self, category: str) -> None:
        """End the run, because its job is over; ``category``: why."""
        if self._job_over is not None or self._run.closing:
            return
        self._job_over = category
        ends_with = category if category in KINDS else BatchAbortedError.category
        self._run.end_early(cancel=self._cancel, category=ends_with)
        if category == BatchInterruptedError.category:
            self._run.loop.call_later(self._grace, self._end_grace)

    def _end_grace(self) -> None:
        if not self._run.closing:
            self._run.end_early(cancel=True, category=BatchInterruptedError.category)

    def stopped(self, category: str) -> BatchTermination:
        """Why the run ends early."""
        if category == BatchBudgetExceeded.category and self.job_run is not None:
            self.job_run.ended_unpaid()
        early = self._early
        if category == BatchAbortedError.category and early.first is not None and early.reason is not None:
            return BatchTermination("fail_fast", early.reason, early.kind, early.first.item_id)
        fatal = self._fatal if category == BatchAbortedError.category else None
        if category == BatchAbortedError.category and fatal is None and self._job_over is not None:
            return BatchTermination(KINDS[category], self._reason(category), self._job_over)
        return BatchTermination(
            KINDS[category],
            self._reason(category),
            None if fatal is None else fatal.error_category,
            None if fatal is None else fatal.item_id,
        )

    def _caps(self) -> str:
        caps = {"max_total_tokens": self._config.max_total_tokens, "max_total_cost": self._config.max_total_cost}
        if self._job is not None:
            caps["the job's max_total_cost"] = self._job.max_total_cost
        shown = {name: value if value >= 0.001 else amount(value) for name, value in caps.items() if value is not None}
        return " and ".join(f"{name}={value}" for name, value in shown.items())

    def _reason(self, category: str) -> str:
        config = self._config
        if category == BatchDeadlineExceeded.category == self._job_over:
            return f"the job's batch_timeout ({self._job_timeout} s) expired"
        if category == BatchDeadlineExceeded.category:
            return f"the batch_timeout ({config.batch_timeout} s) expired"
        if category == BatchBudgetExceeded.category:
            return f"no further attempt fits within {self._caps()}"
        if category == BatchInterruptedError.category:
            return "the job was stopped" if self._job_over == category else "the run was interrupted"
        if category == InBatchError.category:
            return "requests are waiting in batches at the provider"
        if category == ProviderOutageError.category:
            return self._outages.reason()
        if category == StoreWriteError.category:
            return "the store could not be written"
        if self._fatal is not None:
            return (
                f"item {self._fatal.item_id!r} failed with {self._fatal.error_category!r}, which is in "
                f"abort_on_error_categories: {self._fatal.error}"
            )
        if self._job_over is not None and self._job_over in self._of_job:
            return (
                f"an item in another run of the job failed with {self._job_over!r}, which is in the job's "
                "abort_on_error_categories"
            )
        if self._job_over == category:
            return "the job was stopped"
        return self._early.reason or self._problem or "the run was stopped"

    @property
    def _job_timeout(self) -> float | None:
        return None if self._job is None else self._job.batch_timeout
