"""What a stage becomes in a process of an engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .._results import BatchTermination
from ..frames import Shape, answers_of_reader
from ..prompts import process_stream

if TYPE_CHECKING:
    from .stage import Stage

PIECE = 2_000
"""Most rows of one run, so that what is in memory does not grow with a block."""
ROWS_AT_ONCE = 20_000
"""Most rows that are in work in a process, over all its tables: more than it has in flight."""


class Worker:
    """Answers the rows of tables, in one process. Its runs share the strategy's connections, and its limits.

    Args:
        stage: What to do.

    Raises:
        ValueError: If this process has no key: names the host and the remedy.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        try:
            self._strategy, self._answers = stage.made()
        except ValueError as error:
            raise ValueError(
                f"the worker on {socket.gethostname()} cannot start: {error}. A worker reads its own environment: "
                "set the variable there, by Ray's runtime_env={'env_vars': ...} or Spark's spark.executorEnv"
            ) from error
        self._shapes: list[tuple[Any, Shape]] = []
        self._room = _Room(ROWS_AT_ONCE)

    async def run(self, table: Any, *, withheld: str | None = None) -> Any:
        """Return a table with the answers; other tables may be in work meanwhile.

        Args:
            table: An Arrow table.
            withheld: Why nothing of it is sent, for the column of errors.

        Raises:
            ValueError: If the template does not fit its columns; nothing of it has been sent.
            RuntimeError: If the provider rejects the key, the model or the account, or a failure ended the run as
                configured: the job should end too.
            Exception: What a store raised.
        """
        if not table.num_rows and not table.num_columns:
            return table  # what engines pass on where there is nothing
        import pyarrow

        shape = self._shape(table.schema)
        if withheld is not None:
            return shape.answered(shape.asking(table), BatchTermination("failed", withheld))
        pieces = [table.slice(start, PIECE) for start in range(0, len(table), PIECE)]
        answered = await asyncio.gather(*(self._piece(piece, shape) for piece in pieces))
        return pyarrow.concat_tables(answered) if answered else shape.schema.empty_table()

    async def _piece(self, table: Any, shape: Shape) -> Any:
        asking = shape.asking(table)
        async with self._room.of(len(table)):
            results = process_stream(
                self._strategy, asking, config=self._stage.config, store=self._store(table), **self._stage.of_run
            )
            async with results:
                async for result in results:
                    asking.take(result)
        ended = results.termination
        if ended.kind == "fail_fast":
            # The key or the model is wrong, or the user said so: the other blocks would fail alike.
            raise RuntimeError(f"the run ended: {ended.reason}")
        return shape.answered(asking, ended)

    def stream(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield record batches with the answers, in order, and read as far ahead as :func:`~batch_llm.stream` does.

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
        options = {"config": self._stage.config, "store": self._stage.store, **self._stage.of_run}
        yield from answers_of_reader(reader, shape, self._strategy, options)

    def _shape(self, schema: Any) -> Shape:
        """What is asked about tables of a schema; blocks of one data set have one, or a few."""
        for known, shape in self._shapes:
            if known.equals(schema, check_metadata=True):
                return shape
        shape = self._stage.shape(schema, self._strategy, self._answers)
        self._shapes.append((schema, shape))
        return shape

    def _store(self, table: Any) -> str | None:
        """Where the answers to a table are stored: a file for each content, which a table that comes again finds."""
        if self._stage.store is None:
            return None
        os.makedirs(self._stage.store, exist_ok=True)
        return os.path.join(self._stage.store, f"{fingerprint(table)}.jsonl")


class _Room:
    """Lets tables in as long as those in work have few rows.

    Args:
        most: Rows; a table that has more is in work by itself.
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
    """What names the content of a table, on every host."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()
