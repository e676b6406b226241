"""The engine's messages on the event loop: when they are polled, and for how long at a time.

The loop's side of ``src/dispatch/mailbox.rs``; used by ``_run.Run``, which executes the messages.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from .._core import RunHandle
from .._forks import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import RunSettings

TURN_SECONDS = 0.002
"""How long one turn may block the loop, so that the user's own tasks keep running."""
TAKE = 64
"""Messages taken from the engine at a time."""
POLL_FROM = 16
"""Finished items in a turn from which on the loop polls instead of being woken: a wake-up costs more than a result."""
POLL_SECONDS = 0.001
"""How long it waits before it looks."""

Message = tuple[int, int, Any, Any]


class Mailbox:
    """Take a run's messages, in turns.

    The loop watches a descriptor, which is readable from the first message on until the mailbox rests. Where results
    come fast, it polls each millisecond instead, as network drivers do.

    Args:
        loop: The loop of the run.
        settings: The engine's settings.
        take_results: Takes results that no attempt waits for, up to a maximum; returns their number. As long as
            there are any, no other message is before them.
        dispatch: Executes messages, until the given end of the turn, and puts the rest back.
        fail: Ends the run with an exception.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: RunSettings,
        take_results: Callable[[int], int],
        dispatch: Callable[[list[Message], float], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._loop, self._take_results, self._dispatch, self._fail = loop, take_results, dispatch, fail
        self.handle = RunHandle(settings, True)
        self._backlog: list[Message] = []
        self._is_closed = False
        self._process = process()
        self._next_look: asyncio.TimerHandle | None = None
        self._watches = self._watch(settings)
        # Whether the loop calls again by itself, since the descriptor is readable until it is rested.
        self._is_called = self._watches

    def _watch(self, settings: RunSettings) -> bool:
        """Have the loop watch the engine's descriptor, or a thread if the loop cannot; whether it is the loop."""
        descriptor = self.handle.fileno()
        if descriptor is not None:
            try:
                self._loop.add_reader(descriptor, self.look)
                return True
            except NotImplementedError:
                self.handle = RunHandle(settings, False)
        arguments = (weakref.ref(self), self.handle, self._loop, contextvars.copy_context())
        threading.Thread(target=_listen, args=arguments, name="batch-llm wake-up", daemon=True).start()
        return False

    def look(self) -> None:
        """Take messages until there are none, or until the turn is over."""
        handle = self.handle
        if self._is_closed:
            handle.rest()
            return
        end = time.perf_counter() + TURN_SECONDS
        easy = 0
        try:
            while True:
                results, messages = self._portion()
                if not (results or messages):
                    self._is_called = False
                    if easy >= POLL_FROM:
                        handle.hush()
                        self._next_look = self._loop.call_later(POLL_SECONDS, self.look)
                        return
                    handle.rest()
                    # Something may have come between the last look and the rest.
                    results, messages = self._portion()
                    if not (results or messages):
                        self._is_called = self._watches
                        return
                self._dispatch(messages, end)
                if results > 8 * len(messages):
                    easy += results
                if time.perf_counter() > end:
                    # The loop comes back after its other work. By itself, if the descriptor is still readable; but
                    # there is no wake-up for what came between the last poll and a rest, or while polling.
                    if not self._is_called:
                        self._loop.call_soon(self.look)
                    return
        except BaseException as error:
            self._fail(error)

    def _portion(self) -> tuple[int, list[Message]]:
        """Take results, and the messages that are after them."""
        results = self._take_results(TAKE)
        messages, self._backlog = self._backlog or self.handle.take(TAKE), []
        return results, messages

    def put_back(self, messages: list[Message]) -> None:
        """Store messages for the next turn."""
        self._backlog = messages

    def close(self) -> None:
        """Take no more messages in turns."""
        self._is_closed = True
        if self._next_look is not None:
            self._next_look.cancel()

    def drain(self) -> None:
        """Take the results that have come, in a mailbox that is closed, and drop what else has."""
        while any(self._portion()):
            pass

    @property
    def is_of_parent(self) -> bool:
        """Whether this process was forked during the run."""
        return self._process != process()

    def unwatch(self) -> None:
        """Let go of the descriptor, or of the thread."""
        self._is_closed = True
        if self.is_of_parent:
            return  # a parent's run freed in a child: the descriptor that the loop watches is the parent's
        descriptor = self.handle.fileno()
        if self._watches and descriptor is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
        self._watches = False
        self.handle.ring()


def _listen(
    mailbox: weakref.ref[Mailbox], handle: RunHandle, loop: asyncio.AbstractEventLoop, context: contextvars.Context
) -> None:
    """Wake a loop that cannot watch descriptors (Windows' proactor), from a helper thread, for as long as it runs."""
    while True:
        rung = handle.wait(1.0)
        current = mailbox()
        if current is None or current._is_closed:
            return
        if rung:
            try:
                loop.call_soon_threadsafe(current.look, context=context)
            except RuntimeError:  # the loop was closed
                return
        del current
