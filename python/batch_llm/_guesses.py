"""What a name that is not known may mean. Used by errors about options, providers, columns and keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CLOSE = 0.7
"""How alike two names must be, by difflib's ratio."""
_WORD = 4
"""Minimum length of a part of a name for a guess, characters."""


def close_to(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return possible names: similar ones, those that start with it, and those that it starts with."""
    names = list(known)
    found = difflib.get_close_matches(name, names, most, _CLOSE)
    if len(name) >= _WORD:
        found += [one for one in names if one.startswith((f"{name}_", f"{name}-")) and one not in found]
    found += [one for one in names if one and name.startswith((f"{one}.", f"{one}[")) and one not in found]
    return found[:most]


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing."""
    found = close_to(name, known)
    return f"; did you mean {found[0]!r}?" if found else ""
