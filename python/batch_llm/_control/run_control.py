"""A run as control sees it: answers its endpoint, and keeps what was done to it. Made with the plan of a run.

Answers are given in threads of the endpoint. What is asked of the engine is asked there, for the engine has a lock of
its own; what touches items is done on the event loop of the run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._error_text import describe
from .._json_values import without_secrets
from .._logs import log_event
from .._progress import Outlook
from .._results import BatchTermination
from ..errors import ERROR_MESSAGE_LIMIT, ControlError
from . import changes, places, registry, reports, settings
from .server import Endpoint

if TYPE_CHECKING:
    from .._items import LLMWorkItem
    from .._results import WorkItemResult
    from .._run import Run, RunPlan

    Item = LLMWorkItem[Any, Any, Any]

MOST_FAILURES = 1_000
"""Failures that ``tail`` can show."""
MOST_REQUEUABLE = 100_000
"""Failed items that a running run can send again; the next run with the store sends the others."""
MOST_CHANGES = 100
"""Changes that ``status`` shows."""
LOOP_SECONDS = 10.0
"""How long a busy event loop is waited for."""

_warned = threading.Lock()
_has_warned = False


@dataclass(frozen=True)
class ControlOptions:
    """How a run is registered.

    Args:
        name: Its name; None: that of its store.
        run_id: Its id; None: a new one.
        program: Who runs it, ``"cli"`` or ``"python"``.
        log: The file with its output.
    """

    name: str | None = None
    run_id: str | None = None
    program: str = "python"
    log: str | None = None

    def __call__(self, plan: RunPlan) -> RunControl:
        """Return the control of a run with this plan."""
        return RunControl(plan, self)


class RunControl:
    """The control of one run.

    Args:
        plan: What the run is to do.
        options: How it is registered.
    """

    def __init__(self, plan: RunPlan, options: ControlOptions) -> None:
        self.plan = plan
        store = None if plan.persistence is None else plan.persistence.store
        self.store = None if store is None else registry.store_name(store.path)
        name = options.name or (self.store or "run").rstrip("/").rpartition("/")[2]
        self.entry = registry.new_entry(name, store=self.store, program=options.program, log=options.log)
        if options.run_id is not None:
            self.entry.id = options.run_id
        self.resend: Callable[[list[tuple[Item, int]]], str | None] | None = None
        """Sends failed items again, on the loop; returns why not, if so. Set by who can."""
        self.run: Any = None  # of class Run; None before and after it
        self.termination = BatchTermination()
        self.changes: deque[dict[str, Any]] = deque(maxlen=MOST_CHANGES)
        self.requeued = 0
        self._failures: deque[dict[str, Any]] = deque(maxlen=MOST_FAILURES)
        self._failed_items: dict[int, tuple[Item, str | None]] = {}
        self._failed = 0
        self._ended_by: str | None = None
        self._endpoint: Endpoint | None = None
        self._rate = reports.Rate()
        self._lock = threading.Lock()

    # Called by the run

    def begin(self, run: Run) -> None:
        """Attach to a run, and open its endpoint."""
        self.run = run
        self._outlook = Outlook(run)
        try:
            self._endpoint = Endpoint(self.entry.id, self.answer)
            self.entry.address, self.entry.directory = self._endpoint.address, str(self._endpoint.directory)
            registry.write(self.entry)
        except Exception as error:
            # Whatever it is: a run does not depend on being watched.
            self._close()
            _warn_once(error)
            return
        began_at = run.stats().start_time  # by which its store knows what limited it over time
        entry = self.entry
        self._note(changes.event("started", run=entry.id, name=entry.name, pid=entry.pid, began_at=began_at))

    def failed(self, item: Item, index: int, result: WorkItemResult[Any, Any]) -> None:
        """Take note of a failure."""
        self._failed += 1
        text = " ".join((without_secrets(result.error) or "").split())[:ERROR_MESSAGE_LIMIT]
        self._failures.append({
            "number": self._failed, "at": time.time(), "id": item.item_id, "category": result.error_category,
            "error": text, "attempts": result.attempts,
        })  # fmt: skip
        is_kept = self.resend is not None and len(self._failed_items) < MOST_REQUEUABLE
        if is_kept and not result.not_sent:
            self._failed_items[index] = (item, result.error_category)

    def ends_early(self, termination: BatchTermination) -> BatchTermination:
        """Take note of why the run ends, and say who has ended it."""
        if self._ended_by is not None and termination.kind in ("interrupted", "in_batch"):
            termination = BatchTermination(termination.kind, self._ended_by)
        self.termination = termination
        return termination

    def ending(self) -> None:
        """Write down how the run ends, into its store, which is still open."""
        if self._endpoint is not None:
            with contextlib.suppress(Exception):
                stats = self.run.stats()
                self.entry.status = reports.status(self, stats, self._rate, self._outlook)
                self.entry.status["explanation"] = reports.explained(stats)
                self.entry.status["cost_report"] = reports.cost(self, stats, self._outlook)
                kept = {name: value for name, value in self.entry.status.items() if name not in ("run", "changes")}
                self._note(changes.event("ended", run=self.entry.id, name=self.entry.name, status=kept))

    def ended(self, error: BaseException | None) -> None:
        """Close the endpoint: the run is over."""
        self._failed_items.clear()
        if self._endpoint is not None:
            # First, or somebody could find out that nobody listens, and take the run for dead.
            self._write_end(error)
        self._close()
        self.run = None

    def _write_end(self, error: BaseException | None) -> None:
        entry = self.entry
        entry.ended_at, entry.address, entry.directory = time.time(), None, None
        failed = 0
        if entry.status is not None:
            entry.status["state"] = "ended"
            # Those that were sent once more have failed once before.
            failed = max(entry.status["progress"]["failed"] - self.requeued, 0)
            if error is not None:
                entry.status["error"] = describe(error)[:ERROR_MESSAGE_LIMIT]
        entry.exit_code = reports.exit_code_of(self.termination, failed, error)
        # The command line writes its output first, and knows its exit code then.
        entry.state = "finishing" if entry.program == "cli" else "ended"
        with contextlib.suppress(OSError):
            registry.write(entry)

    def _close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _note(self, made: dict[str, Any]) -> None:
        """Keep an event in the store."""
        store = self.run.run_store
        if store is not None:
            store.note(changes.text(made))

    # Answers

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request; called in any thread.

        Raises:
            ControlError: If it cannot be done.
        """
        command, arguments = request.get("command"), request.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise ControlError("bad_argument", "arguments must be an object")
        looks: dict[str, Callable[[], dict[str, Any]]] = {
            "status": self._status,
            "explain": lambda: reports.explained(self.run.stats(), over_time=arguments.get("over_time") is True),
            "cost": lambda: reports.cost(self, self.run.stats(), self._outlook),
            "tail": lambda: self._tail(arguments),
        }
        if command in looks:
            return looks[command]()
        doing: dict[str, Callable[[_Change], dict[str, Any]]] = {
            "pause": functools.partial(self._pause, paused=True),
            "resume": functools.partial(self._pause, paused=False),
            "set": self._set,
            "cancel": self._cancel,
            "drain": self._drain,
            "requeue": self._requeue,
        }
        if command not in doing:
            known = ", ".join([*looks, *doing])
            raise ControlError("bad_argument", f"there is no command {command!r:.40}; known commands: {known}")
        by = request.get("by")
        change = _Change(
            str(command), arguments, by if isinstance(by, dict) else {}, request.get("reason"),
            is_dry=request.get("dry_run") is True,
        )  # fmt: skip
        with self._lock:  # one change at a time, so that each is recorded as what it was
            if self.run.steering.state()[4]:
                raise ControlError("not_running", "the run is ending already")
            return {"dry_run": change.is_dry, **doing[str(command)](change)}

    def _record(self, change: _Change, **more: Any) -> None:
        self._keep(changes.event(change.command, change.by, change.reason, **more))

    def _keep(self, made: dict[str, Any]) -> None:
        self.changes.append(made)
        self._note(made)
        log_event(
            logging.INFO, "controlled", "Control command %s, by %s%s", made["type"], changes.who(made),
            f": {made['reason']}" if "reason" in made else "", run=self.entry.id,
        )  # fmt: skip

    def _status(self) -> dict[str, Any]:
        return reports.status(self, self.run.stats(), self._rate, self._outlook)

    def _tail(self, arguments: dict[str, Any]) -> dict[str, Any]:
        most, after = arguments.get("most", 20), arguments.get("after", 0)
        if not (isinstance(most, int) and isinstance(after, int) and 0 <= most <= MOST_FAILURES):
            raise ControlError(
                "bad_argument", f"most must be an integer from 0 to {MOST_FAILURES}, and after an integer"
            )
        found = [failure for failure in list(self._failures) if failure["number"] > after]
        return {"failures": found[len(found) - most :] if most else [], "last": self._failed}

    def _pause(self, change: _Change, *, paused: bool) -> dict[str, Any]:
        was = self.run.steering.state()[0]
        if not change.is_dry and was != paused:
            (self.run.pause if paused else self.run.resume)()
            self._record(change)
        return {"paused": {"before": was, "after": paused}}

    def _set(self, change: _Change) -> dict[str, Any]:
        wanted = settings.checked(self, change.arguments)
        before = settings.current(self)
        if not change.is_dry:
            settings.apply(self, wanted)
            values = {name: {"before": before[name], "after": value} for name, value in wanted.items()}
            self._record(change, values=values)
        return {"values": {name: {"before": before[name], "after": value} for name, value in wanted.items()}}

    def _cancel(self, change: _Change) -> dict[str, Any]:
        item = change.arguments.get("item")
        if item is None:
            return self._end(change, cancel=True)
        if not isinstance(item, str):
            raise ControlError("bad_argument", "item must be the id of an item, a string")
        if change.is_dry:
            return {"item": item}
        if not self._on_loop(lambda: self.run.cancel(item)):
            raise ControlError("refused", f"the item {item!r} has its result already, or was not read yet")
        self._record(change, item=item)
        return {"item": item}

    def _drain(self, change: _Change) -> dict[str, Any]:
        return self._end(change, cancel=False)

    def _end(self, change: _Change, *, cancel: bool) -> dict[str, Any]:
        queued, in_flight, retrying, *_ = self.run.gauges()
        if not change.is_dry:
            made = changes.event(change.command, change.by, change.reason)
            word = "cancelled" if cancel else "drained"
            self._ended_by = f"the run was {word} by {changes.who(made)}"
            if change.reason:
                self._ended_by += f": {made['reason']}"
            self._record(change)
            run = self.run
            is_lane = run.waits_in_batches
            if is_lane:
                run.loop.call_soon_threadsafe(run.interrupted)
            run.end_early(cancel=cancel or is_lane, category="in_batch" if is_lane else "interrupted")
        return {"in_flight": in_flight, "not_sent": queued + retrying}

    def _requeue(self, change: _Change) -> dict[str, Any]:
        category, items = settings.requeue_arguments(change.arguments)
        if self.resend is None:
            raise ControlError(
                "refused", "the program adds the items of this run itself, so they cannot be sent again while it runs; "
                "requeue them when it is over, and run again with the same store"
            )  # fmt: skip
        found = [
            (index, item)
            for index, (item, its) in list(self._failed_items.items())
            if (items is None or item.item_id in items) and (category is None or its == category)
        ]
        if items is not None and not found:
            raise ControlError(
                "refused",
                f"none of these items has failed in this run: {', '.join(sorted(items))[:ERROR_MESSAGE_LIMIT]}",
            )
        if change.is_dry or not found:
            return {"items": len(found)}
        for index, _ in found:
            self._failed_items.pop(index, None)
        resend = self.resend
        chosen: dict[str, Any] = {} if items is None else {"items": sorted(items)}
        chosen |= {} if category is None else {"category": category}
        # From now on: what the store gets from here on is not meant.
        made = changes.event(change.command, change.by, change.reason, count=len(found), **chosen)
        problem = self._on_loop(lambda: resend([(item, index) for index, item in found]))
        if problem is not None:
            raise ControlError("not_running", problem)
        self.requeued += len(found)
        self._keep(made)
        return {"items": len(found)}

    def _on_loop(self, do: Callable[[], Any]) -> Any:
        """Do something on the loop of the run, and return what comes of it."""
        outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def call() -> None:
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                outcome.set_result(do())
            except BaseException as error:
                outcome.set_exception(error)

        try:
            self.run.loop.call_soon_threadsafe(call)
            return outcome.result(LOOP_SECONDS)
        except (concurrent.futures.TimeoutError, TimeoutError):
            if outcome.cancel():
                raise ControlError("busy", "the event loop of the run is blocked by other code; try again") from None
            raise ControlError("busy", "the run has not finished this command yet; see `batch-llm status`") from None
        except RuntimeError as error:  # the loop is closed
            raise ControlError("not_running", "the run is over") from error


@dataclass(frozen=True)
class _Change:
    """A request to change something."""

    command: str
    arguments: dict[str, Any]
    by: dict[str, Any]
    reason: str | None
    is_dry: bool


def _warn_once(error: Exception) -> None:
    global _has_warned
    with _warned:
        if _has_warned:
            return
        _has_warned = True
    log_event(
        logging.WARNING,
        "control_unavailable",
        "The run cannot be controlled from outside: %s. It continues without control. control=False turns this warning "
        "off; the environment variable %s sets another directory",
        error,
        places.STATE_VARIABLE,
    )
