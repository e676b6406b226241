"""What a run will have cost and when it will end, each with an interval that holds it in nine of ten runs.

Pure: numbers in, numbers out. ``_progress.outlook`` brings the numbers of a run; nothing else calls this.

The input are samples: finished items, evenly spaced over the run, each with the run at its end. ``n`` of ``N`` items
are done, ``m`` are in work.

*What an item costs.* Items that are done are shorter than those in work, and at the beginning of a run that matters.
So each sampled item, which took ``L`` seconds, gets the weight ``S(t) / S(t - L)``: of the ``S(t)`` items that have
started by now, only the ``S(t - L)`` that started early enough could be seen to end after ``L`` (inverse probability
weighting; Horvitz and Thompson, J. Am. Stat. Assoc. 47, 1952, and for durations Robins and Finkelstein, Biometrics 56,
2000). The weighted mean of the sample, divided by its plain mean, corrects the mean of all finished items. With the
mean ``c`` and the weighted variance ``v``, the run will cost ``N c`` +- ``q N sqrt(v (N - n) / (N n) + e)``: the error
of a mean of ``n`` of ``N`` items drawn without replacement (Cochran, *Sampling Techniques*, 1977, 2.4), and ``e``, that
of the correction. ``q`` is a quantile of Student's t.

*When it ends.* First the remaining ``N - n - m`` items start, each ``a`` seconds after the one before. ``a`` and its
variance come from the starts between samples, by batch means (Law, *Simulation Modeling and Analysis*, 9.5.3), and only
from those since the rate last changed: where the mean differs most between before and after, and by more than
:data:`CHANGE` standard errors, what came before is dropped, and so on (binary segmentation; Scott and Knott, Biometrics
30, 1974). Then the last ``m`` end. If items start at a steady rate, the number of those that are still in work ``x``
seconds after the last start is Poisson distributed, with the mean ``m E[(L - x)+] / E[L]`` (M/G/infinity; Takacs,
*Introduction to the Theory of Queues*, 1962), so all have ended by then with the probability ``exp`` of minus that. The
lengths ``L`` are taken as lognormal, from half of the shortest on, with the weights from above.

Quantiles are taken at :data:`USED`, not at :data:`LEVEL`: variances are estimated, and lognormal lengths have longer
tails than the normal distribution. ``tests/results/test_forecast.py`` measures how often the intervals hold.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

__all__ = ["LEVEL", "Forecast", "Interval", "Moment", "Sample", "forecast"]

LEVEL = 0.9
"""The share of runs in which an interval should hold."""
FROM = 0.02
"""The share of a run that has to be done."""
ROUNDS = 2
"""So many items have to be done for each one in work."""
FEWEST = 8
"""So many samples are needed."""
USED = 0.94
DRAINED = 0.97
CHANGE = 4.5
BATCHES = 24
HEAVIEST = 10.0
"""The largest weight of an item."""
_NORMAL = NormalDist()


class Interval(NamedTuple):
    """An estimate, and the bounds that hold in nine of ten runs."""

    low: float
    expected: float
    high: float


class Moment(NamedTuple):
    """A run at a moment: seconds since its start, items done, items in work, the cost so far if known."""

    seconds: float
    done: int
    in_work: int
    cost: float | None = None


class Sample(NamedTuple):
    """A finished item: the run when it ended, how long it took (seconds), what it cost if known."""

    at: Moment
    took: float
    cost: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run whose limits stay as they are.

    Args:
        seconds_left: The time to its end, seconds; None: not known yet.
        cost: The cost of all of it; None: the price is not known.
    """

    seconds_left: Interval | None
    cost: Interval | None

    def after(self, seconds: float) -> Forecast:
        """Return the same forecast, so many seconds later."""
        if self.seconds_left is None:
            return self
        return Forecast(Interval(*(max(left - seconds, 0.0) for left in self.seconds_left)), self.cost)


def forecast(samples: Sequence[Sample], now: Moment, total: int) -> Forecast | None:
    """Return what will become of a run.

    Args:
        samples: Finished items, in the order of their ends.
        now: The run at present.
        total: Items of the whole run.

    Returns:
        The forecast; None: too little is known yet, or everything is done.
    """
    left = total - now.done
    is_early = now.done < max(FROM * total, ROUNDS * now.in_work) or len(samples) < FEWEST
    if left <= 0 or is_early:
        return None
    weights = _weights(samples, now)
    return Forecast(_seconds_left(samples, weights, now, left), _cost(samples, weights, now, total))


