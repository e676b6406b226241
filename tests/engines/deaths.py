"""What tests of processes that die have in common: how often they run, and what a death may cost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from batch_llm.testing import SimulatedProvider

often = pytest.mark.parametrize("again", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 11))])
"""Once with the other tests, and ten times in ``make soak``: a process dies at another moment each time."""

LOST = 20 + 100
"""What a dead worker with 20 attempts of 0.2 s costs: those, and what answered in the half second before, with room."""


def paid_twice(provider: SimulatedProvider) -> int:
    """How many requests were sent again."""
    return sum(count - 1 for count in provider.stats.questions.values())


def midway(provider: SimulatedProvider, at: int, kill: Callable[[], Any]) -> threading.Thread:
    """Kill something once so many requests have come; return the thread that waits for it."""

    def watch() -> None:
        while provider.stats.requests < at:
            time.sleep(0.005)
        kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def interrupted_midway(work: Callable[[], Any], provider: SimulatedProvider, at: int) -> None:
    """Send Ctrl-C to this process, the driver, once so many requests have come."""
    # Programs that a shell has started in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = midway(provider, at, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            work()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
