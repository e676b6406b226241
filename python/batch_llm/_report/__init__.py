"""What is made of a batch: a summary, a report, charts, tables, and what bound the run."""

from .batch import Batch
from .html import BAD, INK, MARK, cell, write
from .summary import Costs, rate, seconds, short, summarize, until
from .tables import records, to_arrow, to_pandas, to_polars

__all__ = [
    "BAD",
    "INK",
    "MARK",
    "Batch",
    "Costs",
    "cell",
    "rate",
    "records",
    "seconds",
    "short",
    "summarize",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "until",
    "write",
]
