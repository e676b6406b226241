"""``map_prompts()`` for Ray Data: one prompt per row of a dataset, the answers as new columns.

Needs ``pip install 'batch-llm[ray]'`` on the driver and on the workers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._boards import Demand, JobReport, JobVerdict, LimitBoard, Share
from ._logs import logger_of
from ._stages import Stage, StageOptions, fingerprint

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .core.config import ProcessorConfig
    from .prompts import Strategy

    ray: Any  # it has no types
else:
    try:
        import ray
        import ray.data
        import ray.util.metrics
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ImportError("batch_llm.ray needs Ray Data: pip install 'batch-llm[ray]'") from error

__all__ = ["RayOptions", "map_prompts"]

logger = logger_of(__name__)

LEAST_RAY = (2, 59)
"""The first with ``max_concurrent_calls_per_actor``."""
BLOCKS_AT_ONCE = 16
CPUS = 0.25
"""Reserved for a worker, which mostly waits."""
MOST_DEATHS = 5
"""How many worker processes may end while they process a block."""
LARGE = 20_000
"""Rows of a block above which a warning suggests smaller ones."""
BOARD_SECONDS = 2.0
"""How long a worker waits for its share; without an answer it keeps its last one."""
CHECK_SECONDS = 60.0
"""How long the driver waits for a worker to look for its key."""


class RayOptions(StageOptions, total=False):
    """The keyword options of :func:`map_prompts`."""

    blocks_at_once: int
    rows_per_block: int | None
    num_cpus: float


def map_prompts(
    ds: Any,
    template: str | Callable[[dict[str, Any]], Any],
    strategy: Strategy[Any],
    *,
    output: str | None = "output",
    response_model: Any = None,
    config: ProcessorConfig | None = None,
    workers: int | None = None,
    **options: Unpack[RayOptions],
) -> Any:
    """Send one prompt per row of a Ray dataset and return a lazy dataset with the answers as new columns.

    ::

        rated = batch_llm.ray.map_prompts(
            ds, "Rate this review: {text}", "openai:gpt-5-mini", response_model=Rating,
            max_requests_per_minute=12_000, store="s3://bucket/rating-1",
        )
        rated.write_parquet("s3://bucket/rated/")

    Args:
        ds: A ``ray.data.Dataset``.
        template: See :func:`~batch_llm.process_frame`. If a function raises, only its row fails.
        strategy: A model name, or any other strategy of :func:`~batch_llm.process_frame` that can be pickled.
        output: See :func:`~batch_llm.process_frame`.
        response_model: See :func:`~batch_llm.process_frame`. By default, answers are text.
        config: The configuration. Its limits apply to all workers together.
        workers: Number of workers (actors); by default, one per node that currently has CPUs. One worker sends
            thousands of requests per second.
        options: ``max_requests_per_minute``, ``max_tokens_per_minute``: limits of all workers together.
            ``shared_limits``: where the workers share them; by default, in an actor of this Ray job. ``concurrency``:
            attempts in flight per worker. ``store``: a folder that all workers can access, or the URL of one in
            a bucket (``s3://bucket/run``). Each answer is stored before it is returned, and stored answers are not
            requested again. ``resume``, ``timeout_per_item``, ``error_classifier``, ``middlewares``, ``observers``: see
            :class:`~batch_llm.ParallelBatchProcessor`. ``job``: a :class:`~batch_llm.Job`, whose caps and deadline are
            those of all workers together; workers export its counters as Ray metrics. ``blocks_at_once``: blocks that a
            worker processes at the same time (16 by default). ``rows_per_block``: repartition the dataset into blocks
            of this size first. ``num_cpus``: CPUs that Ray reserves per worker (0.25 by default). With a model name,
            also the options of :func:`~batch_llm.llm`, except a fixed ``api_key``: each worker reads the key from its
            own environment, or calls the given function.

    Returns:
        A dataset with the same rows (Ray does not preserve their order), the columns of answers, and ``output_error``:
        null, or why a row has no answer or an incomplete one. ``schema()`` and ``count()`` send nothing; ``take(5)``
        sends five prompts.

    Raises:
        TypeError: If an argument has the wrong type or an option is unknown; nothing has been sent.
        ValueError: If an argument is invalid, the template names a column that does not exist, or the key is missing;
            nothing has been sent.
        ImportError: If Ray is too old.
    """
    _check_version()
    if not isinstance(ds, ray.data.Dataset):
        raise TypeError(f"map_prompts takes a ray.data.Dataset, not {type(ds).__module__}.{type(ds).__name__}")
    stage = Stage.of(
        strategy,
        template,
        output=output,
        response_model=response_model,
        config=config,
        options={name: value for name, value in options.items() if name not in _OF_RAY},
        others=("workers", *_OF_RAY),
    )
    blocks_at_once = _positive("blocks_at_once", options.get("blocks_at_once", BLOCKS_AT_ONCE))
    rows = options.get("rows_per_block")
    schema = _answered_schema(stage, ds)
    size = _nodes() if workers is None else _positive("workers", workers)
    stage.check_travels(ray.cloudpickle.dumps)
    _check_key(stage)
    actor = _actor_of_job()
    if stage.config.shared_limits is None:
        stage.config.shared_limits = _Board(actor)
    if stage.job is not None:
        stage.job.meet_at(stage.config.shared_limits)
    source = ds if rows is None else ds.repartition(target_num_rows_per_block=_positive("rows_per_block", rows))
    made = source.map_batches(
        _Worker,
        batch_size=None,  # whole blocks; with a size, Ray would not push take(5) down to five rows
        batch_format="pyarrow",
        udf_modifying_row_count=False,
        num_cpus=options.get("num_cpus", CPUS),
        fn_constructor_kwargs={"stage": stage, "blocks": blocks_at_once, "actor": actor},
        compute=ray.data.ActorPoolStrategy(
            size=size, max_concurrent_calls_per_actor=blocks_at_once, max_tasks_in_flight_per_actor=blocks_at_once
        ),
    )
    _wait_for_quotas(made.context)
    return _Answered.of(made, ds, schema)


_OF_RAY = tuple(name for name in RayOptions.__annotations__ if name not in StageOptions.__annotations__)


class _Answered(ray.data.Dataset):  # type: ignore[misc] # it has no types
    """A dataset whose schema and row count are known without sending prompts."""

    _source: Any = None
    _known: Any = None

    @classmethod
    def of(cls, made: Any, source: Any, schema: Any) -> Any:
        made.__class__ = cls
        made._source, made._known = source, schema
        return made

    def count(self) -> int:
        """Count the rows of the dataset; it has as many as its input."""
        number: int = super().count() if self._source is None else self._source.count()
        return number

    def schema(self, fetch_if_missing: bool = True) -> Any:
        """Return the schema, which follows from the input and the type of the answers."""
        if self._known is None:
            return super().schema(fetch_if_missing)
        return ray.data.Schema(self._known)


class _Worker:
    """The actor: processes several blocks at a time, on one event loop."""

    def __init__(self, stage: Stage, blocks: int, actor: Any) -> None:
        self._worker, self._actor = stage.worker(blocks), actor
        if stage.job is not None:
            stage.job.member().on_report = _Metrics(stage.job.name).set
        self._alone = asyncio.Lock()
        self._warned = False

    async def __call__(self, block: Any) -> Any:
        self._hint(block.num_rows)
        name = fingerprint(block)
        deaths = await self._deaths(self._actor.count.remote(name))
        if not deaths:
            return await self._answer(block, name)
        # A worker died while it processed this block and others. Alone, it takes no other block with it.
        async with self._alone:
            return await self._answer(block, name)

    async def _answer(self, block: Any, name: str) -> Any:
        deaths = await self._deaths(self._actor.begin.remote(name))
        try:
            withheld = (
                f"{deaths} worker processes died while they processed the row's block"
                if deaths >= MOST_DEATHS
                else None
            )
            return await self._worker.run(block, withheld=withheld)
        finally:
            self._actor.end.remote(name)

    @staticmethod
    async def _deaths(call: Any) -> int:
        try:
            return int(await call)
        except ray.exceptions.RayError:  # the actor restarts, and counts from zero
            return 0

    def _hint(self, rows: int) -> None:
        if rows > LARGE and not self._warned:
            self._warned = True
            logger.warning(
                "a block has %s rows; Ray joins small files into one block. Smaller blocks spread over the workers, "
                "and less is repeated when a worker dies: map_prompts(..., rows_per_block=1000)",
                f"{rows:,}",
            )


class _Metrics:
    """The counters of a worker as metrics of Ray, which adds them up over all workers.

    Args:
        job: The name of the job, their tag.
    """

    def __init__(self, job: str) -> None:
        self._tags = {"job": job}
        self._counters = {
            name: ray.util.metrics.Counter(f"batch_llm_{name}", text, tag_keys=("job",))
            for name, text in _COUNTED.items()
        }
        self._in_flight = ray.util.metrics.Gauge("batch_llm_in_flight", "Requests in flight", tag_keys=("job",))
        self._before: dict[str, float] = {}

    def set(self, counters: Mapping[str, float]) -> None:
        """Set the metrics to what the worker has counted."""
        for name, counter in self._counters.items():
            more = counters.get(name, 0.0) - self._before.get(name, 0.0)
            if more > 0:
                counter.inc(more, self._tags)
                self._before[name] = counters[name]
        self._in_flight.set(counters.get("in_flight", 0.0), self._tags)


_COUNTED = {
    "succeeded": "Items that have an answer",
    "failed": "Items that failed",
    "not_sent": "Items that were never sent",
    "replayed": "Items whose result was reused",
    "input_tokens": "Tokens of prompts",
    "output_tokens": "Tokens of answers",
    "rate_limits": "Requests that were rate limited",
    "cost": "Cost in the currency of the prices",
}


class _Board:
    """The board of a job's limits, as workers see it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._known: set[tuple[str, str]] = set()

    def renew(self, scope: str, holder: str, demand: Demand) -> Share:
        try:
            share: Share = ray.get(self._actor.renew.remote(scope, holder, demand), timeout=BOARD_SECONDS)
        except ray.exceptions.RayError:
            if (scope, holder) in self._known:
                raise  # it keeps its last share
            # A run that begins while the actor restarts waits for its share.
            return Share(part=0.0, is_shared=True, is_new=True)
        self._known.add((scope, holder))
        return share

    def report(self, job: str, holder: str, report: JobReport) -> JobVerdict:
        try:
            verdict: JobVerdict = ray.get(self._actor.report.remote(job, holder, report), timeout=BOARD_SECONDS)
        except ray.exceptions.RayError:
            if (job, holder) in self._known:
                raise
            return JobVerdict(allowance=None if report.max_cost is None else report.spent + report.reserved)
        self._known.add((job, holder))
        return verdict

    def leave(self, scope: str, holder: str) -> None:
        self._known.discard((scope, holder))
        self._actor.leave.remote(scope, holder)


class _JobActor:
    """The actor of a Ray job: the board of its limits, and how often each block was begun and not finished."""

    def __init__(self) -> None:
        self._board = LimitBoard()
        self._started: Counter[str] = Counter()

    def renew(self, scope: str, holder: str, demand: Demand) -> Share:
        return self._board.renew(scope, holder, demand)

    def report(self, job: str, holder: str, report: JobReport) -> JobVerdict:
        return self._board.report(job, holder, report)

    def leave(self, scope: str, holder: str) -> None:
        self._board.leave(scope, holder)

    def count(self, block: str) -> int:
        """Return how many workers died while they processed a block."""
        return self._started[block]

    def begin(self, block: str) -> int:
        """Count a worker that begins a block; return how many died before."""
        self._started[block] += 1
        return self._started[block] - 1

    def end(self, block: str) -> None:
        """Forget a block that was processed."""
        del self._started[block]


_ACTORS: dict[str, Any] = {}
"""The actor of each Ray job of this process. Ray ends an actor when the first handle is gone, whoever has others."""


def _actor_of_job() -> Any:
    """Return the actor of this job. It runs on the driver's node, which outlives the others."""
    context = ray.get_runtime_context()
    job = context.get_job_id()
    if job not in _ACTORS:
        node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(context.get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=node)(_JobActor)
        # A task of this job that calls map_prompts() finds it by name.
        _ACTORS[job] = actor.options(name=f"batch_llm.{job}", get_if_exists=True).remote()
    return _ACTORS[job]


def _check_version() -> None:
    """Check that Ray is new enough.

    Raises:
        ImportError: If it is not.
    """
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < LEAST_RAY:
        least = ".".join(map(str, LEAST_RAY))
        raise ImportError(
            f"batch_llm.ray needs Ray {least} or newer, not {ray.__version__}: pip install -U 'ray[data]>={least}'"
        )


def _nodes() -> int:
    """Return how many nodes have CPUs; a head node often has none."""
    return max(1, sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes()))


