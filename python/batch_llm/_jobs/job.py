"""A job: what all processes that work on it have to know, and its control in the process that started it."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._boards import LimitBoard, SharedLimits, check_shared_limits
from .._forks import in_child
from .._results import BatchTermination, ProcessingStats
from .._types import ProgressDisplay
from ..core.guardrails import GuardrailConfig
from ..errors import BatchAbortedError, BatchBudgetExceeded, BatchDeadlineExceeded, BatchInterruptedError
from .member import COUNTERS, FAILED, UNPAID, Member
from .summary import summarize
from .watch import Watch

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Job:
    """Work that several runs do together, in one process or in many: they share caps, a deadline and counters.

    ::

        with Job(max_total_cost=50.0, batch_timeout=3600, progress=True) as job:
            rated = batch_llm.ray.map_prompts(ds, "Rate: {text}", "openai:gpt-5-mini", job=job)
            rated.write_parquet("s3://bucket/rated/")
        print(job.summary())

    Pass it as ``job=`` to the functions that take prompts, to a processor, or to the adapters for Ray, Spark and Daft.
    A few times a second, each process reports its costs and counters, and gets an allowance. When the job is over,
    because a cap is reached, its time has passed, or :meth:`stop` was called, nothing more is sent anywhere: attempts
    in flight may finish, and all other items are "not sent".

    In a ``with`` block, Ctrl-C stops the job, waits for all requests in flight, and then raises
    ``KeyboardInterrupt``; a second Ctrl-C does not wait. If the block raises, the job is stopped too.

    Args:
        name: The job's name, by default a random one. Processes that use the same name on the same board work on the
            same job. The board remembers for a day its caps, and whether it was stopped.
        shared_limits: The board, where the processes report: as for :class:`~batch_llm.ProcessorConfig`; an object also
            needs ``report()``, see :class:`~batch_llm.LimitBoard`. By default, the one that already shares the limits
            in Ray and Spark, otherwise the memory of this process.
        max_total_cost: Cap on the cost of the whole job, > 0, in the currency of the prices. It is as strict as that of
            :class:`~batch_llm.GuardrailConfig`.
        batch_timeout: Limit of the whole job, seconds, > 0, from the first report of any process. The board measures
            it.
        abort_on_error_categories: An item that fails with one of these categories ends the whole job.
        progress: The progress display in the ``with`` block, for all workers; see :func:`~batch_llm.run`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is invalid.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        shared_limits: SharedLimits | None = None,
        max_total_cost: float | None = None,
        batch_timeout: float | None = None,
        abort_on_error_categories: frozenset[str] = frozenset(),
        progress: ProgressDisplay = False,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"a job's name must be a string, not {type(name).__name__}")
        if name == "":
            raise ValueError("a job's name must not be empty; leave it out for a random one")
        if shared_limits is not None:
            check_shared_limits(shared_limits)
        GuardrailConfig(
            batch_timeout=batch_timeout,
            max_total_cost=max_total_cost,
            abort_on_error_categories=abort_on_error_categories,
        ).validate()
        self.name = uuid.uuid4().hex if name is None else name
        self.max_total_cost = max_total_cost
        self.batch_timeout = batch_timeout
        self.abort_on_error_categories = frozenset(abort_on_error_categories)
        self._progress: ProgressDisplay = progress
        # Copies in one process, as engines make them, are one member of the job.
        self._token = uuid.uuid4().hex
        self._board: SharedLimits | None = shared_limits
        self._home = _here()
        self._watch: Watch | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_watch": None, "_progress": False}
        if isinstance(self._board, LimitBoard):
            _boards[self._token] = self._board
            state["_board"] = None
        return state

    def __repr__(self) -> str:
        return f"<Job {self.name}>"

    # For surfaces and engines

    def meet_at(self, board: SharedLimits | None) -> None:
        """Use this board, unless the job has one. For this package's own use, before the job is sent to workers."""
        if self._board is None and board is not None and self._token not in _members:
            self._board = board

    def check_travels(self) -> None:
        """Check that other processes can reach the board.

        Raises:
            ValueError: If it is in the memory of this process.
        """
        if isinstance(self._board, LimitBoard):
            raise ValueError(
                "this job's shared_limits is a LimitBoard, which other processes cannot reach: give the url of a "
                "LimitServer, or leave shared_limits out"
            )

    @property
    def has_started(self) -> bool:
        """Whether this process knows where the job is."""
        return self._board is not None or self._token in _members

    def member(self) -> Member:
        """Return the part of this process.

        Raises:
            ValueError: If the job has no board that this process can reach.
        """
        with _lock:
            if self._token not in _members:
                limits = {"max_cost": self.max_total_cost, "timeout": self.batch_timeout}
                _members[self._token] = Member(self.name, self._token[:8], self._reached(), limits)
            return _members[self._token]

    def _reached(self) -> SharedLimits:
        if self._board is not None:
            return self._board
        if self._home != _here():
            raise ValueError(
                f"the job {self.name!r} is kept in the memory of another process, which this one cannot reach: "
                "create it with Job(shared_limits=...), for example the url of a LimitServer, 'tcp://...'"
            )
        return _boards.setdefault(self._token, LimitBoard())

    # Control

    def stop(self) -> None:
        """End the job everywhere: nothing more is sent; attempts in flight may finish.

        Raises:
            OSError: If the board cannot be reached, and was never reached.
        """
        self._stop(BatchInterruptedError.category)

    def _stop(self, category: str) -> None:
        member = self.member()
        member.stop(category)
        member.report()

    @property
    def stats(self) -> ProcessingStats:
        """The counters of all processes together, as they last reported them. ``error_counts`` has error categories.

        Raises:
            OSError: If the board cannot be reached, and was never reached.
        """
        return _stats_of(self._totals())

    @property
    def termination(self) -> BatchTermination:
        """Why the job is over, or will be; ``"completed"`` as long as nothing has ended it early.

        Raises:
            OSError: If the board cannot be reached, and was never reached.
        """
        return self._ended(self._totals())

    def _moment(self) -> tuple[ProcessingStats, int]:
        """Return the counters, and how many requests are in flight, by one report."""
        totals = self._totals()
        return _stats_of(totals), int(totals.get("in_flight", 0))

    def _totals(self) -> Mapping[str, float]:
        return self.member().report() if self.has_started else {}

    def _ended(self, totals: Mapping[str, float]) -> BatchTermination:
        over = self.member().over if self.has_started else None
        if over is None:
            if not totals.get(UNPAID):
                return BatchTermination()
            over = BatchBudgetExceeded.category
        if over == BatchDeadlineExceeded.category:
            return BatchTermination("batch_timeout", f"the batch_timeout ({self.batch_timeout} s) expired")
        if over == BatchBudgetExceeded.category:
            reason = f"no further attempt fits within max_total_cost={self.max_total_cost}"
            return BatchTermination("budget_exceeded", reason)
        if over == BatchInterruptedError.category:
            return BatchTermination("interrupted", "the job was stopped")
        if over == BatchAbortedError.category:
            return BatchTermination("fail_fast", "the job was stopped: its 'with' block raised an exception")
        reason = f"an item failed with {over!r}, which is in abort_on_error_categories"
        return BatchTermination("fail_fast", reason, over)

    def summary(self) -> str:
        """Return the counters of all processes together as a few lines of text, while the job runs and afterwards.

        Raises:
            OSError: If the board cannot be reached, and was never reached.
        """
        totals = self._totals()
        return summarize(_stats_of(totals), self._ended(totals), totals.get("in_flight", 0))

    def __enter__(self) -> Self:
        self._watch = Watch(self, self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close(error)


def _stats_of(totals: Mapping[str, float]) -> ProcessingStats:
    fields: dict[str, Any] = {field: int(totals.get(name, 0)) for field, name in COUNTERS.items()}
    fields["cached_input_tokens"] = fields["total_cached_tokens"]
    failed = {name.removeprefix(FAILED): int(count) for name, count in totals.items() if name.startswith(FAILED)}
    return ProcessingStats(**fields, error_counts=failed, budget_cost_used=totals.get("cost", 0.0))


def _here() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


_lock = threading.Lock()
_members: dict[str, Member] = {}
"""The parts of this process, by the token of the job."""
_boards: dict[str, LimitBoard] = {}
"""Boards in the memory of this process, for jobs that were pickled in it."""


def _forget() -> None:
    """A child is another process."""
    global _lock
    _lock = threading.Lock()
    _members.clear()
    _boards.clear()


in_child(_forget)
