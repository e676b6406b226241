"""What processes that share limits and their board tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class JobReport:
    """What a process says of its part of a job; all numbers are of all its time.

    Attributes:
        counters: Whatever is counted, by name.
        spent: What it has spent.
        reserved: What it has reserved for requests in flight.
        wanted: What it could spend beyond both until its next report. Until the reply it spends no more than that.
        least: What it needs of that to go on at all; 0: anything helps.
        max_cost: The most that the whole job may cost; None: not said. Of several the least holds.
        timeout: How long the whole job may take, seconds from its first report; None: not said. Of several the least
            holds.
        stop: Why the job has to stop, a category; None: it need not.
    """

    counters: Mapping[str, float] = field(default_factory=dict)
    spent: float = 0.0
    reserved: float = 0.0
    wanted: float = 0.0
    least: float = 0.0
    max_cost: float | None = None
    timeout: float | None = None
    stop: str | None = None


@dataclass(frozen=True)
class JobVerdict:
    """What a process that works on a job is told.

    Attributes:
        allowance: What it may have spent and reserved; None: there is no cap.
        is_final: Whether that will never be more.
        stop: Why the job has to stop, the first reason that anybody gave; None: it need not.
        left: How much longer the job may take, seconds; None: any time.
        totals: The counters of all, summed.
    """

    allowance: float | None = None
    is_final: bool = False
    stop: str | None = None
    left: float | None = None
    totals: Mapping[str, float] = field(default_factory=dict)


class Board(Protocol):
    """Where processes agree on their shares. Called from threads, about twice a second per process and scope."""

    def renew(self, scope: str, holder: str, demand: Demand, /) -> Share:
        """Renew the lease of a process on the limits of a scope, or take it."""
        ...

    def leave(self, scope: str, holder: str, /) -> None:
        """Give the share back."""
        ...
