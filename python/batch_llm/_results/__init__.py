"""The result of an item, the counters of a run, and why it ended.

Batches, reports and stores are made of these. Used by everything above; uses nothing but values.
"""

from .explain import cache_misses, cause_of
from .item import Failed, Result, Succeeded, WorkItemResult, as_result, succeeded
from .stats import BatchTermination, ProcessingStats

__all__ = [
    "BatchTermination",
    "Failed",
    "ProcessingStats",
    "Result",
    "Succeeded",
    "WorkItemResult",
    "as_result",
    "cache_misses",
    "cause_of",
    "succeeded",
]