def _weights(samples: Sequence[Sample], now: Moment) -> list[float]:
    """For how many started items each finished one stands."""
    moments = [*(sample.at for sample in samples), now]
    times = [0.0, *(moment.seconds for moment in moments)]
    first = moments[0].done + moments[0].in_work
    started = [float(first), *(float(moment.done + moment.in_work) for moment in moments)]
    weights = []
    for sample in samples:
        time = now.seconds - sample.took
        after = min(max(bisect_right(times, time), 1), len(times) - 1)
        before = after - 1
        gap = times[after] - times[before]
        part = min(max((time - times[before]) / gap, 0.0), 1.0) if gap > 0 else 1.0
        then = started[before] + part * (started[after] - started[before])
        weights.append(min(max(started[-1] / max(then, 1.0), 1.0), HEAVIEST))
    return weights


def _cost(samples: Sequence[Sample], weights: list[float], now: Moment, total: int) -> Interval | None:
    costs = [sample.cost for sample in samples if sample.cost is not None]
    if now.cost is None or len(costs) < len(samples):
        return None
    count, weight = len(costs), sum(weights)
    plain = sum(costs) / count
    mean = sum(weight * cost for weight, cost in zip(weights, costs, strict=True)) / weight
    squares = [(cost - mean) ** 2 for cost in costs]
    wide = sum(weight * square for weight, square in zip(weights, squares, strict=True)) / weight
    narrow = sum((cost - plain) ** 2 for cost in costs) / count
    variance = _variance(samples) * (wide / narrow if narrow else 1.0)
    of_correction = sum(
        ((one * count / weight - 1) ** 2 * square for one, square in zip(weights, squares, strict=True)), 0.0
    )
    left = (total - now.done) / total
    error = math.sqrt(variance * left / now.done + of_correction / count**2)
    expected = now.cost / now.done * (mean / plain if plain else 1.0) * total
    margin = student(count - 1) * error * total
    return Interval(max(expected - margin, now.cost), max(expected, now.cost), max(expected + margin, now.cost))


def _variance(samples: Sequence[Sample]) -> float:
    """The variance of what items cost, from all items between the samples: an outlier among these weighs too much."""
    moments = [Moment(0.0, 0, 0, 0.0), *(sample.at for sample in samples)]
    last = moments[-1]
    mean = (last.cost or 0.0) / last.done
    parts = [
        (after.done - before.done, (after.cost or 0.0) - (before.cost or 0.0)) for before, after in pairwise(moments)
    ]
    return sum((cost - mean * items) ** 2 / items for items, cost in parts if items) / (len(parts) - 1)


