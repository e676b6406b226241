"""Templates of prompts over columns: ``"Summarise: {text}"``. Used by frames and by the command line."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any


class Template:
    """A text with columns in braces; ``{{`` and ``}}`` are braces.

    Args:
        text: The template.

    Raises:
        ValueError: When it is none.
    """

    def __init__(self, text: str) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces that are meant") from error
        for _, name, specification, conversion in parts:
            plain = name is None or (name.strip() and not any(mark in name for mark in '[].\n"'))
            if not plain or specification or conversion:
                raise ValueError("columns are named in braces, {text} for instance; write {{ and }} for others")
        self._parts = [(before, name) for before, name, _, _ in parts]
        self.columns = list(dict.fromkeys(name for _, name in self._parts if name is not None))

    def fill(self, row: Mapping[str, Any]) -> str:
        """Return the prompt of a row, which has all the columns."""
        return "".join(
            before if name is None else before + in_words(row[name])  # the last part may have no column
            for before, name in self._parts
        )


def in_words(value: Any) -> str:
    """A value as it stands in a prompt: texts as they are, nested values, truth values and nothing as JSON."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if value is None or isinstance(value, (bool, dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
