"""Small charts as inline SVG, drawn from the times of results. Used by the report."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from .summary import seconds, short

if TYPE_CHECKING:
    from .batch import Batch
    from .summary import Figures

BINS = 60
"""Points along the time of a run."""
WIDTH, HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 26, 20

STYLE = """
.bl svg text{font:11px system-ui,sans-serif;fill:currentColor}
.bl svg text.t{font-weight:600;font-size:12px}
.bl svg .axis{stroke:var(--bl-line);stroke-width:1}
.bl svg .mark{fill:var(--bl-mark)}
.bl svg .bad{fill:var(--bl-bad)}
.bl svg .curve{fill:none;stroke:var(--bl-mark);stroke-width:2;stroke-linejoin:round}
.bl svg .area{fill:var(--bl-mark);opacity:.14}
"""


def charts(batch: Batch, found: Figures) -> str:
    """All charts that there are data for."""
    of_results = [_intervals(result) for result in batch.results]
    intervals = [interval for of_result in of_results for interval in of_result]
    drawn = []
    end = max((finish for _, finish in intervals), default=0.0)
    if end > 0:
        ends = sorted(max((finish for _, finish in of_result), default=end) for of_result in of_results)
        drawn.append(_curve("results per second", _throughput(ends, end), end))
        drawn.append(_curve("attempts in flight", _in_flight(intervals, end), end))
    if found.latencies:
        drawn.append(_histogram("latency", found.latencies))
    if found.first_tokens:
        drawn.append(_histogram("time to first token", found.first_tokens))
    if found.errors:
        drawn.append(_bars("errors", [(kind.category, kind.count) for kind in found.errors[:6]]))
    return "".join(drawn)


def _intervals(result: Any) -> list[tuple[float, float]]:
    """When the attempts of a result started and ended, seconds since the start of the run."""
    if not result.attempts:
        return []
    last = getattr(result._timing, "last", None)
    if last is not None and result.attempts == 1:
        times = last()
        return [(times[0], times[0] + times[-1])]
    return [(attempt.started_at, attempt.started_at + attempt.execution_seconds) for attempt in result.timing.attempts]


def _throughput(ends: list[float], end: float) -> list[float]:
    width = end / BINS
    counts = [0] * BINS
    for at in ends:
        counts[min(int(at / width), BINS - 1)] += 1
    return [count / width for count in counts]


def _in_flight(intervals: list[tuple[float, float]], end: float) -> list[float]:
    """The mean of each bin."""
    width = end / BINS
    # Differences of starts and ends within a bin, with the shares of the bin for which attempts are in flight.
    steps = [0.0] * (BINS + 1)
    within = [0.0] * (BINS + 1)
    for start, finish in intervals:
        for at, sign in ((start, 1), (finish, -1)):
            place = min(int(at / width), BINS - 1)
            within[place] += sign * (place + 1 - at / width)
            steps[place + 1] += sign
    means, level = [], 0.0
    for place in range(BINS):
        level += steps[place]
        means.append(max(level + within[place], 0.0))
    return means


def _frame(title: str, body: str, notes: str = "") -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
        f'<text class="t" x="4" y="14">{escape(title)}</text>{notes}{body}</svg>'
    )


def _y_axis(highest: float) -> str:
    base = HEIGHT - _BOTTOM
    lines = f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{WIDTH - _RIGHT}" y2="{base}"/>'
    return (
        f'{lines}<text x="{_LEFT - 4}" y="{_TOP + 4}" text-anchor="end">{short(highest)}</text>'
        f'<text x="{_LEFT - 4}" y="{base}" text-anchor="end">0</text>'
    )


def _x_labels(first: str, last: str) -> str:
    y = HEIGHT - 5
    return f'<text x="{_LEFT}" y="{y}">{first}</text><text x="{WIDTH - _RIGHT}" y="{y}" text-anchor="end">{last}</text>'


def _curve(title: str, values: list[float], end: float) -> str:
    highest = max(values) or 1.0
    step = (WIDTH - _LEFT - _RIGHT) / (len(values) - 1)
    base = HEIGHT - _BOTTOM
    points = [(_LEFT + i * step, base - (base - _TOP) * value / highest) for i, value in enumerate(values)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f'<polygon class="area" points="{_LEFT},{base} {path} {WIDTH - _RIGHT},{base}"/>'
    curve = f'<polyline class="curve" points="{path}"/>'
    return _frame(title, area + curve + _y_axis(highest) + _x_labels("0 s", seconds(end)))


def _histogram(title: str, latencies: list[float]) -> str:
    low, high = max(latencies[0], 1e-6), max(latencies[-1], 2e-6)
    bins = 30
    # Latencies spread over decades: equal steps of the logarithm show all of them.
    low_log = math.log(low)
    span = max(math.log(high) - low_log, 1e-9)
    counts = [0] * bins
    for latency in latencies:
        place = (math.log(max(latency, low)) - low_log) / span * bins
        counts[min(int(place), bins - 1)] += 1
    highest = max(counts)
    base = HEIGHT - _BOTTOM
    step = (WIDTH - _LEFT - _RIGHT) / bins
    marks = "".join(
        f'<rect class="mark" x="{_LEFT + i * step + 0.5:.1f}" y="{base - (base - _TOP) * count / highest:.1f}" '
        f'width="{step - 1:.1f}" height="{(base - _TOP) * count / highest:.1f}"/>'
        for i, count in enumerate(counts)
        if count
    )
    return _frame(f"{title} (logarithmic)", marks + _y_axis(highest) + _x_labels(seconds(low), seconds(high)))


def _bars(title: str, counts: list[tuple[str, int]]) -> str:
    highest = max(count for _, count in counts)
    height = (HEIGHT - _TOP - 6) / len(counts)
    marks = ""
    for place, (name, count) in enumerate(counts):
        y = _TOP + place * height
        middle = y + height / 2 + 4
        width = max((WIDTH - 200) * count / highest, 1)
        marks += f'<text x="150" y="{middle:.1f}" text-anchor="end">{escape(name[:26])}</text>'
        thick = min(height - 4, 14)
        marks += (
            f'<rect class="bad" x="156" y="{middle - 4 - thick / 2:.1f}" width="{width:.1f}" height="{thick:.1f}"/>'
        )
        marks += f'<text x="{160 + width:.1f}" y="{middle:.1f}">{count:,}</text>'
    return _frame(title, marks)
