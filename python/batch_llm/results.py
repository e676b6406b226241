"""What a run returns: a result for each item, and the batch of them with its sums.

What is made of a batch has modules of its own: ``serialization`` (JSON), ``_tables`` (data frames), ``_summary`` (one
screen of text), ``_report`` (HTML).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, SupportsIndex, TypedDict, TypeVar, overload

from ._pickles import copied, portable, portable_error, portable_parts
from .timing import WorkItemTiming

if TYPE_CHECKING:
    import os

    import pandas
    import polars
    import pyarrow

    from ._core import Timing
    from .prices import Price
    from .tools import ToolCall

__all__ = ["BatchResult", "BatchTermination", "ProcessingStats", "Result", "TokenUsage", "WorkItemResult"]

TOutput = TypeVar("TOutput")
TContext = TypeVar("TContext")


class TokenUsage(TypedDict, total=False):
    """Token counts of one call. A missing count, or None, counts as 0.

    ``input_tokens`` is the whole prompt; ``cached_input_tokens`` of it were read from the provider's cache and
    ``cache_write_tokens`` written to it. ``output_tokens`` is the whole answer, ``reasoning_tokens`` of it reasoning.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


NOT_SENT = frozenset({
    "batch_aborted", "batch_budget_exceeded", "batch_deadline_exceeded", "interrupted", "provider_outage",
    "artifact_error",
})  # fmt: skip
"""Categories of what ends a run: an item without an attempt was never sent because of it."""
BROKEN_OFF = "CancelledError"
"""How errors of items begin whose run was cancelled."""


def _count(value: Any) -> int:
    """A token count as an int: 0 for None and whatever is not a number."""
    return int(value) if isinstance(value, (int, float)) and value == value else 0


def _sums(results: Iterable[WorkItemResult[Any, Any]]) -> tuple[int, int, int, int]:
    """How many are successes, and their tokens (input, output, cached), whatever the counts are."""
    usages = [result.token_usage for result in results if isinstance(result.token_usage, dict)]
    keys = ("input_tokens", "output_tokens", "cached_input_tokens")
    inputs, outputs, cached = (sum(_count(usage.get(key)) for usage in usages) for key in keys)
    return sum(1 for result in results if result.success), inputs, outputs, cached


@dataclass
class WorkItemResult(Generic[TOutput, TContext]):
    """What became of one work item.

    Args:
        item_id: The item's id.
        success: Whether there is an output.
        output: What the strategy returned.
        error: For a failed item ``"{exception class}: {message}"``, or ``"Skipped by middleware"``.
        context: The item's own context object.
        token_usage: Tokens over all attempts.
        gemini_safety_ratings: Category to probability, from Gemini strategies with ``include_metadata``.
        attempts: How many attempts were made.
        submission_index: The item's place in the order of submission of its run, from 0.
        metadata: What the strategy tells about the answer: with native strategies why it ended, the model, the
            request's id, tool calls, log-probabilities.
        exception: The exception of the last attempt of a failed item.
        error_category: For a failed item what its error means, as the error classifier says: ``"rate_limit"``,
            ``"authentication"``, ...; or what ended it, or kept it from being sent: see :mod:`batch_llm.errors`.
        reused: Where the result comes from if no call was made for it: ``"store"``: an earlier run; ``"cache"``; or
            ``"duplicate"``: an equal request of this run. Its tokens are those of the call that was made once.
        prompt: The item's prompt itself, no copy; of an answer, as middlewares left it. None with
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
        """What is pickled: the notes of the engine as plain values, and nothing of the user's that cannot be."""
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
        """Whether the item was never sent, because the run ended before.

        That is no failure: a batch counts such items apart. ``error`` and ``error_category`` say why the run ended.
        """
        if self.success or self.attempts:
            return False
        return self.error_category in NOT_SENT or self._error_name == BROKEN_OFF

    @property
    def replayed_from_artifact(self) -> bool:
        """Whether it comes from a store, and no call was made for it."""
        return self.reused == "store"

    @property
    def timing(self) -> WorkItemTiming:
        """Where the item's time went, attempt by attempt."""
        timing = self._timing
        if isinstance(timing, WorkItemTiming):
            return timing
        # Made of the engine's notes when it is wanted: most timings never are.
        return WorkItemTiming() if timing is None else WorkItemTiming.of(timing, self.success)

    @timing.setter
    def timing(self, timing: WorkItemTiming) -> None:
        self._timing = timing

    @property
    def quota_wait_seconds(self) -> float:
        """How long the item waited for limits of requests and tokens, seconds, over all attempts."""
        return self.timing.quota_wait_seconds

    @property
    def admission_wait_seconds(self) -> float:
        """How long the item waited for room at the provider, seconds, over all attempts."""
        return self.timing.admission_wait_seconds

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools that the model wants called; see :class:`~batch_llm.Tool`."""
        return (self.metadata or {}).get("tool_calls") or []

    @property
    def _error_name(self) -> str | None:
        """Under which name a failure is counted: what its error begins with."""
        return None if self.success else str(self.error or "unknown").split(":", 1)[0]

    def to_dict(self, *, encoder: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Return the result as JSON values; see :mod:`batch_llm.serialization`.

        Args:
            encoder: Asked for values that JSON does not have; what it returns is encoded in turn.

        Raises:
            ResultSerializationError: When a value cannot be encoded; names its place.
        """
        from .serialization import result_to_dict

        return result_to_dict(self, encoder)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> WorkItemResult[TOutput, TContext]:
        """Make a result of what :meth:`to_dict` returned.

        Args:
            data: The JSON values.
            output_decoder: Makes outputs of JSON values; by default they stay as they are.
            context_decoder: The same for contexts.

        Raises:
            ResultSerializationError: When the data have another shape; names the place.
        """
        from .serialization import result_from_dict

        return result_from_dict(data, output_decoder, context_decoder)


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


