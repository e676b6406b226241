"""What limited a run most: one sentence, with one thing to do. Used by ``ProcessingStats``.

The engine knows for how long each reason kept attempts from starting; the longest is the limit, unless what the run has
counted besides shows the cause behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .bounds import Bounds, meaning_of

LONGEST_ERROR = 300
BUSY = 0.5
"""The share of the time for which the event loop is busy, from which on it is the limit."""
SLOWER = 3.0
"""How many times as long as at others a request takes at an endpoint that is called slow."""
IN_FLIGHT = frozenset({"workers", "concurrency", "last_items"})
"""Reasons behind which is whatever attempts in flight wait for."""


class Facts(Bounds, Protocol):
    """The counters of a run that show the cause."""

    @property
    def total(self) -> int:
        """Items so far."""
        ...

    @property
    def processed(self) -> int:
        """Items with a result."""
        ...

    @property
    def succeeded(self) -> int:
        """Those that succeeded."""
        ...

    @property
    def failed(self) -> int:
        """Those that failed."""
        ...

    @property
    def not_sent(self) -> int:
        """Those that were never sent."""
        ...

    @property
    def replayed(self) -> int:
        """Those whose result was there already."""
        ...

    @property
    def error_counts(self) -> Mapping[str, int]:
        """Failed items by error."""
        ...

    @property
    def endpoints(self) -> Sequence[Mapping[str, Any]]:
        """Attempts, and the seconds for which they were in flight, by endpoint."""
        ...

    @property
    def loop_busy(self) -> float:
        """The share of the time for which the event loop was busy."""
        ...

    @property
    def failure(self) -> str:
        """The error of the first failed item."""
        ...

    @property
    def ended(self) -> str:
        """Why the run ended early, in one word."""
        ...

    @property
    def ended_reason(self) -> str:
        """The same in words."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What limited a run most.

    Args:
        limit: The limit: a reason of ``bound_by``; or ``"loop"`` (the event loop was busy), ``"endpoint"`` (one
            endpoint was slower than the others), ``"failures"`` (all items failed), ``"reused"`` (no item had to be
            sent), ``"deadline"``, ``"outage"``, ``"store"`` or ``"budget"`` if that ended the run; ``"nothing"``, if
            nothing ran.
        reason: What it means, for this run.
        remedy: What to do.
    """

    limit: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        text = f"{self.reason}: {self.remedy}." if self.remedy else f"{self.reason}."
        return text[:1].upper() + text[1:]


def verdict(stats: Facts) -> Verdict:
    """Return what limited a run most."""
    found = _end_of(stats)
    if found is not None:
        return found
    whole = sum(stats.bound_by.values())
    if whole <= 0:
        return Verdict("nothing", "no time was recorded: nothing has run", "")
    if not stats.total and not stats.processed:
        return Verdict("nothing", "there were no items", "")
    name = max(stats.bound_by, key=lambda name: stats.bound_by[name])
    if name in IN_FLIGHT:
        return _of_attempts(stats, name, whole)
    meaning, remedy = meaning_of(stats, name)
    return Verdict(name, f"for {stats.bound_by[name] / whole:.0%} of the time, {meaning}", _first(remedy))


def _end_of(stats: Facts) -> Verdict | None:
    """What ended the run early, or why nothing came of it."""
    reason = " ".join(stats.ended_reason.split()).rstrip(".")
    if stats.ended == "budget_exceeded":
        return Verdict("budget", f"the run ended early, because {reason}", "raise the budget")
    if stats.ended == "batch_timeout":
        return Verdict(
            "deadline", f"the run ended early, because {reason}", "raise batch_timeout (--deadline), or the concurrency"
        )
    if stats.ended == "provider_outage":
        return Verdict("outage", f"the run ended early, because {reason}", "run it again when the provider is up")
    if stats.ended == "artifact_error":
        return Verdict("store", f"the run ended early, because {reason}", "free disk space for the store, or move it")
    if stats.failed and not stats.succeeded:
        name, count = max(stats.error_counts.items(), key=lambda entry: entry[1], default=("an unknown error", 0))
        which = _which(stats)
        share = "" if count in (0, stats.failed) else f", {count:,} of them"
        error = " ".join(stats.failure.split())[:LONGEST_ERROR].rstrip(". ") or name
        what = error if error.startswith(name) else f"{name} ({error})"
        return Verdict("failures", f"{which} failed{share} with {what}", _remedy(name, error))
    if stats.ended == "fail_fast":
        return Verdict("failures", f"the run ended early, because {reason}", "correct that, then run it again")
    if stats.replayed and stats.replayed == stats.processed:
        return Verdict("reused", "all results were reused, so nothing was sent", "")
    return None


_REMEDIES = (
    (("Authentication", "Permission", "API key", "api key", "401", "403"), "check the API key"),
    (("NotFound", "404"), "check the name of the model and the address"),
    (("Connection", "Connect", "connection"), "check the address and the network"),
    (("Timeout", "timed out"), "raise timeout_per_item (--timeout), or lower max_tokens"),
    (("RateLimit", "429"), "lower the limits of the run to those of your account"),
    (("Validation", "Parse", "JSON", "StructuredOutput"), "look at an answer, and change the prompt or the schema"),
    (("Quota", "Billing", "402"), "check the credit of your account"),
)


def _remedy(name: str, error: str) -> str:
    for text in (name, error):
        for words, remedy in _REMEDIES:
            if any(word in text for word in words):
                return remedy
    return "correct that, then run it again"


def _which(stats: Facts) -> str:
    """The failed items of a run in which none succeeded."""
    if stats.failed == 1:
        return "the only item that was sent" if stats.not_sent else "the only item"
    return f"all {stats.failed:,} items{' that were sent' if stats.not_sent else ''}"


def _of_attempts(stats: Facts, name: str, whole: float) -> Verdict:
    """What attempts in flight wait for; ``whole``: seconds of the run."""
    share = stats.bound_by[name] / whole
    if stats.loop_busy >= BUSY:
        return Verdict(
            "loop",
            f"the event loop was busy for {stats.loop_busy:.0%} of the time, with Python code of the strategy, of "
            "hooks or of the program",
            "move that work to threads, with asyncio.to_thread()",
        )
    used = [endpoint for endpoint in stats.endpoints if endpoint["attempts"]]
    attempts = sum(endpoint["attempts"] for endpoint in used)
    seconds = sum(endpoint["seconds"] for endpoint in used)
    slow = max(used, key=lambda endpoint: endpoint["seconds"] / endpoint["attempts"], default=None)
    if slow is not None and len(used) > 1 and seconds > 0:
        each = slow["seconds"] / slow["attempts"]
        others = (seconds - slow["seconds"]) / (attempts - slow["attempts"])
        if each >= SLOWER * others and slow["seconds"] >= seconds / 2:
            return Verdict(
                "endpoint",
                f"requests to {slow['name']} took {_seconds(each)} each, {each / max(others, 1e-9):,.0f} times as long "
                f"as others, and {slow['seconds'] / seconds:.0%} of the time in flight",
                "send fewer requests there, or none",
            )
    average = f", with attempts that took {_seconds(seconds / attempts)} on average" if attempts else ""
    if name == "last_items":
        meaning = f"for {share:.0%} of the time, all items had been sent{average}"
        return Verdict(name, meaning, "use a model that answers faster")
    meaning, remedy = meaning_of(stats, name)
    return Verdict(name, f"for {share:.0%} of the time, {meaning}{average}", _first(remedy))


def _first(remedy: str) -> str:
    """The first thing to do."""
    return remedy.split("; ", 1)[0].split(", or ", 1)[0]


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
