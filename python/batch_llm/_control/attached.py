"""A handle on a run of this or another process: ``batch_llm.attach(run)``. The command line is made of it."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import ControlError
from . import registry, settings
from .client import Client, asker
from .finished import FinishedRun

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .registry import Entry
    from .shapes import Cost, Ended, Explanation, Paused, Requeued, RunInfo, Set, Status, Tail

POLL_SECONDS = 0.2
"""How often the registry is looked at while a run is waited for."""


def attach(run: str | os.PathLike[str] | None = None) -> AttachedRun:
    """Return a handle on a run: of another process, of this one, or of one that is over.

    ::

        handle = batch_llm.attach("nightly")
        print((await handle.status())["progress"])
        await handle.set(concurrency=20, reason="the provider requested it")

    Args:
        run: The run's id or the beginning of it, its name, or the path or URL of its store. None: the only run of this
            user that is running.

    Raises:
        ControlError: If there is no such run, or there are several.
    """
    return AttachedRun(AttachedSync(_entry_of(run)))


def _entry_of(run: str | os.PathLike[str] | None) -> Entry:
    try:
        return registry.find(run)
    except ControlError as error:
        if error.code != "unknown_run" or run is None:
            raise
        path = os.fspath(run)
        if "://" not in path and not os.path.exists(path):
            raise
    return FinishedRun.of_store(path).entry


class AttachedSync:
    """A handle on a run, for code without an event loop: ``attach(run).sync``.

    Not for the thread of the run's own event loop, where ``cancel(item)`` and ``requeue()`` would wait for themselves.
    All methods raise :class:`~batch_llm.ControlError` if the run rejects the command, or does not answer.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    @property
    def id(self) -> str:
        """The id of the run; empty for a store whose runs are not known."""
        return self._entry.id

    @property
    def name(self) -> str:
        """The name of the run."""
        return self._entry.name

    @property
    def info(self) -> RunInfo:
        """The entry of the run in the registry, as of the last read."""
        return self._entry.shown()

    def refresh(self) -> Entry:
        """Read the registry again, and return the entry of the run."""
        if self._entry.is_live:
            self._entry = registry.repair(registry.read(self._entry.id) or self._entry)
        return self._entry

    def _live(self) -> Client | None:
        """A connection to the run; None: it is over."""
        entry = self._entry
        for _ in range(2):
            if not entry.is_live or entry.state == "finishing":
                return None
            try:
                return Client(entry)
            except ControlError:
                # It may have ended, or have begun, since the registry was read.
                before, entry = entry.state, self.refresh()
                if entry.state == before and entry.is_live:
                    raise
        return None

    def _ask(self, command: str, arguments: dict[str, Any] | None = None, **more: Any) -> Any:
        """Send a command to the run; None: it is over."""
        client = self._live()
        if client is None:
            return None
        try:
            return client.ask(command, arguments, **more)
        except ControlError as error:
            if error.code == "unreachable" and not self.refresh().is_live:
                return None
            raise
        finally:
            client.close()

    def _change(self, command: str, arguments: dict[str, Any], reason: str | None, dry_run: bool) -> Any:
        answer = self._ask(command, arguments, reason=reason, dry_run=dry_run)
        if answer is None:
            raise ControlError("not_running", f"the run {self.id or self.name} is over ({self._entry.state})")
        return answer

    def status(self) -> Status:
        """Return the progress of the run, its settings, tokens and cost, what it waits for, and its changes."""
        answer: Status | None = self._ask("status")
        return FinishedRun(self._entry).status() if answer is None else answer

    def explain(self, *, over_time: bool = False) -> Explanation:
        """Return what limits the run, for what share of the time, and how to change it.

        Args:
            over_time: Whether to return also what limited it in each interval, as ``bound_over_time``; see
                :class:`~batch_llm.ProcessingStats`. Of a run that is over, its store has that.
        """
        answer: Explanation | None = self._ask("explain", {"over_time": over_time})
        return FinishedRun(self._entry).explain(over_time=over_time) if answer is None else answer

    def cost(self) -> Cost:
        """Return what the run has cost, and what it will have cost at its end."""
        answer: Cost | None = self._ask("cost")
        return FinishedRun(self._entry).cost() if answer is None else answer

    def tail(self, most: int = 20, *, after: int = 0) -> Tail:
        """Return the last failures.

        Args:
            most: Maximum number of failures.
            after: Only those after the failure with this number.
        """
        answer: Tail | None = self._ask("tail", {"most": most, "after": after})
        return FinishedRun(self._entry).tail(most, after) if answer is None else answer

    def pause(self, *, reason: str | None = None, dry_run: bool = False) -> Paused:
        """Pause the run: nothing more starts until :meth:`resume`; attempts in flight continue.

        Args:
            reason: Why, for the record.
            dry_run: Whether only to return what would change.
        """
        answer: Paused = self._change("pause", {}, reason, dry_run)
        return answer

    def resume(self, *, reason: str | None = None, dry_run: bool = False) -> Paused:
        """Resume after :meth:`pause`. Arguments as there."""
        answer: Paused = self._change("resume", {}, reason, dry_run)
        return answer

    def set(self, *, reason: str | None = None, dry_run: bool = False, **values: float | str | None) -> Set:
        """Change settings of the run.

        Args:
            reason: Why, for the record.
            dry_run: Whether only to return what would change.
            values: ``concurrency``: attempts in flight; with ``"auto"``, the maximum. ``rpm``, ``tpm``: requests and
                tokens per minute. ``budget``: maximum cost of the whole run. ``deadline``: seconds from now, or a
                string such as ``"30m"``. None removes a limit.
        """
        settings.parsed(values)
        answer: Set = self._change("set", dict(values), reason, dry_run)
        return answer

    def cancel(self, item: str | None = None, *, reason: str | None = None, dry_run: bool = False) -> Ended:
        """Cancel the run at once, with all attempts in flight, or a single item.

        Args:
            item: The id of the item; None: the run. The next run with the same store resumes.
            reason: Why, for the record.
            dry_run: Whether only to return what would happen.
        """
        answer: Ended = self._change("cancel", {} if item is None else {"item": item}, reason, dry_run)
        return answer

    def drain(self, *, reason: str | None = None, dry_run: bool = False) -> Ended:
        """End the run as soon as all attempts in flight have ended; nothing more starts.

        Args:
            reason: Why, for the record.
            dry_run: Whether only to return what would happen.
        """
        answer: Ended = self._change("drain", {}, reason, dry_run)
        return answer

    def requeue(
        self,
        items: Iterable[str] | None = None,
        *,
        category: str | None = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Requeued:
        """Send failed items again: in this run if it is in progress, else with the next run that uses its store.

        Args:
            items: The ids of the items; once the run is over, also those of items that have succeeded. None: all failed
                items.
            category: Only failed items of this category.
            reason: Why, for the record.
            dry_run: Whether only to count them.
        """
        given: dict[str, Any] = {} if items is None else {"items": list(items)}
        given |= {} if category is None else {"category": category}
        wanted_category, wanted = settings.requeue_arguments(given)
        answer = self._ask("requeue", given, reason=reason, dry_run=dry_run)
        if answer is not None:
            return {"dry_run": dry_run, "items": answer["items"], "when": "now"}
        return FinishedRun(self._entry).requeue(wanted_category, wanted, asker(), reason, dry_run=dry_run)

    def wait(self, timeout: float | None = None) -> RunInfo:
        """Wait until the run is over, and its program has written its output.

        Args:
            timeout: Maximum wait, seconds; None: no limit.

        Raises:
            TimeoutError: If it is not over by then.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while self.refresh().is_live:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the run {self.id} is not over after {timeout:g} s")
            time.sleep(POLL_SECONDS)
        return self.info


class AttachedRun:
    """A handle on a run; :func:`attach` returns one.

    All methods raise :class:`~batch_llm.ControlError` if the run rejects the command, or does not answer. They work
    on any event loop, including that of the run itself.
    """

    def __init__(self, sync: AttachedSync) -> None:
        self.sync = sync
        """The same without async, for scripts and notebooks."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, name={self.name!r})"

    @property
    def id(self) -> str:
        """The id of the run; empty for a store whose runs are not known."""
        return self.sync.id

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.sync.name

    @property
    def info(self) -> RunInfo:
        """The entry of the run in the registry, as of the last read."""
        return self.sync.info

    async def status(self) -> Status:
        """Return the progress of the run, its settings, tokens and cost, what it waits for, and its changes."""
        return await asyncio.to_thread(self.sync.status)

    async def explain(self, *, over_time: bool = False) -> Explanation:
        """Return what limits the run, for what share of the time, and how to change it.

        Args:
            over_time: Whether to return also what limited it in each interval, as ``bound_over_time``; see
                :class:`~batch_llm.ProcessingStats`. Of a run that is over, its store has that.
        """
        return await asyncio.to_thread(functools.partial(self.sync.explain, over_time=over_time))

    async def cost(self) -> Cost:
        """Return what the run has cost, and what it will have cost at its end."""
        return await asyncio.to_thread(self.sync.cost)

    async def tail(self, most: int = 20, *, after: int = 0) -> Tail:
        """Return the last failures; see :meth:`AttachedSync.tail`."""
        return await asyncio.to_thread(self.sync.tail, most, after=after)

    async def pause(self, *, reason: str | None = None, dry_run: bool = False) -> Paused:
        """Pause the run until :meth:`resume`; see :meth:`AttachedSync.pause`."""
        return await asyncio.to_thread(self.sync.pause, reason=reason, dry_run=dry_run)

    async def resume(self, *, reason: str | None = None, dry_run: bool = False) -> Paused:
        """Resume after :meth:`pause`."""
        return await asyncio.to_thread(self.sync.resume, reason=reason, dry_run=dry_run)

    async def set(self, *, reason: str | None = None, dry_run: bool = False, **values: float | str | None) -> Set:
        """Change settings of the run; see :meth:`AttachedSync.set`."""
        return await asyncio.to_thread(self.sync.set, reason=reason, dry_run=dry_run, **values)

    async def cancel(self, item: str | None = None, *, reason: str | None = None, dry_run: bool = False) -> Ended:
        """Cancel the run or an item; see :meth:`AttachedSync.cancel`."""
        return await asyncio.to_thread(self.sync.cancel, item, reason=reason, dry_run=dry_run)

    async def drain(self, *, reason: str | None = None, dry_run: bool = False) -> Ended:
        """End the run once all attempts in flight have ended; see :meth:`AttachedSync.drain`."""
        return await asyncio.to_thread(self.sync.drain, reason=reason, dry_run=dry_run)

    async def requeue(
        self,
        items: Iterable[str] | None = None,
        *,
        category: str | None = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Requeued:
        """Send failed items again; see :meth:`AttachedSync.requeue`."""
        return await asyncio.to_thread(self.sync.requeue, items, category=category, reason=reason, dry_run=dry_run)

    async def wait(self, timeout: float | None = None) -> RunInfo:
        """Wait until the run is over; see :meth:`AttachedSync.wait`."""
        end = None if timeout is None else time.monotonic() + timeout
        while (await asyncio.to_thread(self.sync.refresh)).is_live:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"the run {self.id} is not over after {timeout:g} s")
            await asyncio.sleep(POLL_SECONDS)
        return self.info
