"""The log of a run. Used by the pipelines and their parts.

The logger is ``batch_llm`` with its children; it is silent until the program sets up logging. Each record has
``event``, the name of what happened, and fields for machines beside its text: ``item_id``, ``attempt``,
``error_category``, ``seconds``, ... What may happen to every item is logged the first few times, then at DEBUG.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from ._secrets import mask
from ._shown import Lines, escaped, line


class _Escaping(logging.Filter):
    """Shows control characters in what is filled into a line as escapes: no id, no server can forge a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_shown_argument(one) for one in record.args)
        return True


def _shown_argument(value: Any) -> Any:
    if isinstance(value, Lines):
        return escaped(value)
    if isinstance(value, str):
        return line(value)
    return line(message_of(value)) if isinstance(value, BaseException) else value


def message_of(error: BaseException) -> str:
    """Return an error's message, with secrets masked."""
    try:
        return mask(str(error))
    except Exception:
        return "(its message cannot be shown)"


def logger_of(name: str) -> logging.Logger:
    """Return a logger that escapes control characters, so that lines cannot be forged."""
    found = logging.getLogger(name)
    if not any(isinstance(one, _Escaping) for one in found.filters):
        found.addFilter(_Escaping())
    return found


logger = logger_of("batch_llm.parallel")

LOGGED_AT_MOST = 3
"""How often an event is logged above DEBUG in one run."""


def log_event(level: int, event: str, text: str, *arguments: Any, **fields: Any) -> None:
    """Log a change of state.

    Args:
        level: One of ``logging``'s.
        event: What happened, for machines.
        text: The line, with ``%``.
        arguments: For the text.
        fields: For machines; they become attributes of the record.
    """
    logger.log(level, text, *arguments, extra={"event": event, **fields}, stacklevel=2)


def answer(event: str, text: str, *arguments: Any, **fields: Any) -> None:
    """Answer an action of the user by a warning, on stderr if no log is set up."""
    log_event(logging.WARNING, event, text, *arguments, **fields)
    if not _has_handler():
        print(text % tuple(_shown_argument(one) for one in arguments), file=sys.stderr)  # noqa: T201 - Ctrl-C needs an answer


def _has_handler() -> bool:
    """Whether the log has a handler."""
    place: logging.Logger | None = logger
    while place is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in place.handlers):
            return True
        place = place.parent if place.propagate else None
    return False


class Repeated:
    """The lines of one run about its items."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, Any, Any], int] = {}

    def event(self, level: int, event: str, text: str, *arguments: Any, **fields: Any) -> None:
        """Log what happened to an item, at DEBUG once it has been logged often enough.

        Events are equal if they have the same ``hook`` and ``error_category``.  Other arguments are those of
        :func:`log_event`; ``exc_info`` among the fields is logging's own.
        """
        if level > logging.DEBUG:
            key = event, fields.get("hook"), fields.get("error_category")
            times = self._times[key] = self._times.get(key, 0) + 1
            if times > LOGGED_AT_MOST:
                level = logging.DEBUG
            elif times == LOGGED_AT_MOST:
                text += " (further ones like this are logged at DEBUG)"
        if logger.isEnabledFor(level):
            trace = fields.pop("exc_info", None)
            logger.log(level, text, *arguments, exc_info=trace, extra={"event": event, **fields}, stacklevel=2)
