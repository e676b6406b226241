"""Contexts that refer to themselves, which come back in results but cannot be stored, compared or written as JSON.

Used by the pipeline, which warns of the first one of a run, and where a context is stored or written.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, Protocol

from ._logs import log_event

PARTS_OF_A_RUN = 20_000
"""How many parts of contexts are looked at in a run, some milliseconds' worth. Most runs have contexts of one kind."""
PARTS_OF_A_VALUE = 2_000
"""How many parts of one value are looked at."""

_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_OPAQUE = (type, FunctionType, MethodType, ModuleType, str, bytes, bytearray, int, float)


class WithContext(Protocol):
    """Of an item, what is looked at."""

    item_id: str
    context: Any


class ContextCheck:
    """Warns of the first context of a run that refers to itself, as far as contexts are looked at."""

    def __init__(self) -> None:
        self._left = PARTS_OF_A_RUN

    def look_at(self, items: Sequence[WithContext | None]) -> None:
        """Look at the contexts of items that were added."""
        if self._left <= 0:
            return
        odd = [item for item in items if item is not None and type(item.context) not in _PLAIN]
        self._left -= len(items) - len(odd)
        for item in odd:
            place, seen = _search(item.context, "context", PARTS_OF_A_VALUE)
            self._left = 0 if place is not None else self._left - seen
            if place is not None:
                log_event(
                    logging.WARNING,
                    "circular_context",
                    "Item %s: the context contains a circular reference (%s). The result returns it unchanged, but it "
                    "cannot be stored, compared or written as JSON. Use ids in place of objects (further such "
                    "contexts are not reported)",
                    item.item_id,
                    place,
                    item_id=item.item_id,
                )
            if self._left <= 0:
                return


def circular_place(value: Any, name: str) -> str | None:
    """Where a value refers to itself, or to something that it is a part of.

    Args:
        value: Dicts, lists, tuples, sets and public attributes of objects are looked into.
        name: What the value is called.

    Returns:
        For example ``"context['children'][0].parent is context"``; None if it does not, or is too large to check.
    """
    return _search(value, name, PARTS_OF_A_VALUE)[0]


def _search(value: Any, name: str, most: int) -> tuple[str | None, int]:
    """The place, and how many parts were looked at."""
    # Depth first, without recursion: what is open is what the part at hand is within.
    open_: dict[int, str] = {id(value): name}
    whole: set[int] = set()
    way = [(value, name, _parts(value))]
    seen = 1
    while way:
        owner, path, parts = way[-1]
        try:
            found = next(parts, None)
        except Exception:  # it changes meanwhile, or cannot be read: no reason for a run to fail
            found = None
        if found is None:
            way.pop()
            open_.pop(id(owner), None)
            whole.add(id(owner))
            continue
        label, part = found
        seen += 1
        if type(part) in _PLAIN or isinstance(part, _OPAQUE):
            continue
        if id(part) in open_:
            return f"{path}{label} is {open_[id(part)]}", seen
        if seen >= most:
            return None, seen
        if id(part) not in whole:
            open_[id(part)] = place = f"{path}{label}"
            way.append((part, place, _parts(part)))
    return None, seen


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, with how it is reached."""
    if isinstance(value, dict):
        for key, part in dict.items(value):
            yield f"[{key!r:.40}]", part
    elif isinstance(value, (list, tuple, deque)):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield "{...}", part
    elif isinstance(value, SimpleNamespace) or not (isinstance(value, _OPAQUE) or _is_of_python(value)):
        for name, part in _attributes(value).items():
            if name[:1] != "_":
                yield f".{name}", part


def _attributes(value: Any) -> dict[str, Any]:
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        return attributes
    if dataclasses.is_dataclass(value):  # with slots
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _is_of_python(value: Any) -> bool:
    """Whether a value's class is one of the standard library's: loggers and locks are not data."""
    return type(value).__module__.partition(".")[0] in sys.stdlib_module_names
