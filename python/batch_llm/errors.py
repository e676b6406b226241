"""Exceptions of native strategies, guardrails, stores and single calls. They never contain a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ._checks import check_known
from ._pickles import reduced
from ._types import TokenUsage

if TYPE_CHECKING:
    from typing_extensions import Unpack

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
    "ControlError",
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
    "RoundsExhaustedError",
    "StoreWriteError",
    "StructuredOutputValidationError",
    "SubmitTimeout",
    "TokenEstimateExceedsLimit",
    "TokenEstimationError",
    "ToolError",
    "TruncatedResponseError",
    "UnkeptError",
]

ERROR_MESSAGE_LIMIT = 500
"""Maximum length of an error's message in a result, log line, report, span or another message, characters.

``WorkItemResult.exception`` has all of it.
"""


class BatchLLMError(Exception):
    """Base class of this package's exceptions, except for wrong arguments (``ValueError``, ``TypeError``)."""

    def __reduce__(self) -> Any:
        return reduced(self)


class ErrorDetails(TypedDict, total=False):
    """What is known of a failed call; see :class:`ProviderError`."""

    category: str
    is_retryable: bool
    status_code: int | None
    code: str | None
    retry_after: float | None
    request_id: str | None
    finish_reason: str | None
    native_finish_reason: str | None
    token_usage: TokenUsage | None
    text: str | None
    problem: str | None
    server_away: bool
    was_sent: bool


class ProviderError(BatchLLMError):
    """A call to a provider failed.

    Args:
        message: What happened.
        category: The kind of error (by default that of the class, or ``"unknown"``): ``"rate_limit"``,
            ``"insufficient_balance"``, ``"quota_exhausted"``, ``"server_overload"``, ``"server_error"``,
            ``"api_timeout"``, ``"connection_error"``, ``"authentication"``, ``"permission_denied"``,
            ``"client_error"``, ``"invalid_response"``, ``"refusal"``, ``"truncated"``, ``"content_filter"``,
            ``"empty_response"``, ``"structured_output_validation_error"``, or ``"invalid_input"``: nothing was sent,
            because the prompt is invalid.
        is_retryable: Whether another attempt may help (True by default; False for refusals, filters, truncation).
        status_code: The HTTP status, if the provider responded.
        code: The provider's machine-readable error code.
        retry_after: The wait that the server requested, in seconds from its response.
        request_id: The provider's id of the request.
        finish_reason: Why the model stopped, if it had started to answer.
        native_finish_reason: The provider's own value, if different.
        token_usage: The tokens that the failed call used; in the attribute ``usage``.
        text: The model's answer, or what arrived of it.
        problem: What is wrong with the answer.
        server_away: Whether the failure shows that the server is down: no connection, a dropped one, or HTTP 500 and
            above. Many such failures at once are an outage. (False by default)
        was_sent: Whether the request may have reached the server (True by default).

    Raises:
        TypeError: If an argument is unknown; the message suggests the closest match.
    """

    category: str = "unknown"
    is_retryable: bool = True
    status_code: int | None = None
    code: str | None = None
    retry_after: float | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: TokenUsage | None = None
    text: str | None = None
    problem: str | None = None
    server_away: bool = False
    was_sent: bool = True

    def __init__(self, message: str, **details: Unpack[ErrorDetails]) -> None:
        check_known(details, ErrorDetails.__annotations__, type(self).__name__)
        super().__init__(message)
        for name, value in details.items():
            setattr(self, "usage" if name == "token_usage" else name, value)


class ProviderConnectionError(ProviderError, ConnectionError):
    """No reply: the connection was refused, reset or closed early, or the name does not resolve."""


class ProviderTimeoutError(ProviderError, TimeoutError):
    """Connecting, or reading the reply, took too long."""


class PromptError(ProviderError, ValueError):
    """The provider's API does not support the prompt, for example because it contains audio."""


class ProviderResponseError(ProviderError):
    """The reply violates the protocol: truncated, HTML, invalid JSON."""


class EmptyResponseError(ProviderError, ValueError):
    """The answer is empty."""


class RefusalError(ProviderError, ValueError):
    """The model refused to answer; ``text`` has its refusal. Not retried, unless ``is_retryable=True``."""

    category = "refusal"
    is_retryable = False


class TruncatedResponseError(ProviderError, ValueError):
    """The answer was truncated at ``max_tokens`` and cannot be used; its beginning is in ``text``."""

    category = "truncated"
    is_retryable = False


class ContentFilterError(ProviderError, ValueError):
    """The provider's content filter blocked the prompt or the answer. Not retried, unless ``is_retryable=True``."""

    category = "content_filter"
    is_retryable = False


class StructuredOutputValidationError(ProviderError, ValueError):
    """The answer, in ``text``, does not match the schema; ``problem`` says why."""

    category = "structured_output_validation_error"

    @property
    def _correction(self) -> tuple[str, str] | None:
        """For the attempt after it."""
        return None if self.text is None or self.problem is None else (self.text, self.problem)


