"""The reasons that limit a run, in words: what each means, and what to change. Used by ``explain`` and ``verdict``."""

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
    def sent_live(self) -> Mapping[str, int]:
        """Requests that were sent one by one instead of in batches, by reason."""
        ...

    @property
    def concurrency(self) -> float:
        """The concurrency that was found."""
        ...

    @property
    def prompt_cache(self) -> Mapping[str, int]:
        """Requests by what they found in the provider's prompt cache."""
        ...


_WORDS = {
    "workers": (
        "all workers were busy",
        "raise the concurrency (max_workers), or set concurrency='auto' to find it automatically",
    ),
    "concurrency": (
        "concurrency was at the limit that 'auto' had found{concurrency}",
        "get a higher limit from the provider",
    ),
    "rising": (
        "'auto' was still raising the concurrency{concurrency}",
        "pass a number as concurrency, if you know it; in a short run, this is normal",
    ),
    "pace": (
        "the request rate was at the provider's limit, estimated from its 429 responses",
        "get a higher limit from the provider; if you know your limits, set them to avoid rate limits",
    ),
    "cooldown": (
        "the run was in a cooldown after a rate limit",
        "set your limits (max_requests_per_minute, quotas) to avoid rate limits; with concurrency= in place of "
        "max_workers, a run pauses only if the server requests it",
    ),
    "outage": (
        "the provider was down: connections failed, or it returned server errors",
        "wait until it is up again; RetryConfig.outage_patience limits how long a run waits",
    ),
    "slow_start": (
        "starts were spaced out, by a slow start or a startup ramp",
        "set RateLimitConfig.slow_start_items=0 or concurrency='auto', and remove startup_ramp",
    ),
    "other_runs": (
        "other runs of the same quota scope had their turn",
        "run fewer of them at the same time",
    ),
    "estimates": (
        "items waited for the token estimator",
        "use a faster one, or none: by default tokens are estimated from the length of the prompt",
    ),
    "budget": (
        "the rest of the budget was reserved for attempts in flight",
        "set max_tokens, or lower it, so that each attempt reserves less; or raise the budget",
    ),
    "tools": (
        "the tools of conversations were working",
        "make them faster, or raise the concurrency, so that more conversations are open",
    ),
    "prompt_cache": (
        "requests waited until the first one with the same prefix had written the provider's prompt cache",
        "set cache_prompt=False, but then the others pay for that prefix in full",
    ),
    "store": (
        "results waited to be written to the store",
        "put the store on a faster disk",
    ),
    "last_items": (
        "all items had been sent, and the last ones were in flight",
        "use a model that answers faster; at the end of a short run, this is normal",
    ),
    "consumer": ("finished results waited to be consumed", "consume them faster, or raise max_result_queue_size"),
    "paused": ("the run was paused", "call resume()"),
    "backoff": (
        "all remaining items were in backoff after errors",
        "check why they failed; RetryConfig sets the backoff and the number of attempts",
    ),
    "batches": (
        "requests were in batches at the provider",
        "use lane='live' if time matters more than half the price",
    ),
    "source": (
        "nothing was waiting to start, because the source had yielded no more items yet",
        "have the source yield items faster",
    ),
}
_MEASURES = ("requests", "tokens", "input_tokens", "output_tokens")
RISING_SECONDS = 30.0
"""Seconds of a run for which ``"auto"`` may still be raising the concurrency."""


def meaning_of(stats: Bounds, name: str) -> tuple[str, str]:
    """Return what a reason means, and what to change."""
    if name.startswith("quota:"):
        return _quota(stats, name)
    is_rising = name == "concurrency" and sum(stats.bound_by.values()) < RISING_SECONDS
    meaning, remedy = _WORDS["rising" if is_rising else name]
    return meaning.format(concurrency=at_the_end(stats)), remedy


def at_the_end(stats: Bounds) -> str:
    """The concurrency that was found, in parentheses; empty: it is not known."""
    return f" ({stats.concurrency:.0f} at the end)" if stats.concurrency > 0 else ""


def is_reason(name: str) -> bool:
    """Whether this is a reason of the engine's, and not one that a later version has, or no version."""
    return (name in _WORDS and name != "rising") or name in {f"quota:{measure}" for measure in _MEASURES}


def _quota(stats: Bounds, name: str) -> tuple[str, str]:
    measure = name.partition(":")[2]
    rows = [row for row in stats.limits if row["measure"] == measure]
    row = min(rows, key=lambda row: row["amount"] / row["per"], default=None)
    words = measure.replace("_", " ")
    more = "; shorten prompts or lower max_tokens too" if "tokens" in measure else ""
    if row is None:
        return f"a limit on {words} was used up", f"raise it{more}"
    times = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86_400.0: "day"}
    time = times.get(row["per"], f"{row['per']:g} s")
    whose = "(reported by the provider) was" if row["learned"] else "(set by you) was"
    remedy = "get a higher limit from the provider" if row["learned"] else "raise the limit, if the provider allows it"
    return f"the limit of {row['amount']:,.0f} {words} per {time} {whose} used up", remedy + more


def cause_of(name: str) -> str:
    """Return what a stalled run is waiting for."""
    measure = name.partition(":")[2].replace("_", " ")
    return f"the provider's limit on {measure} is used up" if measure else "the provider requested a pause"
