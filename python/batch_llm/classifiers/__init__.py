"""Error classifiers of single providers."""

from .gemini import GeminiErrorClassifier

__all__ = ["GeminiErrorClassifier"]