def student(freedom: int) -> float:
    """A quantile of Student's t (Abramowitz and Stegun, 26.7.5)."""
    z = _NORMAL.inv_cdf(0.5 + USED / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


Part = tuple[int, float]
"""How many items started in how many seconds."""


def _seconds_left(samples: Sequence[Sample], weights: list[float], now: Moment, left: int) -> Interval | None:
    parts = _recent(_starts(samples, now))
    if len(parts) < 2:
        return None
    parts = _batches(parts)
    started = sum(items for items, _ in parts)
    mean = sum(seconds for _, seconds in parts) / started
    to_start = max(left - now.in_work, 0)
    variance = sum((seconds - mean * items) ** 2 / items for items, seconds in parts) / (len(parts) - 1)
    margin = student(len(parts) - 1) * math.sqrt(variance * to_start * (1 + to_start / started))
    lengths = _lognormal([sample.took for sample in samples], weights)
    first, half, last = (_drained(now.in_work, lengths, part) for part in (1 - DRAINED, 0.5, DRAINED))
    expected = mean * to_start + half
    low, high = math.hypot(margin, half - first), math.hypot(margin, last - half)
    return Interval(max(expected - low, 0.0), expected, expected + high)


def _starts(samples: Sequence[Sample], now: Moment) -> list[Part]:
    """How many items started, and in what time, since everything that started at once has ended."""
    moments = [*(sample.at for sample in samples), now]
    begin = next((number for number, moment in enumerate(moments) if moment.done >= moment.in_work), len(moments))
    parts: list[Part] = []
    last = None
    for moment in moments[begin:]:
        started = moment.done + moment.in_work
        if last is None:
            last = started, moment.seconds
        elif started > last[0] and moment.seconds > last[1]:
            parts.append((started - last[0], moment.seconds - last[1]))
            last = started, moment.seconds
    if last is not None and parts and now.seconds > last[1]:
        # Nothing has started since.
        parts[-1] = parts[-1][0], parts[-1][1] + now.seconds - last[1]
    return parts


def _recent(parts: list[Part]) -> list[Part]:
    """Those since the rate last changed."""
    while len(parts) > FEWEST:
        at = _change(parts)
        if at is None:
            break
        parts = parts[at:]
    return parts


def _change(parts: list[Part]) -> int | None:
    """Where the rate has changed most, if it has."""
    items, seconds = sum(part[0] for part in parts), sum(part[1] for part in parts)
    squares = sum(part[1] ** 2 / part[0] for part in parts)
    best, where = CHANGE, None
    items_before = 0
    seconds_before = squares_before = 0.0
    for number, part in enumerate(parts[:-3], 1):
        items_before += part[0]
        seconds_before += part[1]
        squares_before += part[1] ** 2 / part[0]
        if number < 3:
            continue
        items_after, seconds_after = items - items_before, seconds - seconds_before
        within = squares - seconds_before**2 / items_before - seconds_after**2 / items_after
        variance = max(within / (len(parts) - 2), 1e-12 * squares / len(parts))
        difference = abs(seconds_before / items_before - seconds_after / items_after)
        errors = difference / math.sqrt(variance * (1 / items_before + 1 / items_after))
        if errors > best:
            best, where = errors, number
    return where


def _batches(parts: list[Part]) -> list[Part]:
    """Fewer, larger ones: what is uneven in short times may be even in longer ones."""
    count = min(len(parts), BATCHES)
    bounds = [number * len(parts) // count for number in range(count + 1)]
    return [
        (sum(items for items, _ in parts[begin:end]), sum(seconds for _, seconds in parts[begin:end]))
        for begin, end in pairwise(bounds)
    ]


class Lengths(NamedTuple):
    """A shifted lognormal distribution: mean, shortest, mean beyond that, standard deviation of the logarithm."""

    mean: float
    shortest: float
    beyond: float
    sigma: float


def _lognormal(lengths: list[float], weights: list[float]) -> Lengths:
    weight = sum(weights)
    mean = sum(one * length for one, length in zip(weights, lengths, strict=True)) / weight
    shortest = min(lengths) / 2
    logs = [math.log(max(length - shortest, 1e-9)) for length in lengths]
    mu = sum(one * log for one, log in zip(weights, logs, strict=True)) / weight
    squares = sum(one * (log - mu) ** 2 for one, log in zip(weights, logs, strict=True)) / weight
    sigma = max(math.sqrt(squares), 1e-3)
    return Lengths(mean, shortest, math.exp(min(mu + sigma**2 / 2, 500.0)), sigma)


def _drained(in_work: int, lengths: Lengths, part: float) -> float:
    """The time after the last start by which all have ended, with this probability."""
    wanted = -math.log(part) / in_work * lengths.mean if in_work else math.inf
    if wanted >= lengths.mean:
        return 0.0
    if wanted > lengths.beyond:
        return lengths.mean - wanted
    low, high = 0.0, 1.0
    while _excess(high, lengths) > wanted and high < 1e9:
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _excess(middle, lengths) > wanted else (low, middle)
    return lengths.shortest + high * lengths.beyond


def _excess(multiple: float, lengths: Lengths) -> float:
    """``E[(L - x)+]`` of a lognormal length, with ``x`` as a multiple of its mean."""
    if multiple <= 0:
        return lengths.beyond
    sigma = lengths.sigma
    depth = -math.log(multiple) / sigma - sigma / 2
    return lengths.beyond * (_NORMAL.cdf(depth + sigma) - multiple * _NORMAL.cdf(depth))
