"""The result of an item, the counters of a run, and why it ended.

Batches, reports and stores are made of these. Used by everything above; uses nothing but values.
"""

from .bounds import cause_of, is_reason
from .estimate import RunEstimate, by_length, by_sample
from .explain import cache_misses
from .forecasting import LEVEL, Forecast, Interval, Moment, Sample, forecast
from .item import Failed, Result, Succeeded, WorkItemResult, as_result, succeeded
from .over_time import over_time_of
from .stats import BatchTermination, ProcessingStats
from .verdict import Verdict

__all__ = [
    "LEVEL",
    "BatchTermination",
    "Failed",
    "Forecast",
    "Interval",
    "Moment",
    "ProcessingStats",
    "Result",
    "RunEstimate",
    "Sample",
    "Succeeded",
    "Verdict",
    "WorkItemResult",
    "as_result",
    "by_length",
    "by_sample",
    "cache_misses",
    "cause_of",
    "forecast",
    "is_reason",
    "over_time_of",
    "succeeded",
]