class GuardrailError(BatchLLMError):
    """An item ended because of a limit set by the user, not because its attempts failed.

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
    """The item's ``total_timeout_per_item`` expired; the cause is the error of its last failed attempt, if any."""

    category = "framework_total_item_timeout"


class BatchDeadlineExceeded(GuardrailError, TimeoutError):  # noqa: N818 - the field's name
    """The run's ``batch_timeout`` expired before the item finished."""

    category = "batch_deadline_exceeded"


class BatchAbortedError(GuardrailError, RuntimeError):
    """An error that affects all items ended the run before this item finished."""

    category = "batch_aborted"


class BatchAdmissionClosedError(BatchLLMError, RuntimeError):
    """An item was added to a run that accepts no more: after ``finish()``, or when it is ending early."""


class BatchBudgetExceeded(BatchAbortedError):  # noqa: N818 - the field's name
    """The run's budget was used up before the item finished."""

    category = "batch_budget_exceeded"


class BatchInterruptedError(BatchAbortedError):
    """The run was interrupted, by Ctrl-C or in a notebook, before the item finished."""

    category = "interrupted"


class InBatchError(GuardrailError):
    """The run has left the item in a batch at its provider; running again with the same store collects it."""

    category = "in_batch"


class LaneChange(ProviderError):  # noqa: N818 - no error: nobody sees it
    """Not an error: the request is to be sent one by one, not in a batch. ``text`` says why. Handled by runs."""


class ProviderOutageError(BatchAbortedError):
    """The provider was down for longer than ``RetryConfig.outage_patience``, before the item finished.

    The cause is the error of the item's last attempt, if there was one.
    """

    category = "provider_outage"


class ItemCancelledError(GuardrailError):
    """The item was cancelled: by ``cancel(item_id)``, or because its caller was cancelled."""

    category = "cancelled"


class RoundsExhaustedError(GuardrailError):
    """The conversation has no answer after ``rounds`` requests: the model still calls tools."""

    category = "rounds_exhausted"


class ToolError(GuardrailError):
    """A tool failed and ``tool_errors="raise"`` is set, or the ``turn`` function failed; the cause is its exception."""

    category = "tool_error"


class LLMCallError(BatchLLMError, RuntimeError):
    """A single call failed without an exception, for example because a middleware returned a failed result.

    Args:
        message: What happened.
        result: The failed result.
    """

    def __init__(self, message: str, result: WorkItemResult[Any, Any]) -> None:
        super().__init__(message)
        self.result = result


class PoolError(BatchLLMError):
    """Base class of the errors of a call pool."""

    category = "pool"
    """The ``error_category`` of results."""


class PoolSaturated(PoolError, RuntimeError):  # noqa: N818 - the field's name
    """More calls wait for the pool than its ``max_pending`` allows."""

    category = "pool_saturated"


class SubmitTimeout(PoolError, TimeoutError):  # noqa: N818 - the field's name
    """The call did not finish within its caller's timeout, including its wait in the queue."""

    category = "submit_timeout"


class PoolClosedError(PoolError, RuntimeError):
    """The pool is closed or closing."""

    category = "pool_closed"


class ResultSerializationError(BatchLLMError, ValueError):
    """A result cannot be written as JSON, or JSON cannot be read as a result."""


class ArtifactError(BatchLLMError):
    """A store or cache cannot be used. Results already stored are not affected."""


class ArtifactIOError(ArtifactError, OSError):
    """A store cannot be opened, read or written, for example because the disk is full."""


class ArtifactFormatError(ArtifactError, ValueError):
    """A file is not a store of this package, is damaged, or was written by a newer version."""


class ArtifactIdentityError(ArtifactError, ValueError):
    """A strategy has no identity under which its results could be found."""


class ArtifactSerializationError(ArtifactError, ValueError):
    """A result cannot be stored, or a stored one cannot be restored."""


class StoreWriteError(BatchAbortedError):
    """The store could not be written, so the run ended before this item finished."""

    category = "artifact_error"


UnkeptError = StoreWriteError
"""Another name of :class:`StoreWriteError`."""


class TokenEstimationError(GuardrailError):
    """The tokens of an item could not be estimated, so it was not sent; the cause is the estimator's exception."""

    category = "token_estimation_error"


class TokenEstimateExceedsLimit(TokenEstimationError):  # noqa: N818 - the field's name
    """The item needs more tokens than a limit allows per period: it could never be sent."""

    category = "token_estimate_exceeds_limit"


class ControlError(BatchLLMError):
    """A run cannot be found, reached or controlled.

    Args:
        code: What is wrong: ``"unknown_run"``, ``"several_runs"``, ``"not_running"`` (the run is over), ``"refused"``
            (it cannot do that), ``"bad_argument"``, ``"unreachable"``, ``"busy"``, ``"unauthorized"``,
            ``"bad_request"``, ``"store"`` or ``"state_directory"``.
        message: The same in words, with a remedy.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class QuotaScopeError(BatchLLMError, ValueError):
    """A strategy's ``quota_scope`` raises, or cannot be hashed."""
