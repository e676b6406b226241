"""What a run is to do. A processor makes a plan from its configuration; it does not change during the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.guardrails import AbortMode
from .settings import RunSettings, Timeouts

if TYPE_CHECKING:
    from .._items import PostProcessorFunc, ProgressCallbackFunc
    from .._lanes import LaneChoice
    from .._llm import KnownStrategies
    from .._results import BatchTermination
    from .._types import ProgressDisplay
    from ..artifacts import Persistence
    from ..core.config import ProcessorConfig
    from ..middleware.base import Middleware
    from ..observers.base import ProcessorObserver
    from ..strategies.errors import ErrorClassifier
    from ..strategies.rate_limit import RateLimitStrategy
    from .protocols import ItemPipeline, JobOfRun, Overseer

AHEAD = 64
"""Fewest prompts that are read ahead of their start, and fewest results that may wait to be taken."""
MOST_AHEAD = 4096
"""Most of both, whatever the concurrency."""
MOST_FROM_BATCHES = 1024
"""The same where requests wait in batches."""


@dataclass(frozen=True)
class Hooks:
    """The user's functions that receive results.

    Args:
        post_processor: Called with every result.
        progress_callback: Called with numbers.
        progress_callback_timeout: Limit of one such call, seconds; None = none.
        timeouts: The other limits.
    """

    post_processor: PostProcessorFunc[Any, Any] | None = None
    progress_callback: ProgressCallbackFunc | None = None
    progress_callback_timeout: float | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True)
class RunPlan:
    """A run with strategies.

    Args:
        config: The user's, validated.
        hooks: See there.
        middlewares: In their order.
        observers: Watchers of events.
        error_classifier: Classifies errors.
        uses_strategies_classifiers: Whether a strategy's recommended classifier is used.
        rate_limit_strategy: Sets the cooldown.
        has_default_rate_limit_strategy: Whether it is not the user's own.
        pipeline: Makes what is done with each item, for the strategies of a run; it calls back when the run ends early.
        persistence: The store and the cache.
        progress_bar: Which display is wanted.
        fails_early: Whether first answers that all reject the key or the model end the run.
        outage_ends_run: Whether a long outage does.
        job: What the run is a part of.
        lane: How requests reach their provider; None: one by one.
        control: Makes what the run is controlled by from outside; None: nothing.
    """

    config: ProcessorConfig
    hooks: Hooks
    middlewares: Sequence[Middleware[Any, Any, Any]]
    observers: Sequence[ProcessorObserver]
    error_classifier: ErrorClassifier
    uses_strategies_classifiers: bool
    rate_limit_strategy: RateLimitStrategy
    has_default_rate_limit_strategy: bool
    pipeline: Callable[[RunPlan, KnownStrategies, Callable[[BatchTermination], None]], ItemPipeline]
    persistence: Persistence | None = None
    progress_bar: ProgressDisplay = False
    fails_early: bool = True
    outage_ends_run: bool = True
    job: JobOfRun | None = None
    lane: LaneChoice | None = None
    control: Callable[[RunPlan], Overseer] | None = None

    @property
    def waits_in_batches(self) -> bool:
        """Whether requests may wait in batches."""
        return self.lane is not None and self.lane.lane != "flex"

    @property
    def usual_ahead(self) -> int:
        """How many prompts are read ahead, and how many results may wait, unless the configuration says it."""
        # From batches, results come as fast as they are taken: more of them would only take memory.
        most = MOST_FROM_BATCHES if self.waits_in_batches else MOST_AHEAD
        return min(max(AHEAD, 4 * self.config._workers), most)

    def start(self, known: KnownStrategies, on_stop: Callable[[BatchTermination], None]) -> ItemPipeline:
        """Return the pipeline of a run.

        Args:
            known: What is known of strategies.
            on_stop: Called when the run ends early.
        """
        overseer = None if self.control is None else self.control(self)
        if overseer is None:
            return self.pipeline(self, known, on_stop)
        oversee = overseer.ends_early
        pipeline = self.pipeline(self, known, lambda termination: on_stop(oversee(termination)))
        pipeline.overseer = overseer
        return pipeline


MOST_IN_BATCHES = 1_000_000
"""Requests in batches at once, at most."""
FLEX_TIMEOUT = 900.0
"""How long an attempt may take in the flex tier, seconds: the provider answers when it has time."""


def run_settings(plan: RunPlan) -> RunSettings:
    """What the configuration of a run means to the engine. A dry run has no limits."""
    config = plan.config
    retry, guardrails, ramp = config.retry, config.guardrails, config.startup_ramp
    settings = RunSettings(
        max_workers=config._workers,
        max_queue_size=config.max_queue_size,
        abandon_after=plan.hooks.timeouts.cancellation,
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
        outage_ends_run=plan.outage_ends_run,
    )
    if config.dry_run:
        return settings
    settings.max_tokens = guardrails.max_total_tokens
    settings.max_cost = guardrails.max_total_cost
    if plan.lane is not None and plan.lane.lane == "flex":
        settings.attempt_timeout = max(config.timeout_per_item, FLEX_TIMEOUT)
    elif plan.waits_in_batches:
        # Batches have a queue of their own; what is sent one by one keeps to these.
        settings.max_workers = MOST_IN_BATCHES
        settings.most_in_flight = config._workers
        settings.adaptive = True, config.concurrency == "auto"
        settings.ramp = None
    settings.attempt_timeout = settings.attempt_timeout or config.timeout_per_item
    settings.limits = config._limits()
    settings.burst = config.quota_burst_seconds
    if settings.most_in_flight is None:
        settings.adaptive = _adaptive(config, plan.has_default_rate_limit_strategy)
    return settings


def _adaptive(config: ProcessorConfig, default_strategy: bool) -> tuple[bool, bool]:
    """Return whether the pace, and whether the concurrency, is adaptive: both follow from ``concurrency=``.

    ``max_workers`` keeps 0.3.0's pauses after rate limits, and so does the user's own rate limit strategy.
    """
    if config.concurrency is None:
        return False, False
    return default_strategy, config.concurrency == "auto"
