"""What went on in a run over time, in at most ``MOST`` intervals of equal length. Used by ``index``.

A run is read once, and its length is known only at the end: when it turns out to be longer, pairs of intervals become
one. What is kept does not grow with the number of items.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..timing import AttemptTiming

MOST = 120
"""Intervals."""
SHORTEST = 0.05
"""Shortest interval, seconds."""
LONGEST = 366 * 86_400.0
"""Times beyond this are not believed, seconds."""
WAITS = ("backoff", "cooldown", "worker", "quota", "concurrency")
"""What an attempt can wait for before it starts, in the order in which it is drawn."""
_STEP = math.log(1.15)
_FLOWS = ("done", "failed", "input", "output", "cost", "running", *WAITS)


class Timeline:
    """The attempts of one run over time."""

    def __init__(self) -> None:
        self._width = SHORTEST
        self._flows: dict[str, list[float]] = {name: [0.0] * MOST for name in _FLOWS}
        self._latencies: list[dict[int, int]] = [{} for _ in range(MOST)]
        self._end = 0.0
        self.attempts = 0
        """How many were added."""

    def add(self, attempts: list[AttemptTiming], *, success: bool, tokens: tuple[int, int], cost: float | None) -> None:
        """Add the attempts of an item; what it used counts at its end."""
        end = 0.0
        for attempt in attempts:
            start, seconds = attempt.started_at, attempt.execution_seconds
            if not (0 <= start <= LONGEST and 0 <= seconds <= LONGEST):
                continue
            end = start + seconds
            self._reach(end)
            self._spread("running", start, end)
            at = start
            waits = (
                attempt.retry_backoff_seconds, attempt.cooldown_wait_seconds, attempt.queue_seconds,
                attempt.quota_wait_seconds, attempt.admission_wait_seconds,
            )  # fmt: skip
            for name, wait in zip(reversed(WAITS), reversed(waits), strict=True):
                if 0 < wait <= LONGEST:
                    self._spread(name, max(at - wait, 0.0), at)
                    at = max(at - wait, 0.0)
            if attempt.success and seconds > 0:
                bucket = round(math.log(seconds) / _STEP)
                bins = self._latencies[self._place(end)]
                bins[bucket] = bins.get(bucket, 0) + 1
            self.attempts += 1
        if not attempts:
            return
        self._reach(end)
        place = self._place(end)
        flows = self._flows
        flows["done" if success else "failed"][place] += 1
        flows["input"][place] += tokens[0]
        flows["output"][place] += tokens[1]
        flows["cost"][place] += cost or 0.0

    def _place(self, at: float) -> int:
        return min(int(at / self._width), MOST - 1)

    def _reach(self, end: float) -> None:
        self._end = max(self._end, end)
        while self._end > self._width * MOST:
            self._width *= 2
            for values in self._flows.values():
                values[:] = [values[at] + values[at + 1] for at in range(0, MOST, 2)] + [0.0] * (MOST // 2)
            merged: list[dict[int, int]] = []
            for at in range(0, MOST, 2):
                both = dict(self._latencies[at])
                for bucket, count in self._latencies[at + 1].items():
                    both[bucket] = both.get(bucket, 0) + count
                merged.append(both)
            self._latencies = merged + [{} for _ in range(MOST // 2)]

    def _spread(self, name: str, start: float, end: float) -> None:
        """Add the seconds of an interval to the bins that it touches."""
        values, width = self._flows[name], self._width
        first, last = self._place(start), self._place(end)
        if first == last:
            values[first] += end - start
            return
        values[first] += (first + 1) * width - start
        for place in range(first + 1, last):
            values[place] += width
        values[last] += end - last * width

    def series(self) -> dict[str, Any]:
        """Return the curves, as JSON values: rates per second, means of what ran or waited, percentiles in seconds."""
        count = min(int(self._end / self._width) + 1, MOST) if self.attempts else 0
        found: dict[str, Any] = {"width": self._width, "end": self._end, "attempts": self.attempts}
        for name, values in self._flows.items():
            found[name] = [float(f"{value / self._width:.4g}") for value in values[:count]]
        total = 0.0
        spent = []
        for value in self._flows["cost"][:count]:
            total += value
            spent.append(float(f"{total:.6g}"))
        found["spent"] = spent
        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            found[name] = [_percentile(bins, part) for bins in self._latencies[:count]]
        return found


def _percentile(bins: dict[int, int], part: float) -> float | None:
    """The value that this share did not exceed, to about 7%."""
    left = part * sum(bins.values())
    for bucket in sorted(bins):
        left -= bins[bucket]
        if left <= 0:
            return float(f"{math.exp(bucket * _STEP):.3g}")
    return None
