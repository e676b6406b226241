"""How errors are classified, and how long the cooldown after a rate limit lasts."""

from .errors import DefaultErrorClassifier, ErrorClassifier, ErrorInfo, FrameworkTimeoutError
from .rate_limit import ExponentialBackoffStrategy, FixedDelayStrategy, RateLimitStrategy

__all__ = [
    "DefaultErrorClassifier",
    "ErrorClassifier",
    "ErrorInfo",
    "ExponentialBackoffStrategy",
    "FixedDelayStrategy",
    "FrameworkTimeoutError",
    "RateLimitStrategy",
]
