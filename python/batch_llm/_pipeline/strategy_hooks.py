"""Hooks of strategies around an attempt: ``prepare()`` before an item, ``cleanup()`` after it. Used by ``attempts``."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from .._held_secrets import learn
from .._llm import STRATEGY_CLEANUP_TIMEOUT, KnownStrategies, KnownStrategy
from .._timeouts import timeout
from .middlewares import StopAttempts

if TYPE_CHECKING:
    from .._core import Flight
    from .pipeline import Pipeline


class StrategyHooks:
    """Calls them, and contains what they raise.

    Args:
        pipeline: Logs what fails.
        known: What is known of strategies.
        dry_run: Whether nothing is called.
    """

    def __init__(self, pipeline: Pipeline, known: KnownStrategies, *, dry_run: bool) -> None:
        self._pipeline, self._known, self._dry_run = pipeline, known, dry_run

    def clear(self) -> None:
        """Drop all references to the user's objects; the run is over."""
        self._known = KnownStrategies()

    async def prepare(self, known: KnownStrategy, strategy: Any, flight: Flight) -> None:
        """Prepare a strategy for the item's first attempt.

        Raises:
            StopAttempts: If it cannot be prepared.
        """
        try:
            await known.prepare(strategy)
        except BaseException as error:
            self._pipeline.let_pass(error)
            learn(strategy)
            self._pipeline.hook_failed(flight.item, f"{type(strategy).__name__}.prepare()", error, logging.ERROR)
            flight.usage = {}
            raise StopAttempts(error) from error

    async def take_over(self, flight: Flight, strategy: Any) -> KnownStrategy:
        """Use a strategy that a middleware put in place of the item's own."""
        known = self._known.get(strategy)
        if not (known.prepared or self._dry_run):
            await self.prepare(known, strategy, flight)
        flight.used = [other for other in flight.used or () if other is not strategy] + [strategy]
        return known

    async def clean_up_after(self, flight: Flight) -> None:
        """Call ``cleanup()`` of the item's strategies, where that comes after each item."""
        for strategy in (flight.item.strategy, *(flight.used or ())) if not self._dry_run else ():
            if self._known.get(strategy).must_clean_up:
                await self._clean_up(flight, strategy)

    async def _clean_up(self, flight: Flight, strategy: Any) -> None:
        try:
            async with timeout(STRATEGY_CLEANUP_TIMEOUT):
                await strategy.cleanup()
        except asyncio.CancelledError as error:
            if self._pipeline.run.closing:
                raise
            self._pipeline.hook_failed(flight.item, "cleanup()", error)
        except Exception as error:
            self._pipeline.hook_failed(flight.item, "cleanup()", error)
