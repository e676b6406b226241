"""The forecast of a run in progress. Used by displays, by control and by observers.

Brings the numbers of a run to ``_results.forecasting``, which knows how to compute.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .._results import Forecast, Moment, Sample, forecast
from .costs import cost_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._results import ProcessingStats
    from .._run import Run
    from ..prices import Price

RENEWED_SECONDS = 1.0
"""How often a forecast is computed at most; it takes about a millisecond."""


class Outlook:
    """The forecast of a run, for any thread.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: tuple[float, Forecast | None] | None = None

    def now(self) -> Forecast | None:
        """Return the forecast; None: too little is known yet, or not how many items there will be."""
        known, moment = self._known, time.monotonic()
        if known is None or moment - known[0] >= RENEWED_SECONDS:
            known = self._known = moment, self._computed()
        seconds_passed = moment - known[0]
        return known[1] if known[1] is None else known[1].after(seconds_passed)

    def _computed(self) -> Forecast | None:
        run = self._run
        expected = run.pipeline.expected
        # What waits in batches comes back all at once, when the provider has time.
        if (expected is None and run.is_open) or run.pipeline.batch_progress().waiting:
            return None
        stats = run.stats()
        rows, (seconds, done, in_work) = run.engine.samples()
        left = max(stats.total, expected or 0) - stats.processed
        cost = _pricing(stats, run.pipeline.price())
        samples = [
            Sample(
                Moment(at, done_then, in_work_then, None if cost is None else cost(used, spent)),
                took,
                None if cost is None else cost(own, 0.0),
            )
            for at, done_then, in_work_then, used, spent, took, own in rows
        ]
        return forecast(samples, Moment(seconds, done, in_work, cost_of(stats, run.pipeline.price())), done + left)


Usage = tuple[int, int, int]
"""Input, output and cached input tokens."""


def _pricing(stats: ProcessingStats, price: Price | None) -> Callable[[Usage, float], float] | None:
    """Return what computes the cost of tokens, or takes what was spent of a budget; None: nothing is known of costs."""
    if price is None and not stats.budget_cost_used:
        return None
    # A cost function of the user's says only what all cost: an item costs its share of the tokens.
    each = stats.budget_cost_used / (stats.total_input_tokens + stats.total_output_tokens or 1)

    def cost(usage: Usage, spent: float) -> float:
        names = ("input_tokens", "output_tokens", "cached_input_tokens")
        by_price = (usage[0] + usage[1]) * each if price is None else price.of(dict(zip(names, usage, strict=True)))
        return spent or by_price

    return cost