def _answered_schema(stage: Stage, ds: Any) -> Any:
    """Check the template, and return the schema of the result; None while Ray does not know that of the input."""
    import pyarrow

    schema = ds.schema(fetch_if_missing=False)
    if schema is None:
        return None
    if isinstance(schema.base_schema, pyarrow.Schema):
        return stage.schema(schema.base_schema)
    # Of pandas blocks only the names are known.
    stage.schema(pyarrow.schema([(name, pyarrow.null()) for name in schema.names]))
    return None


def _check_key(stage: Stage) -> None:
    """If the driver has no key, check that a worker has one, before anything is sent.

    Raises:
        ValueError: If it has none either.
    """
    if stage.missing_key() is None:
        return
    check = ray.remote(num_cpus=0, max_retries=0)(_start)
    try:
        ray.get(check.remote(stage), timeout=CHECK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        logger.warning(
            "no worker started within %.0f s, so the API keys of the workers were not checked", CHECK_SECONDS
        )
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def _start(stage: Stage) -> None:
    stage.worker()


def _wait_for_quotas(context: Any) -> None:
    """Let a run wait for an hourly or daily quota, unless the user has set a time limit."""
    name = "execution_no_progress_timeout_s"
    if getattr(context, name) == getattr(type(context), name):
        setattr(context, name, -1)


def _positive(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a positive integer (got {value!r})")
    return value
