"""What a run has cost so far. Used by displays, jobs and control."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._results import ProcessingStats
    from ..prices import Price


def cost_of(stats: ProcessingStats, price: Price | None) -> float | None:
    """Return what a run has cost so far; None: not known.

    Args:
        stats: Its counters.
        price: What its tokens cost, if they have one price.
    """
    usage = {
        "input_tokens": stats.total_input_tokens,
        "output_tokens": stats.total_output_tokens,
        "cached_input_tokens": stats.total_cached_tokens,
    }
    return stats.budget_cost_used or (None if price is None else price.of(usage))
