"""What native strategies raise. No message, attribute or repr of these ever holds a key."""

from __future__ import annotations

from .base import TokenUsage

__all__ = [
    "ContentFilterError",
    "EmptyResponseError",
    "PromptError",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderResponseError",
    "ProviderTimeoutError",
    "RefusalError",
    "StructuredOutputValidationError",
    "TruncatedResponseError",
]


class ProviderError(Exception):
    """A call to a provider failed.

    Args:
        message: What happened.
        category: What it means: ``"rate_limit"``, ``"insufficient_balance"``, ``"quota_exhausted"``,
            ``"server_overload"``, ``"server_error"``, ``"api_timeout"``, ``"connection_error"``,
            ``"authentication"``, ``"permission_denied"``, ``"client_error"``, ``"invalid_response"``, ``"refusal"``,
            ``"truncated"``, ``"content_filter"``, ``"empty_response"`` or ``"structured_output_validation_error"``.
        is_retryable: Whether another attempt may help.
        status_code: The HTTP status, if the provider answered with one.
        code: The provider's machine-readable error code.
        retry_after: The server's word when to come back, seconds from the reply.
        request_id: The provider's id of the request.
        finish_reason: Why the model stopped, if it had begun.
        token_usage: What the call cost all the same; in the attribute ``usage``.
        text: What the model said all the same.
        problem: What is wrong with that.
    """

    def __init__(
        self,
        message: str,
        *,
        category: str = "unknown",
        is_retryable: bool = True,
        status_code: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        finish_reason: str | None = None,
        token_usage: TokenUsage | None = None,
        text: str | None = None,
        problem: str | None = None,
    ) -> None:
        super().__init__(message)
        self.category = category
        self.is_retryable = is_retryable
        self.status_code = status_code
        self.code = code
        self.retry_after = retry_after
        self.request_id = request_id
        self.finish_reason = finish_reason
        self.usage = token_usage
        self.text = text
        self.problem = problem


class ProviderConnectionError(ProviderError, ConnectionError):
    """No reply came: refused, reset, cut short, too long, or the name does not resolve."""


class ProviderTimeoutError(ProviderError, TimeoutError):
    """Connecting, or a part of the reply, took too long."""


class PromptError(ProviderError, ValueError):
    """The prompt cannot be said in this provider's language: audio for one that takes none, for instance."""


class ProviderResponseError(ProviderError):
    """A reply came that is not what the protocol says: cut, HTML, no JSON."""


class EmptyResponseError(ProviderError, ValueError):
    """The model said nothing."""


class RefusalError(ProviderError, ValueError):
    """The model refused; its words are in ``text``."""


class TruncatedResponseError(ProviderError, ValueError):
    """The answer was cut at its longest length before it was of use; its beginning is in ``text``."""


class ContentFilterError(ProviderError, ValueError):
    """The provider's filter cut in."""


class StructuredOutputValidationError(ProviderError, ValueError):
    """The answer, in ``text``, does not fit the schema; ``problem`` says why."""

    @property
    def _correction(self) -> tuple[str, str] | None:
        """For the attempt after it."""
        return None if self.text is None or self.problem is None else (self.text, self.problem)
