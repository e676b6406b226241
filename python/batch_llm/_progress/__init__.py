"""How far a run is: displays, and the user's callback."""

from .callback import ProgressReporter
from .display import Ticker, display_for

__all__ = ["ProgressReporter", "Ticker", "display_for"]
