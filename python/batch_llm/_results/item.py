"""The result of one item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from .._pickles import copied, portable, portable_error, portable_parts
from .._types import TContext, TokenUsage, ToolCall, TOutput
from ..timing import WorkItemTiming, token_speed

if TYPE_CHECKING:
    from .._core import Timing

NOT_SENT = frozenset({
    "batch_aborted", "batch_budget_exceeded", "batch_deadline_exceeded", "interrupted", "provider_outage",
    "artifact_error",
})  # fmt: skip
"""Categories of what ends a run: an item without an attempt was never sent because of it."""
IN_BATCH = "in_batch"
"""Category of items that a run has left in batches."""
CANCELLED = "CancelledError"
"""First word of the errors of items whose run was cancelled."""


@dataclass
class WorkItemResult(Generic[TOutput, TContext]):
    """The result of one work item.

    Args:
        item_id: The item's id.
        success: Whether the item has an output.
        output: What the strategy returned.
        error: For a failed item, ``"{exception class}: {message}"``, or ``"Skipped by middleware"``.
        context: The item's own context object.
        token_usage: Tokens of all attempts.
        gemini_safety_ratings: Category to probability, from Gemini strategies with ``include_metadata``.
        attempts: The number of attempts made.
        submission_index: The position of the item in its run's order of submission, from 0.
        metadata: What the strategy reports about the answer; native strategies report the finish reason, model, request
            id, tool calls and log-probabilities.
        exception: For a failed item, the exception of the last attempt.
        error_category: For a failed item, the category from the error classifier, such as ``"rate_limit"`` or
            ``"authentication"``; or why the item was ended or not sent: see :mod:`batch_llm.errors`.
        reused: The source of the result if no call was made for it: ``"store"`` (an earlier run), ``"cache"``, or
            ``"duplicate"`` (an identical request of this run). Its tokens are those of the original call.
        prompt: The item's prompt, by reference; for a success, as modified by middlewares. None with
            ``keep_prompts=False``.
    """

    item_id: str
    success: bool
    output: TOutput | None = None
    error: str | None = None
    context: TContext | None = None
    token_usage: TokenUsage = field(default_factory=TokenUsage)
    gemini_safety_ratings: dict[str, str] | None = None
    attempts: int = field(default=0, compare=False)
    submission_index: int | None = field(default=None, compare=False)
    _timing: Timing | WorkItemTiming | None = field(default=None, repr=False, compare=False)
    metadata: dict[str, Any] | None = field(default=None, compare=False)
    exception: BaseException | None = field(default=None, repr=False, compare=False)
    error_category: str | None = field(default=None, compare=False)
    reused: Literal["store", "cache", "duplicate"] | None = field(default=None, compare=False)
    prompt: Any = field(default=None, repr=False, compare=False)

    _is_portable: ClassVar[bool] = True

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the engine's timing as plain values, without unpicklable objects of the user's."""
        return {
            **self.__dict__,
            "_timing": self.timing,
            "exception": portable_error(self.exception),
            "context": portable(self.context, "the context of an item"),
            "prompt": portable(self.prompt, "the prompt of an item"),
            "metadata": self.metadata and portable_parts(self.metadata, "the metadata of a result"),
        }

    def __copy__(self) -> WorkItemResult[TOutput, TContext]:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> WorkItemResult[TOutput, TContext]:
        made = memo[id(self)] = object.__new__(type(self))
        made.__dict__.update((name, copied(value, memo)) for name, value in self.__dict__.items())
        return made

    @property
    def not_sent(self) -> bool:
        """Whether the item was never sent because the run ended first, or is still in a batch at its provider.

        This is not a failure: a batch counts such items separately. ``error`` and ``error_category`` say why the
        run ended.
        """
        if self.in_batch:
            return True
        if self.success or self.attempts:
            return False
        return self.error_category in NOT_SENT or self._error_name == CANCELLED

    @property
    def in_batch(self) -> bool:
        """Whether the run has left the item in a batch at its provider; another run with the same store collects it."""
        return not self.success and self.error_category == IN_BATCH

    @property
    def replayed_from_artifact(self) -> bool:
        """Whether the result was read from a store, without a call."""
        return self.reused == "store"

    @property
    def timing(self) -> WorkItemTiming:
        """Where the item's time went, attempt by attempt."""
        timing = self._timing
        if isinstance(timing, WorkItemTiming):
            return timing
        # Made from the engine's timing on first access: most timings are never read.
        made = WorkItemTiming() if timing is None else WorkItemTiming.of(timing, self.success)
        if made.attempts and self.success:
            last = made.attempts[-1]
            last.first_token_seconds = (self.metadata or {}).get("first_token_seconds")
            output_tokens = self.token_usage.get("output_tokens")
            last.tokens_per_second = token_speed(output_tokens, last.execution_seconds, last.first_token_seconds)
        return made

    @timing.setter
    def timing(self, timing: Timing | WorkItemTiming) -> None:
        self._timing = timing

    @property
    def quota_wait_seconds(self) -> float:
        """How long the item waited for limits of requests and tokens, seconds, over all attempts."""
        return self.timing.quota_wait_seconds

    @property
    def admission_wait_seconds(self) -> float:
        """How long the item waited for the provider's concurrency limit, seconds, over all attempts."""
        return self.timing.admission_wait_seconds

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls requested by the model; see :class:`~batch_llm.Tool`."""
        return (self.metadata or {}).get("tool_calls") or []

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The whole conversation, for strategies with ``rounds=`` or ``turn=``: dicts with ``role`` and ``content``.

        They can be sent again as a prompt. For a failed item, the conversation as far as it came.
        """
        messages: list[dict[str, Any]] | None = self.__dict__.get("_conversation", (None, None))[0]
        return messages

    @property
    def rounds(self) -> int | None:
        """The number of replies in the conversation."""
        rounds: int | None = self.__dict__.get("_conversation", (None, None))[1]
        return rounds

    def _set_conversation(
        self, messages: list[dict[str, Any]], rounds: int, begin: int = 0, *, is_own: bool = True
    ) -> None:
        """Set the conversation; ``begin``: how many messages are the prompt; ``is_own``: and that is the item's own."""
        # Not a field: nearly all results have none, and each field takes time and memory of all of them.
        self.__dict__["_conversation"] = (messages, rounds, begin, is_own)

    @property
    def _messages_after_prompt(self) -> tuple[list[dict[str, Any]], int]:
        """The messages after the prompt; and how many the prompt has, if it is the item's own."""
        messages, _, begin, is_own = self.__dict__["_conversation"]
        return messages[begin:], begin if is_own else 0

    @property
    def _error_name(self) -> str | None:
        """The name under which a failure is counted: the first word of its error."""
        return None if self.success else str(self.error or "unknown").split(":", 1)[0]

    def to_dict(self, *, encoder: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Return the result as JSON values; see :mod:`batch_llm.serialization`.

        Args:
            encoder: Called with values that JSON does not support. What it returns is encoded in turn.

        Raises:
            ResultSerializationError: If a value cannot be encoded; the message says where.
        """
        from ..serialization import result_to_dict

        return result_to_dict(self, encoder)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> WorkItemResult[TOutput, TContext]:
        """Create a result from what :meth:`to_dict` returned.

        Args:
            data: The JSON values.
            output_decoder: Converts JSON values to outputs; by default they are unchanged.
            context_decoder: Converts JSON values to contexts.

        Raises:
            ResultSerializationError: If the data has another structure; the message says where.
        """
        from ..serialization import result_from_dict

        return result_from_dict(data, output_decoder, context_decoder)


for _field in fields(WorkItemResult):
    # The defaults are in `__init__`. Python does not specialize access to attributes whose names the class has as well
    # (PEP 659), and filling in a result would take twice as long.
    if _field.name in vars(WorkItemResult):
        delattr(WorkItemResult, _field.name)


if TYPE_CHECKING:
    # Only for type checkers: ``success`` tells them whether there is an output.

    class Succeeded(WorkItemResult[TOutput, TContext]):
        success: Literal[True]  # pyright: ignore[reportIncompatibleVariableOverride]
        output: TOutput  # pyright: ignore[reportIncompatibleVariableOverride]

    class Failed(WorkItemResult[TOutput, TContext]):
        success: Literal[False]  # pyright: ignore[reportIncompatibleVariableOverride]
        output: None  # pyright: ignore[reportIncompatibleVariableOverride]
        error: str  # pyright: ignore[reportIncompatibleVariableOverride]

    Result = Succeeded[TOutput, TContext] | Failed[TOutput, TContext]
else:
    Result = Succeeded = Failed = WorkItemResult
"""The result of an item, as batches, streams and calls give it. After ``if result.success:`` type checkers know that
``result.output`` is there (pyright after ``if result.success is True:``)."""


def as_result(result: WorkItemResult[TOutput, TContext]) -> Result[TOutput, TContext]:
    """The same, for type checkers."""
    one_of_the_two: Any = result
    made: Result[TOutput, TContext] = one_of_the_two
    return made


_new = object.__new__


def succeeded(
    item: Any,
    index: int,
    attempts: int,
    timing: Timing,
    output: Any,
    usage: TokenUsage,
    metadata: dict[str, Any] | None,
    keeps_prompt: bool,
) -> WorkItemResult[Any, Any]:
    """Make the result of a success, as ``WorkItemResult(...)`` does, which takes three times as long."""
    result: WorkItemResult[Any, Any] = _new(WorkItemResult)
    result.item_id = item.item_id
    result.success = True
    result.output = output
    result.error = None
    result.context = item.context
    result.token_usage = usage
    result.gemini_safety_ratings = None if metadata is None else metadata.get("safety_ratings")
    result.attempts = attempts
    result.submission_index = index
    result._timing = timing
    result.metadata = metadata
    result.exception = None
    result.error_category = None
    result.reused = None
    result.prompt = item.prompt if keeps_prompt else None
    return result
