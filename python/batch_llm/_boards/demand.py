"""What processes that share limits and their board tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Demand:
    """What a process says of itself when it renews its lease on shared limits.

    Attributes:
        part: The part of the whole limits that it can use, from 0 to 1; None: as much as there is.
        pace: Requests per second that it has found it may send; None: it has found none, or its limits are known.
        refused: Rate limits that it met since its last renewal; 0 if its limits are known.
        held: The part that it has, for a board that was restarted; 0: none.
    """

    part: float | None = None
    pace: float | None = None
    refused: int = 0
    held: float = 0.0


@dataclass(frozen=True)
class Share:
    """What a process gets of shared limits.

    Attributes:
        part: Its part of the whole limits, from 0 to 1. 0: the others have not made room yet; it asks again at once.
        is_shared: Whether others have a part.
        is_new: Whether it had no lease before.
        pace: Requests per second that it may send, of what all together have found; None: not known.
        refused: Rate limits that others met since its last renewal.
    """

    part: float
    is_shared: bool
    is_new: bool
    pace: float | None = None
    refused: int = 0


class Board(Protocol):
    """Where processes agree on their shares. Called from threads, about twice a second per process and scope."""

    def renew(self, scope: str, holder: str, demand: Demand, /) -> Share:
        """Renew the lease of a process on the limits of a scope, or take it."""
        ...

    def leave(self, scope: str, holder: str, /) -> None:
        """Give the share back."""
        ...
