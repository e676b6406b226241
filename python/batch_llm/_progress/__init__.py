"""Progress of a run: bars, panels and lines, and the user's callback. Used by pipelines and jobs."""

from .callback import ProgressReporter
from .display import Display, RecentRate, Snapshot, Ticker, cost_of, display_for

__all__ = ["Display", "ProgressReporter", "RecentRate", "Snapshot", "Ticker", "cost_of", "display_for"]
