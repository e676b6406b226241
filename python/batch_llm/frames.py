"""``process_frame()`` and ``run_frame()``: a question for each row of a data frame, the answers as its new columns."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ._columns import TEXT, Answers
from ._frames import ArrowFrame, Frame, frame_of, is_a
from ._strategies import as_strategy
from ._templates import Template
from .blocking import stream
from .prompts import PARTIAL, process_stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .base import BatchTermination, ProgressCallbackFunc, WorkItemResult
    from .core.config import ProcessorConfig
    from .prompts import ProcessorOptions, Strategy

__all__ = ["process_frame", "run_frame"]

TFrame = TypeVar("TFrame")
NOT_REACHED: Any = object()
"""Stands for the error of a row until it has a result."""


async def process_frame(
    frame: TFrame,
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    progress: bool | Literal["tqdm", "rich", "notebook"] | ProgressCallbackFunc = False,
    **options: Unpack[ProcessorOptions],
) -> TFrame:
    """Ask about every row of a data frame and return it with the answers as new columns.

    ::

        class Rating(BaseModel):
            friendly: bool
            topic: Literal["price", "quality", "other"]

        rated = await process_frame(reviews, "Rate this review: {text}", "openai:gpt-5-mini", response_model=Rating)

    Args:
        frame: A pandas or Polars data frame, or an Arrow table. It is not changed.
        template: The prompt, with columns in braces; ``{{`` and ``}}`` are braces. Or a function of a row (a dict of
            all columns) that returns a prompt of any kind that the strategy takes.
        strategy: What answers; see :func:`~batch_llm.process_prompts`.
        output: Name of the new column. Answers with fields have a column for each, ``"output.friendly"``; with None
            these are called as the fields are, ``"friendly"``. Columns of these names are replaced in what is returned.
        response_model: The type of the answers, which gives the columns their types. With a model's name it is asked
            for too; else it is by default what the strategy has as ``response_model`` or ``output_type``.
        config: See :func:`~batch_llm.process_prompts`.
        concurrency: See :func:`~batch_llm.process_prompts`.
        progress: See :func:`~batch_llm.process_prompts`.
        options: See :func:`~batch_llm.process_prompts`. With ``store=`` a broken run goes on where it was.

    Returns:
        A frame of the same kind, with the same rows in the same order (and, in pandas, the same index), the columns of
        answers, and ``output_error``: None, or why a row has no answer. A row in which a column of the template is
        null is not asked about. Beside the two frames memory holds the answers' values, not the results.

    Raises:
        TypeError: When an argument has the wrong type; nothing has been sent.
        ValueError: When the template names a column that is not there, or an argument makes no sense; nothing has
            been sent.
        Exception: What ``template`` raised, or a store; what was answered by then is a frame in the exception's
            attribute ``partial_result``.
    """
    answering, asking = _asking_about(frame, template, strategy, output, response_model, "process_frame")
    results = process_stream(answering, asking, config=config, concurrency=concurrency, progress=progress, **options)
    async with results:
        try:
            async for result in results:
                asking.take(result)
        except Exception as error:
            asking.attach(error)
            raise
    made: TFrame = asking.frame(results.termination)
    return made


def run_frame(
    frame: TFrame,
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    progress: bool | Literal["tqdm", "rich", "notebook"] | ProgressCallbackFunc = False,
    **options: Unpack[ProcessorOptions],
) -> TFrame:
    """Do what :func:`process_frame` does, without async.

    ::

        rated = run_frame(reviews, "Is this friendly? {text}", "openai:gpt-5-mini")

    For tables that are larger than memory ``frame`` may be a ``pyarrow.RecordBatchReader``; what is returned is one
    too, and asks while it is read, as far ahead as :func:`~batch_llm.stream` does.

    Args:
        frame: See :func:`process_frame`; or a ``pyarrow.RecordBatchReader``.
        template: See :func:`process_frame`.
        strategy: See :func:`process_frame`.
        output: See :func:`process_frame`.
        response_model: See :func:`process_frame`. With a reader answers are texts unless it says otherwise.
        config: See :func:`process_frame`.
        concurrency: See :func:`process_frame`.
        progress: See :func:`process_frame`.
        options: See :func:`process_frame`.

    Raises:
        Exception: As :func:`process_frame`.
    """
    if is_a(frame, "pyarrow", "RecordBatchReader"):
        streamed: TFrame = _reader(
            frame,
            template,
            strategy,
            output,
            response_model,
            {"config": config, "concurrency": concurrency, "progress": progress, **options},
        )
        return streamed
    answering, asking = _asking_about(frame, template, strategy, output, response_model, "run_frame")
    with stream(answering, asking, config=config, concurrency=concurrency, progress=progress, **options) as results:
        try:
            for result in results:
                asking.take(result)
        except Exception as error:
            asking.attach(error)
            raise
    made: TFrame = asking.frame(results.termination)
    return made


def _asking_about(
    frame: Any, template: Any, strategy: Any, output: str | None, model: Any, caller: str
) -> tuple[Any, _Asking]:
    """What answers, and what it is asked about a frame."""
    table = frame_of(frame)
    if table is None:
        more = " or RecordBatchReader" if caller == "run_frame" else ""
        raise TypeError(
            f"{caller} takes a pandas or Polars DataFrame, or an Arrow Table{more}, not {_kind_of(frame)}. "
            "A lazy frame must be collected first; for rows of other kinds see batch_llm.run()"
        )
    answering, answers = _with_model(strategy, model)
    return answering, _Asking(table, Prompts(template, table.names), answers, output)


def _kind_of(value: Any) -> str:
    return f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"


class _Asking:
    """The prompts of a frame, iterated once, and the answers' places in it.

    Args:
        frame: The frame.
        prompts: Makes them.
        answers: What answers are.
        output: The name of their column.
        before: How many rows there were in frames before, and how many of them were asked about.
    """

    def __init__(
        self, frame: Frame, prompts: Prompts, answers: Answers, output: str | None, before: tuple[int, int] = (0, 0)
    ) -> None:
        if output is not None and not isinstance(output, str):
            raise TypeError(f"output must be the name of a column, or None, not {output!r:.80}")
        self._frame, self._prompts, self._answers, self._output = frame, prompts, answers, output
        self._first_row, self._first_asked = before
        # Which row was asked about, by the order of asking.
        self._asked = array("q")
        self._taken = 0
        self._all_read = False
        self._values: list[Any] = [None] * len(frame)
        self._errors: list[Any] = [NOT_REACHED] * len(frame)

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for place, values in enumerate(self._frame.rows(self._prompts.columns)):
            prompt, problem = self._prompts.of(values)
            if problem is not None:
                self._errors[place] = problem
                continue
            self._asked.append(place)
            yield f"row_{self._first_row + place}", prompt
        self._all_read = True

    @property
    def is_whole(self) -> bool:
        """Whether every row has what it gets."""
        return self._all_read and self._taken == len(self._asked)

    @property
    def behind(self) -> tuple[int, int]:
        """What is ``before`` for the next frame."""
        return self._first_row + len(self), self._first_asked + len(self._asked)

    def take(self, result: WorkItemResult[Any, Any]) -> None:
        """Put an answer into its place."""
        place = self._asked[(result.submission_index or 0) - self._first_asked]
        self._values[place] = self._answers.plain(result.output)
        self._errors[place] = result.error
        self._taken += 1

    def frame(self, termination: BatchTermination | None) -> Any:
        """The frame with the answers so far."""
        reason = "the run failed" if termination is None else termination.reason or termination.kind
        errors = [f"not asked: {reason}" if error is NOT_REACHED else error for error in self._errors]
        columns = self._answers.columns(self._values, self._output)
        return self._frame.with_columns([*columns, (error_column(self._output), TEXT, errors)])

    def attach(self, error: Exception) -> None:
        """Hand out with an error what was answered all the same."""
        setattr(error, PARTIAL, self.frame(None))


def error_column(output: str | None) -> str:
    """The name of the column of errors."""
    return "error" if output is None else f"{output}_error"


def _with_model(strategy: Any, model: Any) -> tuple[Any, Answers]:
    if model is not None and isinstance(strategy, str):
        from .native import llm

        strategy = llm(strategy, response_model=model)
    strategy = as_strategy(strategy)
    if model is None:
        model = getattr(strategy, "response_model", None) or getattr(strategy, "output_type", None)
    return strategy, Answers(model)


class Prompts:
    """Prompts of rows.

    Args:
        template: A template over columns, or a function of a row.
        names: The columns that there are.

    Raises:
        TypeError: When the template is neither.
        ValueError: When it names no column, or one that is not there.
    """

    def __init__(self, template: Any, names: Sequence[str]) -> None:
        self._template: Any = template
        if callable(template):
            self.columns = list(names)
            return
        if not isinstance(template, str):
            raise TypeError(f"template must be a text with columns in braces, or a function of a row, not {template!r}")
        self._template = Template(template, names)
        self.columns = self._template.columns
        if not self.columns:
            raise ValueError(f"the template names no column: {template!r:.80}. Write {{{next(iter(names), 'text')}}}")

    def of(self, values: Sequence[Any]) -> tuple[Any, str | None]:
        """The prompt of a row, given the values of ``columns``; or why there is none."""
        row = dict(zip(self.columns, values, strict=True))
        if not isinstance(self._template, Template):
            return self._template(row), None
        for name, value in row.items():
            if value is None or (isinstance(value, float) and value != value):
                return None, f"not asked: {name!r} is null"
        return self._template.fill(row), None


def _reader(
    reader: Any, template: Any, strategy: Any, output: str | None, model: Any, options: Mapping[str, Any]
) -> Any:
    """Ask while a reader is read: batch by batch, in order."""
    import pyarrow

    strategy, answers = _with_model(strategy, model)
    # Its schema is wanted before the first answer is there.
    answers.kind = answers.kind or TEXT
    prompts_of = Prompts(template, reader.schema.names)
    empty = ArrowFrame(reader.schema.empty_table(), strict=True)
    schema = _Asking(empty, prompts_of, answers, output).frame(None).schema
    open_batches: deque[_Asking] = deque()

    def asking_about(batch: Any, before: tuple[int, int]) -> _Asking:
        table = ArrowFrame(pyarrow.Table.from_batches([batch]), strict=True)
        return _Asking(table, prompts_of, answers, output, before)

    def prompts() -> Iterator[tuple[str, Any]]:
        before = (0, 0)
        for batch in reader:
            asking = asking_about(batch, before)
            open_batches.append(asking)
            yield from asking
            before = asking.behind

    def batches() -> Iterator[Any]:
        with stream(strategy, prompts(), ordered=True, **options) as results:
            for result in results:
                while open_batches[0].is_whole:
                    yield from open_batches.popleft().frame(None).to_batches()
                open_batches[0].take(result)
            while open_batches:
                yield from open_batches.popleft().frame(results.termination).to_batches()
            # What a run that ended early has not read is passed on all the same.
            for batch in reader:
                yield from asking_about(batch, (0, 0)).frame(results.termination).to_batches()

    return pyarrow.RecordBatchReader.from_batches(schema, batches())
