"""A semaphore for calls. Used by strategies that are functions, and by runs, for timeouts.

A call that waits for its place has not started: its timeout does not run. Runs read here how long it waited.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from ._forks import in_child, process

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Turns:
    """Places for calls; who finds none waits, in the order of coming. From any event loop, and without a lock.

    Args:
        most: How many places there are, >= 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._reset()

    def _reset(self) -> None:
        self._process = process()
        self._there_are = self._most
        self._free: deque[None] = deque([None] * self._most)
        self._line: deque[_Waiter] = deque()

    async def take(self, state: Any = None) -> Place:
        """Wait for a place.

        Args:
            state: The call's :class:`~batch_llm.RetryState`, by which its run looks up how long it waited.

        Raises:
            asyncio.CancelledError: If the awaiting task is cancelled.
        """
        if self._process != process():
            self._reset()  # the holders of places are in the parent process
        place = Place(self, state)
        try:
            if self._line:
                raise IndexError
            self._free.pop()
        except IndexError:
            await self._wait(place, self._line.append)
        place.began = time.monotonic()
        return place

    async def wait_for_another(self, place: Place) -> bool:
        """Remove a place, and wait for one of the others; False if there is no other."""
        if self._there_are - len(self._free) < 2:
            return False
        self._there_are -= 1
        await self._wait(place, self._line.appendleft)
        place.began = time.monotonic()
        return True

    async def _wait(self, place: Place, stand: Any) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        place.began, place.is_taken = None, False
        stand((loop, turn))
        self._hand_out()
        try:
            await turn
        except BaseException:
            place.is_taken = turn.done() and not turn.cancelled()
            place.give_back()
            raise
        place.is_taken = True

    def give_back(self) -> None:
        """Take a place back that was taken."""
        self._free.append(None)
        if len(self._free) == self._there_are < self._most:  # nothing is running: the cause may be over
            self._free.extend([None] * (self._most - self._there_are))
            self._there_are = self._most
        self._hand_out()

    def _hand_out(self) -> None:
        # Both a released place and a new waiter look for a pair; so none is overlooked.
        while self._line:
            try:
                self._free.pop()
            except IndexError:
                return
            try:
                loop, turn = self._line.popleft()
            except IndexError:
                self._free.append(None)
                continue
            if loop is asyncio._get_running_loop():
                self._wake(turn)
                continue
            try:
                loop.call_soon_threadsafe(self._wake, turn)
            except RuntimeError:  # the loop is closed
                self._free.append(None)

    def _wake(self, turn: asyncio.Future[None]) -> None:
        if turn.done():  # cancelled
            self.give_back()
        else:
            turn.set_result(None)


class Place:
    """The place of one call, or its wait for one."""

    __slots__ = ("_requested_at", "_state", "_turns", "began", "is_taken")

    def __init__(self, turns: Turns, state: Any) -> None:
        self._turns, self._state = turns, state
        self._requested_at = time.monotonic()
        self.began: float | None = None
        self.is_taken = True
        if state is not None:
            _PLACES[id(state)] = self

    def give_back(self) -> None:
        """Release it. Idempotent."""
        state, self._state = self._state, None
        if state is not None and _PLACES.get(id(state)) is self:
            del _PLACES[id(state)]
        if self.is_taken:
            self.is_taken = False
            self._turns.give_back()

    @property
    def waited(self) -> float:
        """How long it was waited for so far, seconds."""
        return (time.monotonic() if self.began is None else self.began) - self._requested_at


_PLACES: dict[int, Place] = {}
"""By the identity of a call's state, which the place refers to."""


def waited(state: Any) -> float:
    """How long the call with this state has waited for its place, seconds."""
    place = _PLACES.get(id(state))
    return 0.0 if place is None else place.waited


def abandon(state: Any) -> None:
    """Release the place of a call that does not end."""
    place = _PLACES.get(id(state))
    if place is not None:
        place.give_back()


in_child(_PLACES.clear)
