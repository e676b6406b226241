"""The page on which people read a run: an index of its items, the page, a server for it, comparisons of two runs.

``BatchResult`` and the command line use it. See ``items`` for where items come from, ``index`` for what is searched,
``page`` and ``server`` for how they are shown.
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
from .page import write
from .query import Query
from .server import ViewServer

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
    "ViewServer",
    "answer_of",
    "counts_of",
    "details",
    "prompt_of",
    "retries_of",
    "state_of",
    "write",
]
