"""Error classifiers for specific providers."""

from .gemini import GeminiErrorClassifier

__all__ = ["GeminiErrorClassifier"]
