"""What an exception means for its item and for the run.

An exception is classified by its type and HTTP status first; its text is read only when they are inconclusive, so
that a validation error that quotes "429" starts no cooldown.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from asyncio import TimeoutError as AsyncioTimeoutError
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from .._pickles import reduced
from ..errors import ProviderError

RATE_LIMIT_PATTERNS = ("429", "resource_exhausted", "quota", "rate limit")
DEFAULT_RATE_LIMIT_WAIT = 300.0
"""``suggested_wait`` of a rate limit without a ``Retry-After``, seconds."""

TIMEOUT_ERRORS = (TimeoutError, AsyncioTimeoutError)
"""Both classes of timeouts: they are one only since Python 3.11."""

LOGIC_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    NameError,
    ZeroDivisionError,
    AssertionError,
)
"""Errors of the program, which a second attempt repeats."""


class FrameworkTimeoutError(TimeoutError):
    """An attempt took longer than ``timeout_per_item``.

    Args:
        message: The error message.
        item_id: The item's id.
        elapsed: How long the attempt took, seconds.
        timeout_limit: The limit, seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        item_id: str | None = None,
        elapsed: float | None = None,
        timeout_limit: float | None = None,
    ) -> None:
        super().__init__(message)
        self.item_id = item_id
        self.elapsed = elapsed
        self.timeout_limit = timeout_limit

    def __reduce__(self) -> Any:
        return reduced(self)


@dataclass
class ErrorInfo:
    """The meaning of an exception.

    Args:
        is_retryable: Whether another attempt may help.
        is_rate_limit: Whether it is a rate limit, which starts a cooldown. Rate limits are always retried after the
            cooldown, even if ``is_retryable`` is False.
        is_timeout: Whether it is a timeout.
        error_category: A short name, for results and statistics. ``"validation_error"`` is retried at once.
        suggested_wait: Minimum wait before the next attempt, seconds. The placeholder ``DEFAULT_RATE_LIMIT_WAIT``
            leaves the wait to the rate limit strategy, unless ``wait_is_from_provider`` is set.
        wait_is_from_provider: Whether the server requested ``suggested_wait``.
        server_away: Whether the exception shows that the server is down, regardless of the request. If most requests
            fail this way, it is an outage: only one probe at a time is sent, and failures do not count
            (``RetryConfig.outage_patience``).
    """

    is_retryable: bool
    is_rate_limit: bool
    is_timeout: bool
    error_category: str
    suggested_wait: float | None = None
    wait_is_from_provider: bool = False
    server_away: bool = False


def _is_iteration_end(exception: BaseException) -> bool:
    """Whether a ``StopIteration`` got out of the user's code, as it is or as the error that a coroutine makes of it."""
    ends = (StopIteration, StopAsyncIteration)
    return isinstance(exception, ends) or (
        isinstance(exception, RuntimeError) and isinstance(exception.__cause__, ends)
    )


class ErrorClassifier(ABC):
    """Decides what an exception means."""

    @abstractmethod
    def classify(self, exception: Exception) -> ErrorInfo:
        """Classify ``exception``. Called once per failed attempt, on the event loop's thread; must not block."""


class DefaultErrorClassifier(ErrorClassifier):
    """Classifies errors of any provider, by type and HTTP status, then by text.

    ======================================================  =====  ==========  =======  ==========================
    exception                                               retry  rate limit  timeout  category
    ======================================================  =====  ==========  =======  ==========================
    framework timeout                                       yes    no          yes      ``framework_timeout``
    status 429                                              yes    yes         no       ``rate_limit``
    status 429, code ``insufficient_quota`` and the like    no     no          no       ``insufficient_balance``
    status 401; 403; 402; any 4xx not listed here           no     no          no       ``authentication``,
                                                                                        ``permission_denied``,
                                                                                        ``insufficient_balance``,
                                                                                        ``client_error``
    status 408, 504                                         yes    no          yes      ``api_timeout``
    status 498, 503, 529                                    yes    no          no       ``server_overload``
    status 409, 425, other 5xx                              yes    no          no       ``server_error``
    ``TimeoutError``                                        yes    no          yes      ``api_timeout``
    ``ConnectionError``                                     yes    no          no       ``connection_error``
    ``pydantic.ValidationError``                            yes    no          no       ``validation_error``
    ``ValueError``, ``TypeError`` and the like              no     no          no       ``logic_error``
    ``StopIteration``, such as from ``next()``              no     no          no       ``logic_error``
    text names a rate limit                                 yes    yes         no       ``rate_limit``
    text says "timeout", "connection"                       yes    no          (yes)    ``api_timeout``,
                                                                                        ``connection_error``
    anything else                                           yes    no          no       ``unknown``
    ======================================================  =====  ==========  =======  ==========================
    """

    def classify(self, exception: Exception) -> ErrorInfo:
        """Classify ``exception``."""
        if isinstance(exception, FrameworkTimeoutError):
            return ErrorInfo(True, False, True, "framework_timeout")
        by_status = classify_status(exception)
        if by_status is not None:
            return by_status
        if isinstance(exception, TIMEOUT_ERRORS):
            return ErrorInfo(True, False, True, "api_timeout")
        if isinstance(exception, ConnectionError):
            return ErrorInfo(True, False, False, "connection_error")
        if is_validation_error(exception):
            return ErrorInfo(True, False, False, "validation_error")
        if isinstance(exception, LOGIC_ERRORS) or _is_iteration_end(exception):
            return ErrorInfo(False, False, False, "logic_error")
        text = str(exception).lower()
        if says_rate_limit(text):
            return rate_limit_info(exception)
        if "timeout" in text:
            return ErrorInfo(True, False, True, "api_timeout")
        if "connection" in text:
            return ErrorInfo(True, False, False, "connection_error")
        return ErrorInfo(True, False, False, "unknown")


