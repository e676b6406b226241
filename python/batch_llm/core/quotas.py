"""How many requests and tokens may pass in which time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._checks import check_number, reject

SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
"""The times that quotas are for, in seconds."""


@dataclass(frozen=True)
class Quota:
    """Limits per period. All that are not None apply together, to each quota scope of the run.

    ::

        Quota(requests=500, tokens=200_000)                       # per minute
        Quota(input_tokens=50_000, output_tokens=10_000)          # as Anthropic counts
        Quota(requests=10_000, per="day")

    A limit per second or minute is spread over its period, with bursts of up to ``quota_burst_seconds``' worth. A limit
    per hour or day may be used up at once; the run then waits until enough of that usage is an hour or a day old.

    Args:
        requests: Attempts, > 0; fractions allowed.
        tokens: Tokens of prompts and answers.
        input_tokens: Tokens of prompts.
        output_tokens: Tokens of answers.
        per: ``"second"``, ``"minute"``, ``"hour"`` or ``"day"``.

    Raises:
        ValueError: If a value is invalid; the message names the field, the value and a remedy.
    """

    requests: float | None = None
    tokens: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    per: Literal["second", "minute", "hour", "day"] = "minute"

    def __post_init__(self) -> None:
        if self.per not in SECONDS:
            reject(f"per must be one of {', '.join(SECONDS)}", repr(self.per), "Most providers count per minute.")
        for name in ("requests", "tokens", "input_tokens", "output_tokens"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                if value <= 0:
                    reject(f"{name} must be > 0", value, "Use None for no limit.")

    def _limits(self) -> list[tuple[str, float, float]]:
        """What is counted, how much of it, in how many seconds."""
        names = ("requests", "tokens", "input_tokens", "output_tokens")
        given = [(name, getattr(self, name)) for name in names]
        return [(name, float(value), SECONDS[self.per]) for name, value in given if value is not None]
