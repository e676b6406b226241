"""Data frames of pandas, Polars and Arrow: read and built, kinds of columns, templates of prompts.

Used by ``frames``, by the command line and by tables of results.
"""

from .backends import ArrowFrame, Frame, arrow_array, frame_of, is_a, load, objects, polars_series
from .columns import BOOLEAN, INTEGER, NUMBER, TEXT, Answers, Column, Kind, column_of
from .names import check_names, earlier_columns, error_column
from .prompts import Prompts
from .templates import Template

__all__ = [
    "BOOLEAN",
    "INTEGER",
    "NUMBER",
    "TEXT",
    "Answers",
    "ArrowFrame",
    "Column",
    "Frame",
    "Kind",
    "Prompts",
    "Template",
    "arrow_array",
    "check_names",
    "column_of",
    "earlier_columns",
    "error_column",
    "frame_of",
    "is_a",
    "load",
    "objects",
    "polars_series",
]
