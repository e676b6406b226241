"""Progress of a run: bars, panels and lines, and the user's callback. Used by pipelines and jobs."""

from .callback import ProgressReporter
from .costs import cost_of
from .display import Display, RecentRate, Snapshot, Ticker, display_for
from .outlook import Outlook

__all__ = ["Display", "Outlook", "ProgressReporter", "RecentRate", "Snapshot", "Ticker", "cost_of", "display_for"]
