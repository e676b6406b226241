"""Text of servers, files and other people, made fit to be shown on a terminal and in a log. Used wherever it is.

Control characters can clear a screen, forge a line of a log, or turn what is read around. They are shown as escapes;
the data itself stays as it is.
"""

from __future__ import annotations

import math
import re

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
_LINES = re.compile("[\t\n]")


def escaped(text: str) -> str:
    """Return a text whose control characters are escapes, but for tabs and ends of lines."""
    return text if text.isprintable() else _CONTROLS.sub(_escape, text)


def line(text: str) -> str:
    """Return a text as one line, whose control characters are escapes."""
    return text if text.isprintable() else _LINES.sub(_escape, escaped(text))


def escaped_json(text: str) -> str:
    """Return JSON text whose control characters are JSON's own escapes."""
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _units(found[0])), text)


def amount(value: float) -> str:
    """Return a sum of money: four decimals, and as many more as show two digits of a small one."""
    decimals = 4 if not 0 < abs(value) < 0.001 else min(1 - math.floor(math.log10(abs(value))), 12)
    return f"{value:,.{decimals}f}"


class Lines(str):
    """A text of our own that may have several lines in a log."""

    __slots__ = ()


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _units(letter: str) -> list[int]:
    data = letter.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
