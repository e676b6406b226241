"""What engines (Ray, Spark) run on their workers: a stage that travels, and what it becomes there.

Knows no engine. Used by the modules that are named after one.
"""

from .stage import Stage, StageOptions
from .worker import Worker, fingerprint

__all__ = ["Stage", "StageOptions", "Worker", "fingerprint"]
