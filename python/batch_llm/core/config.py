"""Configuration of a processor: plain dataclasses with a ``validate()``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .._attempt_timeout import DEFAULT_TIMEOUT
from .._boards import SharedLimits, check_shared_limits
from .._checks import check_number, reject
from .._logs import logger_of
from ..token_estimation import TokenEstimator
from .guardrails import GuardrailConfig
from .quotas import Quota

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logger_of(__name__)


@dataclass
class RetryConfig:
    """How often and when a failed item is retried.

    The wait after failed attempt k is ``min(initial_wait * exponential_base ** (k - 1), max_wait)`` seconds, with
    ``jitter`` times a random factor in [0.5, 1.0). Answers that failed validation are retried at once.

    Args:
        max_attempts: Attempts of an item in total, the first included; at least 1. Rate limits do not count.
        initial_wait: Wait after the first failed attempt, seconds, > 0.
        max_wait: Maximum wait, seconds, >= ``initial_wait``.
        exponential_base: Factor between one wait and the next, >= 1.
        jitter: Whether waits are randomized.
        max_rate_limit_retries: How often an item is retried after a rate limit, >= 0. These do not use up
            ``max_attempts``.
        outage_patience: How long a provider may be down, seconds, >= 0. While most requests fail with refused or
            dropped connections or HTTP 500 and above, only one probe at a time is sent, and attempts that failed
            because of the outage do not count. A longer outage ends the run; with a store, running again finishes the
            rest. None: 600, or 60 for a provider that has never answered. 0: every failure counts.
        max_server_wait: The longest wait that a server may request (``Retry-After``), seconds, >= 0. An item that would
            have to wait longer fails with the server's message, and delays no other item.
    """

    max_attempts: int = 3
    initial_wait: float = 1.0
    max_wait: float = 60.0
    exponential_base: float = 2.0
    jitter: bool = True
    max_rate_limit_retries: int = 20
    outage_patience: float | None = None
    max_server_wait: float = 3600.0

    def validate(self) -> None:
        """Check the fields.

        Raises:
            ValueError: If a field is invalid; the message names it, its value and a remedy.
        """
        check_number("max_attempts", self.max_attempts, integer=True)
        if self.max_attempts < 1:
            reject("max_attempts must be >= 1", self.max_attempts, "Use 1 for no retries.")
        check_number("initial_wait", self.initial_wait)
        if self.initial_wait <= 0:
            reject("initial_wait must be > 0", self.initial_wait, "Use a small value such as 0.1 for quick retries.")
        check_number("max_wait", self.max_wait)
        if self.max_wait < self.initial_wait:
            hint = f"Raise max_wait to at least initial_wait ({self.initial_wait})."
            reject("max_wait must be >= initial_wait", self.max_wait, hint)
        check_number("exponential_base", self.exponential_base)
        if self.exponential_base < 1:
            reject("exponential_base must be >= 1", self.exponential_base, "Use 1 for equal waits, 2 for doubling.")
        check_number("max_rate_limit_retries", self.max_rate_limit_retries, integer=True)
        if self.max_rate_limit_retries < 0:
            hint = "Use 0 to fail an item at its first rate limit."
            reject("max_rate_limit_retries must be >= 0", self.max_rate_limit_retries, hint)
        if self.outage_patience is not None:
            check_number("outage_patience", self.outage_patience)
            if self.outage_patience < 0:
                hint = "Use 0 to count every failure, None for the default."
                reject("outage_patience must be >= 0 or None", self.outage_patience, hint)
        check_number("max_server_wait", self.max_server_wait)
        if self.max_server_wait < 0:
            hint = "Use 0 to fail an item whenever the server requests a wait."
            reject("max_server_wait must be >= 0", self.max_server_wait, hint)


@dataclass
class RateLimitConfig:
    """The shared cooldown after a rate limit, and the slow start after it.

    These are the parameters of the default :class:`~batch_llm.ExponentialBackoffStrategy`. A server's
    ``Retry-After`` replaces ``cooldown_seconds``.

    Args:
        cooldown_seconds: Length of the first cooldown, seconds, >= 0.
        slow_start_items: Number of starts after a cooldown that are spaced out, >= 0.
        slow_start_initial_delay: Spacing of the first of them, seconds, >= ``slow_start_final_delay``.
        slow_start_final_delay: Spacing of the last of them, seconds.
        backoff_multiplier: Factor between one cooldown and the next, if no request succeeds in between, >= 1.
    """

    cooldown_seconds: float = 300.0
    slow_start_items: int = 50
    slow_start_initial_delay: float = 2.0
    slow_start_final_delay: float = 0.1
    backoff_multiplier: float = 1.5

    def validate(self) -> None:
        """Check the fields.

        Raises:
            ValueError: If a field is invalid; the message names it, its value and a remedy.
        """
        check_number("cooldown_seconds", self.cooldown_seconds)
        if self.cooldown_seconds < 0:
            reject("cooldown_seconds must be >= 0", self.cooldown_seconds, "Use 0 for no pause.")
        check_number("slow_start_items", self.slow_start_items, integer=True)
        if self.slow_start_items < 0:
            reject("slow_start_items must be >= 0", self.slow_start_items, "Use 0 to switch slow start off.")
        check_number("slow_start_initial_delay", self.slow_start_initial_delay)
        check_number("slow_start_final_delay", self.slow_start_final_delay)
        if self.slow_start_initial_delay < self.slow_start_final_delay:
            reject(
                "slow_start_initial_delay must be >= slow_start_final_delay",
                f"{self.slow_start_initial_delay} < {self.slow_start_final_delay}",
                "Starts get closer together during a slow start.",
            )
        check_number("backoff_multiplier", self.backoff_multiplier)
        if self.backoff_multiplier < 1.0:
            hint = "Use 1.0 for cooldowns of equal length."
            reject("backoff_multiplier must be >= 1.0", self.backoff_multiplier, hint)


@dataclass
class StartupRampConfig:
    """A startup ramp: few attempts in flight at first, then more. Not needed with ``concurrency="auto"``.

    Args:
        initial_concurrency: Attempts in flight at the start, >= 1.
        concurrency_step: Attempts added after each interval, >= 1.
        ramp_interval_seconds: Length of an interval, seconds, > 0.
    """

    initial_concurrency: int = 1
    concurrency_step: int = 1
    ramp_interval_seconds: float = 1.0

    def validate(self) -> None:
        """Check the fields.

        Raises:
            ValueError: If a field is invalid; the message names it, its value and a remedy.
        """
        for name in ("initial_concurrency", "concurrency_step"):
            value = getattr(self, name)
            check_number(name, value, integer=True)
            if value < 1:
                reject(f"{name} must be >= 1", value, "It is a number of attempts.")
        check_number("ramp_interval_seconds", self.ramp_interval_seconds)
        if self.ramp_interval_seconds <= 0:
            reject("ramp_interval_seconds must be > 0", self.ramp_interval_seconds, "It is a number of seconds.")

    @property
    def _steps(self) -> tuple[int, int, float]:
        return self.initial_concurrency, self.concurrency_step, float(self.ramp_interval_seconds)


AUTO_CONCURRENCY = 10_000
"""Most attempts at once with ``concurrency="auto"``."""


@dataclass
class ProcessorConfig:
    """Configuration of a :class:`~batch_llm.ParallelBatchProcessor`.

    Args:
        max_workers: Maximum items in flight, >= 1.
        timeout_per_item: Timeout of one attempt, that is, of one ``execute()`` call, seconds, > 0. Waits between
            attempts and in queues do not count. The default of 120 does not apply to replies that native strategies
            receive as streams: those end when the server is silent for too long, and after an hour.
        retry: How failed items are retried.
        rate_limit: The cooldown after a rate limit.
        max_requests_per_minute: Maximum attempts per minute over all workers; may be fractional; None = no limit. At
            most a sixth of it (ten seconds' worth) starts at once.
        progress_interval: Number of results between calls of the progress callback, and between progress lines in the
            log, >= 1.
        progress_callback_timeout: Timeout of a progress callback, seconds, > 0; None = none.
        enable_detailed_logging: Log each attempt and result of this processor at INFO instead of DEBUG.
        max_queue_size: Maximum number of items that wait in a running batch, >= 0; 0 = unbounded. ``add_work()`` waits
            while the queue of a running batch is full; before a run it never waits.
        dry_run: Whether to call ``strategy.dry_run(prompt)`` instead of ``execute()``; ``prepare()`` and ``cleanup()``
            are not called.
        max_prompt_length: Maximum length of a prompt that ``add_work()`` accepts, characters, >= 1; None = no limit.
        concurrency: Attempts in flight, instead of ``max_workers``. ``"auto"`` finds the provider's limit during the
            run (see the guide "Limits"). With ``"auto"`` or a number, a rate limit reduces the request rate, and the
            run pauses only if the server requests it. With ``max_workers``, or your own rate limit strategy, all
            workers pause as configured in ``rate_limit``.
        max_tokens_per_minute: Tokens of prompts and answers per minute, > 0; None = no limit.
        quotas: Further limits, each with its own period.
        quota_burst_seconds: How many seconds' worth of a limit per second or minute may start at once, > 0; by default
            10.
        token_estimator: Estimates the tokens of an attempt before it is sent; by default, from the length of the prompt
            and the answers so far.
        guardrails: Limits that end the run.
        startup_ramp: Ramps up the concurrency at the start.
        shared_limits: Where processes share limits: a file (its directory must exist) for those of one host, the
            ``url`` of a :class:`~batch_llm.LimitServer` or ``redis://...`` for several hosts, or an object with
            ``renew()`` and ``leave()``, such as a :class:`~batch_llm.LimitBoard`. Processes that
            name the same one split the limits of each quota scope; all runs without a scope of their own count as one
            scope. What a process does not need goes to the others; the share of a process that dies is released after
            three seconds.
        max_result_queue_size: Maximum number of a stream's results that wait to be consumed, >= 0; when it is reached,
            nothing more starts. 0: the default of ``process_stream()``, four times the concurrency and at least 64;
            unbounded for a processor's own ``results()``.
        interrupt_grace_seconds: How long attempts in flight may continue after the first Ctrl-C, seconds, >= 0.
        progress_refresh_interval_seconds: Minimum interval between updates of the progress display, seconds, >= 0.1.
        keep_prompts: Whether results have their prompts, ``result.prompt``. Prompts are not copied. False releases
            prompts that nothing else references, such as those from a generator.

    Limits apply per quota scope. For native strategies, a scope is the provider, key and model; for all others, the
    whole run, unless a strategy sets an attribute ``quota_scope`` (any hashable value; equal values share limits).
    """

    max_workers: int = 5
    timeout_per_item: float = DEFAULT_TIMEOUT
    retry: RetryConfig = field(default_factory=RetryConfig)
    rate_limit: RateLimitConfig = field(default_factory=RateLimitConfig)
    max_requests_per_minute: float | None = None
    progress_interval: int = 10
    progress_callback_timeout: float | None = 5.0
    enable_detailed_logging: bool = False
    max_queue_size: int = 0
    dry_run: bool = False
    max_prompt_length: int | None = None
    concurrency: int | Literal["auto"] | None = None
    max_tokens_per_minute: float | None = None
    quotas: Sequence[Quota] = ()
    quota_burst_seconds: float | None = None
    token_estimator: TokenEstimator | None = None
    guardrails: GuardrailConfig = field(default_factory=GuardrailConfig)
    startup_ramp: StartupRampConfig | None = None
    # Not in the repr: a URL has a token.
    shared_limits: SharedLimits | None = field(default=None, repr=False)
    max_result_queue_size: int = 0
    interrupt_grace_seconds: float = 5.0
    progress_refresh_interval_seconds: float = 0.1
    keep_prompts: bool = True

    def validate(self) -> None:
        """Check all fields, including ``retry`` and ``rate_limit``; log a warning for questionable combinations.

        Raises:
            ValueError: If a field is invalid; the message names it, its value and a remedy.
        """
        check_number("max_workers", self.max_workers, integer=True)
        if self.max_workers < 1:
            reject("max_workers must be >= 1", self.max_workers, "Start with 5 and raise it until rate limits appear.")
        check_number("timeout_per_item", self.timeout_per_item)
        if self.timeout_per_item <= 0:
            reject("timeout_per_item must be > 0", self.timeout_per_item, "It is the limit of one attempt in seconds.")
        check_number("progress_interval", self.progress_interval, integer=True)
        if self.progress_interval < 1:
            reject("progress_interval must be >= 1", self.progress_interval, "Use 1 to be called for every item.")
        if self.progress_callback_timeout is not None:
            check_number("progress_callback_timeout", self.progress_callback_timeout)
            if self.progress_callback_timeout <= 0:
                hint = "Use None for no limit."
                reject("progress_callback_timeout must be > 0", self.progress_callback_timeout, hint)
        check_number("max_queue_size", self.max_queue_size, integer=True)
        if self.max_queue_size < 0:
            reject("max_queue_size must be >= 0", self.max_queue_size, "Use 0 for an unbounded queue.")
        if self.max_requests_per_minute is not None:
            check_number("max_requests_per_minute", self.max_requests_per_minute)
            if self.max_requests_per_minute <= 0:
                hint = "Use None for no limit."
                reject("max_requests_per_minute must be > 0 or None", self.max_requests_per_minute, hint)
        if self.max_prompt_length is not None:
            check_number("max_prompt_length", self.max_prompt_length, integer=True)
            if self.max_prompt_length < 1:
                reject("max_prompt_length must be >= 1 or None", self.max_prompt_length, "Use None for no limit.")
        self._validate_limits()
        self._validate_surfaces()
        self.retry.validate()
        self.rate_limit.validate()
        self.guardrails.validate()
        self._warn()

    def _validate_surfaces(self) -> None:
        check_number("max_result_queue_size", self.max_result_queue_size, integer=True)
        if self.max_result_queue_size < 0:
            reject("max_result_queue_size must be >= 0", self.max_result_queue_size, "Use 0 for the default.")
        check_number("interrupt_grace_seconds", self.interrupt_grace_seconds)
        if self.interrupt_grace_seconds < 0:
            hint = "Use 0 to cancel at the first interrupt."
            reject("interrupt_grace_seconds must be >= 0", self.interrupt_grace_seconds, hint)
        name = "progress_refresh_interval_seconds"
        check_number(name, self.progress_refresh_interval_seconds)
        if self.progress_refresh_interval_seconds < 0.1:
            reject(
                f"{name} must be >= 0.1",
                self.progress_refresh_interval_seconds,
                "The display is drawn at most ten times a second.",
            )

    def _validate_limits(self) -> None:
        concurrency: Any = self.concurrency
        if concurrency is not None and concurrency != "auto":
            if isinstance(concurrency, str):
                reject(
                    "concurrency must be an integer or 'auto'",
                    repr(concurrency),
                    "'auto' finds the number automatically.",
                )
            check_number("concurrency", concurrency, integer=True)
            if concurrency < 1:
                reject("concurrency must be >= 1", concurrency, "Use 'auto' to find it automatically.")
        for name in ("max_tokens_per_minute", "quota_burst_seconds"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                if value <= 0:
                    reject(f"{name} must be > 0 or None", value, "Use None for no limit.")
        for quota in self.quotas:
            if not isinstance(quota, Quota):
                reject("quotas must be Quota objects", repr(quota), "For example Quota(requests=500).")
        if self.token_estimator is not None and not callable(self.token_estimator):
            raise TypeError(f"token_estimator must be callable, not {type(self.token_estimator).__name__}")
        if self.startup_ramp is not None:
            self.startup_ramp.validate()
        if self.shared_limits is not None:
            check_shared_limits(self.shared_limits)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy all but the board: others use the same one."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        memo[id(self.shared_limits)] = self.shared_limits
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    @property
    def _workers(self) -> int:
        """Attempts at once, at most."""
        if self.concurrency == "auto":
            return AUTO_CONCURRENCY
        return self.max_workers if self.concurrency is None else int(self.concurrency)

    def _limits(self) -> list[tuple[str, float, float]]:
        """What is counted, how much of it, in how many seconds."""
        minute = Quota(requests=self.max_requests_per_minute, tokens=self.max_tokens_per_minute)
        return [limit for quota in (minute, *self.quotas) for limit in quota._limits()]

    def _warn(self) -> None:
        workers = self._workers
        if self.concurrency == "auto":
            return
        if 0 < self.max_queue_size < workers:
            logger.warning(
                "max_queue_size (%s) is less than the number of workers (%s): some will idle. Use at least %s, or 0.",
                self.max_queue_size,
                workers,
                workers,
            )
        rate = self.max_requests_per_minute
        # A worker that waits a minute for its turn is one too many; below that, workers wait for the provider.
        if rate is not None and rate < workers:
            logger.warning(
                "max_requests_per_minute (%s) is less than the number of workers (%s): most of them will only wait. "
                "Lower the number of workers to %s.",
                rate,
                workers,
                max(1, int(rate)),
            )
