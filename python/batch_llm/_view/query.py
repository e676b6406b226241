"""What a reader of a run asks for: a search, a filter, an order; as SQL over the index. Used by ``index``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .items import FAILED, NOT_SENT, SUCCEEDED

LONGEST_SEARCH = 500
"""Characters."""
MOST_WORDS = 20

ORDERS = {
    "place": "place", "id": "item_id", "seconds": "seconds", "waited": "waited", "cost": "cost", "attempts": "attempts",
    "output": "output", "input": "input",
}  # fmt: skip
FILTERS = {
    "all": "1",
    "succeeded": f"state = {SUCCEEDED}",
    "failed": f"state = {FAILED}",
    "not_sent": f"state = {NOT_SENT}",
    "retried": "retries > 0",
    "slow": "seconds >= :slow",
    "expensive": "cost >= :expensive AND cost > 0",
    "truncated": "truncated",
    "reused": "reused IS NOT NULL",
}
"""``slow`` and ``expensive``: the twentieth part with the longest time and the highest cost."""
# Scripts without spaces: each letter is a word, so that a search finds what stands within a sentence.
_LETTERS = re.compile(r"([\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f])")
_WORDS = re.compile(r'"([^"]*)"|([^\s"]+)')


@dataclass(frozen=True)
class Query:
    """What is to be listed.

    Args:
        search: Words that a prompt, an answer or an id has; the last one may be a beginning. In quotes: next to each
            other.
        only: A name from ``FILTERS``.
        category: Only items that failed with it.
        kind: Only items that failed with such a message.
        run: Only items whose result this run of the store has made.
        order: A name from ``ORDERS``.
        descending: Whether the largest comes first.
    """

    search: str = ""
    only: str = "all"
    category: str | None = None
    kind: str | None = None
    run: int | None = None
    order: str = "place"
    descending: bool = False

    @property
    def needs_limits(self) -> bool:
        """Whether it depends on which items are slow or expensive."""
        return ":" in FILTERS[self.only]

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Query:
        """Make one of parameters, as a URL has them.

        Raises:
            ValueError: If one has no such value; the message names it.
        """
        only, order = given.get("only", "all"), given.get("order", "place")
        for name, value, known in (("only", only, FILTERS), ("order", order, ORDERS)):
            if value not in known:
                raise ValueError(f"{name}={value[:80]!r}: it is one of {', '.join(known)}")
        search = given.get("search", "")
        if len(search) > LONGEST_SEARCH:
            raise ValueError(f"search has {len(search):,} characters; at most {LONGEST_SEARCH} are looked for")
        run = given.get("run") or None
        if run is not None and not re.fullmatch(r"[0-9]{1,18}", run):
            raise ValueError(f"run={run[:80]!r}: it is the number of a run")
        return cls(
            search.strip(), only, given.get("category") or None, given.get("kind") or None,
            None if run is None else int(run), order, given.get("descending") == "1",
        )  # fmt: skip

    def sql(self, limits: Mapping[str, float | None], *, all_words: bool) -> tuple[str, dict[str, Any]]:
        """Return what selects the places of these items, in their order.

        Args:
            limits: Those of ``slow`` and others.
            all_words: Whether all items whose words are in the index are in lists.
        """
        conditions, values = [FILTERS[self.only]], dict(limits)
        found: dict[str, Any] = {**values}
        if self.category is not None:
            conditions.append("state = 0 AND category = :category")
            found["category"] = self.category
        if self.kind is not None:
            conditions.append("state = 0 AND kind = :kind")
            found["kind"] = self.kind
        if self.run is not None:
            conditions.append("run = :run")
            found["run"] = self.run
        words = match_of(self.search)
        if words is not None:
            conditions.append("place IN (SELECT rowid FROM words WHERE words MATCH :words)")
            found["words"] = words
        direction = "DESC" if self.descending else "ASC"
        if words is not None and all_words and self == Query(self.search, descending=self.descending):
            # The words are in this order already.
            return f"SELECT rowid FROM words WHERE words MATCH :words ORDER BY rowid {direction}", found  # noqa: S608
        column = ORDERS[self.order]
        order = f"{column} {direction}" if column == "place" else f"{column} IS NULL, {column} {direction}, place"
        return f"SELECT place FROM items WHERE {' AND '.join(conditions)} ORDER BY {order}", found  # noqa: S608


def indexed(text: str) -> str:
    """Return a text as it is put into the index of words."""
    return text if text.isascii() else _LETTERS.sub(r" \1 ", text)


def match_of(search: str) -> str | None:
    """Return a search as SQLite's full-text index takes it; None: there is no word in it."""
    parts = []
    for phrase, word in _WORDS.findall(search)[:MOST_WORDS]:
        text = indexed(phrase or word).replace('"', " ").replace("\0", " ").strip()
        if any(letter.isalnum() for letter in text):
            parts.append(f'"{text}"')
    if not parts:
        return None
    if not search.endswith('"'):
        parts[-1] += "*"
    return " ".join(parts)
