"""The part of a process in a job: what its runs count and spend, reported to the job's board a few times a second."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._boards import JobReport, JobVerdict, SharedLimits, open_board, shown
from .._llm import holder
from .._logs import log_event
from .._progress import cost_of
from .._secrets import mask
from .._threads import in_thread
from ..errors import BatchDeadlineExceeded
from .purse import Claims, Purse

if TYPE_CHECKING:
    from ..prices import Price

REPORT_SECONDS = 0.25
"""How often a process reports."""
SHORT_SECONDS = 0.05
"""How often, while a run waits for money."""
FAILED = "failed: "
"""Begins the names of the counters of failed items by category."""
UNPAID = "unpaid"
"""The counter of runs that have ended because the job's cap was used up."""
COUNTERS = {
    "total": "items",
    "processed": "processed",
    "succeeded": "succeeded",
    "failed": "failed",
    "not_sent": "not_sent",
    "replayed": "replayed",
    "rate_limit_count": "rate_limits",
    "total_input_tokens": "input_tokens",
    "total_output_tokens": "output_tokens",
    "total_cached_tokens": "cached_tokens",
    "total_tokens": "total_tokens",
}
"""The counters of a job, by the field of ``ProcessingStats``."""


class JobRun:
    """A run that works on a job.

    Args:
        member: The part of this process.
        run: The run.
        price: Returns what its tokens cost, if they have one price that is known.
        over: Called on the run's loop when the job is over, with the reason: a category.
    """

    def __init__(
        self, member: Member, run: Any, price: Callable[[], Price | None], over: Callable[[str], None]
    ) -> None:
        self._member, self._run, self._price, self._over = member, run, price, over
        self._more: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def failed(self, category: str) -> None:
        """Count a failed item."""
        self._more[FAILED + category] += 1

    def ended_unpaid(self) -> None:
        """Record that the run ends because the cap is used up."""
        self._more[UNPAID] = 1

    def stop(self, category: str) -> None:
        """End the job, because of an error of this category."""
        self._member.stop(category)

    async def end(self, limit: float | None = None) -> None:
        """Report what the run has counted, once and for all; then it is forgotten.

        Args:
            limit: How long the report may take, seconds; None: as long as the board's own limit.
        """
        if self._member.forget(self):
            await asyncio.wait({in_thread(self._member.report)}, timeout=limit)

    def forget(self) -> None:
        """Do so without the last report, if that has not been done."""
        self._member.forget(self)

    # Called by the member, on any thread

    def allow(self, cost: float, is_final: bool) -> None:
        """Set what may be spent."""
        self._run.engine.allow(cost, is_final)

    def claims(self) -> Claims:
        """Return what is used."""
        return Claims(*self._run.engine.claims())

    def tell_over(self, category: str) -> None:
        """Tell the run that the job is over."""
        if not self._run.loop.is_closed():
            self._run.loop.call_soon_threadsafe(self._over, category)

    def counters(self) -> Mapping[str, float]:
        """Return the counters."""
        try:
            stats = self._run.stats()
            counters = {name: float(getattr(stats, field)) for field, name in COUNTERS.items()}
            counters["cost"] = cost_of(stats, self._price()) or 0.0
            counters["in_flight"] = float(self._run.gauges()[1])
            self._last = counters | dict(self._more)
        except RuntimeError:
            pass  # a table has changed while it was read, or the engine has failed: the last ones are true
        return self._last


