"""What is kept of a run in its store: that it began, what was done to it from outside, how it ended. JSON objects.

Used by ``run_control``, which writes them, and ``finished``, which reads them of runs that are over.
"""

from __future__ import annotations

import json
import time
from typing import Any

LONGEST_REASON = 500
"""Longest reason of a change, characters."""


LONGEST_NAME = 100
"""Characters of a name that are kept."""


def event(kind: str, by: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an event.

    Args:
        kind: What happened.
        by: Who did it.
        reason: Why, in their words.
        more: Its own fields.
    """
    made: dict[str, Any] = {"type": kind, "at": time.time()}
    if by is not None:
        made["by"] = {"user": _short(by.get("user")), "host": _short(by.get("host")), "pid": by.get("pid")}
    if reason:
        made["reason"] = str(reason)[:LONGEST_REASON]
    return made | more


def _short(name: Any) -> str:
    return str(name)[:LONGEST_NAME]


def who(made: dict[str, Any]) -> str:
    """Return in words who has made a change."""
    by = made.get("by") or {}
    return f"{by.get('user', 'unknown')}@{by.get('host', 'unknown')} (pid {by.get('pid', '?')})"


def text(made: dict[str, Any]) -> str:
    """Return an event as a line of JSON."""
    return json.dumps(made, default=str)


def changes_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that were made from outside."""
    return [made for made in events if made["type"] not in ("started", "ended")]
