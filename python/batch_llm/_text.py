"""Texts from servers, files and users, made fit for a terminal or a log. Whoever prints such a text uses it."""

from __future__ import annotations

import re

# C0 and C1 controls with DEL, separators of lines, marks that change the direction of writing, halves of pairs.
_LINES = "\u2028\u2029\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[\x00-\x1f\x7f-\x9f{_LINES}]")
_UNPRINTABLE_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_LINES}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Escape what a terminal would obey, and what would look like another line: ESC becomes ``\u001b``.

    JSON stays the same JSON.

    Args:
        text: Any text.
        lines: Whether ends of lines and tabs stay as they are; for texts of several lines.
    """
    return (_UNPRINTABLE_IN_LINES if lines else _UNPRINTABLE).sub(lambda found: f"\\u{ord(found[0]):04x}", text)
