"""A stage: what a worker needs to process rows, in a form that can be pickled."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .._llm import check_variable
from .._options import ModelOptions, configured, split
from .._secrets import quoted
from ..artifacts import store_at
from ..core.config import ProcessorConfig
from ..errors import BatchAbortedError
from ..frames import Shape, with_model

if TYPE_CHECKING:
    from .._jobs import Job
    from .._results import BatchTermination
    from ..artifacts import ResumePolicy
    from ..middleware.base import Middleware
    from ..observers.base import ProcessorObserver
    from ..strategies.errors import ErrorClassifier
    from .worker import Worker


class StageOptions(ModelOptions, total=False):
    """What the stages of all engines take, beside the options of the model where its name is the strategy."""

    concurrency: int | Literal["auto"]
    max_requests_per_minute: float | None
    max_tokens_per_minute: float | None
    shared_limits: Any
    store: str | os.PathLike[str] | None
    resume: ResumePolicy | str | None
    timeout_per_item: float | None
    error_classifier: ErrorClassifier | None
    middlewares: Sequence[Middleware[Any, Any, Any]] | None
    observers: Sequence[ProcessorObserver] | None
    job: Job | None


_OF_CONFIG = ("max_requests_per_minute", "max_tokens_per_minute", "shared_limits")
_OF_RUN = ("resume", "timeout_per_item", "error_classifier", "middlewares", "observers", "job")
_KNOWN = (*_OF_CONFIG, *_OF_RUN, "concurrency", "store")
_ARGUMENTS = ("output", "response_model", "config")


@dataclass(frozen=True)
class Stage:
    """One prompt per row, on any number of workers. Make it with :meth:`of`; it can be pickled.

    Args:
        strategy: A strategy, or a model's name, of which each worker makes its own strategy with the key of its own
            environment.
        template: See :func:`~batch_llm.process_frame`.
        output: See :func:`~batch_llm.process_frame`.
        response_model: See :func:`~batch_llm.process_frame`.
        config: The configuration of each worker. Workers share its limits over its ``shared_limits``.
        of_model: Options of the model.
        of_run: Options of each run.
        store: A folder that all workers can access, or the URL of one in a bucket.
    """

    strategy: Any
    template: str | Callable[[dict[str, Any]], Any]
    output: str | None
    response_model: Any
    config: ProcessorConfig
    of_model: Mapping[str, Any]
    of_run: Mapping[str, Any]
    store: str | None = None

    @classmethod
    def of(
        cls,
        strategy: Any,
        template: Any,
        *,
        output: str | None = "output",
        response_model: Any = None,
        config: ProcessorConfig | None = None,
        options: Mapping[str, Any],
        others: Sequence[str] = (),
    ) -> Stage:
        """Check all arguments, and make the stage.

        Args:
            strategy: See :class:`Stage`.
            template: See :class:`Stage`.
            output: See :class:`Stage`.
            response_model: See :class:`Stage`.
            config: A configuration; it is copied.
            options: :class:`StageOptions`.
            others: Further keywords of the caller, for the message about an unknown one.

        Raises:
            TypeError: If an argument has the wrong type, or an option is unknown: names the nearest.
            ValueError: If an argument is invalid. Not if a key is missing: see :meth:`missing_key`.
        """
        given, of_model = split(options, strategy, (*_ARGUMENTS, *others), _KNOWN)
        _check_key(of_model)
        config = copy.copy(configured(config, given.get("concurrency", "auto")))
        for name in _OF_CONFIG:
            if given.get(name) is not None:
                setattr(config, name, given[name])
        config.keep_prompts = False  # nobody reads them, and a block may be large
        config.validate()
        store = given.get("store")
        stage = cls(
            strategy=strategy,
            template=template,
            output=output,
            response_model=response_model,
            config=config,
            of_model=of_model,
            of_run={name: given[name] for name in _OF_RUN if given.get(name) is not None},
            store=None if store is None else shared_store(store),
        )
        stage._made()
        return stage

    @property
    def job(self) -> Job | None:
        """What all workers work on together."""
        job: Job | None = self.of_run.get("job")
        return job

    def rejection(self, ended: BatchTermination | None) -> str | None:
        """Return why all other rows would fail too, after a run that has ended; None: they would not.

        If the stage's job is over, the engine's goes on: the other rows are not sent.
        """
        if ended is None or ended.kind != "fail_fast":
            return None
        ends = () if self.job is None else (BatchAbortedError.category, *self.job.abort_on_error_categories)
        return None if ended.error_category in ends else f"the run ended: {ended.reason}"

    def made(self) -> tuple[Any, Any]:
        """Return a strategy for this process, and the type of its answers.

        Raises:
            ValueError: If its key is missing.
        """
        return with_model(self.strategy, self.response_model, self.of_model)

    def missing_key(self) -> str | None:
        """Return the error if this process has no key. A worker may have one."""
        return self._made()[2]

    def schema(self, schema: Any) -> Any:
        """Return the Arrow schema of the result for tables of a schema.

        Raises:
            TypeError: If the template or the response model has the wrong type.
            ValueError: If the template names a column that is not there, or a new column has the name of one that is.
        """
        return self.shape(schema, *self._made()[:2]).schema

    def shape(self, schema: Any, strategy: Any, answers: Any) -> Shape:
        """Return the shape of tables of a schema."""
        return Shape(schema, self.template, strategy, answers, self.output, self.config, lenient=True)

    def check_travels(self, dumps: Callable[[Any], bytes], workers: str = "workers") -> None:
        """Check that the stage can be pickled.

        Args:
            dumps: The engine's own function, which raises if it cannot.
            workers: What the engine calls its workers.

        Raises:
            TypeError: If it cannot; names what is wrong and the remedy.
            ValueError: If its job is at a board in the memory of this process.
        """
        if self.job is not None:
            self.job.check_travels()
        try:
            dumps(self)
        except Exception as error:
            raise TypeError(
                f"the strategy or an option cannot be sent to {workers} ({type(error).__name__}: {error}). Give the "
                f"model by name, 'openai:gpt-5-mini', with its options here: each {workers[:-1]} then makes its own "
                "strategy"
            ) from error

    def worker(self, tables: int = 1) -> Worker:
        """Return the worker of this process.

        Args:
            tables: How many tables it gets at the same time.

        Raises:
            ValueError: If this process has no key: names the host and the remedy.
        """
        from .worker import Worker

        return Worker(self, tables)

    def _made(self) -> tuple[Any, Any, str | None]:
        try:
            return *self.made(), None
        except ValueError as error:
            if not isinstance(self.strategy, str) or "api_key" in self.of_model:
                raise
            # Check everything else with a made-up key, which is never sent.
            of_model = {**self.of_model, "api_key": "none", "api_key_env": None}
            return *with_model(self.strategy, self.response_model, of_model), str(error)


def _check_key(of_model: Mapping[str, Any]) -> None:
    key, variable = of_model.get("api_key"), of_model.get("api_key_env")
    if variable is not None:
        check_variable(variable)
    if key is not None and not callable(key):
        raise ValueError(
            "a fixed api_key would be copied to every worker, and into the engine's own files: set the provider's "
            "environment variable on the workers, or pass another variable's name, api_key_env='MY_KEY', or a function"
        )


def shared_store(store: str | os.PathLike[str]) -> str:
    """Return a store for workers that have other working directories.

    Raises:
        TypeError: If it is neither a path nor a URL.
        ValueError: If it is a single file, which several workers cannot write.
        ArtifactError: If it is a URL of something else.
    """
    try:
        path = os.fspath(store)
    except TypeError:
        raise TypeError(
            "store must be a URL such as 's3://bucket/run', or a folder that all workers can access, such as "
            f"'/mnt/shared/run/', not {type(store).__name__}"
        ) from None
    if "://" in path:
        return store_at(path).path
    stem, suffix = os.path.splitext(path)
    if suffix in (".db", ".jsonl", ".sqlite", ".sqlite3"):
        raise ValueError(
            f"store={quoted(path)} is one file, but several workers write to it: use a folder that all of them can "
            f"access, store={quoted(stem + '/')}, or a bucket, store='s3://bucket/run'"
        )
    return os.path.join(os.path.abspath(path), "")
