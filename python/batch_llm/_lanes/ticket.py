"""What a store has at providers: the batches that are out, and those that have ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .._core import batches_of, format_of
from ..prices import price_of

ENDED = frozenset({"settled"})


@dataclass(frozen=True)
class BatchTicket:
    """A batch of a store.

    Args:
        batch_id: The provider's id; None: not known, or not made yet.
        provider: The provider's name.
        base_url: Where it is.
        model: The model.
        endpoint: Where single requests would go, below the base URL.
        requests: How many requests it has.
        stage: ``"planned"``, ``"uploading"``, ``"uploaded"``, ``"creating"`` (whether it was made is not known),
            ``"open"`` (at the provider), ``"ended"`` (not collected yet) or ``"settled"``.
        state: The provider's word for its state, when it was last asked.
        done: Requests that the provider has answered, by its own count.
        failed: Of the provider's count, those that failed.
        waiting: Collected replies that no run has taken yet.
        submitted_at: When the batch was made, seconds since 1970.
        ended_at: When it was known to have ended, seconds since 1970.
        cancelled: Why it was cancelled, if it was.
        cost: What its answers have cost that runs have taken, US dollars by list prices; None: the price is unknown.
        nonce: What marks its traces at the provider: file names, labels and ids of requests.
    """

    batch_id: str | None
    provider: str
    base_url: str
    model: str
    endpoint: str
    requests: int
    stage: str
    state: str | None
    done: int | None
    failed: int | None
    waiting: int
    submitted_at: float | None
    ended_at: float | None
    cancelled: str | None
    cost: float | None
    nonce: str

    @property
    def is_open(self) -> bool:
        """Whether it may still be at the provider, or has results that were not collected."""
        return self.stage not in ENDED


def tickets(store: str | os.PathLike[str]) -> list[BatchTicket]:
    """Return the batches of a store, the oldest first; none if it never had any.

    Raises:
        ArtifactError: If the file cannot be read.
    """
    path = os.fspath(store)
    found = batches_of(path, format_of(path) or "sqlite") if os.path.exists(path) else None
    return [_ticket(one) for one in found or ()]


def _cost(one: dict[str, Any]) -> float | None:
    price = price_of(one["model"])
    return None if price is None else price.in_lane("batch").of(one)


def _ticket(one: dict[str, Any]) -> BatchTicket:
    return BatchTicket(
        batch_id=one["batch_id"],
        provider=one["provider"],
        base_url=one["base_url"],
        model=one["model"],
        endpoint=one["endpoint"],
        requests=one["lines"],
        stage=one["stage"],
        state=one["word"],
        done=one["done"],
        failed=one["failed"],
        waiting=one["waiting"],
        submitted_at=one["created_at"],
        ended_at=one["ended_at"],
        cancelled=one["cancelled"],
        cost=_cost(one),
        nonce=one["nonce"],
    )
