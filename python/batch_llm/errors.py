"""What native strategies, guardrails and single calls raise. None of these ever shows a key in any way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._pickles import reduced
from ._types import TokenUsage

if TYPE_CHECKING:
    from ._results import WorkItemResult

__all__ = [
    "ArtifactError",
    "ArtifactFormatError",
    "ArtifactIOError",
    "ArtifactIdentityError",
    "ArtifactSerializationError",
    "BatchAbortedError",
    "BatchAdmissionClosedError",
    "BatchBudgetExceeded",
    "BatchDeadlineExceeded",
    "BatchInterruptedError",
    "BatchLLMError",
    "ContentFilterError",
    "EmptyResponseError",
    "GuardrailError",
    "ItemCancelledError",
    "ItemDeadlineExceeded",
    "LLMCallError",
    "PoolClosedError",
    "PoolError",
    "PoolSaturated",
    "PromptError",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderOutageError",
    "ProviderResponseError",
    "ProviderTimeoutError",
    "QuotaScopeError",
    "RefusalError",
    "ResultSerializationError",
    "StructuredOutputValidationError",
    "SubmitTimeout",
    "TokenEstimateExceedsLimit",
    "TokenEstimationError",
    "TruncatedResponseError",
    "UnkeptError",
]

ERROR_MESSAGE_LIMIT = 500
"""Longest part of an error's message in a result, a log line, a report, a span or another message, characters.

``WorkItemResult.exception`` has all of it.
"""


class BatchLLMError(Exception):
    """The root of what this package raises by itself, apart from wrong arguments (``ValueError``, ``TypeError``)."""

    def __reduce__(self) -> Any:
        return reduced(self)


class ProviderError(BatchLLMError):
    """A call to a provider failed.

    Args:
        message: What happened.
        category: What it means: ``"rate_limit"``, ``"insufficient_balance"``, ``"quota_exhausted"``,
            ``"server_overload"``, ``"server_error"``, ``"api_timeout"``, ``"connection_error"``,
            ``"authentication"``, ``"permission_denied"``, ``"client_error"``, ``"invalid_response"``, ``"refusal"``,
            ``"truncated"``, ``"content_filter"``, ``"empty_response"``, ``"structured_output_validation_error"``, or
            ``"invalid_input"``: nothing was sent, for the prompt is no text that can be.
        is_retryable: Whether another attempt may help.
        status_code: The HTTP status, if the provider answered with one.
        code: The provider's machine-readable error code.
        retry_after: The server's word when to come back, seconds from the reply.
        request_id: The provider's id of the request.
        finish_reason: Why the model stopped, if it had begun.
        native_finish_reason: The provider's own word for it, where that is another one.
        token_usage: What the call cost all the same; in the attribute ``usage``.
        text: What the model said all the same.
        problem: What is wrong with that.
        server_away: Whether the failure says that the server is away: no connection, a broken one, or HTTP 500 and
            above. Many of these at once are an outage.
        was_sent: Whether the request may have reached the server.
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
        native_finish_reason: str | None = None,
        token_usage: TokenUsage | None = None,
        text: str | None = None,
        problem: str | None = None,
        server_away: bool = False,
        was_sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.category = category
        self.is_retryable = is_retryable
        self.status_code = status_code
        self.code = code
        self.retry_after = retry_after
        self.request_id = request_id
        self.finish_reason = finish_reason
        self.native_finish_reason = native_finish_reason
        self.usage = token_usage
        self.text = text
        self.problem = problem
        self.server_away = server_away
        self.was_sent = was_sent


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


class GuardrailError(BatchLLMError):
    """An item ended because of a limit that the user has set, not because of what became of its attempts.

    Args:
        message: What happened.
        item_id: The item's id.
    """

    category = "guardrail"
    """The ``error_category`` of results."""

    def __init__(self, message: str, *, item_id: str | None = None) -> None:
        super().__init__(message)
        self.item_id = item_id


