"""What is done with each item of a run: attempts, hooks, failures, and the result."""

from .attempts import StrategyPipeline
from .guardrails import KINDS
from .observer_queue import AttemptWatcher
from .pipeline import SingleCall

__all__ = ["KINDS", "AttemptWatcher", "SingleCall", "StrategyPipeline"]
