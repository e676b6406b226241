"""A run as something that can be searched, filtered and sorted: an index of its items, made while it is read.

The index is a private, temporary SQLite database, which vanishes with its process. It has what lists, sums and charts
need of each item; the whole item is read from where it comes from. It serves any source: a store of any kind, even
while a run writes to it, and results in memory. Used by ``server`` and ``page``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from .._values import clean
from . import items as _items
from .items import Item, Items, Pricing
from .query import Query, indexed
from .timeline import WAITS, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..timing import AttemptTiming

MOST_SELECTIONS = 4
"""Lists of places that are remembered, so that scrolling does not select again."""
LONGEST_INDEXED = 100_000
"""Characters of a text whose words are found."""
MOST_KINDS = 50
"""Kinds of errors that are listed."""
EXAMPLES = 5
"""Items that are named for each kind of error."""
MOST_RUNS = 20
"""Runs of a store that are told apart: the last ones."""
FRESH_SECONDS = 1.0
"""How long lists and sums are used at least while more items are read."""
LONGEST_ASKING = 0.1
"""The share of the time that they take meanwhile, at most: reading is to end, too."""
_AT_A_TIME = 500
"""Items that one statement selects."""
_DEAR = 0.95
"""The share of items that are neither slow nor expensive."""

COLUMNS = (
    "place", "item_id", "number", "state", "category", "kind", "retries", "attempts", "seconds", "waited", "input",
    "output", "cached", "written", "cost", "finish", "truncated", "reused", "lane", "model", "rounds", "run", "prompt",
    "answer",
)  # fmt: skip
_COST = COLUMNS.index("cost")
SHOWN = (
    "place", "item_id", "state", "category", "attempts", "retries", "seconds", "cost", "output", "truncated", "reused",
    "prompt", "answer",
)  # fmt: skip
"""What a list has of each item."""
_TABLES = f"""
    CREATE TABLE items ({", ".join("place INTEGER PRIMARY KEY" if name == "place" else name for name in COLUMNS)});
    CREATE VIRTUAL TABLE words USING fts5(
        item_id, prompt, answer, content='', tokenize='unicode61 remove_diacritics 2'
    );
