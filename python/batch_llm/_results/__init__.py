"""What becomes of one item, and the counters and the end of a run: what batches, reports and stores are made of."""

from .explain import cause_of
from .item import BROKEN_OFF, NOT_SENT, Failed, Result, Succeeded, WorkItemResult, as_result, success_of
from .stats import BatchTermination, ProcessingStats

__all__ = [
    "BROKEN_OFF",
    "NOT_SENT",
    "BatchTermination",
    "Failed",
    "ProcessingStats",
    "Result",
    "Succeeded",
    "WorkItemResult",
    "as_result",
    "cause_of",
    "success_of",
]
