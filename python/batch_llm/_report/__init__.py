"""What a batch is converted to: a summary, a notebook's cell, charts, tables.

Used by ``BatchResult``; the command line, the log and progress displays use its formats.
"""

from .batch import Batch
from .html import BAD, INK, MARK, cell
from .summary import Costs, rate, seconds, short, summarize, summary_rows, until
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
    "summary_rows",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "until",
]
