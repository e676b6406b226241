"""``Provider`` for Daft's ``prompt()``, and ``ask()``, an expression with typed columns and errors.

Needs ``pip install 'batch-llm[daft]'``.
"""

from __future__ import annotations

import asyncio
import io
import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._frames import Answers, Template
from ._logs import Repeated
from ._stages import Stage, StageOptions
from ._values import as_text
from .call_pool import LLMCallPool
from .content import Audio, File, Image
from .errors import BatchAbortedError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .core.config import ProcessorConfig
    from .prompts import Strategy

    daft: Any  # it has few types
    DaftProvider = object
    PrompterDescriptor = object
else:
    try:
        import daft
        from daft.ai.protocols import PrompterDescriptor
        from daft.ai.provider import Provider as DaftProvider
    except ImportError as error:
        raise ImportError("batch_llm.daft needs Daft: pip install 'batch-llm[daft]'") from error

__all__ = ["Provider", "ask"]

TABLES_AT_ONCE = 16
"""Batches that Daft passes to one process at the same time."""


def ask(
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    columns: Sequence[str] | None = None,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    **options: Unpack[StageOptions],
) -> Any:
    """Return an expression that sends one prompt per row; it makes the columns of answers and a column of errors.

    ::

        rated = df.select("*", batch_llm.daft.ask("Rate: {text}", "openai:gpt-5-mini", response_model=Rating)).collect()

    Args:
        template: The prompt, with columns in braces; or a function of a row (a dict of ``columns``) that returns a
            prompt of any kind that the strategy takes. If it raises, only its row fails.
        strategy: A model name, or any other strategy of :func:`~batch_llm.process_frame`.
        columns: The columns that a template function reads; not allowed with a template string.
        output: See :func:`~batch_llm.process_frame`.
        response_model: See :func:`~batch_llm.process_frame`. By default, answers are text.
        config: The configuration.
        options: ``concurrency``, ``max_requests_per_minute``, ``max_tokens_per_minute``, ``shared_limits``, ``store``,
            ``resume``, ``timeout_per_item``, ``error_classifier``, ``middlewares``, ``observers``, ``job``: see
            :class:`~batch_llm.ParallelBatchProcessor`. With a model's name also the options of :func:`~batch_llm.llm`,
            except a fixed ``api_key``.

    Returns:
        A Daft expression for ``select()``. It makes several columns: one per field of the answers (``output.stars``),
        and ``output_error``: null, or why a row has no answer. Daft evaluates it again in each action on a lazy frame,
        so ``collect()`` once.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown; nothing has been sent.
        ValueError: If an argument is invalid, or the key is missing where Daft runs in this process; nothing has been
            sent. For missing columns, Daft itself raises an error, in ``select()``.
    """
    stage = Stage.of(
        strategy,
        template,
        output=output,
        response_model=response_model,
        config=config,
        options=options,
        others=("columns",),
    )
    import pyarrow

    if stage.job is not None:
        stage.job.meet_at(stage.config.shared_limits)
    reads = _columns_of(template, columns)
    schema = stage.schema(pyarrow.schema([(name, pyarrow.null()) for name in reads]))
    _check_key(stage)
    made = [field for field in schema if field.name not in reads]
    dtype = daft.DataType.struct({field.name: daft.DataType.from_arrow_type(field.type) for field in made})

    # Daft sends it to its workers by value, so it refers to nothing that cannot be pickled.
    @daft.cls(max_retries=0, on_error="raise")
    class Asker:
        def __init__(self) -> None:
            self.worker = stage.worker(TABLES_AT_ONCE)

        async def _answer(self, *series: Any) -> Any:
            table = pyarrow.table(dict(zip(reads, (one.to_arrow() for one in series), strict=True)))
            answered = await self.worker.run(table)
            new = [answered.column(field.name).combine_chunks() for field in made]
            return pyarrow.StructArray.from_arrays(new, fields=made)

        __call__ = daft.method.batch(return_dtype=dtype, unnest=True)(_answer)

    return Asker()(*(daft.col(name) for name in reads))


def _columns_of(template: Any, columns: Sequence[str] | None) -> list[str]:
    """Return the columns that a template reads."""
    if isinstance(template, str):
        if columns is not None:
            raise TypeError(
                "columns= is only for a template that is a function; a template string names its columns in braces"
            )
        reads = Template(template).columns
        if not reads:
            raise ValueError(f"the template names no column: {template!r}. Write {{text}}, for example")
        return reads
    if columns is None or isinstance(columns, str) or not columns:
        raise TypeError("a template that is a function needs columns=['text', ...], the columns that it reads")
    return list(columns)


def _check_key(stage: Stage) -> None:
    """Check that there is a key where the calls are made; on Ray, each worker has its own environment.

    Raises:
        ValueError: If it is missing.
    """
    missing = stage.missing_key()
    if missing is not None and daft.daft.get_or_infer_runner_type() == "native":
        raise ValueError(missing)


