"""Messages about outages, and about a provider that stalls the run. Used by the pipeline.

The engine decides what is an outage (``src/engine/outage.rs``); this module classifies failures for it, and logs.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from .._error_text import describe
from .._llm import shared_name_of
from .._logs import log_event
from .._pool_members import Pooled
from .._report import seconds
from .._run import messages as message
from .._secrets import mask
from ..errors import ProviderError

if TYPE_CHECKING:
    from ..strategies.errors import ErrorInfo

_ANSWERED = frozenset({
    "invalid_response", "refusal", "truncated", "content_filter", "empty_response",
    "structured_output_validation_error",
})  # fmt: skip
"""Categories of a native strategy's errors that concern a reply."""


def sign_of(error: Exception, info: ErrorInfo) -> int:
    """Return what a failure shows about whether the provider is up."""
    if getattr(info, "server_away", False):
        return message.AWAY if getattr(error, "was_sent", True) else message.UNREACHABLE
    if info.is_rate_limit:
        return message.ALIVE
    if isinstance(error, ProviderError):
        status = error.status_code
        if info.error_category in _ANSWERED or (status is not None and status < 500):
            return message.ALIVE
    return message.NOTHING


class Outages:
    """The outages of one run.

    Args:
        is_resumable: Whether a second run would find what this one has done.
    """

    def __init__(self, is_resumable: bool) -> None:
        self._is_resumable = is_resumable
        self._errors: dict[int, tuple[Exception, str]] = {}
        """By item, what its last attempt failed with, and the category."""
        self._last: dict[int, str] = {}
        """By queue, its provider and the error of the last attempt."""
        self._began: dict[int, float] = {}
        self._boards_away = 0
        """Scopes whose share cannot be renewed."""

    def lost(self, index: int, error: Exception, category: str, queue: int, strategy: Any) -> None:
        """Remember what an attempt failed with: it may be a while before it is known what comes of it."""
        self._errors[index] = (error, category)
        self._last[queue] = f"{_name(strategy)}: {describe(error)}"

    def ended(self, index: int) -> None:
        """Forget an item."""
        if self._errors:
            self._errors.pop(index, None)

    def error_of(self, index: int) -> tuple[Exception, str] | None:
        """What the last attempt of an item failed with, if it was lost."""
        return self._errors.get(index)

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        self._errors = {}

    def begins(self, queue: int, since: float, patience: float) -> None:
        """Log that an outage has started."""
        self._began[queue] = time.monotonic() - since
        last = self._last.get(queue, "reported by another run")
        log_event(
            logging.WARNING,
            "outage_began",
            "The provider is down (%s). Only one probe at a time is sent, and failures caused by the outage do not "
            "use up attempts. The run ends if the outage lasts longer than %s (RetryConfig.outage_patience)",
            last,
            seconds(patience),
            queue=queue,
            seconds=since,
            patience=patience,
        )

    def ends(self, queue: int, lasted: float) -> None:
        """Log that it is over."""
        self._began.pop(queue, None)
        log_event(
            logging.INFO,
            "outage_ended",
            "The provider responds again after %s; requests resume",
            seconds(lasted),
            queue=queue,
            seconds=lasted,
        )

    def board_changed(self, problem: str | None) -> None:
        """Log that the board of shared limits cannot be reached, or can again."""
        before = self._boards_away
        self._boards_away += -1 if problem is None else 1
        if problem is not None and before == 0:
            log_event(
                logging.WARNING,
                "shared_limits_away",
                "The shared limits cannot be renewed (%s); each process keeps its last share",
                mask(problem),
            )
        elif self._boards_away == 0:
            log_event(logging.INFO, "shared_limits_back", "The shared limits can be renewed again")

    def words(self, queue: int | None) -> str:
        """Return how long a provider has been down, and with which failure. ``queue``: its own; None: any."""
        if queue is None:
            queue = next(iter(self._began), -1)
        began = self._began.get(queue)
        how_long = "for too long" if began is None else f"for {seconds(time.monotonic() - began)}"
        last = self._last.get(queue)
        return how_long + ("" if last is None else f" ({last})")

    def reason(self) -> str:
        """Why a run ends."""
        again = (
            "run it again with the same store to finish the rest"
            if self._is_resumable
            else "with store=, a second run would send only the rest"
        )
        return f"the provider was down {self.words(None)}, longer than RetryConfig.outage_patience; {again}"


def _name(strategy: Any) -> str:
    if isinstance(strategy, Pooled):
        return strategy.name
    try:
        return shared_name_of(strategy)
    except Exception:  # other strategies may have any scope, or none
        return type(strategy).__name__
