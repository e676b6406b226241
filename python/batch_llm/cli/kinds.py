"""The type of a column, inferred from all of its values, so that none of them changes. Used by ``parquet``.

Integers beyond 64 bits are decimals, or digits as text; numbers that a float would round are text too. Values
of several kinds, and objects without a shape, are JSON text.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from .._frames import Kind as Declared
from . import texts

MOST_FIELDS = 500
"""Fields of an object that is a struct; one with more is a mapping, and JSON text."""
DEEPEST = 32
_EXACT = 2**53


class Kind:
    """The kind of the values seen so far. It knows the Arrow type for all of them, and converts them to it.

    Args:
        declared: The schema of the values.
    """

    __slots__ = (
        "_decided",
        "_depth",
        "_highest",
        "_is_declared",
        "_is_exact",
        "_lowest",
        "fields",
        "is_json",
        "items",
        "seen",
    )  # fmt: skip

    def __init__(self, declared: Declared | None = None, depth: int = 0) -> None:
        self.seen: set[str] = set()
        self.fields: dict[str, Kind] = {}
        self.items: Kind | None = None
        self.is_json = depth > DEEPEST
        self._lowest = self._highest = 0
        self._is_exact = True
        self._is_declared = False
        self._depth = depth
        self._decided: str | None = None
        if declared is not None:
            self._declare(declared)

    def _declare(self, declared: Declared) -> None:
        name = declared.name
        self._is_declared = True
        if name == "struct":
            self.seen.add("object")
            self.fields = {field: Kind(part, self._depth + 1) for field, part in declared.parts.items()}
        elif name == "list":
            self.seen.add("list")
            self.items = Kind(declared.parts[""], self._depth + 1)
        elif name == "json":
            self._is_declared = False  # anything: its values decide
        else:
            known = {"integer": "integer", "number": "real", "boolean": "boolean"}
            self.seen.add(known.get(name, "text"))

    def add(self, value: Any) -> None:
        """Look at a value: one that was read by :func:`texts.read`."""
        if value is None or self.is_json:
            return
        if isinstance(value, str):
            self.seen.add("text")
        elif isinstance(value, bool):
            self.seen.add("boolean")
        elif isinstance(value, int):
            self.seen.add("integer")
            self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)
        elif isinstance(value, float):
            self.seen.add("real")
            self._is_exact = self._is_exact and _is_exact_value(value, is_declared=self._is_declared)
        elif isinstance(value, list):
            self.seen.add("list")
            if self.items is None:
                self.items = Kind(depth=self._depth + 1)
            for one in value:
                self.items.add(one)
        else:
            self._add_object(value)

    def _add_object(self, value: dict[str, Any]) -> None:
        self.seen.add("object")
        for name, part in value.items():
            name = texts.whole(name)
            kind = self.fields.get(name)
            if kind is None:
                if len(self.fields) >= MOST_FIELDS:
                    self.is_json = True
                    return
                kind = self.fields[name] = Kind(depth=self._depth + 1)
            kind.add(part)

    @property
    def name(self) -> str:
        """What all of them are.

        One of ``text``, ``boolean``, ``integer``, ``natural`` (64 bits without a sign), ``decimal``, ``real``,
        ``list``, ``object``; or ``json``: anything, as text.
        """
        numbers = self.seen & {"integer", "real"}
        if self.is_json or len(self.seen - numbers) + bool(numbers) > 1:
            return "json"
        if not self.seen:
            return "text"
        if not numbers:
            only = next(iter(self.seen))
            return "json" if only == "object" and not self.fields else only
        if "real" in numbers:
            is_float = self._is_exact and self._lowest >= -_EXACT and self._highest <= _EXACT
            return "real" if is_float else "json"
        if self._lowest >= -(2**63) and self._highest < 2**63:
            return "integer"
        if self._lowest >= 0 and self._highest < 2**64:
            return "natural"
        return "decimal" if self._lowest > -(10**38) and self._highest < 10**38 else "json"

    def arrow(self, arrow: Any) -> Any:
        """The Arrow type, when all values were seen; ``arrow`` is pyarrow."""
        name = self._decided = self.name
        if name == "list":
            assert self.items is not None
            return arrow.list_(self.items.arrow(arrow))
        if name == "object":
            return arrow.struct([arrow.field(field, kind.arrow(arrow)) for field, kind in self.fields.items()])
        simple = {
            "boolean": arrow.bool_, "integer": arrow.int64, "natural": arrow.uint64, "real": arrow.float64,
            "decimal": lambda: arrow.decimal128(38, 0),
        }  # fmt: skip
        return simple.get(name, arrow.string)()

    def fit(self, value: Any) -> Any:
        """Return a value in the column's type."""
        if value is None:
            return None
        name = self._decided or self.name
        if name == "text":
            return texts.whole(value)
        if name == "json":
            return texts.whole(value if isinstance(value, str) else written(value))
        if name == "real":
            return float(value)
        if name == "decimal":
            return Decimal(value)
        if name == "list":
            assert self.items is not None
            return [self.items.fit(one) for one in value]
        if name == "object":
            values = {texts.whole(field): part for field, part in value.items()}
            return {field: kind.fit(values.get(field)) for field, kind in self.fields.items()}
        return value


def _is_exact_value(value: float, *, is_declared: bool) -> bool:
    """Whether a float is what was written."""
    if value in (float("inf"), float("-inf")):
        return False
    if is_declared or not isinstance(value, texts.Digits) or len(value.text) < 17:
        return True
    meant = Decimal(value.text)
    return meant == Decimal(repr(float(value))) or meant == Decimal(float(value))


def written(value: Any) -> str:
    """A value as JSON text, with its digits."""
    if isinstance(value, texts.Digits):
        return value.text
    if isinstance(value, list):
        return "[" + ", ".join(written(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{texts.of(name)}: {written(part)}" for name, part in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
