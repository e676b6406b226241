"""Events of a run, and who may watch them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any


class ProcessingEvent(Enum):
    """What happened. The payload's keys:

    ===================  ===========================================================================
    ``BATCH_STARTED``    ``total``
    ``WORKER_STARTED``   ``worker_id``
    ``ITEM_STARTED``     ``item_id``, ``worker_id``, ``attempt``; at the start of every attempt
    ``ITEM_COMPLETED``   ``item_id``, ``duration`` (seconds of the last attempt), ``tokens``, ``attempt``
    ``ITEM_FAILED``      ``item_id``, ``error_type`` (class name), ``attempt``; ``not_sent`` if it was never sent
    ``ITEM_REPLAYED``    ``item_id``, ``source`` (``"store"``, ``"cache"``, ``"duplicate"``), ``success``
    ``RATE_LIMIT_HIT``   ``item_id``, ``worker_id``
    ``COOLDOWN_STARTED``  ``worker_id``, ``duration`` (planned, seconds), ``consecutive``
    ``COOLDOWN_ENDED``   ``duration`` (actual, seconds), ``error`` (only if the rate limit strategy raised)
    ``WORKER_STOPPED``   ``worker_id``
    ``BATCH_COMPLETED``  ``total``, ``succeeded``, ``failed``
    ``BATCH_ABORTED``    ``kind``, ``reason``, ``error_category``, ``triggering_item_id``: a guardrail ends the run
    ===================  ===========================================================================

    Every item has exactly one of ``ITEM_COMPLETED``, ``ITEM_FAILED`` and ``ITEM_REPLAYED``.
    """  # noqa: D400, D415 - the table is the sentence

    ITEM_STARTED = "item_started"
    ITEM_COMPLETED = "item_completed"
    ITEM_FAILED = "item_failed"
    ITEM_REPLAYED = "item_replayed"
    RATE_LIMIT_HIT = "rate_limit_hit"
    COOLDOWN_STARTED = "cooldown_started"
    COOLDOWN_ENDED = "cooldown_ended"
    WORKER_STARTED = "worker_started"
    WORKER_STOPPED = "worker_stopped"
    BATCH_STARTED = "batch_started"
    BATCH_COMPLETED = "batch_completed"
    BATCH_ABORTED = "batch_aborted"


class ProcessorObserver(ABC):
    """Receives the events of a run."""

    @abstractmethod
    async def on_event(self, event: ProcessingEvent, data: dict[str, Any]) -> None:
        """Receive an event.

        Events are delivered one at a time, in order, concurrently with the run: a slow observer delays no item. Each
        call may take 5 seconds; timeouts and exceptions are logged. All events of a run have been delivered when
        ``process_all()`` returns. An observer that times out several times in a row receives no more events of the run.

        Args:
            event: What happened.
            data: The event's payload, a separate dict for each observer.
        """


class BaseObserver(ProcessorObserver):
    """An observer that does nothing. Override :meth:`on_event`."""

    async def on_event(self, event: ProcessingEvent, data: dict[str, Any]) -> None:
        """Do nothing."""
