"""Templates of prompts over columns: ``"Summarise: {text}"``. Used by frames and by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._guesses import close_to

SHOWN = 20
"""Most columns that an error names."""


class Template:
    """A text with columns in braces; ``{{`` and ``}}`` are braces.

    Args:
        text: The template.
        columns: The columns that there are. What stands in braces is then one of them, whatever marks its name has,
            braces among them; of several the longest. None: unknown yet, and a name ends with the first brace.

    Raises:
        ValueError: If it is invalid, or names a missing column; suggests similar ones.
    """

    def __init__(self, text: str, columns: Iterable[str] | None = None) -> None:
        self.text = text
        # The longest first: {a}b} is the column 'a}b' if there is one.
        self._names = None if columns is None else list(dict.fromkeys(columns))
        self._known = None if self._names is None else sorted(self._names, key=len, reverse=True)
        self._parts = list(self._read(text))
        self.columns = list(dict.fromkeys(name for _, name in self._parts if name is not None))

    def _read(self, text: str) -> Iterator[tuple[str, str | None]]:
        """The template's parts: a text, and the column behind it."""
        before: list[str] = []
        place = 0
        while place < len(text):
            mark = text[place]
            name = self._column_at(text, place) if mark == "{" else None
            if name is not None:
                yield "".join(before), name
                before, place = [], place + len(name) + 2
                continue
            if mark in "{}":
                if text[place : place + 2] != mark * 2:
                    raise ValueError(self._problem(text, place))
                place += 1
            before.append(mark)
            place += 1
        if before:
            yield "".join(before), None

    def _column_at(self, text: str, place: int) -> str | None:
        """Return the column named after the brace at this place; None if it is another brace."""
        start = place + 1
        if self._known is not None:
            return next((name for name in self._known if text.startswith(name + "}", start)), None)
        end = text.find("}", start)
        name = text[start:end] if end >= 0 else ""
        # What starts with a quote or spans lines is JSON, whose braces are literal.
        return None if not name.strip() or "{" in name or "\n" in name or name.lstrip()[0] in "\"'" else name

    def _problem(self, text: str, place: int) -> str:
        braces = "Write {{ and }} for literal braces"
        end = text.find("}", place + 1)
        if text[place] == "}" or end < 0:
            return f"unmatched brace at {text[place : place + 20]!r}. {braces}"
        name = text[place + 1 : end]
        if self._names is None or not name.strip() or "\n" in name:
            return f"a placeholder names a column, such as {{text}}, not {{{name:.40}}}. {braces}"
        return f"{no_column(name, self._names)}. {braces}"

    def fill(self, row: Mapping[str, Any]) -> str:
        """Return the prompt of a row, which has all the columns."""
        return "".join(
            before if name is None else before + in_words(row[name])  # the last part may have no column
            for before, name in self._parts
        )


def no_column(name: str, names: Iterable[str]) -> str:
    """Return a message that a column is missing, with similar ones and all columns."""
    names = list(names)
    near = close_to(name, names, 3)
    hint = f"; did you mean {' or '.join(map(repr, near))}? The" if near else "; the"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    there = ", ".join(map(repr, names[:SHOWN]))
    return f"there is no column {name!r}{f'{hint} columns are {there}{more}' if names else '; there are no columns'}"


def in_words(value: Any) -> str:
    """A value as it stands in a prompt: texts as they are, nested values, truth values and nothing as JSON."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if value is None or isinstance(value, (bool, dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
