"""Delivery of events to observers, beside the run. Used by the pipeline."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from .._endings import ends_run
from .._logs import logger
from .._timeouts import TIMEOUT_ERRORS, timeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .._core import Flight
    from .._progress import Outlook
    from ..observers.base import ProcessingEvent, ProcessorObserver


class AttemptWatcher(ABC):
    """An observer that is active while an attempt is in flight."""

    @abstractmethod
    def watch(self, flight: Flight, strategy: Any, prompt: Any) -> AbstractContextManager[Callable[[Any], None]]:
        """Return the context of an attempt, in its own task; it yields a function that receives the answer."""

    def follow(self, outlook: Outlook) -> None:  # noqa: B027 - not every watcher shows forecasts
        """Called when a run starts, with what forecasts it."""

    def leave(self, outlook: Outlook) -> None:  # noqa: B027
        """Called when it has ended."""


TIMEOUTS_UNTIL_SILENCE = 3
"""Timeouts in a row after which an observer receives no more events of the run."""


class Observation:
    """Deliver the events of one run to one observer: in order, one at a time.

    Args:
        observer: The observer.
        limit: The limit of one call, seconds.
        fail: Called with an exception that ends the whole run.
    """

    def __init__(self, observer: ProcessorObserver, limit: float, fail: Callable[[BaseException], None]) -> None:
        self._observer = observer
        self._limit = limit
        self._fail = fail
        self._events: deque[tuple[ProcessingEvent, dict[str, Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timeouts = 0

    def emit(self, event: ProcessingEvent, data: dict[str, Any]) -> None:
        """Queue an event; ``data`` must belong to this observer alone."""
        if self._timeouts >= TIMEOUTS_UNTIL_SILENCE:
            return
        self._events.append((event, data))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._deliver(), name="batch-llm observer")

    async def finish(self) -> None:
        """Wait until everything queued has been delivered."""
        while self._task is not None:
            await asyncio.wait({self._task})

    def cancel(self) -> None:
        """Drop queued events and cancel the running call."""
        self._events.clear()
        if self._task is not None:
            self._task.cancel()

    async def _deliver(self) -> None:
        try:
            while self._events:
                event, data = self._events.popleft()
                try:
                    async with timeout(self._limit):
                        await self._observer.on_event(event, data)
                except TIMEOUT_ERRORS:
                    self._note_timeout(event)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    if ends_run(error):
                        self._events.clear()
                        self._fail(error)
                        return
                    logger.warning("Observer %s failed: %s: %s", self._name, type(error).__name__, error)
                else:
                    self._timeouts = 0
        finally:
            self._task = None

    def _note_timeout(self, event: ProcessingEvent) -> None:
        self._timeouts += 1
        logger.warning("Observer %s did not handle %s within %s s", self._name, event.name, self._limit)
        if self._timeouts >= TIMEOUTS_UNTIL_SILENCE:
            self._events.clear()
            logger.error(
                "Observer %s timed out %d times in a row; it receives no more events of this run",
                self._name,
                self._timeouts,
            )

    @property
    def _name(self) -> str:
        return type(self._observer).__name__
