"""Runs that are watched and controlled from outside: the registry, the endpoint of a run, and who asks it.

Processors give a run its control; ``batch_llm.attach()`` and the command line ask it. A run never depends on it.
"""

from .attached import AttachedRun, AttachedSync, attach
from .options import VARIABLE, checked_name, control_of
from .places import log_file
from .registry import Entry, entries, find, new_entry, read, write
from .run_control import ControlOptions
from .settings import NAMES
from .shapes import SHAPES, schema

__all__ = [
    "NAMES",
    "SHAPES",
    "VARIABLE",
    "AttachedRun",
    "AttachedSync",
    "ControlOptions",
    "Entry",
    "attach",
    "checked_name",
    "control_of",
    "entries",
    "find",
    "log_file",
    "new_entry",
    "read",
    "schema",
    "write",
]
