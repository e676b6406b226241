"""Two runs side by side: where their answers agree, and what each took and cost. Used by the command line and the page.

Items are matched by their ids. The first run is put into a private, temporary database, and the second is read past
it, so memory does not grow with the number of items.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import weakref
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

from .._values import as_text, clean, fields_of
from . import items as _items
from .items import Pricing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .items import Item, Items

MOST_FIELDS = 100
"""Fields of answers that are compared; further ones count as one."""
MOST_CATEGORIES = 50
LONGEST_FIELDS = 500
"""Characters of the names of fields that a pair of items is listed with."""
REST = "(further fields)"
SAME, DIFFERENT, FAILED_IN_ONE, FAILED_IN_BOTH, ONLY_IN_FIRST, ONLY_IN_SECOND = range(6)
"""What can be the case for an item of two runs."""
OUTCOMES = ("same", "different", "failed_in_one", "failed_in_both", "only_in_first", "only_in_second")
"""Their names."""
SHOWN = ("id", "outcome", "first", "second", "fields", "first_state", "second_state", "first_answer", "second_answer")
_TABLES = """
    CREATE TABLE firsts (id TEXT, nth INTEGER, place INTEGER, state INTEGER, answer TEXT, shown TEXT,
        PRIMARY KEY (id, nth)) WITHOUT ROWID;
    CREATE TABLE pairs (number INTEGER PRIMARY KEY, id, outcome INTEGER, first, second, fields, first_state,
        second_state, first_answer, second_answer);
