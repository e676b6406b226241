"""What bound a run, in words, and what to change. Used by ``ProcessingStats.explain()`` and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Bounds(Protocol):
    """Of a run's counters, those that say what bound it."""

    @property
    def bound_by(self) -> Mapping[str, float]:
        """Seconds by reason."""

    @property
    def limits(self) -> Sequence[Mapping[str, Any]]:
        """The limits in force."""

    @property
    def concurrency(self) -> float:
        """The concurrency that was found."""


SHARE_WORTH_SAYING = 0.05
"""A reason that held for less of the run than this is left out."""

_WORDS = {
    "workers": (
        "all workers were busy",
        "raise the concurrency, or set concurrency='auto' to have it found out",
    ),
    "concurrency": (
        "as many attempts were on as the provider takes ({concurrency:.0f} at the end)",
        "its capacity is the bound; on a short run it may still have been growing",
    ),
    "pace": (
        "attempts followed each other as fast as the provider takes, which it had said with rate limits",
        "a higher limit at the provider; if you know your limits, set them, and no rate limit will be met",
    ),
    "cooldown": (
        "everybody paused after a rate limit",
        "set your limits (max_requests_per_minute, quotas), so that they are not met; where max_workers is set, "
        "concurrency in its place pauses nobody unless the server says so",
    ),
    "outage": (
        "the provider was away: connections failed, or it answered with server errors",
        "it is the provider's to change; RetryConfig.outage_patience says how long a run waits",
    ),
    "slow_start": (
        "starts were spaced out",
        "RateLimitConfig.slow_start_items=0 or concurrency='auto' does without; so does a run without a startup_ramp",
    ),
    "other_runs": ("other runs with the same limits were next", "they share one quota scope; run fewer at once"),
    "estimates": ("the token estimator was awaited", "a faster one, or none: lengths are estimated by default"),
    "budget": (
        "what is left of the budget was reserved for attempts that were on",
        "set max_tokens, so that less has to be reserved for each",
    ),
    "consumer": ("results were not taken", "a faster consumer, or a larger max_result_queue_size"),
    "paused": ("the run was paused", "it was you who did"),
    "backoff": (
        "everything that was left waited to be tried again after errors",
        "see why they failed; RetryConfig says how long they wait, and how often they are tried",
    ),
    "source": (
        "nothing was waiting to start",
        "the last attempts were on, or whoever adds items is slower than the provider",
    ),
}
_QUOTA = (
    "{limit} {whose} used up",
    "a higher limit at the provider{yours}; for tokens also shorter prompts or max_tokens",
)


def explain(stats: Bounds) -> str:
    """One line per reason, the longest first: its share of the time, what it means, what to change."""
    whole = sum(stats.bound_by.values())
    if whole <= 0:
        return "nothing was run"
    lines = []
    for name, seconds in sorted(stats.bound_by.items(), key=lambda entry: -entry[1]):
        share = seconds / whole
        if share >= SHARE_WORTH_SAYING:
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
    whose = "(told by the provider) was" if row["learned"] else "(set by you) was"
    yours = "" if row["learned"] else ", and here"
    return (
        _QUOTA[0].format(limit=f"the limit of {row['amount']:,.0f} {words} per {time}", whose=whose),
        _QUOTA[1].format(yours=yours),
    )


def cause_of(name: str) -> str:
    """What is waited for in a standstill."""
    measure = name.partition(":")[2].replace("_", " ")
    return f"the provider's limit of {measure} is used up" if measure else "the provider asked for a pause"