class ItemDeadlineExceeded(GuardrailError, TimeoutError):  # noqa: N818 - the field's name
    """The item's ``total_timeout_per_item`` is over; the cause is what its last attempt failed with, if any did."""

    category = "framework_total_item_timeout"


class BatchDeadlineExceeded(GuardrailError, TimeoutError):  # noqa: N818 - the field's name
    """The run's ``batch_timeout`` was over before the item had its result."""

    category = "batch_deadline_exceeded"


class BatchAbortedError(GuardrailError, RuntimeError):
    """The run was ended, by an error that concerns all items, before this one had its result."""

    category = "batch_aborted"


class BatchAdmissionClosedError(BatchLLMError, RuntimeError):
    """Work was added to a run that takes no more: after ``finish()``, or when it is about to end early."""


class BatchBudgetExceeded(BatchAbortedError):  # noqa: N818 - the field's name
    """The run's budget was used up before the item had its result."""

    category = "batch_budget_exceeded"


class BatchInterruptedError(BatchAbortedError):
    """The run was interrupted, by Ctrl-C or in a notebook, before the item had its result."""

    category = "interrupted"


class ProviderOutageError(BatchAbortedError):
    """The provider was away for longer than ``RetryConfig.outage_patience``, before the item had its result.

    The cause is what the item's last attempt failed with, if there was one.
    """

    category = "provider_outage"


class ItemCancelledError(GuardrailError):
    """The item was cancelled: by ``cancel(item_id)``, or because whoever waited for it waits no more."""

    category = "cancelled"


class LLMCallError(BatchLLMError, RuntimeError):
    """A single call failed, and there is no exception that says why: a middleware's word, for instance.

    Args:
        message: What happened.
        result: The failed result.
    """

    def __init__(self, message: str, result: WorkItemResult[Any, Any]) -> None:
        super().__init__(message)
        self.result = result


class PoolError(BatchLLMError):
    """What a pool of calls raises by itself."""

    category = "pool"
    """The ``error_category`` of results."""


class PoolSaturated(PoolError, RuntimeError):  # noqa: N818 - the field's name
    """More calls wait for the pool than its ``max_pending`` allows."""

    category = "pool_saturated"


class SubmitTimeout(PoolError, TimeoutError):  # noqa: N818 - the field's name
    """The call was not done within the time that its caller gave it, its wait for its turn included."""

    category = "submit_timeout"


class PoolClosedError(PoolError, RuntimeError):
    """The pool is closed, or about to be."""

    category = "pool_closed"


class ResultSerializationError(BatchLLMError, ValueError):
    """A result cannot be made JSON, or was not made of JSON that a result was."""


class ArtifactError(BatchLLMError):
    """Something is wrong with a store of results or a cache; what it holds is not harmed."""


class ArtifactIOError(ArtifactError, OSError):
    """A store cannot be opened, read or written: its disk is full, it is read-only, another process has it."""


class ArtifactFormatError(ArtifactError, ValueError):
    """A file is no store of this package, is damaged, or was written by a newer version of it."""


class ArtifactIdentityError(ArtifactError, ValueError):
    """Nothing is known of a strategy by which its results could be found again."""


class ArtifactSerializationError(ArtifactError, ValueError):
    """A result cannot be stored, or what is stored cannot be made a result again."""


class UnkeptError(BatchAbortedError):
    """The run was ended, because its results could not be stored any more, before this item had its own."""

    category = "artifact_error"


class TokenEstimationError(GuardrailError):
    """The tokens of an item could not be estimated, so that it was not sent; the cause is what was raised."""

    category = "token_estimation_error"


class TokenEstimateExceedsLimit(TokenEstimationError):  # noqa: N818 - the field's name
    """By itself the item needs more tokens than a limit allows in its whole time: it could never be sent."""

    category = "token_estimate_exceeds_limit"


class QuotaScopeError(BatchLLMError, ValueError):
    """A strategy's ``quota_scope`` raises, or cannot be hashed."""
