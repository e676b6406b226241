"""Exceptions that end a whole run, and what is handed out with them. Used by the pipeline and by every surface."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ._logs import message_of
from ._results import BatchTermination
from .errors import ERROR_MESSAGE_LIMIT

if TYPE_CHECKING:
    from .results import BatchResult

PARTIAL = "partial_result"
"""The attribute of an exception out of a run: what was finished all the same."""
FAILURES = (Exception, asyncio.CancelledError)
"""What the user's code may raise for an item, or for a hook, alone."""


def ends_run(error: BaseException) -> bool:
    """Whether an exception from the user's code ends more than its item.

    ``SystemExit``, ``KeyboardInterrupt``, ``GeneratorExit`` and exceptions of the user's own beside ``Exception`` are.
    A panic of an extension module is not: it is an error like any other, despite its class.
    """
    return not isinstance(error, FAILURES) and type(error).__module__ != "pyo3_runtime"


def ended_by(error: BaseException, termination: BatchTermination) -> BatchTermination:
    """Why a run ended that this exception came out of, given what was known before."""
    if termination.kind != "completed":
        return termination
    kind = "failed"
    if isinstance(error, KeyboardInterrupt):
        kind = "interrupted"
    elif isinstance(error, asyncio.CancelledError):
        kind = "cancelled"
    text = message_of(error)
    return BatchTermination(
        kind, f"the run ended with {type(error).__name__}{text and ': '}{text:.{ERROR_MESSAGE_LIMIT}}"
    )


def internal_error(error: BaseException) -> RuntimeError:
    """Return what a run raises that ends because of a bug of this package."""
    failure = RuntimeError(
        f"the run failed inside batch-llm ({type(error).__name__}: {error}); finished results are in partial_result(). "
        "This is a bug; please report it."
    )
    failure.__cause__ = error
    return failure


def attach(error: BaseException, batch: BatchResult[Any, Any]) -> None:
    """Hand out with an exception what was finished all the same."""
    batch.termination = ended_by(error, batch.termination)
    with contextlib.suppress(AttributeError, TypeError):  # an exception without attributes
        setattr(error, PARTIAL, batch)
        note = f"finished results in this exception's attribute {PARTIAL}: {batch.total_items:,}"
        getattr(error, "add_note", lambda _: None)(note)  # Python 3.11
