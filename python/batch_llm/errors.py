"""What native strategies raise. No message, attribute or repr of these ever holds a key."""

from __future__ import annotations

from .base import TokenUsage

__all__ = [
    "EmptyResponseError",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderResponseError",
    "ProviderTimeoutError",
]


class ProviderError(Exception):
    """A call to a provider failed.

    Args:
        message: What happened.
        status_code: The HTTP status, if the provider answered with one.
        code: The provider's machine-readable error code.
        retry_after: The server's word when to come back, seconds from the reply.
        request_id: The provider's id of the request.
        finish_reason: Why the model stopped, if it had begun.
        token_usage: What the call cost all the same.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        finish_reason: str | None = None,
        token_usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.retry_after = retry_after
        self.request_id = request_id
        self.finish_reason = finish_reason
        self.usage = token_usage


class ProviderConnectionError(ProviderError, ConnectionError):
    """No reply came: refused, reset, cut short, or the name does not resolve."""


class ProviderTimeoutError(ProviderError, TimeoutError):
    """No connection could be made in time."""


class ProviderResponseError(ProviderError):
    """A reply came that is not what the protocol says."""


class EmptyResponseError(ProviderError, ValueError):
    """The model gave no text: it refused, was filtered, or was cut off before the first word."""
