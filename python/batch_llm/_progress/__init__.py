"""Progress of a run: bars, panels and lines, and the user's callback. Used by pipelines and jobs."""

from .callback import ProgressReporter
from .display import WINDOW_SECONDS, Display, Snapshot, Ticker, cost_of, display_for

__all__ = ["WINDOW_SECONDS", "Display", "ProgressReporter", "Snapshot", "Ticker", "cost_of", "display_for"]
