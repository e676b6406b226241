"""How a process asks for its part of a job's cap, and divides it among its runs. Knows no board, and no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

FLOOR = 1e-3
"""The least that is requested for, as a part of the cap."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Claims:
    """What a run has used of its allowance.

    Attributes:
        spent: What it has spent.
        reserved: What it has reserved for requests in flight.
        wanted: What the next request would cost, if the allowance does not suffice for it; 0: it suffices.
    """

    spent: float = 0.0
    reserved: float = 0.0
    wanted: float = 0.0

    @property
    def both(self) -> float:
        """What is spent and reserved."""
        return self.spent + self.reserved


class Spender(Protocol):
    """A run."""

    def allow(self, cost: float, is_final: bool) -> None:
        """Set what it may spend and reserve; until that is final, its requests wait for more."""
        ...

    def claims(self) -> Claims:
        """Return what it uses."""
        ...


@dataclass(frozen=True)
class Wish:
    """What is requested for; see ``JobReport``."""

    spent: float
    reserved: float
    wanted: float
    least: float


class Purse:
    """The allowance of a process.

    Args:
        cap: The most that the whole job may cost.
    """

    def __init__(self, cap: float) -> None:
        self._cap = cap
        self._allowed = 0.0
        self._requested = 0.0
        self._had_all = True
        self._before = 0.0
        self._reserved = 0.0
        self.ended = 0.0
        """What runs that are over have spent."""
        self.is_short = False
        """Whether a run waits for more."""

    def wish(self, runs: Sequence[Spender]) -> Wish:
        """Return what to ask for. Until the verdict, the runs spend no more than that."""
        was_short = any(run.claims().wanted > 0 for run in runs)
        found, free = self._freeze(runs)
        # A run that may spend nothing for the moment wants to, if it waits for nothing else.
        wants = [claims.wanted for claims in found if claims.wanted > 0]
        used = self.ended + sum(claims.both for claims in found)
        self.is_short = bool(runs) and (was_short or free <= self._cap * ROUNDING)
        needed = min(wants, default=0.0)
        requested = self._requested / 2
        if self.is_short:
            requested = self._requested * 2 if self._had_all else self._requested
        requested = max(requested, sum(wants), 2 * (used - self._before), self._cap * FLOOR)
        self._requested = min(requested, self._cap) if runs else 0.0
        self._before = used
        is_stuck = bool(wants) and needed > free * (1 + ROUNDING)
        # What does not suffice is of more use to others.
        keeps = 0.0 if is_stuck else min(free, self._requested)
        self._allowed = used + keeps
        self._divide(runs, found, keeps, is_final=False)
        # Since then requests may have been sent within what is kept, or have ended.
        spent = sum(run.claims().spent for run in runs) + self.ended
        self._reserved = max(used - spent, 0.0)
        return Wish(spent, self._reserved, self._requested, needed if is_stuck else 0.0)

    def take(self, runs: Sequence[Spender], allowance: float, is_final: bool) -> None:
        """Divide what is allowed."""
        self._had_all = allowance >= self._before + self._requested * (1 - ROUNDING)
        self._allowed = allowance
        found, free = self._freeze(runs)
        # What was reserved may have turned out cheaper since the report.
        self._divide(runs, found, free, is_final and self._reserved <= self._cap * ROUNDING)

    def _freeze(self, runs: Sequence[Spender]) -> tuple[list[Claims], float]:
        """Let no run spend more; return what they use, and what is left."""
        for run in runs:
            run.allow(run.claims().both, False)
        found = [run.claims() for run in runs]
        return found, max(self._allowed - self.ended - sum(claims.both for claims in found), 0.0)

    def _divide(self, runs: Sequence[Spender], found: Sequence[Claims], free: float, is_final: bool) -> None:
        """Give each run that waits what it needs, the least first, and all an equal part of the rest."""
        shares = [0.0] * len(found)
        for place in sorted(range(len(found)), key=lambda place: found[place].wanted):
            needed = found[place].wanted
            if 0 < needed <= free * (1 + ROUNDING):
                shares[place] = min(needed, free)
                free -= shares[place]
        reserved = sum(claims.reserved for claims in found)
        for run, claims, share in zip(runs, found, shares, strict=True):
            # What others have reserved may turn out cheaper.
            others = reserved - claims.reserved > self._cap * ROUNDING
            run.allow(claims.both + share + free / len(found), is_final and not others)