class Provider(DaftProvider):
    """A provider for ``daft.functions.prompt()``. Rows that fail are null; all others have their answers.

    ::

        from daft.functions import prompt

        provider = batch_llm.daft.Provider(max_requests_per_minute=12_000)
        df = df.with_column("answer", prompt(df["text"], provider=provider, model="openai:gpt-5-mini"))

    The job ends only if the provider rejects the key, the model or the account. Why a row is null is logged; for errors
    as a column see :func:`ask`.

    Args:
        config: The configuration.
        options: See :func:`ask`. Those that ``prompt()`` gets by the same names take precedence.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown.
        ValueError: If an argument is invalid.
    """

    def __init__(self, *, config: ProcessorConfig | None = None, **options: Unpack[StageOptions]) -> None:
        self._config, self._options = config, options
        stage = Stage.of("openai:any", _TEMPLATE, config=config, options=options)  # checks them
        if stage.job is not None:
            stage.job.meet_at(stage.config.shared_limits)

    @property
    def name(self) -> str:
        """The name of the provider, for Daft."""
        return "batch_llm"

    def get_prompter(
        self,
        model: str | None = None,
        return_format: Any = None,
        system_message: str | None = None,
        **options: Any,
    ) -> Any:
        """Return what Daft's ``prompt()`` needs; it calls this."""
        if model is None:
            raise ValueError("prompt() needs the model's name, such as model='openai:gpt-5-mini'")
        if system_message is not None:
            options["system_prompt"] = system_message
        stage = Stage.of(
            model,
            _TEMPLATE,
            response_model=return_format,
            config=self._config,
            options={**self._options, **options},
        )
        _check_key(stage)
        return _Descriptor(stage)


_TEMPLATE = "{prompt}"


@dataclass
class _Descriptor(PrompterDescriptor):
    """What Daft sends to its workers."""

    stage: Stage

    def get_provider(self) -> str:
        return "batch_llm"

    def get_model(self) -> str:
        return str(self.stage.strategy)

    def get_options(self) -> dict[str, Any]:
        return {}

    def get_udf_options(self) -> Any:
        return daft.ai.typing.UDFOptions(max_retries=0, on_error="raise")

    def instantiate(self) -> _Prompter:
        return _Prompter(self.stage)


class _Pool(LLMCallPool[Any]):
    """A pool for one job, which ends if the provider rejects the key, the model or the account."""

    _fails_early = True

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        super().__init__(stage.made()[0], config=stage.config)
        self._of_processor |= {"store": stage.store, **stage.of_run}
        self._be_new()

    def rejection(self) -> str | None:
        """Return why the provider rejects all calls, or None."""
        return self._stage.rejection(None if self._live is None else self._live.termination)


class _Prompter:
    """Answers the rows of all batches that Daft processes at the same time, in one process."""

    def __init__(self, stage: Stage) -> None:
        self._pool = _Pool(stage)
        self._value = _value_of(stage.response_model)
        self._log = Repeated()
        self._is_new = True

    async def prompt(self, messages: tuple[Any, ...]) -> Any:
        """Return the answer, or None if there is none.

        Raises:
            RuntimeError: If the provider rejects the key, the model or the account.
            ArtifactError: If the store cannot be used.
        """
        if self._is_new:
            self._is_new = False
            weakref.finalize(self, _close, self._pool, asyncio.get_running_loop())
        if None in messages:
            return None
        try:
            prompt = messages[0] if len(messages) == 1 and type(messages[0]) is str else await _prompt_of(messages)
            result = await self._pool.submit_result(prompt)
        except BatchAbortedError as error:
            self._check()
            return self._null(error)
        except (TypeError, ValueError, OSError) as error:  # not a prompt
            return self._null(error)
        if not result.success:
            self._check()
            return None  # the pool has logged why
        return self._value(result.output)

    def _check(self) -> None:
        rejection = self._pool.rejection()
        if rejection is not None:
            raise RuntimeError(rejection)

    def _null(self, error: Exception) -> None:
        self._log.event(logging.WARNING, "row_not_sent", "A row is null, because it was not sent: %s", error)


def _value_of(model: Any) -> Callable[[Any], Any]:
    """Return what makes an answer a value of the column that Daft has for the type of the answers.

    Daft ends, or hangs, at a value that does not fit.
    """
    answers = Answers(model)
    try:
        dtype = daft.DataType.string() if model is None else daft.DataType.infer_from_type(model)
    except Exception:  # as prompt() does
        dtype = daft.DataType.string()
    as_it_is_read = answers.plain
    return as_it_is_read if dtype.is_struct() else lambda output: as_text(as_it_is_read(output))


def _close(pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        asyncio.run_coroutine_threadsafe(pool.aclose(), loop)


async def _prompt_of(messages: Sequence[Any]) -> Any:
    """Return a prompt of texts and media, which are read and encoded in a thread."""
    return await asyncio.to_thread(lambda: [_part(message) for message in messages])


def _part(message: Any) -> Any:
    if isinstance(message, str):
        return message
    if isinstance(message, daft.File):
        with message.open() as opened:
            return _medium(opened.read(), message.mime_type())
    if isinstance(message, bytes):
        return _medium(message, daft.daft.guess_mimetype_from_content(message))
    if hasattr(message, "__array_interface__"):
        encoded = io.BytesIO()
        import_module("PIL.Image").fromarray(message).save(encoded, "PNG")
        return Image(encoded.getvalue())
    raise TypeError(f"prompt() takes strings, images, bytes and files, not {type(message).__name__}")


def _medium(data: bytes, media_type: str | None) -> Any:
    kind = (media_type or "").partition("/")[0]
    if kind == "text":
        return data.decode(errors="replace")
    if kind == "image":
        return Image(data, media_type=media_type)
    return Audio(data, media_type=media_type) if kind == "audio" else File(data, media_type=media_type)
