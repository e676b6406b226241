"""Where the time of an item went. The engine measures the times; they cost nothing until they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core import Timing

__all__ = ["AttemptTiming", "WorkItemTiming"]


@dataclass
class AttemptTiming:
    """The times of one attempt, in seconds, rounded to microseconds.

    Args:
        attempt: The number of the attempt, from 1.
        started_at: When the attempt started ``execute()``, in seconds since the start of the run.
        queue_seconds: Wait in the queue for a free worker; for later attempts, after the backoff.
        quota_wait_seconds: Wait, as the first in the queue, for a limit of requests or tokens, or for the request rate.
        admission_wait_seconds: Wait, as the first in the queue, for the provider's concurrency limit.
        cooldown_wait_seconds: Wait for the end of a cooldown.
        retry_backoff_seconds: Backoff after the previous attempt failed.
        execution_seconds: Time in the strategy: the provider's answer, and processing it.
        success: Whether the attempt succeeded.
        error_type: The class of the error.
        error_category: The category of the error.
        first_token_seconds: Time from sending the request to the first part of the answer, if the reply was streamed.
        tokens_per_second: Output tokens per second: of a streamed reply, from its first part to its end; of any other,
            over the whole execution. None if the provider reported no tokens.
        error_message: The beginning of the error's message, without secrets; 300 characters at most.
    """

    attempt: int
    started_at: float = 0.0
    queue_seconds: float = 0.0
    quota_wait_seconds: float = 0.0
    admission_wait_seconds: float = 0.0
    cooldown_wait_seconds: float = 0.0
    retry_backoff_seconds: float = 0.0
    execution_seconds: float = 0.0
    success: bool = True
    error_type: str | None = None
    error_category: str | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None
    error_message: str | None = None

    @property
    def total_seconds(self) -> float:
        """All waits before the attempt, and its execution."""
        return (
            self.queue_seconds
            + self.quota_wait_seconds
            + self.admission_wait_seconds
            + self.cooldown_wait_seconds
            + self.retry_backoff_seconds
            + self.execution_seconds
        )


@dataclass
class WorkItemTiming:
    """The times of an item, from submission to result: sums over its attempts, in seconds."""

    attempts: list[AttemptTiming] = field(default_factory=list)

    @classmethod
    def of(cls, notes: Timing, success: bool) -> WorkItemTiming:
        """Create the timing from the engine's measurements."""
        attempts = []
        for number, (times, error, category, *message) in enumerate(notes.attempts(success), 1):
            start, queue, quota, admission, cooldown, backoff, execution = [round(time, 6) for time in times]
            attempts.append(
                AttemptTiming(
                    number,
                    start,
                    queue,
                    quota,
                    admission,
                    cooldown,
                    backoff,
                    execution,
                    error is None,
                    error,
                    category,
                    error_message=message[0] if message else None,
                )
            )
        return cls(attempts)

    @property
    def first_token_seconds(self) -> float | None:
        """Time from sending the last request to the first part of the answer, if it was streamed."""
        return self.attempts[-1].first_token_seconds if self.attempts else None

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens per second of the last attempt; see :class:`AttemptTiming`."""
        return self.attempts[-1].tokens_per_second if self.attempts else None

    @property
    def total_seconds(self) -> float:
        """All waits, and the execution."""
        return sum(attempt.total_seconds for attempt in self.attempts)

    @property
    def queue_seconds(self) -> float:
        """Waits in the queue for a free worker."""
        return sum(attempt.queue_seconds for attempt in self.attempts)

    @property
    def quota_wait_seconds(self) -> float:
        """Waits for limits of requests and tokens."""
        return sum(attempt.quota_wait_seconds for attempt in self.attempts)

    @property
    def admission_wait_seconds(self) -> float:
        """Waits for the provider's concurrency limit."""
        return sum(attempt.admission_wait_seconds for attempt in self.attempts)

    @property
    def cooldown_wait_seconds(self) -> float:
        """Waits for the end of cooldowns."""
        return sum(attempt.cooldown_wait_seconds for attempt in self.attempts)

    @property
    def retry_backoff_seconds(self) -> float:
        """Backoff after failed attempts."""
        return sum(attempt.retry_backoff_seconds for attempt in self.attempts)

    @property
    def execution_seconds(self) -> float:
        """Time in the strategy."""
        return sum(attempt.execution_seconds for attempt in self.attempts)


def token_speed(output_tokens: int | None, execution: float, first_token: float | None) -> float | None:
    """Return output tokens per second; see :class:`AttemptTiming`."""
    writing = execution - (first_token or 0.0)
    return output_tokens / writing if output_tokens and writing > 0 else None
