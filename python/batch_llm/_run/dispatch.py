"""What the engine's messages ask for: attempts that start, their answers, timeouts, and what concerns the whole run.

Used by ``_run.Run`` alone. ``messages`` has the codes.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from .. import _turns
from .._attempt_timeout import attempt_timeout
from .._core import Flight, Runner
from . import messages as message

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Iterator

    from .._core import Timing
    from .._items import LLMWorkItem
    from .mailbox import Message
    from .protocols import FailurePolicy, ItemPipeline
    from .run import Run
    from .tasks import Tasks


class Dispatch:
    """Execute messages of the engine.

    Args:
        run: Whose messages they are.
        pipeline: What is done with each item.
        tasks: Where attempts run.
    """

    def __init__(self, run: Run, pipeline: ItemPipeline, tasks: Tasks) -> None:
        self._run, self._pipeline, self._tasks = run, pipeline, tasks
        self._flights = run.flights
        # Whether attempts start at once, in tasks that may run several items in turn.
        self._shares_tasks = tasks.eager
        self._variables_of: Callable[[LLMWorkItem[Any, Any, Any]], contextvars.Context] | None = None

    def give_variables(self, variables_of: Callable[[LLMWorkItem[Any, Any, Any]], contextvars.Context]) -> None:
        """Run an item's attempts in a context of its own, not in the one of the run."""
        self._variables_of = variables_of
        self._shares_tasks = False

    def execute(self, messages: Iterator[Message], end: float) -> None:
        """Execute messages, until it is ``end``; the others are left in the iterator."""
        start, clock = self._start, time.perf_counter
        for code, item, attempt, value in messages:
            if code == message.START:
                start(item, attempt, value)
            elif code == message.DEFERRED:
                self._defer(item)
            elif code == message.ANSWERED or code == message.FAILED:
                self._answered(item, attempt, value, code == message.ANSWERED)
            else:
                self._other(code, item, attempt, value)
            # Attempts start in here, and a strategy may compute for long before it awaits.
            if clock() > end:
                break

    def _start(self, index: int, attempt: int, timing: Timing) -> None:
        flight = self._flights.get(index)
        if flight is None:
            self.begin(index, self._run.take_fresh(index), attempt, timing)
        else:
            flight.next_attempt(attempt, timing)
            coroutine = self._pipeline.start(flight)
            if coroutine is not None:
                self._begin_task(coroutine, flight)

    def _defer(self, index: int) -> None:
        """Keep an item out of memory until the answer to its request is there."""
        item = self._run.waiting.take(index)
        if item is not None:
            self._run.deferred.put(index, item)

    def begin(self, index: int, item: LLMWorkItem[Any, Any, Any], attempt: int, timing: Timing) -> None:
        """Start the first attempt of an item."""
        if self._pipeline.waits_in_batches and self._run.direct.begin(index, item, timing):
            return
        begin = self._run.begin_plain
        runner = None if begin is None else begin(index, item, attempt, timing, self._shares_tasks)
        if runner is not None:
            self._begin_task(runner, runner)
            return
        flight = Flight(index, item, attempt, timing)
        coroutine = self._pipeline.start(flight)
        if coroutine is not None:
            self._begin_task(coroutine, flight)

    def _begin_task(self, coroutine: Any, holder: Flight | Runner) -> None:
        """Run the coroutine of an attempt in a task, and pass it to ``holder``."""
        if self._shares_tasks:
            task = self._tasks.begin(coroutine)
            if not task.done():
                holder.task = task
            return
        # What starts in a later turn of the loop may be cancelled before that.
        flight = holder.flight if isinstance(holder, Runner) else holder
        assert flight is not None
        self._flights[flight.index] = flight
        create = self._run.loop.create_task
        if self._variables_of is not None:
            holder.task = self._variables_of(flight.item).run(create, coroutine)
        else:
            holder.task = create(coroutine)

    def _adopt(self, index: int) -> Flight | None:
        """Take over an attempt that started without the loop, if it is in flight."""
        run = self._run
        item = run.waiting.look_at(index)
        deferred = run.deferred.take(index) if item is None else None
        work = item or deferred
        flight = None if work is None else run.handle.adopt(index, work)
        if flight is not None:
            if item is not None:
                run.waiting.take(index)
            self._flights[index] = flight
        elif deferred is not None:
            run.deferred.put(index, deferred)
        return flight

    def _answered(self, index: int, attempt: int, value: Any, success: bool) -> None:
        flight = self._flights.get(index) or self._adopt(index)
        if flight is None or flight.attempt != attempt:
            return
        waiter = flight.native
        if waiter is None:
            if not flight.executing:
                return  # it comes after the timeout that ended the attempt
            coroutine = self._pipeline.answered(flight, value, success)
            if coroutine is None:
                return
            if self._variables_of is not None:
                # Tools of a conversation are code of the user's.
                self._variables_of(flight.item).run(self._tasks.spawn, coroutine, flight)
            else:
                self._tasks.spawn(coroutine, flight)
        elif not waiter.done():
            if success:
                waiter.set_result(value)
            else:
                waiter.set_exception(value)

    def _other(self, code: int, item: int, attempt: int, value: Any) -> None:
        flight = self._flights.get(item)
        if code == message.RESUME:
            if flight is not None and flight.gate is not None and not flight.gate.done():
                flight.gate.set_result(None)
        elif code == message.TIMED_OUT:
            flight = flight or self._adopt(item)
            if flight is not None and flight.executing and flight.attempt == attempt:
                self._time_out(flight, value)
        elif code == message.ABANDON:
            if flight is not None and flight.executing and flight.timed_out and flight.attempt == attempt:
                self._abandon(flight)
        elif code == message.ASK_COOLDOWN:
            self._tasks.spawn(self._failures.cool_down(item, attempt, *value))
        elif code == message.ASK_SLOW_START:
            self._failures.slow_start_from(attempt, item)
        elif code == message.COOLDOWN_ENDED:
            self._failures.cooldown_ended(value)
        elif code == message.ROOM:
            self._run.make_room()
        elif code == message.WRITTEN:
            self._pipeline.written(value)
        elif code == message.UNWRITTEN:
            self._pipeline.unwritten(value)
        elif code == message.DRAINED:
            self._run.drained()
        elif code == message.ESTIMATE:
            waiting = [(index, self._run.waiting.look_at(index)) for index in value]
            self._tasks.spawn(self._pipeline.estimate([(index, item) for index, item in waiting if item is not None]))
        elif code == message.GIVE_UP:
            if flight is not None:
                self._tasks.spawn(self._failures.fail_waiting(flight), flight)
        elif code == message.OUTAGE_BEGAN:
            self._failures.outage_began(attempt, *value)
        elif code == message.OUTAGE_ENDED:
            self._failures.outage_ended(attempt, value)
        elif code == message.AGAIN:
            deferred = self._run.deferred.take(item)
            if deferred is not None:
                self._run.direct.begin_deferred(item, deferred)
        elif code == message.BOARD:
            self._failures.board_changed(value)
        elif code == message.STANDSTILL:
            self._failures.stands_still(*value)
        elif code == message.REFUSE:
            if flight is not None:
                self._tasks.spawn(self._failures.reject(flight, *value), flight)
        elif code == message.REFUSE_FRESH:
            self._run.handle.unstage(item, attempt)  # that was decided before they were staged
            self._tasks.spawn(self._failures.reject_new(item, attempt, *value))
        elif code == message.STOPPED:
            self._failures.stopped(value)
            self._run.stopped()
        else:
            self._run.fail(RuntimeError(value))

    @property
    def _failures(self) -> FailurePolicy:
        policy = self._pipeline.failures
        if policy is None:
            raise RuntimeError("the engine reports a retry where every attempt is the last one")
        return policy

    def _time_out(self, flight: Flight, limit: str | None) -> None:
        """Cancel an attempt. ``limit``: the category of the limit that is not the attempt's own."""
        if limit is not None:
            self._run.cut[flight.index] = limit
        else:
            # The engine counts from the start; if the loop was busy, the attempt started later and has time left.
            # Nor does it count what the call has waited for its place.
            waited = _turns.waited(flight.notes)
            own = getattr(flight.item.strategy, "_stream_timeout", None)
            limit_seconds = attempt_timeout(self._pipeline.settings.attempt_timeout or 0.0, own)
            left = limit_seconds - flight.elapsed() + waited
            if left > 0:
                self._run.handle.extend(flight.index, left)
                return
            if waited:
                self._run.waits[flight.index] = waited
        flight.timed_out = True
        self._run.handle.abort(flight.index)
        if flight.task is not None and not flight.task.done():
            flight.task.cancel()
        else:
            # A native attempt without its own task.
            flight.executing = False
            self._tasks.spawn(self._failures.timed_out(flight), flight)

    def _abandon(self, flight: Flight) -> None:
        self._pipeline.log.event(
            logging.WARNING,
            "attempt_abandoned",
            "Item %s: the strategy ignored its cancellation after the timeout; the attempt is abandoned. "
            "A strategy must not swallow asyncio.CancelledError",
            flight.item.item_id,
            item_id=flight.item.item_id,
            attempt=flight.attempt,
        )
        _turns.abandon(flight.notes)
        if flight.task is not None:
            self._tasks.keep(flight.task)
        successor = flight.successor()
        self._flights[flight.index] = successor
        self._tasks.spawn(self._failures.timed_out(successor), successor)
