"""What the engine is told of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import base
from .core.guardrails import AbortMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .core.config import ProcessorConfig
    from .parallel import ParallelBatchProcessor


@dataclass
class RunSettings:
    """What the engine is told of a configuration."""

    max_workers: int
    max_queue_size: int = 0
    attempt_timeout: float | None = None
    abandon_after: float = base.WORKER_CANCELLATION_TIMEOUT
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
    ramp: tuple[int, int, float] | None = None
    item_timeout: float | None = None
    run_timeout: float | None = None
    cancel_on_stop: bool = False
    max_tokens: float | None = None
    max_cost: float | None = None
    outage_patience: float | None = None
    outage_ends_run: bool = True
    """Or only those who wait for the provider."""


def run_settings(processor: ParallelBatchProcessor[Any, Any, Any]) -> RunSettings:
    """What the configuration of a processor means to the engine. A dry run has no limits."""
    config = processor.config
    retry, guardrails, ramp = config.retry, config.guardrails, config.startup_ramp
    settings = RunSettings(
        max_workers=config._workers,
        max_queue_size=config.max_queue_size,
        max_attempts=retry.max_attempts,
        max_rate_limit_retries=retry.max_rate_limit_retries,
        initial_wait=retry.initial_wait,
        max_wait=retry.max_wait,
        exponential_base=retry.exponential_base,
        jitter=retry.jitter,
        ramp=None if ramp is None else ramp._steps,
        item_timeout=guardrails.total_timeout_per_item,
        run_timeout=guardrails.batch_timeout,
        cancel_on_stop=AbortMode(guardrails.abort_mode) is AbortMode.CANCEL_ACTIVE,
        outage_patience=retry.outage_patience,
        outage_ends_run=processor._outage_ends_run,
    )
    if config.dry_run:
        return settings
    settings.attempt_timeout = config.timeout_per_item
    settings.limits = config._limits()
    settings.burst = config.quota_burst_seconds
    settings.adaptive = _adaptive(config, processor._has_default_rate_limit_strategy)
    settings.max_tokens = guardrails.max_total_tokens
    settings.max_cost = guardrails.max_total_cost
    return settings


def _adaptive(config: ProcessorConfig, default_strategy: bool) -> tuple[bool, bool]:
    """Whether the pace is found out, and whether the concurrency is: asked for by the new name of the number.

    ``max_workers`` keeps 0.3.0's pauses after rate limits, and so does a rate limit strategy of the user's own.
    """
    if config.concurrency is None:
        return False, False
    return default_strategy, config.concurrency == "auto"
