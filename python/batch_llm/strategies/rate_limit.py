"""How long the cooldown after a rate limit lasts, and how starts are spaced afterwards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class RateLimitStrategy(ABC):
    """Decides how long all workers pause after a rate limit."""

    @abstractmethod
    async def on_rate_limit(self, worker_id: int, consecutive_limit_count: int) -> float:
        """Return the cooldown, in seconds.

        Args:
            worker_id: The worker that was rate limited.
            consecutive_limit_count: Number of cooldowns since the last success, including this one; 1 for the first.
        """

    @abstractmethod
    def should_apply_slow_start(self, items_since_resume: int) -> tuple[bool, float]:
        """Return whether start ``items_since_resume`` (from 0) after a cooldown is delayed, and by how many seconds.

        The delay is the spacing between starts of the whole processor. Delays are computed in advance when a cooldown
        begins, so they may depend only on the argument.
        """


class ExponentialBackoffStrategy(RateLimitStrategy):
    """Cooldowns that grow until a request succeeds, each followed by a linear slow start.

    The n-th consecutive cooldown lasts ``min(initial_cooldown * backoff_multiplier ** (n - 1), max_cooldown)`` seconds.
    The starts after it are delayed; the delay falls linearly from ``slow_start_initial_delay`` to
    ``slow_start_final_delay`` over ``slow_start_items`` starts.

    Args:
        initial_cooldown: Length of the first cooldown, seconds.
        max_cooldown: Maximum length of a cooldown, seconds.
        backoff_multiplier: Factor between one cooldown and the next.
        slow_start_items: Number of delayed starts; 0 = none.
        slow_start_initial_delay: Delay of the first start, seconds.
        slow_start_final_delay: Delay of the last delayed start, seconds.
    """

    def __init__(
        self,
        initial_cooldown: float = 60.0,
        max_cooldown: float = 600.0,
        backoff_multiplier: float = 2.0,
        slow_start_items: int = 50,
        slow_start_initial_delay: float = 2.0,
        slow_start_final_delay: float = 0.1,
    ) -> None:
        self.initial_cooldown = initial_cooldown
        self.max_cooldown = max_cooldown
        self.backoff_multiplier = backoff_multiplier
        self.slow_start_items = slow_start_items
        self.slow_start_initial_delay = slow_start_initial_delay
        self.slow_start_final_delay = slow_start_final_delay

    # The name of the parameter is the original's, and callers use it.
    async def on_rate_limit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, worker_id: int, consecutive_count: int
    ) -> float:
        """Return the cooldown in seconds; see the class."""
        try:
            growth = float(self.backoff_multiplier) ** (consecutive_count - 1)
        except OverflowError:
            growth = math.inf
        # A cooldown of zero does not grow: zero times infinity is not a number.
        return min(self.initial_cooldown * growth, self.max_cooldown) if self.initial_cooldown else 0.0

    def should_apply_slow_start(self, items_since_resume: int) -> tuple[bool, float]:
        """Return the delay of a start; see the class."""
        if items_since_resume >= self.slow_start_items:
            return False, 0.0
        first, last = self.slow_start_initial_delay, self.slow_start_final_delay
        return True, max(last, first - (first - last) * items_since_resume / self.slow_start_items)


class FixedDelayStrategy(RateLimitStrategy):
    """Cooldowns of equal length, then a fixed spacing of starts for the rest of the run.

    Args:
        cooldown: Length of each cooldown, seconds.
        delay_between_requests: Spacing of starts of new items after the first rate limit, seconds; stored in the
            attribute ``delay``.
    """

    def __init__(self, cooldown: float = 300.0, delay_between_requests: float = 1.0) -> None:
        self.cooldown = cooldown
        self.delay = delay_between_requests

    # The name of the parameter is the original's, and callers use it.
    async def on_rate_limit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, worker_id: int, consecutive_count: int
    ) -> float:
        """Return the cooldown in seconds."""
        return self.cooldown

    def should_apply_slow_start(self, items_since_resume: int) -> tuple[bool, float]:
        """Return the same delay for every start."""
        return True, self.delay
