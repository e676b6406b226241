"""Cooldowns and slow starts from a rate limit strategy. Used by the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._endings import FAILURES
from .._error_text import describe
from .._logs import logger

if TYPE_CHECKING:
    from ..strategies.rate_limit import RateLimitStrategy


SLOW_START_PORTION = 64
"""Delays requested from a rate limit strategy at a time."""


class Pauses:
    """Call a rate limit strategy, outside of the engine, and contain what it raises.

    Args:
        strategy: The user's, or the default one.
        server_decides: Whether a server's ``Retry-After`` replaces its value.
    """

    def __init__(self, strategy: RateLimitStrategy, server_decides: bool) -> None:
        self.error: str | None = None
        """What the strategy raised for the current cooldown."""
        self._strategy = strategy
        self._server_decides = server_decides

    async def pause(self, worker: int, consecutive: int, set_by_server: bool) -> float:
        """Return the cooldown, seconds; 0 if the server has decided (``set_by_server``) or the strategy failed."""
        self.error = None
        if self._server_decides and set_by_server:
            return 0.0
        try:
            return _seconds(await self._strategy.on_rate_limit(worker, consecutive))
        except FAILURES as error:
            self.error = describe(error)
            logger.warning("The rate limit strategy failed; continuing without a cooldown: %s", describe(error))
            return 0.0

    def delays(self, first: int) -> tuple[list[float], bool]:
        """A portion of the delays of slow start from number ``first`` on, seconds; and whether there are more."""
        delays: list[float] = []
        try:
            for number in range(first, first + SLOW_START_PORTION):
                delayed, delay = self._strategy.should_apply_slow_start(number)
                if not delayed:
                    return delays, False
                delays.append(_seconds(delay))
        except FAILURES as error:
            logger.warning(
                "The rate limit strategy's slow start failed; continuing without delays: %s", describe(error)
            )
            return delays, False
        return delays, True


def _seconds(value: Any) -> float:
    """Check a duration returned by a user's strategy."""
    if not isinstance(value, (int, float)) or value != value or value < 0:
        raise ValueError(f"it must return a number of seconds >= 0, not {value!r}")
    return float(value)
