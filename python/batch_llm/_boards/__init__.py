"""Boards of shared limits: where processes agree on their shares. Used by configurations and runs.

The table of shares, the file and the TCP server are in the extension (``src/sharing/``).
"""

from __future__ import annotations

from .demand import Board, Demand, JobReport, JobVerdict, Share
from .server import LimitBoard, LimitServer
from .targets import SharedLimits, check_shared_limits, note_reached, open_board, shown, was_reached

__all__ = [
    "Board",
    "Demand",
    "JobReport",
    "JobVerdict",
    "LimitBoard",
    "LimitServer",
    "Share",
    "SharedLimits",
    "check_shared_limits",
    "note_reached",
    "open_board",
    "shown",
    "was_reached",
]
