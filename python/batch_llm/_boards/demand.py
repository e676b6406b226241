"""What processes that share limits and their board tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Demand:
    """What a process needs, sent when it renews its lease on shared limits.

    Attributes:
        part: The fraction of the limits that it can use, from 0 to 1; None: all that it can get.
        pace: The request rate that it has found, requests per second; None: it has found none, or its limits are known.
        refused: How often it was rate limited since its last renewal; 0 if its limits are known.
        held: The fraction that it holds, which a restarted board gives back to it; 0: none.
    """

    part: float | None = None
    pace: float | None = None
    refused: int = 0
    held: float = 0.0


@dataclass(frozen=True)
class Share:
    """The share of the limits that a process gets.

    Attributes:
        part: Its fraction of the limits, from 0 to 1. 0: the others have not reduced theirs yet, so it renews again
            at once.
        is_shared: Whether other processes have a share.
        is_new: Whether it had no lease before.
        pace: Its share of the request rate that all processes have found, requests per second; None: unknown.
        refused: How often the others were rate limited since its last renewal.
    """

    part: float
    is_shared: bool
    is_new: bool
    pace: float | None = None
    refused: int = 0


@dataclass(frozen=True)
class JobReport:
    """What a process reports about its part of a job. Numbers are totals since the process joined.

    Attributes:
        counters: Items, tokens and so on, by name.
        spent: The cost so far, in the currency of the prices.
        reserved: The cost reserved for requests in flight.
        wanted: How much more the process could spend until its next report. It spends no more than that before the
            reply.
        least: How much of ``wanted`` it needs to start anything at all; 0: any amount helps.
        max_cost: Cap on the cost of the whole job; None: no cap. The smallest that any process reports applies.
        timeout: Limit of the whole job, seconds from its first report; None: no limit. The smallest that any process
            reports applies.
        stop: The error category for which the job must stop; None: the job continues.
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
    """The board's reply to a report.

    Attributes:
        allowance: The most that the process may have spent and reserved, in the currency of the prices; None: no cap.
        is_final: Whether the allowance will never grow.
        stop: The error category for which the job must stop, the first that any process reported; None: the job
            continues.
        left: The time left for the job, seconds; None: no limit.
        totals: The counters of all processes, summed.
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