@dataclass(frozen=True)
class BatchTermination:
    """Why a run ended.

    Args:
        kind: ``"completed"``; or ``"batch_timeout"``, ``"budget_exceeded"``, ``"fail_fast"``: a guardrail; or
            ``"interrupted"``: by Ctrl-C, or the interrupt of a notebook; or ``"artifact_error"``: results could not be
            stored any more; or ``"provider_outage"``: the provider was away for too long. In an exception's
            ``partial_result`` also ``"cancelled"``: whoever awaited the run was cancelled; or ``"failed"``: by any
            other exception, which ``reason`` names. ``KeyboardInterrupt`` of the user's own code interrupts too.
        reason: The same in words; None when it completed.
        error_category: For ``"fail_fast"`` the category that ended it.
        triggering_item_id: For ``"fail_fast"`` the item that failed.
    """

    kind: str = "completed"
    reason: str | None = None
    error_category: str | None = None
    triggering_item_id: str | None = None


@dataclass
class BatchResult(Generic[TOutput, TContext]):
    """The results of one run, in order of completion, with their sums, and why it ended.

    The counters are computed from ``results`` when the object is made; whatever was passed is overwritten, and later
    changes of ``results`` do not update them. ``total_items == succeeded + failed + not_sent``: an item that was never
    sent, because the run ended before, is no failure (see :attr:`WorkItemResult.not_sent`). ``stats`` are the counters
    of the run, ``wall_time_seconds`` its length, ``prices`` those of its configuration, which :meth:`summary` puts
    before the list of ``batch_llm.prices``.
    """

    results: list[Result[TOutput, TContext]]
    total_items: int = 0
    succeeded: int = 0
    failed: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    total_cached_tokens: int = 0
    termination: BatchTermination = field(default_factory=BatchTermination)
    stats: ProcessingStats | None = field(default=None, repr=False, compare=False)
    wall_time_seconds: float | None = field(default=None, compare=False)
    prices: Mapping[str, Price] | None = field(default=None, repr=False, compare=False)
    not_sent: int = 0

    if TYPE_CHECKING:
        # Whoever makes a batch of results of their own need not know of the two kinds.
        def __init__(
            self,
            results: Sequence[WorkItemResult[TOutput, TContext]],
            total_items: int = 0,
            succeeded: int = 0,
            failed: int = 0,
            total_input_tokens: int = 0,
            total_output_tokens: int = 0,
            total_cached_tokens: int = 0,
            termination: BatchTermination = ...,
            stats: ProcessingStats | None = None,
            wall_time_seconds: float | None = None,
            prices: Mapping[str, Price] | None = None,
            not_sent: int = 0,
        ) -> None: ...

    _is_portable: ClassVar[bool] = True

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied."""
        return {**self.__dict__, "prices": None if self.prices is None else dict(self.prices)}

    def __post_init__(self) -> None:
        from ._core import sums

        self.total_items = len(self.results)
        counted = sums(self.results) if isinstance(self.results, list) else None
        succeeded, *tokens = counted or _sums(self.results)
        self.succeeded, self.not_sent = succeeded, 0
        if succeeded < self.total_items:
            self.not_sent = sum(1 for result in self.results if result.not_sent)
        self.failed = self.total_items - succeeded - self.not_sent
        self.total_input_tokens, self.total_output_tokens, self.total_cached_tokens = tokens

    def __repr__(self) -> str:
        # One line, however large: it is shown in tracebacks and at prompts.
        parts = [f"{self.succeeded:,} succeeded", f"{self.failed:,} failed"]
        if self.not_sent:
            parts.append(f"{self.not_sent:,} not sent")
        said = [f"{self.total_items:,} items: {', '.join(parts)}"]
        tokens = self.total_input_tokens + self.total_output_tokens
        if tokens:
            said.append(f"{tokens:,} tokens")
        if self.wall_time_seconds is not None:
            said.append(f"{self.wall_time_seconds:,.1f} s")
        if self.termination.kind != "completed":
            said.append(self.termination.kind)
        return f"{type(self).__name__}({'; '.join(said)})"

    def cache_hit_rate(self) -> float:
        """Share of input tokens that came from the provider's cache, percent, 0.0 to 100.0."""
        if self.total_input_tokens == 0:
            return 0.0
        return self.total_cached_tokens / self.total_input_tokens * 100

    def effective_input_tokens(self, cached_token_rate: float = 0.1) -> int:
        """Input tokens, those from the provider's cache weighted by what they cost.

        Args:
            cached_token_rate: The price of a cached token as a part of the full one, 0 to 1. By default a tenth, which
                is what Gemini, OpenAI's newer models and Anthropic take in 2026.

        Raises:
            ValueError: When the rate is not within 0 and 1.
        """
        _check_rate(cached_token_rate)
        return self.total_input_tokens - int(self.total_cached_tokens * (1 - cached_token_rate))

    def estimated_cost(
        self, input_per_mtok: float, output_per_mtok: float, cached_token_rate: float | None = None
    ) -> float:
        """Return what the batch cost at these prices.

        Args:
            input_per_mtok: Price of a million input tokens.
            output_per_mtok: Price of a million output tokens.
            cached_token_rate: The price of a cached token as a part of the full one, 0 to 1; by default 1.

        Raises:
            ValueError: When a price is negative, or the rate is not within 0 and 1.
        """
        for name, price in (("input_per_mtok", input_per_mtok), ("output_per_mtok", output_per_mtok)):
            if not price >= 0:
                raise ValueError(f"{name} must be >= 0 (got {price!r}). It is a price per million tokens.")
        rate = 1.0 if cached_token_rate is None else cached_token_rate
        _check_rate(rate)
        inputs = self.total_input_tokens - self.total_cached_tokens * (1 - rate)
        return (inputs * input_per_mtok + self.total_output_tokens * output_per_mtok) / 1e6

    # Looking at results

    def __iter__(self) -> Iterator[Result[TOutput, TContext]]:
        return iter(self.results)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Result[TOutput, TContext]: ...
    @overload
    def __getitem__(self, place: slice) -> list[Result[TOutput, TContext]]: ...
    def __getitem__(self, place: Any) -> Any:
        """Return the result at a place in ``results``, or the list of those of a slice; see :meth:`by_id` for ids.

        Raises:
            IndexError: When there are not so many.
            TypeError: When it is no place.
        """
        if isinstance(place, str):
            raise TypeError(f"a batch is indexed by place, not by item id; write batch.by_id()[{place!r:.80}]")
        return self.results[place]

    @property
    def successes(self) -> list[Succeeded[TOutput, TContext]]:
        """The successful results, in order."""
        found: list[Any] = [result for result in self.results if result.success]
        return found

    @property
    def failures(self) -> list[Failed[TOutput, TContext]]:
        """The failed results, in order; without those of items that were never sent."""
        found: list[Any] = [result for result in self.results if not (result.success or result.not_sent)]
        return found

    @property
    def unsent(self) -> list[Failed[TOutput, TContext]]:
        """The results of items that were never sent, in order."""
        found: list[Any] = [result for result in self.results if result.not_sent]
        return found

    @overload
    def outputs(self, *, with_ids: Literal[False] = False) -> list[TOutput]: ...
    @overload
    def outputs(self, *, with_ids: Literal[True]) -> list[tuple[str, TOutput]]: ...
    def outputs(self, *, with_ids: bool = False) -> list[Any]:
        """Return the outputs of the successful results, in order; with ``with_ids`` as pairs ``(item_id, output)``."""
        if with_ids:
            return [(result.item_id, result.output) for result in self.results if result.success]
        return [result.output for result in self.results if result.success]

    def by_id(self) -> dict[str, Result[TOutput, TContext]]:
        """Return the results by item id; of several with one id the last."""
        return {result.item_id: result for result in self.results}

    def in_input_order(self) -> BatchResult[TOutput, TContext]:
        """Return the batch with its results in order of submission.

        Raises:
            ValueError: When a result does not say when it was submitted; names it.
        """
        for result in self.results:
            if result.submission_index is None:
                raise ValueError(
                    f"result {result.item_id!r} has no submission_index: it was not made by a run, so that its place "
                    "is not known"
                )
        ordered = sorted(self.results, key=_submission_index)
        return BatchResult(
            ordered,
            termination=self.termination,
            stats=self.stats,
            wall_time_seconds=self.wall_time_seconds,
            prices=self.prices,
        )

    def summary(self) -> str:
        """Say on one screen what came of the batch.

        Counts, errors by kind with an example, tokens, cost as far as prices are known, latency, what bound the run.
        """
        from ._summary import summary

        return summary(self)

    def _repr_html_(self) -> str:
        from ._report import cell

        return cell(self)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write a page that shows the batch: everything of :meth:`summary`, charts, and the results.

        It appears in one step, when it is whole. It holds prompts and answers; a new file has the permissions that the
        umask leaves.

        Args:
            path: Where; the page is one HTML file that needs nothing else.

        Raises:
            OSError: When the file cannot be written.
        """
        from ._report import write

        write(self, path)

    # Tables

    def to_records(self) -> list[dict[str, Any]]:
        """Return a dict per result, with the columns of :meth:`to_pandas`."""
        from ._tables import records

        return records(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame with a row per result, in input order.

        Columns: ``item_id``, ``submission_index``, ``success``, ``prompt`` (unless none was kept), ``output`` (or,
        where outputs are models, dataclasses or dicts, one column per field, ``output.name``), ``error``,
        ``error_category``, ``attempts``, the token counts, ``finish_reason``, ``model`` where the strategy told them,
        and the seconds of ``queue``, ``quota_wait``, ``backoff`` and ``execution``. ``context`` and ``reused`` where
        any item has one, ``not_sent`` where any is so; contexts that all have fields have a column for each,
        ``context.name``. Of answers of several kinds each is there as it is; in Polars and Arrow, whose columns hold
        one kind, as JSON text. Embeddings are lists of numbers.

        Raises:
            ImportError: When pandas is not installed; says how.
        """
        from ._tables import to_pandas

        return to_pandas(self)

    def to_polars(self) -> polars.DataFrame:
        """Return a Polars data frame; see :meth:`to_pandas`."""
        from ._tables import to_polars

        return to_polars(self)

    def to_arrow(self) -> pyarrow.Table:
        """Return an Arrow table; see :meth:`to_pandas`."""
        from ._tables import to_arrow

        return to_arrow(self)

    # JSON

    def to_dict(self, *, encoder: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Return the batch as JSON values; see :meth:`WorkItemResult.to_dict`."""
        from .serialization import batch_to_dict

        return batch_to_dict(self, encoder)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> BatchResult[TOutput, TContext]:
        """Make a batch of what :meth:`to_dict` returned; see :meth:`WorkItemResult.from_dict`."""
        from .serialization import batch_from_dict

        return batch_from_dict(data, output_decoder, context_decoder)

    def to_json(self, *, encoder: Callable[[Any], Any] | None = None, indent: int | None = 2) -> str:
        """Return the batch as JSON text; see :meth:`to_dict`."""
        from .serialization import batch_to_json

        return batch_to_json(self, encoder, indent)

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> BatchResult[TOutput, TContext]:
        """Make a batch of what :meth:`to_json` returned; see :meth:`from_dict`."""
        from .serialization import batch_from_json

        return batch_from_json(text, output_decoder, context_decoder)

    def to_jsonl(self, path: str | os.PathLike[str], *, encoder: Callable[[Any], Any] | None = None) -> None:
        """Write the batch to a file: a line about the run, then one result per line.

        It appears in one step, when it is whole. It holds prompts and answers; a new file has the permissions that the
        umask leaves.

        Raises:
            ResultSerializationError: When a value cannot be encoded; names its place; an earlier file stays as it was.
            OSError: When the file cannot be written.
        """
        from .serialization import batch_to_jsonl

        batch_to_jsonl(self, path, encoder)

    @classmethod
    def from_jsonl(
        cls,
        path: str | os.PathLike[str],
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> BatchResult[TOutput, TContext]:
        """Read what :meth:`to_jsonl` wrote; see :meth:`from_dict`."""
        from .serialization import batch_from_jsonl

        return batch_from_jsonl(path, output_decoder, context_decoder)


def _submission_index(result: WorkItemResult[Any, Any]) -> int:
    return -1 if result.submission_index is None else result.submission_index


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"cached_token_rate must be within 0 and 1 (got {rate!r}). It is a part of the full price.")


@dataclass
class ProcessingStats:
    """Counters of a run. ``total_cached_tokens`` and ``cached_input_tokens`` are two names for the same number.

    ``bound_by`` says for how many seconds what kept further attempts from starting: ``"workers"`` (all were busy),
    ``"concurrency"`` and ``"pace"`` (as many and as fast as the provider takes), ``"quota:requests"``,
    ``"quota:tokens"`` and their like (a limit was used up), ``"cooldown"``, ``"outage"`` (the provider was away),
    ``"slow_start"``, ``"budget"`` (the rest is reserved), ``"estimates"``, ``"other_runs"`` (sharing a limit),
    ``"source"`` (nothing was waiting), ``"backoff"`` (all that was left was to be tried again later), ``"consumer"``
    (results were not taken), ``"paused"``.
    ``processed == succeeded + failed + not_sent``; the last were never sent, because the run ended before.
    ``replayed`` of the items had their results already, from a store, a cache or an equal request; their tokens are in
    no counter. ``limits`` are those in force, told by you or (``learned``) by the provider, with what is left of each;
    ``concurrency`` is what ``"auto"`` has found.
    """

    total: int = 0
    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: float | None = None
    error_counts: dict[str, int] = field(default_factory=dict)
    rate_limit_count: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    total_cached_tokens: int = 0
    # The twelve above keep 0.3.0's order, for those who give them by position. What is new goes below.
    replayed: int = 0
    bound_by: dict[str, float] = field(default_factory=dict)
    budget_tokens_used: float = 0.0
    budget_cost_used: float = 0.0
    budget_unknown_usage_attempts: int = 0
    limits: list[dict[str, Any]] = field(default_factory=list)
    concurrency: float = 0.0
    not_sent: int = 0

    def explain(self) -> str:
        """Say what bound the run, for how much of its time, and what to change: one line per reason."""
        from ._explain import explain

        return explain(self)

    def copy(self) -> dict[str, Any]:
        """Return the counters as a dict of their own."""
        return {**vars(self), "error_counts": dict(self.error_counts)}
