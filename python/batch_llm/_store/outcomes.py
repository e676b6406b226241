"""Which results are stored, cached and reused, and what fails because of a store. Used by ``run_store``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._error_text import describe
from .._logs import message_of
from .._results import WorkItemResult
from ..errors import ArtifactSerializationError

if TYPE_CHECKING:
    from .._items import LLMWorkItem

    Item = LLMWorkItem[Any, Any, Any]

Result = WorkItemResult[Any, Any]

PREPARATION = "artifact_preparation_error"
"""Category of an item whose request cannot be fingerprinted, or whose stored result cannot be made again."""
SERIALIZATION = "artifact_serialization_error"
"""Category of an item whose output cannot be stored."""

_UNFINISHED = frozenset({
    "batch_aborted", "batch_budget_exceeded", "batch_deadline_exceeded", "interrupted", "cancelled", "artifact_error",
    "provider_outage", "in_batch",
})  # fmt: skip
"""Not stored: the run has ended the item, not what became of its attempts."""
_NEVER_REUSED = frozenset({
    "middleware_filtered", SERIALIZATION, PREPARATION, "framework_total_item_timeout", "token_estimator_required",
    "token_estimation_error", "token_estimate_exceeds_limit", "quota_scope_error", "middleware_contract_error",
    "authentication", "permission_denied", "insufficient_balance",
})  # fmt: skip
"""Stored, but retried whatever the policy: the cause is outside of the request."""
_UNCACHED = frozenset({"length", "content_filter", "refusal"})
NEVER, FAILURE, SUCCESS = 0, 1, 2
"""Whether a later run may use a record: never, where it reuses failures too, or where it reuses successes."""


def is_unfinished(result: Result) -> bool:
    """Whether a result is not stored: a later run sends its item."""
    return result.error_category in _UNFINISHED


def is_cached(result: Result) -> bool:
    """Whether a result is an answer for the cache: a success that is not truncated."""
    reason = (result.metadata or {}).get("finish_reason")
    is_whole = not any(one in _UNCACHED for one in (reason if isinstance(reason, list) else [reason]))
    return bool(result.success) and is_whole


def reuse_of(result: Result, has_output: bool) -> int:
    """Return whether a later run may use the record of a result; ``has_output``: a success is stored with it."""
    if result.success:
        return SUCCESS if has_output else NEVER
    return NEVER if result.error_category in _NEVER_REUSED else FAILURE


def unprepared(index: int, item: Item, error: Exception) -> Result:
    """Return the result of an item whose request cannot be fingerprinted."""
    return WorkItemResult(
        item.item_id, False, None, describe(error), item.context, submission_index=index, exception=error,
        error_category=PREPARATION,
    )  # fmt: skip


def fail_unstored(result: Result, cause: Exception) -> None:
    """Turn a result into a failed one: it cannot be stored. Its output stays, in memory."""
    error = ArtifactSerializationError(
        f"item {result.item_id!r} cannot be stored ({message_of(cause)}); give the store an encoder, or "
        "include_output=False"
    )
    error.__cause__ = cause
    result.success, result.error_category, result.exception = False, SERIALIZATION, error
    result.error = f"{type(error).__name__}: {error}"
