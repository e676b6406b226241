"""Settings that can be changed during a run, and those in force. Used by ``_control`` through its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core import RunHandle


class Steering:
    """The engine's controls of one run.

    Args:
        handle: The run, as the engine knows it.
    """

    def __init__(self, handle: RunHandle) -> None:
        self.state = handle.steering
        """Whether it is paused, its workers, its cost cap, the seconds left, whether nothing more starts."""
        self.set_limits = handle.set_limits
        self.spend = handle.spend
        self.set_cost_cap = handle.set_cost_cap
        self.set_time_left = handle.set_time_left
