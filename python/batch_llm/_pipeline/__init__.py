"""What is done with each item of a run: attempts, hooks, failures, guardrails, and the result.

Processors name a pipeline in the plan of a run; the run calls it. Nothing below this package imports it.
"""

from .attempts import StrategyPipeline
from .guardrails import KINDS
from .observer_queue import AttemptWatcher
from .pipeline import SingleCall

__all__ = ["KINDS", "AttemptWatcher", "SingleCall", "StrategyPipeline"]
