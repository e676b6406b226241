"""What limited a run, in words, and what to change. Used by ``ProcessingStats.explain()`` and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Bounds(Protocol):
    """The counters of a run that show what limited it."""

    @property
    def bound_by(self) -> Mapping[str, float]:
        """Seconds by reason."""
        ...

    @property
    def limits(self) -> Sequence[Mapping[str, Any]]:
        """The limits in force."""
        ...

    @property
    def concurrency(self) -> float:
        """The concurrency that was found."""
        ...


SMALLEST_SHARE = 0.05
"""Smallest share of the run for which a reason is listed."""

_WORDS = {
    "workers": (
        "all workers were busy",
        "raise the concurrency, or set concurrency='auto' to have it found out",
    ),
    "concurrency": (
        "concurrency was at the provider's limit ({concurrency:.0f} at the end)",
        "a higher limit at the provider; in a short run it may still have been growing",
    ),
    "pace": (
        "the request rate was at the provider's limit, found from its rate limits",
        "a higher limit at the provider; if you know your limits, set them to avoid rate limits",
    ),
    "cooldown": (
        "the run was in a cooldown after a rate limit",
        "set your limits (max_requests_per_minute, quotas) to avoid rate limits; with concurrency= in place of "
        "max_workers, a run pauses only if the server says so",
    ),
    "outage": (
        "the provider was down: connections failed, or it answered with server errors",
        "nothing here; RetryConfig.outage_patience limits how long a run waits",
    ),
    "slow_start": (
        "starts were spaced out",
        "set RateLimitConfig.slow_start_items=0 or concurrency='auto', and no startup_ramp",
    ),
    "other_runs": ("other runs with the same limits had their turn", "they share one quota scope; run fewer at once"),
    "estimates": ("the token estimator was awaited", "use a faster one, or none: lengths are estimated by default"),
    "budget": (
        "the rest of the budget was reserved for attempts in flight",
        "set max_tokens, so that less is reserved for each",
    ),
    "consumer": ("results were not taken", "use a faster consumer, or a larger max_result_queue_size"),
    "paused": ("the run was paused", "you paused it; call resume()"),
    "backoff": (
        "all remaining items were in backoff after errors",
        "see why they failed; RetryConfig sets the backoff and the number of attempts",
    ),
    "source": (
        "nothing was waiting to start",
        "nothing, while the last attempts end; before that, add items faster",
    ),
}
_QUOTA = (
    "{limit} {whose} used up",
    "a higher limit at the provider{yours}; for tokens also shorter prompts or max_tokens",
)


def explain(stats: Bounds) -> str:
    """Return one line per reason, the longest first: its share of the time, what it means, what to change."""
    whole = sum(stats.bound_by.values())
    if whole <= 0:
        return "nothing was run"
    lines = []
    for name, seconds in sorted(stats.bound_by.items(), key=lambda entry: -entry[1]):
        share = seconds / whole
        if share >= SMALLEST_SHARE:
            meaning, remedy = _quota(stats, name) if name.startswith("quota:") else _WORDS[name]
            text = meaning.format(concurrency=stats.concurrency)
            lines.append(f"{share:4.0%} of {whole:.1f} s: {text}. To change it: {remedy}.")
    return "\n".join(lines)


def _quota(stats: Bounds, name: str) -> tuple[str, str]:
    measure = name.partition(":")[2]
    rows = [row for row in stats.limits if row["measure"] == measure]
    row = min(rows, key=lambda row: row["amount"] / row["per"], default=None)
    words = measure.replace("_", " ")
    if row is None:
        return _QUOTA[0].format(limit=f"a limit of {words}", whose="was"), _QUOTA[1].format(yours="")
    times = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86_400.0: "day"}
    time = times.get(row["per"], f"{row['per']:g} s")
    whose = "(reported by the provider) was" if row["learned"] else "(set by you) was"
    yours = "" if row["learned"] else ", and here"
    return (
        _QUOTA[0].format(limit=f"the limit of {row['amount']:,.0f} {words} per {time}", whose=whose),
        _QUOTA[1].format(yours=yours),
    )


def cause_of(name: str) -> str:
    """Return what a stalled run is waiting for."""
    measure = name.partition(":")[2].replace("_", " ")
    return f"the provider's limit of {measure} is used up" if measure else "the provider requested a pause"
