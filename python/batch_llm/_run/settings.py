"""The engine's settings, from a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Timeouts:
    """Limits that are not part of a configuration, seconds."""

    cancellation: float = 2.0
    """Of cancelled attempts."""
    post_processor: float = 75.0
    """Of one call of an async post-processor."""
    progress: float = 2.0
    """Of a cancelled progress callback."""
    observer: float = 5.0
    """Of one call of one observer."""


@dataclass
class RunSettings:
    """The engine's settings, from a configuration."""

    max_workers: int
    max_queue_size: int = 0
    attempt_timeout: float | None = None
    abandon_after: float = 2.0
    max_attempts: int = 1
    max_rate_limit_retries: int = 0
    initial_wait: float = 1.0
    max_wait: float = 60.0
    exponential_base: float = 2.0
    jitter: bool = True
    limits: Sequence[tuple[str, float, float]] = ()
    burst: float | None = None
    adaptive: tuple[bool, bool] = (False, False)
    """Whether the pace is found out, and whether the concurrency is."""
    most_in_flight: int | None = None
    """Attempts in flight in each scope, at most, where workers do not bound them."""
    ramp: tuple[int, int, float] | None = None
    item_timeout: float | None = None
    run_timeout: float | None = None
    cancel_on_stop: bool = False
    max_tokens: float | None = None
    max_cost: float | None = None
    outage_patience: float | None = None
    outage_ends_run: bool = True
    """Or only those who wait for the provider."""
