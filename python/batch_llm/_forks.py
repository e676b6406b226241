"""What a forked child must not inherit from its parent. Used by modules with state of one process.

A child has one thread, the one that forked: loops and locks of the others are stuck in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_generation = 0


def process() -> int:
    """Return a number that differs between a process and the children that it forks."""
    return _generation


def in_child(forget: Callable[[], None]) -> None:
    """Have something called in each forked child, in the order of registration."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=forget)


def _count() -> None:
    global _generation
    _generation += 1


in_child(_count)
