"""``map_prompts()`` for Spark: one prompt per row of a data frame, the answers as new columns.

Needs ``pip install 'batch-llm[spark]'`` on the driver and on the executors.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._boards import LimitServer
from ._logs import logger_of
from ._stages import Stage, StageOptions, Worker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .core.config import ProcessorConfig
    from .prompts import Strategy

    pyspark: Any  # its types need its own dependencies
else:
    try:
        import pyspark
        import pyspark.cloudpickle
        import pyspark.sql.pandas.types
        import pyspark.sql.types
    except ImportError as error:
        raise ImportError("batch_llm.spark needs PySpark: pip install 'batch-llm[spark]'") from error

__all__ = ["map_prompts"]

logger = logger_of(__name__)


def map_prompts(
    df: Any,
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    **options: Unpack[StageOptions],
) -> Any:
    """Send one prompt per row of a Spark data frame and return a lazy data frame with the answers as new columns.

    ::

        rated = batch_llm.spark.map_prompts(
            df, "Rate this review: {text}", "openai:gpt-5-mini", response_model=Rating,
            max_requests_per_minute=12_000, store="s3://bucket/rating-1",
        )
        rated.write.parquet("s3://bucket/rated/")

    Each partition is one stream: its rows are sent while they are read, without a barrier between them.

    Args:
        df: A ``pyspark.sql.DataFrame``.
        template: See :func:`~batch_llm.process_frame`. If a function raises, only its row fails.
        strategy: A model name, or any other strategy of :func:`~batch_llm.process_frame` that can be pickled.
        output: See :func:`~batch_llm.process_frame`.
        response_model: See :func:`~batch_llm.process_frame`. By default, answers are text.
        config: The configuration. Its limits apply to all executors together.
        options: ``max_requests_per_minute``, ``max_tokens_per_minute``: limits of all executors together.
            ``shared_limits``: where the executors share them; by default ``"driver"``, a server in the driver.
            ``concurrency``: attempts in flight of each partition that is in progress. ``store``: a folder
            that all executors can access, or the URL of one in a bucket (``s3://bucket/run``). Each answer is stored
            before it is returned, and stored answers are not requested again. ``resume``, ``timeout_per_item``,
            ``error_classifier``, ``middlewares``, ``observers``: see :class:`~batch_llm.ParallelBatchProcessor`.
            ``job``: a :class:`~batch_llm.Job`, whose caps and deadline are those of all executors together. With a
            model name, also the options of :func:`~batch_llm.llm`, except a fixed ``api_key``: each executor reads the
            key from its own environment, or calls the given function.

    Returns:
        A data frame with the same rows, the columns of answers, and ``output_error``: null, or why a row has no answer.
        Its schema is known without sending anything. Each action on it sends all prompts again, unless it is
        cached or there is a store.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown; nothing has been sent.
        ValueError: If an argument is invalid, the template names a column that does not exist, or the key is missing;
            nothing has been sent.
    """
    if not hasattr(df, "mapInArrow"):
        raise TypeError(f"map_prompts takes a pyspark.sql.DataFrame, not {type(df).__module__}.{type(df).__name__}")
    stage = Stage.of(strategy, template, output=output, response_model=response_model, config=config, options=options)
    schema = _schema(stage, df.schema)
    stage.check_travels(pyspark.cloudpickle.dumps, "executors")
    _check_key(stage, df.sparkSession)
    stage.config.shared_limits = _shared_limits(stage, df.sparkSession)
    if stage.job is not None:
        stage.job.meet_at(stage.config.shared_limits)
    if df.sparkSession.conf.get("spark.speculation", "false") == "true":
        logger.warning("spark.speculation is on: Spark runs slow tasks twice, and each copy pays for its answers")
    return df.mapInArrow(_Task(stage), schema)


class _Task:
    """What Spark runs for each partition, in a Python process of an executor."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._name = uuid.uuid4().hex

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        return self._worker().stream(batches)

    def _worker(self) -> Worker:
        """Return the worker of this process, which Spark uses for many partitions."""
        if self._name not in _WORKERS:
            _WORKERS.clear()  # of an earlier job
            _WORKERS[self._name] = self._stage.worker()
        return _WORKERS[self._name]


_WORKERS: dict[str, Worker] = {}
"""The worker of this process."""


def _schema(stage: Stage, schema: Any) -> Any:
    """Check the template, and return the schema of the result."""
    import pyarrow

    known = {field.name: field for field in schema}
    # Types of the input do not matter, and Arrow may not have them.
    answered = stage.schema(pyarrow.schema([(name, pyarrow.null()) for name in schema.names]))
    from_arrow = pyspark.sql.pandas.types.from_arrow_type
    return pyspark.sql.types.StructType(
        [
            known[field.name]
            if field.type == pyarrow.null()
            else pyspark.sql.types.StructField(field.name, from_arrow(field.type))
            for field in answered
        ]
    )


def _check_key(stage: Stage, session: Any) -> None:
    """If the driver has no key, check that an executor has one, before anything is sent.

    Raises:
        ValueError: If it has none either.
    """
    missing = stage.missing_key()
    if missing is None:
        return
    if _is_local(session):
        raise ValueError(missing)

    def look(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow

        for _ in batches:
            try:
                stage.worker()
            except ValueError as error:
                yield pyarrow.record_batch({"problem": [str(error)]})

    problems = session.range(1).mapInArrow(look, "problem string").collect()
    if problems:
        raise ValueError(problems[0]["problem"])


def _is_local(session: Any) -> bool:
    """Whether executors have the environment of this process."""
    master = str(session.conf.get("spark.master", ""))
    return master == "local" or master.startswith("local[")


def _shared_limits(stage: Stage, session: Any) -> Any:
    """Return where executors share the limits: by default at a server in this process."""
    wanted = stage.config.shared_limits
    if wanted is not None and wanted != "driver":
        return wanted
    if not hasattr(session, "sparkContext") or type(session).__module__.startswith("pyspark.sql.connect"):
        has_limits = stage.config.max_requests_per_minute or stage.config.max_tokens_per_minute
        if wanted is None and not has_limits and (stage.job is None or stage.job.has_started):
            return None
        raise ValueError(
            "with Spark Connect, executors cannot reach this process: start a LimitServer, or Redis, where they can, "
            "and give its URL: shared_limits='tcp://...'"
        )
    host = str(session.conf.get("spark.driver.host", "127.0.0.1"))
    if host not in _SERVERS:
        # Executors connect to the driver's host; where it listens may be another address.
        server = LimitServer(str(session.conf.get("spark.driver.bindAddress", host)))
        parts = urlsplit(server.url)
        _SERVERS[host] = (server, f"tcp://{parts.username}@{host}:{parts.port}")
    return _SERVERS[host][1]


_SERVERS: dict[str, tuple[LimitServer, str]] = {}
"""The server of this process, as long as it lives, and its URL; all data frames share it."""
