"""What an engine such as Ray or Spark runs on its workers: a stage, which can be pickled, and its worker.

Knows no engine. Used by the modules that are named after one.
"""

from .stage import Stage, StageOptions
from .worker import Worker, fingerprint

__all__ = ["Stage", "StageOptions", "Worker", "fingerprint"]
