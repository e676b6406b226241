"""What a run would use and cost, estimated from a sample of its items. Pure: numbers in, numbers out.

The length of every prompt is known, in bytes; how many tokens a byte makes is measured on a random sample. The estimate
is the ratio of sums, and its error that of a ratio in a sample of ``n`` of ``N`` drawn without replacement (Cochran,
*Sampling Techniques*, 1977, 6.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._shown import amount
from .forecasting import Interval, student

LEAST_BYTES, MOST_BYTES = 2.0, 6.0
"""Bytes per token, from Asian languages to English prose: the range where nothing was counted."""
ASSUMED_BYTES = 4.0


@dataclass(frozen=True)
class RunEstimate:
    """What a run would use and cost. No prompt was sent to be answered.

    Args:
        requests: The number of items.
        sampled: How many of them were counted.
        input_tokens: Tokens of all prompts: the interval that holds nine times in ten.
        output_tokens: Tokens of all answers expected: ``max_tokens`` each, at most 256.
        most_output_tokens: Tokens of all answers if each has its maximum length; None: there is none.
        cost: What that costs, US dollars: prompts alone at their lowest, the expectation, and the most; the last is
            None if answers have no maximum length. None: a price is unknown.
        counted_by: How tokens were counted, in words, with the error.
        sent_to_count: How many prompts the provider was sent to count their tokens, which costs nothing.
    """

    requests: int
    sampled: int
    input_tokens: Interval
    output_tokens: int
    most_output_tokens: int | None
    cost: tuple[float, float, float | None] | None
    counted_by: str
    sent_to_count: int = 0

    def __str__(self) -> str:
        low, expected, high = self.input_tokens
        most = "no maximum is set" if self.most_output_tokens is None else f"at most {self.most_output_tokens:,}"
        sent = "nothing was sent"
        if self.sent_to_count:
            sent = (
                f"{self.sent_to_count:,} prompts were sent to the endpoint that counts tokens; no answer was generated"
            )
        lines = [
            f"{self.requests:,} requests; {sent}",
            f"input   {expected:,.0f} tokens ({low:,.0f} to {high:,.0f}), counted by {self.counted_by}",
            f"output  {self.output_tokens:,} tokens expected ({most})",
        ]
        if self.cost is None:
            lines.append("cost    unknown: a price is not known")
        else:
            least, about, highest = self.cost
            end = "no maximum" if highest is None else f"at most ${amount(highest)}"
            lines.append(f"cost    about ${amount(about)} (${amount(least)} for prompts alone; {end})")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = ("low", "expected", "high")
        return {
            "requests": self.requests,
            "sampled": self.sampled,
            "input_tokens": {name: round(value) for name, value in self.input_tokens._asdict().items()},
            "output_tokens": self.output_tokens,
            "most_output_tokens": self.most_output_tokens,
            "cost": None
            if self.cost is None
            else {
                name: None if value is None else round(value, 6) for name, value in zip(names, self.cost, strict=True)
            },
            "counted_by": self.counted_by,
            "sent_to_count": self.sent_to_count,
        }


def by_sample(counted: Sequence[tuple[float, float]], expected: float, items: int) -> Interval:
    """Return the tokens of all items.

    Args:
        counted: Of the sampled items: tokens by their length, and tokens as counted.
        expected: Tokens of all items by their length.
        items: The number of all items.
    """
    count = len(counted)
    by_length = sum(length for length, _ in counted)
    ratio = sum(tokens for _, tokens in counted) / by_length
    total = ratio * expected
    if count >= items or count < 2:
        return Interval(total, total, total)
    variance = sum((tokens - ratio * length) ** 2 for length, tokens in counted) / (count - 1)
    margin = student(count - 1) * items * math.sqrt(variance * (1 - count / items) / count)
    return Interval(max(total - margin, 0.0), total, total + margin)


def by_length(expected: float) -> Interval:
    """Return the tokens of all items where none can be counted: 4 bytes each, with the range of languages."""
    return Interval(expected * ASSUMED_BYTES / MOST_BYTES, expected, expected * ASSUMED_BYTES / LEAST_BYTES)
