"""Progress of a run: bars, panels and lines, and the user's callback. Used by pipelines alone."""

from .callback import ProgressReporter
from .display import Ticker, display_for

__all__ = ["ProgressReporter", "Ticker", "display_for"]
