"""Reading a run: an index of its items, which is searched and sorted, and comparisons of two runs.

The command line uses it. See ``items`` for where items come from, ``index`` for what is searched.
"""

from .batch_items import BatchItems
from .compare import OUTCOMES, Comparison
from .index import Index
from .items import (
    NOT_SENT,
    SUCCEEDED,
    Item,
    Items,
    Pricing,
    answer_of,
    counts_of,
    details,
    prompt_of,
    retries_of,
    state_of,
)
from .query import Query

__all__ = [
    "NOT_SENT",
    "OUTCOMES",
    "SUCCEEDED",
    "BatchItems",
    "Comparison",
    "Index",
    "Item",
    "Items",
    "Pricing",
    "Query",
    "answer_of",
    "counts_of",
    "details",
    "prompt_of",
    "retries_of",
    "state_of",
]
