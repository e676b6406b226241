"""How an error is written in results, logs and messages."""

from __future__ import annotations

from ._logs import message_of
from ._shown import escaped
from .errors import ERROR_MESSAGE_LIMIT

ATTEMPT_MESSAGE = 300
"""Characters of an error's message that are kept of an attempt."""


def short_message(error: BaseException) -> str | None:
    """Return the beginning of an error's message, without secrets; None: it has none."""
    return message_of(error)[:ATTEMPT_MESSAGE] or None


def describe(error: BaseException) -> str:
    """``"{class name}: {message}"``, the message truncated at ``ERROR_MESSAGE_LIMIT``.

    What looks like a secret is masked, and control characters are escapes.
    """
    return f"{type(error).__name__}: {escaped(message_of(error)[:ERROR_MESSAGE_LIMIT])}"