class Member:
    """The part of this process. All its runs share it; it can be used from any thread.

    Args:
        name: The name of the job.
        number: Makes the name of this part, with that of the process.
        target: Where the parts of the job meet.
        limits: ``max_cost`` and ``timeout`` of the job.
    """

    def __init__(self, name: str, number: str, target: SharedLimits, limits: Mapping[str, Any]) -> None:
        self._name, self._target, self._limits = name, target, limits
        self._holder = f"{holder()}-{number}"
        self._board = open_board(target)
        cap = limits.get("max_cost")
        self._purse = None if cap is None else Purse(cap)
        self._runs: list[JobRun] = []
        self._ended: Counter[str] = Counter()
        self._verdict: JobVerdict | None = None
        self._until: float | None = None
        self.over: str | None = None
        """Why the job is over: a category."""
        self.on_report: Callable[[Mapping[str, float]], None] | None = None
        """Called with the counters of this process after each report."""
        self._is_away = False
        # `_lock` guards the fields, and nothing waits for the board under it. `_turn` makes one report at a time.
        self._lock, self._turn = threading.RLock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def begin(self, run: Any, price: Callable[[], Price | None], over: Callable[[str], None]) -> JobRun:
        """Add a run. Nothing of it is sent yet.

        Raises:
            OSError: If the board cannot be reached, and this process has never reached it.
        """
        joined = JobRun(self, run, price, over)
        with self._lock:
            is_first = not self._runs
            self._runs.append(joined)
            if self._purse is not None:
                joined.allow(0.0, False)
        if is_first or self._verdict is None:
            try:
                self.report()
            except OSError:
                self.forget(joined)
                raise
        elif self._purse is not None:
            self._wake.set()
        if self.over is not None:
            over(self.over)
        with self._lock:
            if self._thread is None and self._runs:
                self._thread = threading.Thread(target=self._work, name="batch-llm job", daemon=True)
                self._thread.start()
        return joined

    def forget(self, run: JobRun) -> bool:
        """Keep the counters of a run, and forget it; whether it was known, and the last one."""
        with self._lock:
            if run not in self._runs:
                return False
            self._runs.remove(run)
            counters = {**run.counters(), "in_flight": 0.0}
            self._ended.update(counters)
            if self._purse is not None:
                self._purse.ended += run.claims().both
            return not self._runs

    def stop(self, category: str) -> None:
        """End the job: at once in this process, soon in all others."""
        with self._lock:
            self._end(category)
            self._wake.set()

    def report(self) -> Mapping[str, float]:
        """Report what this process has counted and spent; return the counters of the whole job.

        While the board is away, each process keeps its last allowance.

        Raises:
            OSError: If the board cannot be reached, and this process has never reached it.
        """
        with self._turn:
            report = self._next()
            try:
                verdict: JobVerdict = self._board.report(self._name, self._holder, report)
                with self._lock:
                    self._take(verdict)
                    leaves = not self._runs
                if leaves:
                    self._board.leave(self._name, self._holder)
            except OSError as error:
                self._note_away(error)
                if self._verdict is None:
                    raise type(error)(
                        f"the job {self._name!r} cannot use shared_limits={shown(self._target)}: {error}"
                    ) from error
            else:
                self._note_away(None)
        if self.on_report is not None:
            self.on_report(report.counters)
        return self.totals

    @property
    def totals(self) -> Mapping[str, float]:
        """The counters of the whole job, as last heard."""
        return {} if self._verdict is None else self._verdict.totals

    def _next(self) -> JobReport:
        with self._lock:
            counters = Counter(self._ended)
            for run in self._runs:
                counters.update(run.counters())
            limits = {**self._limits, "counters": dict(counters), "stop": self.over}
            if self._purse is None:
                return JobReport(**limits)
            wish = self._purse.wish(self._runs)
            return JobReport(**limits, **vars(wish))

    def _take(self, verdict: JobVerdict) -> None:
        self._verdict = verdict
        if self._purse is not None and verdict.allowance is not None:
            self._purse.take(self._runs, verdict.allowance, verdict.is_final)
        if verdict.left is not None:
            # A board that was restarted would measure anew.
            self._until = min(time.monotonic() + verdict.left, self._until or math.inf)
        if verdict.stop is not None:
            self._end(verdict.stop)

    def _end(self, category: str) -> None:
        if self.over is None:
            self.over = category
            for run in self._runs:
                run.tell_over(category)

    def _note_away(self, problem: OSError | None) -> None:
        if problem is None and self._is_away:
            log_event(logging.INFO, "job_board", "The board of the job %s can be reached again", self._name)
        elif problem is not None and not self._is_away and self._verdict is not None:
            text = "The board of the job %s cannot be reached (%s); each process keeps its last allowance"
            log_event(logging.WARNING, "job_board", text, self._name, mask(str(problem)))
        self._is_away = problem is not None

    def _work(self) -> None:
        """Report until no run is left."""
        while True:
            is_short = self._purse is not None and self._purse.is_short
            self._wake.wait(SHORT_SECONDS if is_short else REPORT_SECONDS)
            with self._lock:
                self._wake.clear()
                if not self._runs:
                    self._thread = None
                    return
                if self._until is not None and time.monotonic() >= self._until:
                    self._end(BatchDeadlineExceeded.category)
            try:
                self.report()
            except Exception as error:  # a board of the user's own
                text = "Reporting to the board of the job %s failed: %s"
                log_event(logging.ERROR, "job_board", text, self._name, error)
