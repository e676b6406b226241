"""A run that is over, as its store and the registry know it. Used by ``attached``.

The store is what counts: it is there also on another machine, and after the registry has forgotten the run.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .._core import Journal
from .._lanes import BatchProgress
from .._results import ProcessingStats, is_reason
from ..artifacts import store_at
from ..errors import ERROR_MESSAGE_LIMIT, ArtifactError, ControlError
from ..inspection import Inspection, inspect
from . import changes, registry
from .reports import explained

if TYPE_CHECKING:
    from .registry import Entry
    from .shapes import Cost, Explanation, Requeued, Status, Tail

NOTHING_REUSED = 3


class FinishedRun:
    """A run that is over.

    Args:
        entry: What the registry knows of it; for a store without a run, a made-up entry in the state ``"unknown"``.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @classmethod
    def of_store(cls, path: str) -> FinishedRun:
        """Return the last run of a store that the registry does not know.

        Raises:
            ControlError: If there is no such store.
        """
        made = cls(registry.Entry(id="", name=path, state="unknown", store=registry.store_name(path)))
        events = made._look().events
        for event in reversed(events):
            if event["type"] == "started" and isinstance(event.get("run"), str):
                made.entry.id, made.entry.started_at = event["run"], event["at"]
                break
        ended = made._ended(events)
        if ended is not None:
            made.entry.state, made.entry.ended_at = "ended", ended["at"]
        return made

    def _look(self) -> Inspection:
        if self.entry.store is None:
            raise ControlError("store", f"the run {self.entry.id} had no store, so nothing more is known about it")
        try:
            return inspect(self.entry.store)
        except (ArtifactError, OSError, ValueError) as error:
            raise ControlError("store", f"the store cannot be read: {error}") from error

    def _ended(self, events: list[dict[str, Any]]) -> Any:
        """What was written at the end of the run."""
        for event in reversed(events):
            is_meant = not self.entry.id or event.get("run") == self.entry.id
            if event["type"] == "ended" and is_meant and isinstance(event.get("status"), dict):
                return event
        return None

    def _last_words(self) -> dict[str, Any]:
        """The status at the end of the run, from the registry or the store."""
        if self.entry.status is not None:
            return self.entry.status
        ended = None if self.entry.store is None else self._ended(self._look().events)
        return {} if ended is None else ended["status"]

    def status(self) -> Status:
        """Return its status; the items of its store, if there is one."""
        known = self._last_words()
        made: Any = {
            "run": self.entry.shown(),
            "state": self.entry.state,
            "elapsed": known.get("elapsed"),
            "progress": dict.fromkeys(_COUNTS, 0)
            | {"total_is_final": True, "batches": BatchProgress()._asdict()}
            | known.get("progress", {}),
            "rate": None,
            "seconds_left": None,
            "forecast": None,
            "errors": known.get("errors", {}),
            "tokens": {"input": 0, "output": 0, "cached_input": 0} | known.get("tokens", {}),
            "cost": known.get("cost"),
            "settings": known.get("settings"),
            "waits": None,
            "termination": known.get("termination"),
            "changes": known.get("changes", []),
        }
        made |= {name: known[name] for name in ("adaptive", "error") if name in known}
        if self.entry.store is not None:
            view = self._look()
            made["changes"] = changes.changes_of(view.events)[-_MOST_CHANGES:]
            if not known:
                made["progress"] |= {
                    "total": view.items, "processed": view.items, "succeeded": view.succeeded, "failed": view.failed,
                }  # fmt: skip
                made["errors"] = dict(view.errors)
                made["tokens"] = _tokens(view)
                made["cost"] = _spent(view)
        status: Status = made
        return status

    def explain(self, *, over_time: bool = False) -> Explanation:
        """Return what limited it; ``over_time``: in each interval, too, if its store has that.

        Raises:
            ControlError: If it has left nothing about that.
        """
        found: Any = self._last_words().get("explanation")
        stored = self._over_time() if over_time or found is None else None
        if found is None and stored is not None:
            found = _of_killed(stored, self._look().items)
        if found is None:
            raise ControlError(
                "store", "the run was killed early, or is older than this command: what limited it is not known"
            )
        if over_time and stored is not None:
            found = found | {"bound_over_time": {name: stored[name] for name in ("interval", "end", "seconds")}}
        explanation: Explanation = found
        return explanation

    def _over_time(self) -> dict[str, Any] | None:
        """What limited it over time, from its store: the one that began when this run did."""
        if self.entry.store is None:
            return None
        view = self._look()
        stored = list(view.bound_over_time.values())
        if not self.entry.id:
            return stored[-1] if stored else None
        for event in view.events:
            if event["type"] == "started" and event.get("run") == self.entry.id:
                return next((one for one in stored if one.get("began_at") == event.get("began_at")), None)
        return None

    def cost(self) -> Cost:
        """Return what it has cost: of all runs of its store, if it has one."""
        if self.entry.store is None:
            found: Any = self._last_words().get("cost_report")
            if found is None:
                raise ControlError("store", "the run was killed and had no store: its cost is not known")
            known: Cost = found | {"forecast": None}
            return known
        view = self._look()
        spent = _spent(view)
        return {
            "spent": spent,
            "projected": spent,
            "forecast": None,
            "budget": (self._last_words().get("settings") or {}).get("budget"),
            "tokens": _tokens(view),
            "attempts_of_unknown_usage": view.records_without_cost,
        }

    def tail(self, most: int, after: int = 0) -> Tail:
        """Return its last failures, from its store."""
        stored: deque[Any] = deque(maxlen=most)
        number = 0
        for number, result in enumerate(self._look().failures(), 1):
            if number > after:
                error = " ".join(str(result.error).split())[:ERROR_MESSAGE_LIMIT]
                stored.append({
                    "number": number, "at": None, "id": result.item_id, "category": result.error_category,
                    "error": error, "attempts": result.attempts,
                })  # fmt: skip
        return {"failures": list(stored), "last": number}

    def requeue(
        self,
        category: str | None,
        items: frozenset[str] | None,
        by: dict[str, Any],
        reason: str | None,
        *,
        dry_run: bool,
    ) -> Requeued:
        """Have items requested again by the next run with its store.

        Args:
            category: Of those that have failed, the ones of this category.
            items: Or those with these ids, also if they have succeeded.
            by: Who wants it.
            reason: Why.
            dry_run: Whether only to count.

        Raises:
            ControlError: If there is none of these, or the store cannot be written.
        """
        view = self._look()
        if items is not None:
            found = sum(result.item_id in items for result in view.results())
            if not found:
                raise ControlError(
                    "refused", f"the store has none of these items: {', '.join(sorted(items))[:ERROR_MESSAGE_LIMIT]}"
                )
        else:
            found = view.failed if category is None else view.errors.get(category, 0)
            if not found and category is not None:
                known = ", ".join(view.errors) or "none"
                raise ControlError("refused", f"nothing failed with {category!r}; categories: {known}")
        if not dry_run and found:
            chosen: dict[str, Any] = {} if items is None else {"items": sorted(items)}
            chosen |= {} if category is None else {"category": category}
            self._note(changes.text(changes.event("requeue", by, reason, count=found, **chosen)))
        return {"dry_run": dry_run, "items": found, "when": "next_run"}

    def _note(self, event: str) -> None:
        assert self.entry.store is not None
        try:
            store = store_at(self.entry.store)
            journal = Journal(store.path, store._format, store, NOTHING_REUSED)
            try:
                journal.note(event)
            finally:
                journal.close()
        except (ArtifactError, OSError, ValueError) as error:
            raise ControlError("store", f"the store cannot be written: {error}") from error


_MOST_CHANGES = 100
_COUNTS = (
    "total", "processed", "succeeded", "failed", "not_sent", "reused", "requeued", "queued", "in_flight", "in_batches",
    "retrying",
)  # fmt: skip


def _of_killed(stored: dict[str, Any], items: int) -> dict[str, Any] | None:
    """What limited a killed run until that was written last; None: that was at once. ``items``: those in its store."""
    sums = {name: sum(times) for name, times in stored["seconds"].items()}
    bound_by: dict[str, float] = {name: time for name, time in sums.items() if time > 0 and is_reason(name)}
    if stored["end"] < stored["interval"] or not bound_by:
        return None
    found = explained(ProcessingStats(total=items, start_time=stored.get("began_at"), bound_by=bound_by))
    found["text"] += f"\nThe run was killed; this is known of its first {stored['end']:.0f} s."
    return found


def _tokens(view: Inspection) -> Any:
    return {"input": view.input_tokens, "output": view.output_tokens, "cached_input": view.cached_input_tokens}


def _spent(view: Inspection) -> float | None:
    """What the runs of a store have cost; None: it is unknown."""
    return view.cost if view.cost or not view.records_without_cost else None