def is_validation_error(exception: BaseException) -> bool:
    """Whether it is pydantic's ``ValidationError``. Does not import pydantic: if it is not imported, it is none."""
    pydantic = sys.modules.get("pydantic")
    kind = getattr(pydantic, "ValidationError", None)
    if isinstance(kind, type) and isinstance(exception, kind):
        return True
    core = getattr(sys.modules.get("pydantic_core"), "ValidationError", None)
    return isinstance(core, type) and isinstance(exception, core)


_RATE_LIMIT_TEXT = re.compile(r"(?<!\d)429(?!\d)|resource_exhausted|quota|rate limit")


def says_rate_limit(text: str) -> bool:
    """Whether lower-case ``text`` names a rate limit; "429" only as a whole number, not inside "1429"."""
    return _RATE_LIMIT_TEXT.search(text) is not None


def rate_limit_info(exception: BaseException, *, is_retryable: bool = True) -> ErrorInfo:
    """Return the classification of a rate limit, with the server's wait when the exception carries one."""
    wait = retry_after(exception)
    if wait is None:
        return ErrorInfo(is_retryable, True, False, "rate_limit", DEFAULT_RATE_LIMIT_WAIT)
    return ErrorInfo(is_retryable, True, False, "rate_limit", wait, wait_is_from_provider=True)


def status_of(exception: BaseException) -> int | None:
    """Return the HTTP status that an exception carries as ``status_code``, ``code``, ``status`` or on its response."""
    sources = [getattr(exception, name, None) for name in ("status_code", "code", "status")]
    response = getattr(exception, "response", None)
    sources += [getattr(response, name, None) for name in ("status_code", "status")]
    for value in sources:
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return int(value)
    return None


def classify_status(exception: BaseException) -> ErrorInfo | None:
    """Classify by HTTP status and code; None when the exception carries no status.

    A native strategy's error knows its meaning; that of an SDK's is looked up in the same table.
    """
    server_away = False
    if isinstance(exception, ProviderError):
        category, retryable = exception.category, exception.is_retryable
        server_away = exception.server_away
    else:
        status = status_of(exception)
        if status is None:
            return None
        from .._core import classify_error

        codes = [getattr(exception, "code", None), getattr(exception, "type", None)]
        category, retryable = classify_error(status, [code for code in codes if isinstance(code, str)])
    if category == "rate_limit":
        return rate_limit_info(exception)
    wait = retry_after(exception) if retryable else None
    is_timeout = category == "api_timeout"
    from_provider = wait is not None
    return ErrorInfo(retryable, False, is_timeout, category, wait, from_provider, server_away)


def retry_after(exception: BaseException) -> float | None:
    """Return the wait that the server requested, in seconds from now.

    From a ``retry_after`` attribute in seconds, or from the headers of the exception's response:
    ``retry-after-ms``, else ``retry-after`` as seconds or HTTP date (RFC 9110, section 10.2.3).
    """
    attribute = getattr(exception, "retry_after", None)
    if isinstance(attribute, (int, float)) and not isinstance(attribute, bool):
        return _sound(float(attribute))
    headers = getattr(getattr(exception, "response", None), "headers", None)
    if headers is None:
        headers = getattr(exception, "headers", None)
    milliseconds = _header(headers, "retry-after-ms")
    try:
        if milliseconds is not None:
            return _sound(float(milliseconds) / 1000)
    except ValueError:
        pass
    value = _header(headers, "retry-after")
    if value is None:
        return None
    try:
        return _sound(float(value))
    except ValueError:
        return _seconds_until(value)


def _header(headers: Any, name: str) -> str | None:
    """Read a header from whatever an SDK keeps them in; names are matched in any case."""
    try:
        pairs = {str(key).lower(): value for key, value in dict(headers).items()} if headers else {}
    except (TypeError, ValueError):
        return None
    value = pairs.get(name)
    return value if isinstance(value, str) else None


def _seconds_until(date: str) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=timezone.utc)
    return _sound((then - datetime.now(timezone.utc)).total_seconds())


def _sound(seconds: float) -> float | None:
    return seconds if 0 < seconds < float("inf") else None
