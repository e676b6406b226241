"""The worker of a stage, in a process of an engine."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .._results import BatchTermination
from ..frames import Shape, answers_of_reader
from ..prompts import process_stream

if TYPE_CHECKING:
    from ..core.config import ProcessorConfig
    from .stage import Stage

PIECE = 2_000
"""Most rows of one run, so that memory does not grow with the size of a table."""
MOST_RUNS = 1_000
"""Most runs at a time with ``concurrency="auto"``, where only the number of rows limits them."""
FEW_RUNS, RUN = 4, 256
"""A small concurrency is divided among so many runs at a time; a large one among runs of this concurrency."""
ROWS_AT_ONCE = 20_000
"""Most rows in progress in a process, over all its tables; more than it has in flight."""


class Worker:
    """Sends the prompts of tables and returns them with the answers, in one process.

    All its runs share the connections and the limits of one strategy.

    Args:
        stage: The stage.
        tables: How many tables it gets at the same time.

    Raises:
        ValueError: If this process has no key: names the host and the remedy.
    """

    def __init__(self, stage: Stage, tables: int = 1) -> None:
        self._stage = stage
        runs, self._config = _divided(stage.config, tables)
        self._runs = asyncio.Semaphore(runs)
        try:
            self._strategy, self._answers = stage.made()
        except ValueError as error:
            raise ValueError(
                f"the worker on {socket.gethostname()} cannot start: {error}. A worker reads its own environment: "
                "set the variable there, with Ray's runtime_env={'env_vars': ...} or Spark's spark.executorEnv"
            ) from error
        self._shapes: list[tuple[Any, Shape]] = []
        self._room = _Room(ROWS_AT_ONCE)

    async def run(self, table: Any, *, withheld: str | None = None) -> Any:
        """Return a table with the answers; several tables can be in progress.

        Args:
            table: An Arrow table.
            withheld: Do not send its prompts, for this reason, which goes into the error column.

        Raises:
            ValueError: If the template does not fit the columns; nothing has been sent.
            RuntimeError: If the provider rejected the key, the model or the account, or an error category that is
                configured to end the run occurred. The engine's job should end too.
            Exception: What the store raised.
        """
        if not table.num_rows and not table.num_columns:
            return table  # engines pass on such tables where there is no data
        import pyarrow

        shape = self._shape(table.schema)
        if withheld is not None:
            return shape.answered(shape.asking(table), BatchTermination("failed", withheld))
        pieces = [table.slice(start, PIECE) for start in range(0, len(table), PIECE)]
        answered = await asyncio.gather(*(self._piece(piece, shape) for piece in pieces))
        return pyarrow.concat_tables(answered) if answered else shape.schema.empty_table()

    async def _piece(self, table: Any, shape: Shape) -> Any:
        asking = shape.asking(table)
        async with self._runs, self._room.of(len(table)):
            results = process_stream(
                self._strategy,
                asking,
                config=self._config,
                store=self._stage.store,
                control=False,  # a job has many of them
                **self._stage.of_run,
            )
            async with results:
                async for result in results:
                    asking.take(result)
        self._check(results.termination)
        return shape.answered(asking, results.termination)

    def stream(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield record batches with the answers, in order; read as far ahead as :func:`~batch_llm.stream` does.

        Raises:
            Exception: As :meth:`run`.
        """
        import pyarrow

        iterator = iter(batches)
        first = next(iterator, None)
        if first is None:
            return
        shape = self._shape(first.schema)

        def all_of_them() -> Iterator[Any]:
            yield first
            yield from iterator

        reader = pyarrow.RecordBatchReader.from_batches(first.schema, all_of_them())
        options = {"config": self._stage.config, "store": self._stage.store, "control": False, **self._stage.of_run}
        yield from answers_of_reader(reader, shape, self._strategy, options, self._check)

    def _check(self, ended: BatchTermination) -> None:
        """Raise an error if all other tables would fail like this one."""
        rejection = self._stage.rejection(ended)
        if rejection is not None:
            raise RuntimeError(rejection)

    def _shape(self, schema: Any) -> Shape:
        """Return the shape of tables of a schema; the blocks of one dataset have few schemas."""
        for known, shape in self._shapes:
            if known.equals(schema, check_metadata=True):
                return shape
        shape = self._stage.shape(schema, self._strategy, self._answers)
        self._shapes.append((schema, shape))
        return shape


def _divided(config: ProcessorConfig, tables: int) -> tuple[int, ProcessorConfig]:
    """Return how many runs there are at a time, and the configuration of each; in sum they have the concurrency.

    There are several, so that others continue while one waits for its last answers. A large concurrency has more of
    them, because a table may have fewer rows than that.
    """
    if config.concurrency == "auto":
        return MOST_RUNS, config  # all runs find one limit together
    concurrency = config.concurrency or config.max_workers
    runs = max(1, min(tables, concurrency, max(FEW_RUNS, concurrency // RUN)))
    config = copy.copy(config)
    if config.concurrency is None:
        config.max_workers = concurrency // runs
    else:
        config.concurrency = concurrency // runs
    return runs, config


class _Room:
    """Limits the rows in progress.

    Args:
        most: The limit; a table that has more rows is in progress alone.
    """

    def __init__(self, most: int) -> None:
        self._most, self._rows = most, 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def of(self, rows: int) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._rows or self._rows + rows <= self._most)
            self._rows += rows
        try:
            yield
        finally:
            self._rows -= rows
            async with self._changed:
                self._changed.notify_all()


def fingerprint(table: Any) -> str:
    """Return a name for the content of a table, the same on every host."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()
