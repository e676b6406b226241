"""``process_frame()`` and ``run_frame()``: a question for each row of a data frame, the answers as its new columns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ._callers import ends_at_caller
from ._endings import PARTIAL
from ._frames import (
    TEXT,
    Answers,
    ArrowFrame,
    Frame,
    Prompts,
    check_names,
    earlier_columns,
    error_column,
    frame_of,
    is_a,
    load,
)
from ._options import OF_FRAMES, split, strategy_with
from ._run import interrupted, remember
from ._values import clean
from .blocking import stream
from .prompts import process_stream

if TYPE_CHECKING:
    import pyarrow
    from typing_extensions import Unpack

    from ._options import FrameOptions
    from ._results import BatchTermination, WorkItemResult
    from .core.config import ProcessorConfig
    from .prompts import Strategy

__all__ = ["answers_schema", "process_frame", "run_frame"]

TFrame = TypeVar("TFrame")
NOT_REACHED: Any = object()
"""Stands for the error of a row until it has a result."""


@ends_at_caller
async def process_frame(
    frame: TFrame,
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    **options: Unpack[FrameOptions],
) -> TFrame:
    """Send one prompt per row of a data frame, and return the frame with the answers as new columns.

    ::

        class Rating(BaseModel):
            friendly: bool
            topic: Literal["price", "quality", "other"]

        rated = await process_frame(reviews, "Rate this review: {text}", "openai:gpt-5-mini", response_model=Rating)

    Args:
        frame: A pandas or Polars data frame, or an Arrow table. It is not modified.
        template: The prompt, with column names in braces; any column name works, and ``{{`` and ``}}`` are literal
            braces. Or a function that takes a row (a dict of all columns) and returns any prompt that the strategy
            accepts.
        strategy: What answers the prompts; see :func:`~batch_llm.process_prompts`.
        output: Name of the new column. Answers with fields have one column per field, ``"output.friendly"``; with None,
            ``"friendly"``. In the returned frame, the answers of an earlier call (``"output"`` and all columns that
            begin with ``"output."``, next to ``"output_error"``) are replaced, even if the new answers have other
            fields. Other columns are never replaced.
        response_model: The type of the answers, which determines the column types. With a model name, it is also the
            response model of the strategy. By default, the strategy's ``response_model`` or ``output_type``.
        config: See :func:`~batch_llm.process_prompts`.
        concurrency: See :func:`~batch_llm.process_prompts`.
        progress: See :func:`~batch_llm.process_prompts`.
        on_interrupt: What happens after Ctrl-C, or a notebook's interrupt, has ended the run. ``"raise"``: raise
            ``KeyboardInterrupt``, whose ``partial_result`` is the frame with the answers so far. ``"return"``: return
            the frame.
        options: See :func:`~batch_llm.process_prompts`. With ``store=``, an interrupted run resumes where it stopped.

    Returns:
        A frame of the same kind, with the same rows in the same order (in pandas, with the same index), the columns of
        answers, and ``output_error``: null, or why the row has no answer or an incomplete one. A row is not sent if a
        template column is null, if all template columns are blank, or if the strategy does not accept its prompt. In
        addition to the two frames, memory holds only the answer values, not the results.

    Raises:
        TypeError: If an argument has the wrong type; nothing has been sent.
        ValueError: If the template names a column that does not exist, or a new column would have the name of an
            existing one, or an argument is invalid; nothing has been sent.
        BaseException: What ``template`` or the store raised, or an interrupt. The exception's attribute
            ``partial_result`` is the frame with the answers so far.
    """
    options, of_model = _split(options, strategy)
    answering, asking = _asking_about(
        frame, template, strategy, output, response_model, config, "process_frame", of_model
    )
    results = process_stream(
        answering,
        asking,
        config=config,
        concurrency=concurrency,
        **options,
    )
    async with results:
        try:
            async for result in results:
                asking.take(result)
        except BaseException as error:
            asking.attach(error, results.termination)
            raise
    made: TFrame = asking.frame(results.termination)
    return made


@ends_at_caller
def run_frame(
    frame: TFrame,
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    concurrency: int | Literal["auto"] = "auto",
    **options: Unpack[FrameOptions],
) -> TFrame:
    """Do what :func:`process_frame` does, without async.

    ::

        rated = run_frame(reviews, "Is this friendly? {text}", "openai:gpt-5-mini")

    For tables larger than memory, ``frame`` may be a ``pyarrow.RecordBatchReader``. The return value is a reader too,
    and sends prompts as you read it, as far ahead as :func:`~batch_llm.stream` does.

    Args:
        frame: See :func:`process_frame`; or a ``pyarrow.RecordBatchReader``.
        template: See :func:`process_frame`.
        strategy: See :func:`process_frame`.
        output: See :func:`process_frame`.
        response_model: See :func:`process_frame`. With a reader, answers are text by default.
        config: See :func:`process_frame`.
        concurrency: See :func:`process_frame`.
        progress: See :func:`process_frame`.
        on_interrupt: See :func:`process_frame`.
        options: See :func:`process_frame`.

    Raises:
        Exception: As for :func:`process_frame`.
    """
    options, of_model = _split(options, strategy)
    more: dict[str, Any] = {"config": config, "concurrency": concurrency, **options}
    if is_a(frame, "pyarrow", "RecordBatchReader"):
        # Its schema is wanted before the first answer is there.
        known: Any = frame
        answering, answers = with_model(strategy, response_model, of_model)
        shape = Shape(known.schema, template, answering, answers, output, config)
        streamed: TFrame = answers_of_reader(known, shape, answering, more)
        return streamed
    answering, asking = _asking_about(frame, template, strategy, output, response_model, config, "run_frame", of_model)
    opened = stream(answering, asking, **more)
    with opened as results:
        try:
            for result in results:
                asking.take(result)
        except BaseException as error:
            asking.attach(error, results.termination)
            raise
    made: TFrame = asking.frame(results.termination)
    return made


@ends_at_caller
def answers_schema(
    schema: pyarrow.Schema | None = None,
    response_model: Any = None,
    output: str | None = "output",
    *,
    template: str | Callable[[dict[str, Any]], Any] | None = None,
    strategy: Strategy[Any] | None = None,
) -> pyarrow.Schema:
    """Return the schema of what :func:`run_frame` returns for a reader with this schema. Sends nothing.

    Engines such as Spark and Daft ask for the columns before there are answers::

        answers_schema(reviews.schema, Rating)

    Args:
        schema: The schema of the input; None: return the schema of the new columns alone.
        response_model: See :func:`process_frame`. By default, that of the strategy, otherwise text.
        output: See :func:`process_frame`.
        template: If given, check that it fits the schema.
        strategy: The strategy whose type of answers is used if there is no ``response_model``. For a model name, no key
            is needed.

    Returns:
        The schema. What ``run_frame()`` returns for a table can differ: without a declared type, the columns have the
        types of the answers, and fields that the type does not declare have columns too.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the template names a column that does not exist, or a new column would have the name of an
            existing one.
        ImportError: If pyarrow is not installed.
    """
    arrow = load("pyarrow")
    if schema is None:
        schema = arrow.schema([])
    elif not is_a(schema, "pyarrow", "Schema"):
        raise TypeError(f"schema must be a pyarrow.Schema, such as table.schema, not {_kind_of(schema)}")
    answers = _answers_of(strategy, response_model)
    return Shape(schema, _no_prompt if template is None else template, strategy, answers, output).schema


def _no_prompt(row: dict[str, Any]) -> None:
    """Stand for a template that is not known."""


def _asking_about(
    frame: Any,
    template: Any,
    strategy: Any,
    output: str | None,
    model: Any,
    config: Any,
    caller: str,
    options: Mapping[str, Any],
) -> tuple[Any, _Asking]:
    """The strategy, and the template of its prompts."""
    table = frame_of(frame)
    if table is None:
        more = " or RecordBatchReader" if caller == "run_frame" else ""
        raise TypeError(
            f"{caller} takes a pandas or Polars DataFrame, or an Arrow Table{more}, not {_kind_of(frame)}. "
            "Collect a lazy frame first; for other inputs use batch_llm.run()"
        )
    answering, answers = with_model(strategy, model, options)
    prompts = Prompts(template, table, answering, config)
    replaced = check_names(table.names, output, answers, prompts)
    return answering, _Asking(table, prompts, answers, output, replaced)


def _kind_of(value: Any) -> str:
    return f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"


class _Asking:
    """The prompts of a frame, iterated once, and the answers' places in it.

    Args:
        frame: The frame.
        prompts: Makes them.
        answers: What answers are.
        output: The name of their column.
        replaced: Whether columns of these names are replaced.
        before: How many rows earlier frames had, and how many of them were sent.
        fixed: Whether the new columns were announced before.
    """

    def __init__(
        self,
        frame: Frame,
        prompts: Prompts,
        answers: Answers,
        output: str | None,
        replaced: bool,
        before: tuple[int, int] = (0, 0),
        *,
        fixed: bool = False,
    ) -> None:
        self._frame, self._prompts, self._answers, self._output = frame, prompts, answers, output
        self._replaced, self._fixed = replaced, fixed
        self._first_row, self._first_sent = before
        self.is_lazy = prompts.calls_back
        """Whether rows that are not sent are not read either."""
        # Which row was sent, in the order of sending.
        self._sent = array("q")
        self._taken = 0
        self._all_read = False
        self._values: list[Any] = [None] * len(frame)
        self._errors: list[Any] = [NOT_REACHED] * len(frame)

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        places = self._prompts.places
        rows = self._frame.rows(places) if places else itertools.repeat((), len(self._frame))
        for place, values in enumerate(rows):
            prompt, problem = self._prompts.of(values)
            if problem is not None:
                self._errors[place] = f"invalid row: {problem}"
                continue
            self._sent.append(place)
            self._all_read = place == len(self._frame) - 1  # what comes after this one may take long
            yield f"row_{self._first_row + place}", prompt
        self._all_read = True

    @property
    def is_whole(self) -> bool:
        """Whether every row has what it gets."""
        return self._all_read and self._taken >= len(self._sent)

    @property
    def behind(self) -> tuple[int, int]:
        """What is ``before`` for the next frame."""
        return self._first_row + len(self), self._first_sent + len(self._sent)

    def take(self, result: WorkItemResult[Any, Any]) -> None:
        """Put an answer into its place."""
        at = (result.submission_index or 0) - self._first_sent
        if at < 0:
            return  # sent once more by control, after its row was passed on; the store has the answer
        place = self._sent[at]
        self._taken += 1
        if result.not_sent:
            return
        self._values[place] = self._answers.plain(result.output)
        self._errors[place] = result.error

    def frame(self, termination: BatchTermination | None) -> Any:
        """The frame with the answers so far."""
        reason = "the run failed" if termination is None else termination.reason or termination.kind
        error = error_column(self._output)
        earlier = set(earlier_columns(self._frame.names, self._output)) if self._replaced else set()
        taken = {error, *self._frame.names} - earlier
        # Columns of fields beside others of such a name could not be distinguished the next time.
        apart = self._output is None or not any(name.startswith(f"{self._output}.") for name in taken)
        columns, problems = self._answers.columns(self._values, self._output, taken, fixed=self._fixed, apart=apart)
        errors = []
        for place, error_text in enumerate(self._errors):
            if error_text is NOT_REACHED:
                error_text = f"not sent: {reason}"
            elif error_text is None:
                error_text = problems.get(place)
            errors.append(None if error_text is None else clean(str(error_text)))
        # Columns of the same names keep their places; others are no longer there, and the new ones are at the end.
        is_alike = earlier == {name for name, _, _ in columns}
        frame = self._frame.without(() if is_alike else {*earlier, error} if self._replaced else ())
        return frame.with_columns([*columns, (error, TEXT, errors)])

    def attach(self, error: BaseException, termination: BatchTermination) -> None:
        """Hand out with an error what was answered all the same."""
        with contextlib.suppress(Exception):  # the original exception is raised in any case
            is_interrupt = isinstance(error, KeyboardInterrupt | asyncio.CancelledError) and hasattr(error, PARTIAL)
            if is_interrupt or isinstance(error, KeyboardInterrupt):
                remember(error, self.frame(termination))
            if is_interrupt:
                error.args = (interrupted("the frame with the answers so far is"),)
            else:
                setattr(error, PARTIAL, self.frame(None if termination.kind == "completed" else termination))


def _split(options: Any, strategy: Any) -> tuple[Any, dict[str, Any]]:
    return split(options, strategy, ("output", "response_model", "config", "concurrency"), OF_FRAMES)


def with_model(strategy: Any, model: Any, options: Mapping[str, Any]) -> tuple[Any, Answers]:
    """The strategy, and what its answers are.

    Args:
        strategy: A strategy, a model's name, or a function.
        model: The type of answers; None: what the strategy has.
        options: Those of the model, where its name is the strategy.
    """
    if model is not None and isinstance(strategy, str):
        options = {**options, "response_model": model}
    strategy = strategy_with(strategy, options)
    return strategy, _answers_of(strategy, model)


def _answers_of(strategy: Any, model: Any) -> Answers:
    if model is not None:
        return Answers(model)
    try:
        return Answers(getattr(strategy, "response_model", None) or getattr(strategy, "output_type", None))
    except TypeError:  # what a strategy has may be any class
        return Answers(None)


class Shape:
    """The prompts and the new columns of tables of one schema; the columns are known before the first answer.

    Args:
        schema: The schema of the tables.
        template: See :func:`process_frame`.
        strategy: The strategy.
        answers: The type of the answers; texts, if that is unknown.
        output: See :func:`process_frame`.
        config: See :class:`Prompts`.
        lenient: See :class:`Prompts`.

    Raises:
        Exception: As :func:`process_frame`, about the arguments.
    """

    def __init__(
        self,
        schema: Any,
        template: Any,
        strategy: Any,
        answers: Answers,
        output: str | None,
        config: ProcessorConfig | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        answers.kind = answers.kind or TEXT
        self._answers, self._output = answers, output
        empty = ArrowFrame(schema.empty_table())
        self._prompts = Prompts(template, empty, strategy, config, lenient=lenient)
        self._replaced = check_names(empty.names, output, answers, self._prompts)
        self.schema = self.asking(empty.frame).frame(None).schema
        """The schema of the result."""

    def asking(self, table: Any, before: tuple[int, int] = (0, 0)) -> _Asking:
        """The prompts of a table; ``before``: how many rows earlier ones had, and how many of them were sent."""
        frame = ArrowFrame(table)
        return _Asking(frame, self._prompts, self._answers, self._output, self._replaced, before, fixed=True)

    def answered(self, asking: _Asking, termination: BatchTermination | None) -> Any:
        """The table with the answers so far."""
        return asking.frame(termination).cast(self.schema)


def answers_of_reader(
    reader: Any,
    shape: Shape,
    strategy: Any,
    options: Mapping[str, Any],
    on_end: Callable[[BatchTermination], None] | None = None,
) -> Any:
    """Ask while a reader is read: batch by batch, in order.

    Args:
        reader: A ``pyarrow.RecordBatchReader``.
        shape: What is asked about its batches.
        strategy: What answers.
        options: Those of :func:`~batch_llm.stream`.
        on_end: Called when the run has ended, before rows that have no answers are passed on; may raise.
    """
    import pyarrow

    schema = shape.schema
    open_batches: deque[_Asking] = deque()

    def asking_about(batch: Any, before: tuple[int, int]) -> _Asking:
        return shape.asking(pyarrow.Table.from_batches([batch]), before)

    def made_of(asking: _Asking, termination: BatchTermination | None) -> Any:
        return shape.answered(asking, termination).to_batches()

    def prompts() -> Iterator[tuple[str, Any]]:
        before = (0, 0)
        for batch in reader:
            asking = asking_about(batch, before)
            open_batches.append(asking)
            yield from asking
            before = asking.behind

    def whole() -> Iterator[Any]:
        while open_batches and open_batches[0].is_whole:
            yield from made_of(open_batches.popleft(), None)

    def batches() -> Iterator[Any]:
        with stream(strategy, prompts(), ordered=True, **options) as results:
            try:
                for result in results:
                    yield from whole()
                    open_batches[0].take(result)
                    yield from whole()
            except Exception as error:
                with contextlib.suppress(Exception):
                    rest = [batch for asking in open_batches for batch in made_of(asking, None)]
                    setattr(error, PARTIAL, pyarrow.Table.from_batches(rest, schema))
                raise
            if on_end is not None:
                on_end(results.termination)
            while open_batches:
                yield from made_of(open_batches.popleft(), results.termination)
            # What a run that ended early has not read is passed on all the same.
            for batch in reader:
                yield from made_of(asking_about(batch, (0, 0)), results.termination)

    return pyarrow.RecordBatchReader.from_batches(schema, batches())
