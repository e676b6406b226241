"""A run that accepts items and yields results while it runs. All surfaces use it.

``process_prompts``, ``process_stream``, call pools and a processor's ``start()`` create one; it belongs to one event
loop. Strategies live as long as the run: prepared before their first item, cleaned up after the last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .._endings import attach, ended_by, ends_run
from .._llm import RunStrategies
from .._logs import answer
from .._results import BatchTermination
from ..results import BatchResult
from .interrupts import remember
from .run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._items import LLMWorkItem
    from .._results import ProcessingStats, Result, WorkItemResult
    from .plan import RunPlan
    from .source import Source


CHUNK = 256
"""Items that are read from a source at a time."""


class LiveRun:
    """A run in progress.

    Args:
        plan: What is to be done.
        items: The first ones.
        untaken: How many finished results may wait to be taken before nothing more starts; None = any number.
        window: How many items may be accepted whose results were not delivered; None = any number. For delivery in
            order, where a result that waits for an earlier one must not stop that from starting.
        expected: How many items there will be, if that is known; for the progress display.
        on_stop: Called when the run ends early, with the reason.
        on_end: Called with the counters when the last item is done.
    """

    def __init__(
        self,
        plan: RunPlan,
        items: list[LLMWorkItem[Any, Any, Any]] | None = None,
        *,
        untaken: int | None = None,
        window: int | None = None,
        expected: int | None = None,
        on_stop: Callable[[BatchTermination], None] | None = None,
        on_end: Callable[[ProcessingStats], None] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._plan = plan
        self._on_early_end, self._on_end = on_stop, on_end
        self._termination = BatchTermination()
        self.source_error: BaseException | None = None
        self._failure: BaseException | None = None
        self._loop = loop
        self._untaken, self._window = untaken, window
        self._strategies = RunStrategies()
        self._results: list[WorkItemResult[Any, Any]] = []
        self._delivered = self._buffered = 0
        self._is_full = False
        self._interrupts = 0
        self._ahead = self._portion = 0
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._is_fed = False
        self._is_read = False
        self._to_resend: list[tuple[LLMWorkItem[Any, Any, Any], int]] = []
        self.resent: dict[int, int] = {}
        """Of items that were sent once more after they had failed: by the new index, the old one."""
        self._reads_rest = self._reads_on = False
        self.interrupted = False
        """Whether Ctrl-C, or the interrupt of a notebook, was for this run."""
        pipeline = plan.start(self._strategies, self._ends_early)
        pipeline.forget_ids()
        pipeline.expected = expected
        if pipeline.overseer is not None:
            pipeline.overseer.resend = self.resend
        self.run = Run(pipeline, [], self._results, is_open=True)
        self.run.on_results, self.run.waiting.on_start, self.run.on_stop = (
            self._on_results,
            self._look_for_room,
            self._on_stop,
        )
        self._stats: ProcessingStats | None = None
        self.seconds: float | None = None
        """The length of the run, once it is over."""
        if items:
            self.run.feed(items)
        self._execution = loop.create_task(self._execute(), name="batch-llm run")
        self._execution.add_done_callback(lambda _: self._wake_reader())

    async def _execute(self) -> None:
        run = self.run
        try:
            try:
                await run.execute()
            finally:
                self._stop_feeding()
                self._stats = run.stats()
                self.seconds = run.elapsed()
                if self._on_end is not None:
                    self._on_end(self._stats)
                run.clear()
                await self._strategies.release(not self._plan.config.dry_run)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Whoever takes results gets it. Out of this task, SystemExit would end the loop.
            self._failure = run.failure or error

    # Items in

    def feed(self, source: Source, ahead: int, *, reads_rest: bool = False, also_interrupted: bool = True) -> None:
        """Read a source, as far as there is room, until it ends; then the run takes no more.

        Args:
            source: Where items come from.
            ahead: How many may wait to be started.
            reads_rest: Whether it is read to its end, without being sent, when the run ends early: every item of a
                list gets a result.
            also_interrupted: Whether that is so after an interrupt too.
        """
        self._reads_rest, self._reads_on = reads_rest, also_interrupted
        self._ahead = ahead
        self._portion = min(ahead, CHUNK, CHUNK if self._untaken is None else self._untaken)
        self._feeding = self._loop.create_task(self._feed(source), name="batch-llm source")

    async def _feed(self, source: Source) -> None:
        try:
            while self.run.takes_items and self.wants_more:
                room = self._count_room()
                if room <= 0:
                    self._room = self._loop.create_future()
                    await self._room
                    continue
                items = await source.read(min(room, CHUNK))
                if not items:
                    break
                self.run.feed(items)
            self._is_read = True
            self._resend_now()
        except BaseException as error:
            if self.interrupted and isinstance(error, KeyboardInterrupt):
                await asyncio.sleep(0)  # it was raised to end the reading; the run is notified first
            # An error of what would not have been sent is none.
            elif not ((self.run.stopping or self.interrupted) and isinstance(error, Exception)):
                self._feeding_failed(error)
        finally:
            self._room = None
            try:
                await source.close()
            except BaseException as error:
                self._feeding_failed(error)
            finally:
                self.run.close_input()

    def resend(self, items: list[tuple[LLMWorkItem[Any, Any, Any], int]]) -> str | None:
        """Send items again that have failed: after what is still to be read, so that indexes stay those of the source.

        Args:
            items: The items, with their indexes.

        Returns:
            Why that is not possible, if so.
        """
        if not self.run.takes_items or self.run.stopping:
            return "the run is over, or ending; run again with the same store"
        self._to_resend.extend(items)
        if self._feeding is None or self._is_read or self._feeding.done():
            self._resend_now()
        return None

    def _resend_now(self) -> None:
        again, self._to_resend = self._to_resend, []
        if again and self.run.takes_items and not self.run.stopping:
            indexes = self.run.feed([item for item, _ in again])
            self.resent.update(zip(indexes, (index for _, index in again), strict=True))

    @property
    def wants_more(self) -> bool:
        """Whether the source is to be read further; for whatever thread reads it."""
        if self.interrupted and not self._reads_on:
            return False
        return self._reads_rest or not (self.interrupted or self.run.stopping)

    def _feeding_failed(self, error: BaseException) -> None:
        if ends_run(error):
            self.run.fail(error)
        elif not (isinstance(error, asyncio.CancelledError) and self._is_fed):
            self.source_error = self.source_error or error

    def _count_room(self) -> int:
        room = self._ahead - self.run.queued
        if self._window is not None:
            room = min(room, self._window - (self.run.total - self._delivered))
        elif self._untaken is not None and (self.run.run_store is not None or self.run.stopping):
            # What comes from a store, or is not sent any more, has its result at once.
            room = min(room, self._untaken - self._waiting_results())
        return room

    def _look_for_room(self) -> None:
        # Not for every single item: they are read in portions.
        waiting = self._room
        if waiting is not None and self._count_room() * 2 >= self._portion and not waiting.done():
            waiting.set_result(None)

    def close_input(self) -> None:
        """Take no more items."""
        self._stop_feeding()
        self.run.close_input()

    def _on_stop(self) -> None:
        if self._feeding is None or self._feeding.done() or not self._reads_rest:
            self.close_input()

    def _stop_feeding(self) -> None:
        self._is_fed = True
        if self._feeding is not None:
            self._feeding.cancel()

    # Results out

    async def take(self) -> list[Result[Any, Any]]:
        """Return the results that were not taken yet, as soon as there are any; none when the run is over.

        Raises:
            BaseException: What ended the run, unless a guardrail did; or what its source raised. Everything that was
                finished has been taken before.
        """
        while not self._results:
            if self._execution.done():
                self._raise_what_ended_it()
                return []
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        taken = self.take_now()
        self._buffered += len(taken)
        return taken

    @property
    def is_being_read(self) -> bool:
        """Whether a consumer waits for results."""
        return self._reader is not None

    def take_now(self) -> list[Result[Any, Any]]:
        """Return the results that are there, without waiting."""
        copied: Any = self._results[:]
        taken: list[Result[Any, Any]] = copied
        self._results.clear()
        return taken

    def delivered(self, count: int = 1) -> None:
        """Record how many of the taken results were delivered."""
        self._delivered += count
        self._buffered -= count
        if self._is_full and self._untaken is not None and self._waiting_results() * 2 <= self._untaken:
            self._set_full(False)
        if self._window is not None or self.run.run_store is not None or self.run.stopping:
            self._look_for_room()

    @property
    def delivered_count(self) -> int:
        """How many results were delivered; from any thread."""
        return self._delivered

    def _waiting_results(self) -> int:
        return len(self._results) + self._buffered

    def _on_results(self) -> None:
        self._wake_reader()
        if self._untaken is not None and not self._is_full and self._waiting_results() >= self._untaken:
            self._set_full(True)

    def _set_full(self, is_full: bool) -> None:
        self._is_full = is_full
        if not self.run.closing:
            self.run.set_full(is_full)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _raise_what_ended_it(self) -> None:
        if self._execution.cancelled():
            raise asyncio.CancelledError("the run was cancelled from outside")
        error = self._failure or self.source_error
        if error is not None:
            raise error

    def batch(self, results: list[WorkItemResult[Any, Any]]) -> BatchResult[Any, Any]:
        """Return results as a batch, with the run's counters and termination."""
        return BatchResult(
            self._merged(results),
            termination=self.termination,
            stats=self.stats,
            wall_time_seconds=self.seconds,
            prices=self._plan.config.guardrails.prices,
        )

    def set_indexes(self, results: list[Any]) -> None:
        """Give results of items that were sent once more the index of the first time."""
        if self.resent:
            for result in results:
                while result.submission_index in self.resent:
                    result.submission_index = self.resent[result.submission_index]

    def _merged(self, results: list[WorkItemResult[Any, Any]]) -> list[WorkItemResult[Any, Any]]:
        """Put results of items that were sent once more in the place of those that had failed."""
        if not self.resent:
            return results
        self.set_indexes(results)
        # What came later counts.
        last = {result.submission_index: result for result in results}
        first = dict.fromkeys(result.submission_index for result in results)
        return [last[index] for index in first]

    async def broken(self, error: BaseException, results: list[WorkItemResult[Any, Any]]) -> None:
        """End the run because of an exception, which gets the finished results that were not delivered.

        Args:
            error: The exception.
            results: The results that the caller has; the others are added.

        Raises:
            BaseException: What the user's code has raised meanwhile to end more than the run.
        """
        if isinstance(error, GeneratorExit) and error is not self._failure:
            return  # a coroutine that is closed can wait for nothing
        await self.stop()
        results.extend(self.take_now())
        self._termination = ended_by(error, self._termination)
        self._hand_out(error, results)
        if self._failure is not None and self._failure is not error and ends_run(self._failure):
            # The user's code has raised it while the run was being cancelled.
            self._hand_out(self._failure, results)
            raise self._failure

    def _hand_out(self, error: BaseException, results: list[WorkItemResult[Any, Any]]) -> None:
        batch = self.batch(results)
        attach(error, batch)
        if isinstance(error, KeyboardInterrupt):  # of the user's own code
            remember(error, batch)

    # Steering

    @property
    def stats(self) -> ProcessingStats:
        """The counters so far."""
        return self._stats if self._stats is not None else self.run.stats()

    @property
    def termination(self) -> BatchTermination:
        """Why the run ends, as far as that is known."""
        return self._termination

    def _ends_early(self, termination: BatchTermination) -> None:
        if self._interrupts and termination.kind == "in_batch":
            termination = BatchTermination("interrupted", f"the run was interrupted; {termination.reason}")
        self._termination = termination
        if self._on_early_end is not None:
            self._on_early_end(termination)

    @property
    def grace_seconds(self) -> float:
        """How long attempts in flight may take to end after an interrupt."""
        return self._plan.config.interrupt_grace_seconds

    @property
    def is_running(self) -> bool:
        """Whether there are items without a result, or there may be."""
        return self._stats is None

    @property
    def is_over(self) -> bool:
        """Whether all is done, strategies cleaned up."""
        return self._execution.done()

    def interrupt(self, together: list[LiveRun] | None = None) -> None:
        """Accept no more items and let attempts in flight finish, for a while; the second time, cancel them at once.

        Args:
            together: All runs that are interrupted by the same signal: the first one reports it, for all of them.
        """
        self._interrupts += 1
        if self.run.closing or self.is_over:
            return
        if self._interrupts > 1 or (self.interrupted and not self._reads_on):
            self.close_input()
        grace = self.grace_seconds
        self.run.interrupted()
        at_once = self._interrupts > 1 or grace <= 0 or self.run.waits_in_batches
        category = "in_batch" if self.run.waits_in_batches else "interrupted"
        self.run.end_early(cancel=at_once, category=category)
        if not at_once:
            self._loop.call_later(grace, self._end_grace)
        interrupted: list[LiveRun] = [self] if together is None else together
        if interrupted:
            _log_interrupted(interrupted, at_once)
            interrupted.clear()

    def _end_grace(self) -> None:
        if not (self.run.closing or self.is_over):
            self.run.end_early(cancel=True, category="interrupted")

    async def stop(self) -> None:
        """Cancel everything and wait until it is gone; never raises because of it."""
        if self._feeding is not None and not self._feeding.done():
            self._stop_feeding()
            await asyncio.wait({self._feeding}, timeout=5.0)
        if not self.is_over:
            await self.run.stop()
        await self.ended()

    def on_end(self, call: Callable[[], None]) -> None:
        """Have something called when all is done."""
        self._execution.add_done_callback(lambda _: call())

    def failure(self) -> BaseException | None:
        """What ended the run, if it has failed."""
        return self._failure

    async def ended(self) -> None:
        """Wait until everything is done."""
        tasks = {task for task in (self._execution, self._feeding) if task is not None}
        await asyncio.wait(tasks)


def _log_interrupted(runs: list[LiveRun], at_once: bool) -> None:
    on = sum(live.run.in_work() for live in runs if not (live.run.closing or live.is_over))
    if at_once or not on:
        answer("interrupted", "Interrupted: stopping at once", attempts=on)
        return
    seconds = max(live.grace_seconds for live in runs)
    answer(
        "interrupted",
        "Interrupted: waiting up to %g s for %s in flight; interrupt again to stop at once",
        seconds,
        "1 request" if on == 1 else f"{on:,} requests",
        attempts=on,
        seconds=seconds,
    )
