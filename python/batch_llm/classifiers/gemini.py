"""Errors of the google-genai SDK."""

from __future__ import annotations

import re
import sys

from ..errors import ProviderError
from ..strategies.errors import (
    DEFAULT_RATE_LIMIT_WAIT,
    LOGIC_ERRORS,
    RATE_LIMIT_PATTERNS,
    TIMEOUT_ERRORS,
    ErrorClassifier,
    ErrorInfo,
    FrameworkTimeoutError,
    classify_status,
    is_validation_error,
    rate_limit_info,
    retry_after,
    says_rate_limit,
    status_of,
)

__all__ = [
    "DEFAULT_RATE_LIMIT_WAIT",
    "RATE_LIMIT_PATTERNS",
    "TIMEOUT_PATTERNS",
    "ErrorClassifier",
    "ErrorInfo",
    "FrameworkTimeoutError",
    "GeminiErrorClassifier",
]

TIMEOUT_PATTERNS = ("timeout", "504", "deadline")
_TIMEOUT_TEXT = re.compile(r"timeout|(?<!\d)504(?!\d)|deadline")


class GeminiErrorClassifier(ErrorClassifier):
    """Classifies Gemini's errors: those of the google-genai SDK by HTTP status, others by type and text.

    As in 0.3.0, rate limits have ``is_retryable=False``; the processor retries every rate limit after the cooldown.
    Works without the SDK.
    """

    def classify(self, exception: Exception) -> ErrorInfo:
        """Classify ``exception``."""
        if isinstance(exception, FrameworkTimeoutError):
            return ErrorInfo(True, False, True, "framework_timeout")
        if isinstance(exception, ProviderError):
            native = classify_status(exception)
            if native is not None:
                return native
        text = str(exception).lower()
        if _is_a(exception, "google.genai.errors", "ClientError"):
            return _client_error(exception, text)
        if _is_a(exception, "google.genai.errors", "ServerError"):
            if says_timeout(text) or status_of(exception) == 504:
                return ErrorInfo(True, False, True, "server_timeout")
            wait = retry_after(exception)
            return ErrorInfo(True, False, False, "server_error", wait, wait is not None)
        if _is_a(exception, "pydantic_ai.exceptions", "UnexpectedModelBehavior"):
            return ErrorInfo(True, False, False, "validation_error")
        # A specific type decides before its text: an answer may quote "quota" or "deadline".
        if is_validation_error(exception):
            return ErrorInfo(True, False, False, "validation_error")
        if isinstance(exception, LOGIC_ERRORS):
            return ErrorInfo(False, False, False, "logic_error")
        if says_rate_limit(text):
            return rate_limit_info(exception, is_retryable=False)
        if says_timeout(text) or isinstance(exception, TIMEOUT_ERRORS):
            return ErrorInfo(True, False, True, "timeout")
        return ErrorInfo(True, False, False, "unknown")


def _client_error(exception: Exception, text: str) -> ErrorInfo:
    status = status_of(exception)
    if status == 429 or (status is None and says_rate_limit(text)):
        return rate_limit_info(exception, is_retryable=False)
    if status == 408:
        return ErrorInfo(True, False, True, "timeout")
    return ErrorInfo(False, False, False, "client_error")


def says_timeout(text: str) -> bool:
    """Whether lower-case ``text`` names a timeout; "504" only as a whole number."""
    return _TIMEOUT_TEXT.search(text) is not None


def _is_a(exception: Exception, module: str, name: str) -> bool:
    """Whether it is an instance of a class of an optional package, which must be loaded already for that."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(exception, kind)
