"""What a run says in the log. Used by the pipelines and what belongs to them.

The logger is ``batch_llm`` with its children; it says nothing until the program sets up logging. Each record has
``event``, the name of what happened, and fields for machines beside its text: ``item_id``, ``attempt``,
``error_category``, ``seconds``, ... What may happen to every item is said the first few times only, then at DEBUG.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger("batch_llm.parallel")

SAID_AT_MOST = 3
"""How often the same is said above DEBUG in one run."""


def say(level: int, event: str, text: str, *arguments: Any, **fields: Any) -> None:
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
    """Warn of what the user has just brought about, on stderr where no log is set up."""
    say(logging.WARNING, event, text, *arguments, **fields)
    if not _is_heard():
        print(text % arguments, file=sys.stderr)  # noqa: T201 - who presses Ctrl-C waits for a word


def _is_heard() -> bool:
    """Whether anybody listens to the log."""
    place: logging.Logger | None = logger
    while place is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in place.handlers):
            return True
        place = place.parent if place.propagate else None
    return False


class Repeated:
    """The lines of one run about its items."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, Any, Any], int] = {}

    def say(self, level: int, event: str, text: str, *arguments: Any, **fields: Any) -> None:
        """Log what happened to an item, unless the same has been said often enough.

        What is the same is the event with its ``hook`` and ``error_category``. Other arguments are those of
        :func:`say`; ``exc_info`` among the fields is logging's own.
        """
        if level > logging.DEBUG:
            key = event, fields.get("hook"), fields.get("error_category")
            times = self._said[key] = self._said.get(key, 0) + 1
            if times > SAID_AT_MOST:
                level = logging.DEBUG
            elif times == SAID_AT_MOST:
                text += " (more like this are logged at DEBUG)"
        if logger.isEnabledFor(level):
            trace = fields.pop("exc_info", None)
            logger.log(level, text, *arguments, exc_info=trace, extra={"event": event, **fields}, stacklevel=2)
