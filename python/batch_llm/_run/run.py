"""One run on the event loop, from its first item to its last result.

Twin of ``src/bridge/run.rs``. The engine decides, on whatever thread has news; this class is notified through a
descriptor that the loop watches, and does everything that touches Python objects, on the loop's own thread.
``dispatch`` executes the engine's messages; the pipeline (``_pipeline``) processes the items.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from .._endings import ends_run, internal_error
from .._llm import paid_now
from .backlog import Waiting, unstarted
from .bound_over_time import BoundOverTime
from .counters import Counters
from .deferred import Deferred
from .dispatch import Dispatch
from .mailbox import Mailbox, Message
from .overseeing import ending, overseen
from .replay import Intake
from .room import Room
from .staging import Direct
from .steering import Steering
from .tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core import Flight, Journal, Runner, Timing
    from .._items import LLMWorkItem
    from .._results import ProcessingStats, WorkItemResult
    from .._store import RunStore
    from .protocols import Engine, ItemPipeline


HEARTBEAT_SECONDS = 0.25
"""How often an idle run wakes its loop. A notebook's interrupt is noticed only then: ipykernel cancels the cell's task
from a signal handler, which wakes nothing."""


class Run:
    """A run from the first item to the last result.

    Args:
        pipeline: What is done with each item.
        items: The items queued so far; the run takes the list over.
        results: Where results go, in order of completion.
        is_open: Whether more items may come until :meth:`close_input` is called.
    """

    def __init__(
        self,
        pipeline: ItemPipeline,
        items: list[LLMWorkItem[Any, Any, Any]],
        results: list[WorkItemResult[Any, Any]],
        *,
        is_open: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.results = results
        self.closing = self.stopping = False
        self.pipeline = pipeline
        self.waiting = Waiting(items)
        self.deferred = Deferred(None if pipeline.run_store is None else pipeline.run_store.path)
        self._total = len(items)
        self._patience = pipeline.settings.abandon_after
        self._open = is_open
        self._intake = None if pipeline.run_store is None else Intake(self, pipeline, pipeline.run_store)
        self.begin_plain: Callable[[int, Any, int, Timing, bool], Runner | None] | None = None
        """The pipeline's fast path for an item's first attempt; None, or a return value of None: the usual path."""
        self.on_results: Callable[[], None] | None = None
        """Called when there are results that were not there before; often, so it must be quick."""
        self.on_stop: Callable[[], None] | None = None
        """Called when nothing more will start; it has to see to it that no more items come."""
        self.flights: dict[int, Flight] = {}
        self.cut: dict[int, str] = {}
        """By item, the category of the limit that ended its attempt, when it was not the attempt's own."""
        self.waits: dict[int, float] = {}
        """By item, how long the call of an attempt that timed out had waited for its place, seconds."""
        self._tasks = Tasks(self.loop, self.flights, self.fail, pipeline.settings.abandon_after)
        self.spawn = self._tasks.spawn
        self._room = Room(self.loop)
        self.make_room = self._room.make
        self._done: asyncio.Future[None] = self.loop.create_future()
        self._ended: asyncio.Future[None] = self.loop.create_future()
        self._dispatching = self._stopped = False
        self.failure: BaseException | None = None
        """What ended the run: an exception from the user's code that ends all of it, or a bug."""
        self._started = time.monotonic()
        self.bound_over_time = BoundOverTime(self.run_store, self.stats)
        self.direct = Direct(self, pipeline)
        self._dispatch = Dispatch(self, pipeline, self._tasks)
        self.begin = self._dispatch.begin
        self.give_variables = self._dispatch.give_variables
        self.accepted = 0
        """Items that the engine knows; the others are still being looked up."""
        # Items whose attempts were in flight when the run was closed, without a flight object.
        self._interrupted_in_flight: set[int] = set()
        self.counters = Counters()
        self._mailbox = Mailbox(self.loop, pipeline.settings, pipeline.take_results, self._turn, self.fail)
        self.handle = self._mailbox.handle
        self.set_concurrency = self.handle.set_workers
        self.steering = Steering(self.handle)
        self.engine: Engine = self.handle
        pipeline.begin(self)

    # Life of the run

    async def execute(self) -> None:
        """Run until every item has a result.

        Raises:
            asyncio.CancelledError: If the awaiting task is cancelled; everything is cleaned up first.
            BaseException: What the user's code raised to end the run, such as ``SystemExit``; likewise.
            ArtifactIOError: If the store could not be written; the results are there anyway.
        """
        await overseen(self, self._mailbox, self._execute)

    async def _execute(self) -> None:
        whole = False
        self._beat()
        try:
            count = len(self.waiting.first)
            self.pipeline.accepted(self.waiting.first)
            self.pipeline.batch_started(count)
            if self._intake is not None and count:
                self.waiting.come_later()
                self.handle.keep_open(True)
                await self._intake.admit_all(range(count), self.waiting.later)
            self.handle.keep_open(self._open)
            groups = self.pipeline.groups(self.waiting.first)
            self._before_accepting(self.waiting.first)
            self.handle.accept(groups)
            await self._done
            if not self._stopped and self.failure is None:
                await self._end()
                whole = True
        except GeneratorExit:
            # The loop was closed under the run: nothing can be awaited any more.
            whole = True
            if not self._mailbox.is_of_parent:
                self._close()
                self._record_the_rest()
            raise
        finally:
            self._heartbeat.cancel()
            if not whole:
                await self._cancel_rest()
            is_of_parent = self._mailbox.is_of_parent
            if not is_of_parent:
                ending(self)
            if not (self.loop.is_closed() or is_of_parent):
                is_stored = self.run_store is None or self.run_store.failure is None
                await self.pipeline.stored(whole and is_stored and not self.stopping)
            if not (self.loop.is_closed() or is_of_parent):
                self._ended.set_result(None)
                self._mailbox.unwatch()
                self._tell_of_results()
                if self.failure is not None:
                    raise self.failure
        if self.run_store is not None and self.run_store.failure is not None:
            raise self.run_store.failure

    def _beat(self) -> None:
        self._heartbeat = self.loop.call_later(HEARTBEAT_SECONDS, self._beat)
        self.counters.loop.look()
        self.bound_over_time.look(self.elapsed())

    async def stop(self) -> None:
        """Cancel the run; ``execute()`` then returns."""
        self._stopped = True
        if not self._done.done():
            self._done.set_result(None)
        if not self._tasks.is_inside():
            await asyncio.wait({self._ended}, timeout=4 * self._patience)

    def stats(self) -> ProcessingStats:
        """Return the counters."""
        sent_live, waits_in_batches = self.pipeline.sent_live(), self.waits_in_batches
        return self.counters.stats(self.handle, self.results, sent_live, waits_in_batches=waits_in_batches)

    def clear(self) -> None:
        """Drop all references of a run that is over.

        The exceptions in results refer to frames, and these to the run: it must not refer to the rest in turn.
        """
        self.results = []
        self.flights.clear()
        self.deferred.clear()
        self.on_results = self.waiting.on_start = self.on_stop = self.begin_plain = None
        self.direct.clear()
        self.pipeline.clear()

    @property
    def run_store(self) -> RunStore | None:
        """The run's store and cache, if there are any."""
        return self.pipeline.run_store

    @property
    def reused_successes(self) -> int:
        """Of the successes, those for which no call was made."""
        return self.pipeline.reused_successes

    @property
    def total(self) -> int:
        """Items of the run so far."""
        return self._total

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def queued(self) -> int:
        """Items that came after the start of the run and have not started."""
        return len(self.waiting.later) - self.handle.in_direct_flight()

    @property
    def is_open(self) -> bool:
        """Whether more items may come."""
        return self._open

    @property
    def takes_items(self) -> bool:
        """Whether items can be added."""
        return not (self.closing or self._done.done())

    def feed(self, items: list[LLMWorkItem[Any, Any, Any]]) -> range:
        """Add items to an open run, whatever the bound of its queue; return their indexes."""
        groups = self.pipeline.groups(items)
        indexes = range(self._total, self._total + len(items))
        self.waiting.later.update(zip(indexes, items, strict=True))
        self._total += len(items)
        self.pipeline.accepted(items)
        if self._intake is not None:
            self._intake.admit(indexes, self.waiting.later)
        else:
            self._before_accepting(items)
            self.handle.accept(groups)
        return indexes

    def _before_accepting(self, items: Sequence[LLMWorkItem[Any, Any, Any] | None]) -> None:
        """Stage items that the engine may start at once."""
        first = items[0] if items else None
        self.stage_before_accepting(self._total, None if first is None else first.strategy)

    def stage_before_accepting(self, end: int, strategy: Any) -> None:
        """Stage items up to ``end`` that the engine may start at once, the first of which has this strategy."""
        if self.accepted == 0 and strategy is not None:
            self.direct.use(strategy)
        self.accepted = end
        self._stage()

    def _stage(self) -> None:
        if not self.stopping:
            self.direct.stage(self.accepted)

    def close_input(self) -> None:
        """Accept no more items: the run ends when those it has are done."""
        if self._open:
            self._open = False
            if not self.closing:
                self.handle.keep_open(False)

    def publish(self, result: WorkItemResult[Any, Any]) -> None:
        """Add a result to those that are finished."""
        self.results.append(result)
        self._tell_of_results()

    def publish_all(self, results: list[WorkItemResult[Any, Any]]) -> None:
        """Add several."""
        self.results.extend(results)
        self._tell_of_results()

    def _tell_of_results(self) -> None:
        if self.on_results is not None:
            self.on_results()

    async def join(self, item: LLMWorkItem[Any, Any, Any]) -> bool:
        """Add an item to the run, waiting for room in the queue; whether the run took it."""
        # Whoever adds from within the run must not wait for the run's progress.
        bounded = not self._tasks.is_inside()
        number = 0
        if self._intake is not None and self.takes_items:
            number, answer = await self._intake.look_up(item)
            if answer is not None and self.takes_items:
                self._total += 1
                self.pipeline.accepted([item])
                self._intake.answer(number, self._total - 1, answer)
                return True
        is_first = True
        while not self.closing and not self._done.done():
            queue, priority = self.pipeline.place(item)
            self.direct.tell(self._total, item)
            index = self.handle.offer(queue, priority, bounded)
            if index is not None:
                # Set before the engine's start message is read, on this same thread.
                self.waiting.later[index] = item
                self._total = self.accepted = self._total + 1
                self.pipeline.accepted([item])
                if self.run_store is not None:
                    self.run_store.place(number, index)
                return True
            await self._room.wait(is_first=is_first)
            is_first = False
        return False

    async def _end(self) -> None:
        """End a run whose items all have results: what is still running was abandoned, or is too late."""
        self._close()
        await self._tasks.cancel()
        await self.pipeline.batch_ended()

    async def _cancel_rest(self) -> None:
        """Cancel attempts in flight, and record a result for every item without one."""
        self._close()
        try:
            await self._tasks.cancel()
        finally:
            self._record_the_rest()
        await self.pipeline.batch_ended(self._patience)

    def _record_the_rest(self) -> None:
        """Record a cancelled result for every item without one."""
        with contextlib.suppress(RuntimeError):  # in a forked child the engine is out of reach
            self._mailbox.drain()
        self.pipeline.publish_stored()
        for flight in list(self.flights.values()):
            flight.abandoned = True
            if not flight.recorded:
                self.pipeline.record_cancelled(flight.index, flight.item, flight.attempt, flight)
        self.flights.clear()
        for rest in unstarted(self.waiting, self._interrupted_in_flight, self.deferred, self.run_store):
            self.pipeline.record_cancelled(*rest)
        self.waiting.clear()

    def _close(self) -> None:
        self.closing = True
        self._mailbox.close()
        with contextlib.suppress(RuntimeError):  # in a forked child the engine is out of reach
            self._interrupted_in_flight.update(self.handle.close())
        self._room.make_for_all()

    def fail(self, error: BaseException) -> None:
        """End the run with an exception from the user's code, the engine or this module that ends all of it."""
        if self.loop.is_closed():
            return  # coroutines are closed with their loop
        if self._mailbox.is_of_parent:
            raise error  # of a child that was forked during the run, and is not part of it
        if ends_run(error):
            # Also when the run is being cancelled: its awaiter gets this instead of a cancellation.
            failure = error
        elif self.closing or self._done.done():
            return
        else:
            failure = internal_error(error)
        self.failure = self.failure or failure
        if not self._done.done():
            self._done.set_result(None)

    def _turn(self, messages: list[Message], end: float) -> None:
        """Execute messages, until the turn is over; after results have been taken."""
        left = iter(messages)
        self._dispatching = True
        try:
            self._dispatch.execute(left, end)
        finally:
            self._dispatching = False
            rest = list(left)
            if rest:
                self._mailbox.put_back(rest)
        self._stage()
        self._tell_finished()

    def drained(self) -> None:
        """End the run: the engine has nothing left, unless something has joined since."""
        if self.handle.is_drained() and not self._done.done():
            self._done.set_result(None)

    def stopped(self) -> None:
        """Accept nothing more: the engine starts nothing more."""
        self.stopping = True
        if self.on_stop is None:
            self.close_input()
        else:
            self.on_stop()

    def take_fresh(self, index: int) -> LLMWorkItem[Any, Any, Any]:
        """Take an item that starts out of the queue."""
        item = self.waiting.take(index)
        if item is None:
            raise RuntimeError(f"item number {index} was started twice")
        if index < self.direct.next:
            self.handle.unstage(index)  # its start was decided before it was staged
        return item

    # Items and flights

    def pause(self) -> None:
        """Start nothing more until :meth:`resume`; attempts in flight continue."""
        self.handle.pause(True)

    def resume(self) -> None:
        """Resume after :meth:`pause`."""
        self.handle.pause(False)

    @property
    def waits_in_batches(self) -> bool:
        """Whether requests wait for hours in batches, which stay when the run is interrupted."""
        return self.pipeline.waits_in_batches

    def interrupted(self) -> None:
        """Report what an interrupt leaves behind."""
        self.pipeline.interrupted()

    def end_early(self, *, cancel: bool, category: str = "batch_aborted") -> None:
        """Start nothing more; ``cancel``: and cancel what is in flight. Items that are left end with ``category``."""
        self.handle.stop(cancel, category)

    def launch(self, flight: Flight, strategy: Any, prompt: Any) -> None:
        """Send a native attempt; what comes of it is a message."""
        strategy._launch(self.handle, flight, prompt, self.pipeline.client(strategy, flight.index))

    def attach(self, journal: Journal) -> None:
        """Have the journal report what it has written to this run."""
        journal.attach(self.handle)

    def in_work(self) -> int:
        """Attempts in flight, and items whose tools are working."""
        tools = sum(1 for flight in self.flights.values() if flight.conversation is not None and not flight.executing)
        return self.handle.gauges()[1] + tools

    def set_full(self, is_full: bool) -> None:
        """Start nothing more while results are not taken."""
        self.handle.set_full(is_full)

    def gauges(self) -> tuple[int, int, int, float, float | None, tuple[str, float | None] | None]:
        """Return items queued, in flight, to be retried; seconds of cooldown left, of an outage; what is waited for."""
        return self.handle.gauges()

    def cancel(self, item_id: str) -> bool:
        """Cancel an item that is queued or in flight; return whether there is one."""
        index = self._index_of(item_id)
        if index is not None:
            self.handle.cancel(index)
        return index is not None

    def cancel_index(self, index: int) -> None:
        """Cancel the item with this index."""
        self.handle.cancel(index)

    def _index_of(self, item_id: str) -> int | None:
        for index, flight in self.flights.items():
            if flight.item.item_id == item_id:
                return index
        return self.waiting.index_of(item_id)

    def finish(self, flight: Flight, success: bool, error: str | None, usage: Any) -> None:
        """Count a result and end its flight."""
        del self.flights[flight.index]
        self.handle.finish(flight.index, success, error, usage)

    def finish_all(self, ended: list[tuple[Flight, WorkItemResult[Any, Any]]]) -> None:
        """Publish and count results, and end their flights: :meth:`publish` and :meth:`finish` for many at once."""
        counts = []
        for flight, result in ended:
            paid = paid_now(flight, result.token_usage)
            counts.append((flight.index, bool(result.success), result._error_name, paid))
            self.results.append(result)
            del self.flights[flight.index]
        self.handle.finish_all(counts)
        self._tell_of_results()

    def tell_soon(self) -> None:
        """Schedule the report of collected successes to the engine."""
        if not self._dispatching:
            self.loop.call_soon(self._tell_finished)

    def _tell_finished(self) -> None:
        if not self.closing:
            try:
                self.handle.tell_finished()
            except RuntimeError as error:
                self.fail(error)
        if self.on_results is not None and self.results:
            self.on_results()

    def release(self, flight: Flight) -> None:
        """End a flight whose result was counted before."""
        if self.flights.pop(flight.index, None) is not None:
            self.handle.release(flight.index)