"""
_IDS = "CREATE INDEX IF NOT EXISTS ids ON items (item_id)"
"""Made once the items are there: that is quicker than with each of them."""


class Index:
    """The items of a run.

    Args:
        items: Where they come from.

    Raises:
        sqlite3.Error: If no temporary database can be made.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        self.pricing = Pricing(items.prices)
        # Without a name: a file that nobody else can open, and that is gone with us. Small ones stay in memory.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._database.close)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_TABLES)
        self._lock = threading.RLock()
        self._selections: OrderedDict[Query, array[int]] = OrderedDict()
        self._limits: dict[str, float | None] | None = None
        self._overview: dict[str, Any] | None = None
        self._timelines: dict[int, Timeline] = {}
        self._last: int | None = None
        self._are_replaced = False
        """Whether the words have items that are in no list any more."""
        self._fresh_until = self._spent = 0.0
        self.version = 0
        """Grows with every change."""
        self.is_complete = False
        """Whether all items were read that were there at the last look."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._database.close()

    # Reading

    def read(self, stop: threading.Event | None = None, between: Callable[[], None] | None = None) -> None:
        """Read the items that are not in the index yet.

        Args:
            stop: When set, reading ends early.
            between: Called between pages.

        Raises:
            ArtifactError: If the store cannot be read.
        """
        changed = self.items.changed()
        if changed == "other":
            self._clear()
        if changed == "same" and self.is_complete:
            return
        before = self._last
        for page in self.items.pages(before):
            self._add(page)
            if stop is not None and stop.is_set():
                return
            if between is not None:
                between()
        with self._lock:
            self._database.execute(_IDS)
            self._drop_replaced(before)
            self.is_complete = True
            self._touch(at_once=True)
            if before is not None and self.count != self.items.expected:
                # Items were sent again by the run that had sent them before: the store knows which records count.
                self._clear()

    @property
    def count(self) -> int:
        """How many items are in the index."""
        with self._lock:
            return int(self._one("SELECT count(*) FROM items")[0])

    def _drop_replaced(self, before: int | None) -> None:
        """Remove items of earlier runs for which there are results by now."""
        if before is not None:
            dropped = self._database.execute(
                "DELETE FROM items WHERE place <= ? AND EXISTS (SELECT 1 FROM items AS later WHERE later.place > ? AND "
                "later.item_id = items.item_id AND later.run <> items.run)",
                [before, before],
            )
            self._are_replaced = self._are_replaced or dropped.rowcount > 0

    def _touch(self, *, at_once: bool = False) -> None:
        """Note a change. While items are read quickly, what was found before is used for a moment longer."""
        self.version += 1
        now = time.monotonic()
        if at_once or now >= self._fresh_until:
            self._fresh_until = now + max(FRESH_SECONDS, self._spent / LONGEST_ASKING)
            self._spent = 0.0
            self._selections.clear()
            self._limits = self._overview = None

    def _clear(self) -> None:
        with self._lock:
            for table in ("items", "words"):
                self._database.execute(f"DROP TABLE {table}")
            self._database.executescript(_TABLES)
            self._timelines.clear()
            self._last, self.is_complete, self._are_replaced = None, False, False
            self._touch(at_once=True)

    def _add(self, page: Sequence[Item]) -> None:
        rows, texts, drawn = [], [], []
        for item in page:
            prompt, answer = _items.prompt_of(item.result), _items.answer_of(item.result)
            # Once, for both are made anew each time.
            attempts, usage = item.result.timing.attempts, _items.counts_of(item.result)
            drawn.append((item, attempts, usage))
            rows.append(self._row(item, (prompt, answer), attempts, usage))
            texts.append((
                item.place, indexed(clean(item.result.item_id)), indexed((prompt or "")[:LONGEST_INDEXED]),
                indexed(answer[:LONGEST_INDEXED]),
            ))  # fmt: skip
            self._last = item.place
        marks = ", ".join("?" * len(COLUMNS))
        with self._lock:
            database = self._database
            database.execute("BEGIN")
            database.executemany(f"INSERT OR REPLACE INTO items VALUES ({marks})", rows)  # noqa: S608
            database.executemany("INSERT INTO words (rowid, item_id, prompt, answer) VALUES (?, ?, ?, ?)", texts)
            database.execute("COMMIT")
            for (item, attempts, usage), row in zip(drawn, rows, strict=True):
                # What was reused took place in another run.
                if item.result.reused is None:
                    tokens = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
                    timeline = self._timeline(item.run)
                    timeline.add(attempts, success=bool(item.result.success), tokens=tokens, cost=row[_COST])
            self._touch()

    def _row(
        self, item: Item, texts: tuple[str | None, str], attempts: list[AttemptTiming], usage: dict[str, int]
    ) -> tuple[Any, ...]:
        result = item.result
        prompt, answer = texts
        metadata = result.metadata or {}
        cost = item.cost if item.cost is not None else self.pricing.of(result)
        seconds = sum(attempt.execution_seconds for attempt in attempts)
        finish = _items.name_of(metadata.get("finish_reason"))
        state = _items.state_of(result)
        return (
            item.place,
            clean(result.item_id),
            result.submission_index,
            state,
            None if result.success else _items.name_of(result.error_category) or "unknown",
            None if state == _items.SUCCEEDED else _items.kind_of(result),
            _items.retries_of(result),
            result.attempts,
            seconds if attempts else None,
            sum(attempt.total_seconds for attempt in attempts) - seconds,
            _whole(usage.get("input_tokens", 0)),
            _whole(usage.get("output_tokens", 0)),
            _whole(usage.get("cached_input_tokens", 0)),
            _whole(usage.get("cache_write_tokens", 0)),
            cost,
            finish,
            _items.is_truncated(finish),
            result.reused,
            _items.name_of(metadata.get("lane")),
            _items.name_of(metadata.get("model")),
            result.rounds,
            item.run,
            None if prompt is None else _items.one_line(prompt),
            _items.one_line(answer),
        )

    def _timeline(self, run: int) -> Timeline:
        if run not in self._timelines:
            self._timelines[run] = Timeline()
            for old in sorted(self._timelines)[:-MOST_RUNS]:
                del self._timelines[old]
        return self._timelines.get(run) or Timeline()

    # Asking

    def select(self, query: Query) -> array[int]:
        """Return the places of the items that are asked for, in order."""
        with self._lock:
            found = self._selections.get(query)
            if found is None:
                with self._timed():
                    limits = self._thresholds() if query.needs_limits else {}
                    sql, values = query.sql(limits, all_words=not self._are_replaced)
                    found = array("q", (place for (place,) in self._database.execute(sql, values)))
                self._selections[query] = found
                while len(self._selections) > MOST_SELECTIONS:
                    self._selections.popitem(last=False)
            self._selections.move_to_end(query)
            return found

    def rows(self, query: Query, start: int, count: int) -> dict[str, Any]:
        """Return a part of a list, as JSON values: ``total``, ``start``, ``columns`` and ``rows``."""
        with self._lock:
            places = self.select(query)
            wanted = places[start : start + count]
            found = {row[0]: row for row in self.features(wanted.tolist(), SHOWN)}
            rows = [found[place] for place in wanted if place in found]
            return {"total": len(places), "start": start, "columns": SHOWN, "rows": rows, "version": self.version}

    def position(self, query: Query, place: int) -> int | None:
        """Return where in a list an item is; None: it is not in it."""
        with contextlib.suppress(ValueError):
            return self.select(query).index(place)
        return None

    def details(self, place: int, items: Items | None = None) -> dict[str, Any] | None:
        """Return all that is shown of an item; None: there is none at this place.

        Args:
            place: The place.
            items: Where it comes from, if not from the items of this index.
        """
        item = (items or self.items).one(place)
        return None if item is None else _items.details(item, self.pricing)

    def features(self, places: Sequence[int], columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return columns of items, in order of their places."""
        found: list[tuple[Any, ...]] = []
        with self._lock:
            for start in range(0, len(places), _AT_A_TIME):
                part = list(places[start : start + _AT_A_TIME])
                marks = ", ".join("?" * len(part))
                sql = f"SELECT {', '.join(columns)} FROM items WHERE place IN ({marks}) ORDER BY place"  # noqa: S608
                found += self._database.execute(sql, part)
        return found

    def find(self, item_id: str) -> list[int]:
        """Return the places of the items with an id."""
        with self._lock:
            found = self._database.execute("SELECT place FROM items WHERE item_id = ? ORDER BY place", [clean(item_id)])
            return [place for (place,) in found]

    def _thresholds(self) -> dict[str, float | None]:
        if self._limits is None:
            self._limits = {
                "slow": self._percentiles("seconds", "seconds IS NOT NULL", (_DEAR,))[0],
                "expensive": self._percentiles("cost", "cost > 0", (_DEAR,))[0],
            }
        return self._limits

    def _percentiles(self, column: str, where: str, parts: Sequence[float]) -> list[float | None]:
        """The values that these shares of the items do not exceed."""
        sql = f"SELECT {column} FROM items WHERE {where} ORDER BY 1"  # noqa: S608
        values = array("d", (value for (value,) in self._database.execute(sql)))
        return [values[min(int(part * len(values)), len(values) - 1)] if values else None for part in parts]

    def _one(self, sql: str, *values: Any) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._database.execute(sql, values).fetchone()
        return row

    def overview(self) -> dict[str, Any]:
        """Return sums, errors by kind, and charts, as JSON values."""
        with self._lock:
            if self._overview is None:
                with self._timed():
                    self._overview = self._sums()
            return {
                **self._overview, "charts": self._charts(self._overview["charts"]), "about": self.items.about(),
                "version": self.version, "is_complete": self.is_complete,
            }  # fmt: skip

    def _charts(self, curves: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
        """The curves of each run, the last one first, with what limited it, if that is known."""
        bounds = self.items.bound_over_time()
        # A run that waits for its first result is drawn, too.
        waiting = {run for run, bound in bounds.items() if bound["end"] >= bound["interval"]} - curves.keys()
        curves = curves | dict.fromkeys(waiting, Timeline().series())
        return [
            {"run": run, **curves[run], "bound": bounds.get(run)} for run in sorted(curves, reverse=True)[:MOST_RUNS]
        ]

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._spent += time.monotonic() - began

    def _sums(self) -> dict[str, Any]:
        return {
            "figures": self._figures(),
            "errors": self._errors(),
            "categories": self._counts("category", "state = 0"),
            "finish": self._counts("finish", "finish IS NOT NULL"),
            "lanes": self._groups("lane"),
            "models": self._groups("model"),
            "runs": self._runs(),
            "reused": self._counts("reused", "reused IS NOT NULL"),
            "waits": WAITS,
            "charts": {run: timeline.series() for run, timeline in self._timelines.items() if timeline.attempts},
        }

    def _figures(self) -> dict[str, Any]:
        names = (
            "items", "succeeded", "failed", "not_sent", "retried", "retries", "conversations", "rounds", "input",
            "output", "cached", "written", "cost", "without_cost", "truncated", "with_prompt",
        )  # fmt: skip
        found = self._one(
            "SELECT count(*), sum(state = 1), sum(state = 0), sum(state = 2), sum(retries > 0), sum(retries), "
            "sum(rounds IS NOT NULL), sum(rounds), sum(iif(reused IS NULL, input, 0)), "
            "sum(iif(reused IS NULL, output, 0)), sum(iif(reused IS NULL, cached, 0)), "
            "sum(iif(reused IS NULL, written, 0)), sum(cost), sum(cost IS NULL AND input + output > 0), "
            "sum(truncated), sum(prompt IS NOT NULL) FROM items"
        )
        figures = {name: value or 0 for name, value in zip(names, found, strict=True)}
        parts = self._percentiles("seconds", "seconds IS NOT NULL AND reused IS NULL", (0.5, 0.95, 0.99))
        figures |= dict(zip(("p50", "p95", "p99"), parts, strict=True))
        figures |= self._thresholds()
        return figures

    def _errors(self) -> list[dict[str, Any]]:
        kinds = self._database.execute(
            "SELECT kind, category, count(*), min(place) FROM items WHERE state = 0 GROUP BY kind, category "
            "ORDER BY 3 DESC LIMIT ?",
            [MOST_KINDS],
        ).fetchall()
        found = []
        for kind, category, count, first in kinds:
            example = self._one("SELECT answer FROM items WHERE place = ?", first)[0]
            examples = self._database.execute(
                "SELECT place, item_id FROM items WHERE state = 0 AND kind IS ? AND category IS ? ORDER BY place "
                "LIMIT ?",
                [kind, category, EXAMPLES],
            ).fetchall()
            found.append({"kind": kind, "category": category, "count": count, "example": example, "items": examples})
        return found

    def _counts(self, column: str, where: str) -> dict[str, int]:
        sql = f"SELECT {column}, count(*) FROM items WHERE {where} GROUP BY 1 ORDER BY 2 DESC LIMIT 50"  # noqa: S608
        return dict(self._database.execute(sql).fetchall())

    def _runs(self) -> list[tuple[int, int]]:
        """The last runs that have made results, and how many."""
        sql = "SELECT run, count(*) FROM items GROUP BY 1 ORDER BY 1 DESC LIMIT ?"
        return self._database.execute(sql, [MOST_RUNS]).fetchall()

    def _groups(self, column: str) -> list[dict[str, Any]]:
        """Sums by a column, of what this run has sent."""
        names = ("name", "items", "failed", "input", "output", "cached", "written", "cost", "seconds")
        sql = (
            f"SELECT {column}, count(*), sum(state = 0), sum(input), sum(output), sum(cached), sum(written), "  # noqa: S608
            "sum(cost), avg(seconds) FROM items WHERE reused IS NULL AND state < 2 GROUP BY 1 ORDER BY 2 DESC LIMIT 20"
        )
        return [dict(zip(names, row, strict=True)) for row in self._database.execute(sql)]


def _whole(count: int) -> int:
    """A count that SQLite can hold."""
    return min(max(count, 0), 1 << 60)
