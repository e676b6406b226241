"""Lanes: how the requests of a run reach their provider. One by one, or thousands in a half-price batch.

The processor makes a :class:`LaneChoice` of its options, ``_pipeline.batch_lane`` does what it says. What a store has
at providers is in :func:`tickets`. The batches themselves are in ``src/batches/``.
"""

from .choice import (
    LANES,
    BatchSettings,
    LaneChoice,
    LaneName,
    LaneOptions,
    check_flex,
    is_cheaper,
    lane_of,
    rates_of,
    seconds_of,
)
from .progress import BatchProgress
from .ticket import BatchTicket, cache_reads, tickets

__all__ = [
    "LANES",
    "BatchProgress",
    "BatchSettings",
    "BatchTicket",
    "LaneChoice",
    "LaneName",
    "LaneOptions",
    "cache_reads",
    "check_flex",
    "is_cheaper",
    "lane_of",
    "rates_of",
    "seconds_of",
    "tickets",
]