"""


class _Sums:
    """What one of the runs sums up to."""

    def __init__(self, items: Items) -> None:
        self.items = self.succeeded = self.failed = self.retried = self.without_cost = 0
        self.tokens: Counter[str] = Counter()
        self.cost = 0.0
        self.categories: Counter[str] = Counter()
        self._seconds = array("d")
        self._pricing = Pricing(items.prices)

    def add(self, item: Item) -> None:
        result = item.result
        self.items += 1
        self.succeeded += bool(result.success)
        if not result.success:
            self.failed += not result.not_sent
            self.categories[_items.name_of(result.error_category) or "unknown"] += 1
        self.retried += _items.retries_of(result) > 0
        for name, count in _items.counts_of(result).items():
            self.tokens[name] += count
        cost = item.cost if item.cost is not None else self._pricing.of(result)
        if cost is not None:
            self.cost += cost
        else:
            self.without_cost += any(_items.counts_of(result).values())
        if result.attempts and result.timing.attempts:
            self._seconds.append(result.timing.execution_seconds)

    def shown(self) -> dict[str, Any]:
        ordered, count = sorted(self._seconds), len(self._seconds)
        parts = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        latency = {name: ordered[min(int(part * count), count - 1)] if count else None for name, part in parts}
        return {
            "items": self.items,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "retried": self.retried,
            "tokens": {name: self.tokens[name] for name in ("input_tokens", "output_tokens", "cached_input_tokens")},
            "cost": None if self.without_cost and not self.cost else round(self.cost, 9),
            "records_without_cost": self.without_cost,
            "latency": latency,
            "errors": dict(self.categories.most_common(MOST_CATEGORIES)),
        }


class Comparison:
    """Two runs, compared.

    Args:
        first: The items of one run.
        second: Those of the other one.
        stop: When set, reading ends early.

    Raises:
        ArtifactError: If a store cannot be read.
    """

    def __init__(self, first: Items, second: Items, stop: threading.Event | None = None) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._database.close)
        self._database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        self._lock = threading.RLock()
        self._fields: dict[str, list[int]] = {}
        self._counts: Counter[int] = Counter()
        self._database.execute("BEGIN")
        sums = self._read_first(first, stop), self._read_second(second, stop)
        self._add_rest()
        self._database.execute("COMMIT")
        matched = sum(self._counts[one] for one in (SAME, DIFFERENT, FAILED_IN_ONE, FAILED_IN_BOTH))
        both = self._counts[SAME] + self._counts[DIFFERENT]
        self.figures: dict[str, Any] = {
            "first": {"name": first.about()["name"], **sums[0]},
            "second": {"name": second.about()["name"], **sums[1]},
            "matched": matched,
            "agreement": {
                "compared": both,
                "same": self._counts[SAME],
                "share": self._counts[SAME] / both if both else None,
                "fields": {
                    name: {"compared": compared, "same": same, "share": same / compared if compared else None}
                    for name, (compared, same) in sorted(self._fields.items(), key=lambda one: one[1][1] / one[1][0])
                },
            },
            "outcomes": {name: self._counts[number] for number, name in enumerate(OUTCOMES)},
        }
        """What came of it, as JSON values."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._database.close()

    def _read_first(self, items: Items, stop: threading.Event | None) -> dict[str, Any]:
        sums = _Sums(items)
        for item in _each(items, stop):
            sums.add(item)
            key, answer = clean(item.result.item_id), _comparable(item)
            (nth,) = self._database.execute("SELECT count(*) FROM firsts WHERE id = ?", [key]).fetchone()
            shown = _items.one_line(_items.answer_of(item.result))
            row = (key, nth, item.place, _items.state_of(item.result), answer, shown)
            self._database.execute("INSERT INTO firsts VALUES (?, ?, ?, ?, ?, ?)", row)
        return sums.shown()

    def _read_second(self, items: Items, stop: threading.Event | None) -> dict[str, Any]:
        sums = _Sums(items)
        for item in _each(items, stop):
            sums.add(item)
            key, shown = clean(item.result.item_id), _items.one_line(_items.answer_of(item.result))
            state = _items.state_of(item.result)
            found = self._database.execute(
                "SELECT nth, place, state, answer, shown FROM firsts WHERE id = ? ORDER BY nth LIMIT 1", [key]
            ).fetchone()
            if found is None:
                self._pair(ONLY_IN_SECOND, (key, None, item.place, None, None, state, None, shown))
                continue
            nth, place, other_state, other, other_shown = found
            self._database.execute("DELETE FROM firsts WHERE id = ? AND nth = ?", [key, nth])
            changed: list[str] = []
            if item.result.success and other is not None:
                changed = self._agree(json.loads(other), json.loads(_comparable(item) or "null"))
                outcome = DIFFERENT if changed else SAME
            else:
                outcome = FAILED_IN_ONE if item.result.success or other is not None else FAILED_IN_BOTH
            fields = ", ".join(changed)[:LONGEST_FIELDS] or None
            self._pair(outcome, (key, place, item.place, fields, other_state, state, other_shown, shown))
        return sums.shown()

    def _add_rest(self) -> None:
        rest = self._database.execute("SELECT id, place, state, shown FROM firsts ORDER BY place").fetchall()
        for key, place, state, shown in rest:
            self._pair(ONLY_IN_FIRST, (key, place, None, None, state, None, shown, None))
        self._database.execute("DELETE FROM firsts")

    def _pair(self, outcome: int, row: tuple[Any, ...]) -> None:
        self._counts[outcome] += 1
        self._database.execute(
            "INSERT INTO pairs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (row[0], outcome, *row[1:])
        )

    def _agree(self, first: Any, second: Any) -> list[str]:
        """Count where two answers agree, and return the names of the fields in which they do not."""
        if not (isinstance(first, dict) and isinstance(second, dict)):
            return [] if first == second else ["answer"]
        changed = []
        for name in {**first, **second}:
            same = name in first and name in second and first[name] == second[name]
            field = name if name in self._fields or len(self._fields) < MOST_FIELDS else REST
            counts = self._fields.setdefault(field, [0, 0])
            counts[0] += 1
            counts[1] += same
            if not same:
                changed.append(name)
        return changed

    def rows(self, outcome: str | None, start: int, count: int) -> dict[str, Any]:
        """Return pairs of items, as JSON values: ``total``, ``start``, ``columns`` and ``rows``.

        Args:
            outcome: Only those with this outcome, a name from ``OUTCOMES``.
            start: How many to leave out.
            count: How many to return.

        Raises:
            ValueError: If there is no such outcome.
        """
        if outcome is not None and outcome not in OUTCOMES:
            raise ValueError(f"outcome={outcome[:80]!r}: it is one of {', '.join(OUTCOMES)}")
        number = None if outcome is None else OUTCOMES.index(outcome)
        with self._lock:
            where = "" if number is None else f"WHERE outcome = {number}"
            sql = f"SELECT {', '.join(SHOWN)} FROM pairs {where} ORDER BY number LIMIT ? OFFSET ?"  # noqa: S608
            rows = [list(row) for row in self._database.execute(sql, [count, start])]
        for row in rows:
            row[1] = OUTCOMES[row[1]]
        total = sum(self._counts.values()) if number is None else self._counts[number]
        return {"total": total, "start": start, "columns": SHOWN, "rows": rows}


def _each(items: Items, stop: threading.Event | None) -> Iterator[Item]:
    for page in items.pages(None):
        if stop is not None and stop.is_set():
            return
        yield from page


def _comparable(item: Item) -> str | None:
    """An answer as JSON, to be compared by its fields; None: there is none."""
    result = item.result
    if not result.success:
        return None
    output = result.output
    if isinstance(output, str):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(output)
            if isinstance(found, dict):
                return json.dumps({clean(name): value for name, value in found.items()})
        return json.dumps(clean(output.strip()))
    fields = fields_of(output)
    text = as_text(output)
    if fields is None:
        return json.dumps(text)
    try:
        return json.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return json.dumps(text)
