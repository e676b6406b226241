"""What a run returns: a result for each item, and the batch of all results.

Conversions of a batch are in other modules: ``serialization`` (JSON), ``_report`` (tables, summaries) and ``_view``
(the page).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, SupportsIndex, overload

from ._results import BatchTermination as BatchTermination
from ._results import Failed, Succeeded
from ._results import ProcessingStats as ProcessingStats
from ._results import Result as Result
from ._results import RunEstimate as RunEstimate
from ._results import WorkItemResult as WorkItemResult
from ._types import TContext as TContext
from ._types import TokenUsage as TokenUsage
from ._types import TOutput as TOutput

if TYPE_CHECKING:
    import os

    import pandas
    import polars
    import pyarrow

    from ._view import ViewServer
    from .prices import Price

__all__ = ["BatchResult", "BatchTermination", "ProcessingStats", "Result", "TokenUsage", "WorkItemResult"]


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
class BatchResult(Generic[TOutput, TContext]):
    """The results of one run, in completion order, with totals and the reason why the run ended.

    The totals are computed from ``results`` when the object is created. They replace any that are passed, and do not
    follow later changes of ``results``. ``total_items == succeeded + failed + not_sent``: an item that was never sent,
    because the run ended first, or is still in a batch, is not a failure (see :attr:`WorkItemResult.not_sent`).
    ``stats`` has the counters of the run, ``wall_time_seconds`` its duration, and ``prices`` the prices of its
    configuration, which :meth:`summary` prefers to those of ``batch_llm.prices``. ``estimate`` is that of
    ``dry_run="sample"``; the batch has no results then.
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
    estimate: RunEstimate | None = field(default=None, compare=False)

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
            estimate: RunEstimate | None = None,
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
        shown = [f"{self.total_items:,} items: {', '.join(parts)}"]
        tokens = self.total_input_tokens + self.total_output_tokens
        if tokens:
            shown.append(f"{tokens:,} tokens")
        if self.wall_time_seconds is not None:
            shown.append(f"{self.wall_time_seconds:,.1f} s")
        if self.termination.kind != "completed":
            shown.append(self.termination.kind)
        return f"{type(self).__name__}({'; '.join(shown)})"

    @property
    def pending(self) -> list[Result[TOutput, TContext]]:
        """Results of items that wait in batches at their providers; another run with the same store collects them."""
        return [result for result in self.results if result.in_batch]

    def cache_hit_rate(self) -> float:
        """Return the percentage of input tokens that came from the provider's cache, 0.0 to 100.0."""
        if self.total_input_tokens == 0:
            return 0.0
        return self.total_cached_tokens / self.total_input_tokens * 100

    def effective_input_tokens(self, cached_token_rate: float = 0.1) -> int:
        """Return the input tokens, with cached ones weighted by their price.

        Args:
            cached_token_rate: The price of a cached token as a fraction of the full price, 0 to 1. By default a tenth,
                the price at Gemini, Anthropic and OpenAI (newer models) in 2026.

        Raises:
            ValueError: If the rate is not between 0 and 1.
        """
        _check_rate(cached_token_rate)
        return self.total_input_tokens - int(self.total_cached_tokens * (1 - cached_token_rate))

    def estimated_cost(
        self, input_per_mtok: float, output_per_mtok: float, cached_token_rate: float | None = None
    ) -> float:
        """Return the cost of the batch at these prices.

        Args:
            input_per_mtok: Price of a million input tokens.
            output_per_mtok: Price of a million output tokens.
            cached_token_rate: The price of a cached token as a fraction of the full price, 0 to 1; by default 1.

        Raises:
            ValueError: If a price is negative, or the rate is not between 0 and 1.
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
            IndexError: If there are fewer results.
            TypeError: If it is not an integer or a slice.
        """
        if isinstance(place, str):
            raise TypeError(f"a batch is indexed by position, not by item id; write batch.by_id()[{place!r:.80}]")
        return self.results[place]

    @property
    def successes(self) -> list[Succeeded[TOutput, TContext]]:
        """The successful results, in order."""
        found: list[Any] = [result for result in self.results if result.success]
        return found

    @property
    def failures(self) -> list[Failed[TOutput, TContext]]:
        """The failed results, in order, without those of items that were never sent."""
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
        """Return the results by item id; if several have the same id, the last."""
        return {result.item_id: result for result in self.results}

    def in_input_order(self) -> BatchResult[TOutput, TContext]:
        """Return the batch with its results in input order.

        Raises:
            ValueError: If a result has no ``submission_index``; the message names it.
        """
        for result in self.results:
            if result.submission_index is None:
                raise ValueError(
                    f"result {result.item_id!r} has no submission_index: it does not come from a run, so its position "
                    "in the input is unknown"
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
        """Return a one-screen summary of the batch.

        It has counts, errors by kind with an example, tokens, cost (if prices are known), latency, and what limited the
        run.
        """
        from ._report import summarize

        return summarize(self) if self.estimate is None else str(self.estimate)

    def _repr_html_(self) -> str:
        from ._report import cell

        return cell(self)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the page of :meth:`view` to a file: all results with their attempts, errors by kind, charts, summary.

        The page needs no other files, and sends no request. The file is written atomically. It contains prompts and
        answers; a new file's permissions follow the umask. Of very many results, failures come first, and the page says
        how many are left out.

        Args:
            path: The file.

        Raises:
            OSError: If the file cannot be written.
        """
        from ._view import BatchItems, write

        write(BatchItems(self), path)

    def view(self, *, open_browser: bool = True) -> ViewServer:
        """Show the batch in the browser: search, filter and sort its results, read prompts next to answers.

        The page is served on this machine only, at an address with a token, until the returned server is closed or the
        program ends.

        Args:
            open_browser: Whether to open a browser; False: see the server's ``url``.

        Raises:
            OSError: If no port can be opened.
        """
        import webbrowser

        from ._view import BatchItems, ViewServer

        server = ViewServer(BatchItems(self))
        if open_browser:
            webbrowser.open(server.url_once)
        return server

    # Tables

    def to_records(self) -> list[dict[str, Any]]:
        """Return a dict per result, with the columns of :meth:`to_pandas`."""
        from ._report import records

        return records(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame with a row per result, in input order.

        Columns: ``item_id``, ``submission_index``, ``success``, ``prompt`` (unless ``keep_prompts=False``), ``output``
        (or, if outputs are models, dataclasses or dicts, one column per field, ``output.name``), ``error``,
        ``error_category``, ``attempts``, the token counts, ``finish_reason`` and ``model`` (if the strategy reports
        them), and the seconds of ``queue``, ``quota_wait``, ``backoff`` and ``execution``. There is a column
        ``context`` or ``reused`` if any item has a value for it, and ``not_sent`` if any item was not sent. If all
        contexts have fields, each field has a column, ``context.name``. Answers of mixed types are preserved; in Polars
        and Arrow, whose columns have one type, they become JSON text. Embeddings are lists of numbers.

        Raises:
            ImportError: If pandas is not installed; the message says how to install it.
        """
        from ._report import to_pandas

        return to_pandas(self)

    def to_polars(self) -> polars.DataFrame:
        """Return a Polars data frame; see :meth:`to_pandas`."""
        from ._report import to_polars

        return to_polars(self)

    def to_arrow(self) -> pyarrow.Table:
        """Return an Arrow table; see :meth:`to_pandas`."""
        from ._report import to_arrow

        return to_arrow(self)

    # JSON

    def to_dict(self, *, encoder: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Return the batch as JSON values; see :meth:`WorkItemResult.to_dict`."""
        from ._batch_json import batch_to_dict

        return batch_to_dict(self, encoder)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> BatchResult[TOutput, TContext]:
        """Create a batch from what :meth:`to_dict` returned; see :meth:`WorkItemResult.from_dict`."""
        from ._batch_json import batch_from_dict

        return cls(**batch_from_dict(data, output_decoder, context_decoder))

    def to_json(self, *, encoder: Callable[[Any], Any] | None = None, indent: int | None = 2) -> str:
        """Return the batch as JSON text; see :meth:`to_dict`."""
        from ._batch_json import batch_to_json

        return batch_to_json(self, encoder, indent)

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> BatchResult[TOutput, TContext]:
        """Create a batch from what :meth:`to_json` returned; see :meth:`from_dict`."""
        from ._batch_json import batch_from_json

        return cls(**batch_from_json(text, output_decoder, context_decoder))

    def to_jsonl(self, path: str | os.PathLike[str], *, encoder: Callable[[Any], Any] | None = None) -> None:
        """Write the batch to a file: a line about the run, then one result per line.

        The file is written atomically. It contains prompts and answers; a new file's permissions follow the umask.

        Raises:
            ResultSerializationError: If a value cannot be encoded; the message says where. An earlier file stays
                unchanged.
            OSError: If the file cannot be written.
        """
        from ._batch_json import batch_to_jsonl

        batch_to_jsonl(self, path, encoder)

    @classmethod
    def from_jsonl(
        cls,
        path: str | os.PathLike[str],
        *,
        output_decoder: Callable[[Any], TOutput] | None = None,
        context_decoder: Callable[[Any], TContext] | None = None,
    ) -> BatchResult[TOutput, TContext]:
        """Read a batch that :meth:`to_jsonl` wrote; see :meth:`from_dict`."""
        from ._batch_json import batch_from_jsonl

        return cls(**batch_from_jsonl(path, output_decoder, context_decoder))


def _submission_index(result: WorkItemResult[Any, Any]) -> int:
    return -1 if result.submission_index is None else result.submission_index


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(
            f"cached_token_rate must be between 0 and 1 (got {rate!r}). It is a fraction of the full price."
        )
