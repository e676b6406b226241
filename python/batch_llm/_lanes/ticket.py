"""The batches of a store: those that are open at providers, and those that have ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .._core import batches_of, format_of
from ..prices import price_of

ENDED = frozenset({"collected"})
LATEST = 50
"""As many batches tell how others will be; as in ``src/batches/terms.rs``."""


@dataclass(frozen=True)
class BatchTicket:
    """A batch of a store.

    Args:
        batch_id: The provider's id; None: not known, or not created yet.
        provider: The provider's name.
        base_url: The provider's base URL.
        model: The model.
        endpoint: The path of the same requests when they are sent one by one, below the base URL.
        requests: Number of requests in the batch.
        stage: ``"planned"``, ``"uploading"``, ``"uploaded"``, ``"creating"`` (it is not known whether it was created),
            ``"open"`` (at the provider), ``"ended"`` (its answers are not in the store yet) or ``"collected"``.
        state: The provider's name of its state, when it was last polled.
        done: Requests that the provider has answered, by its own count.
        failed: Requests that failed, by the provider's count.
        waiting: Answers that were collected, but that no run has taken yet.
        submitted_at: When the batch was created, seconds since 1970.
        ended_at: When it was seen to have ended, seconds since 1970.
        cancelled: Why it was cancelled, if it was.
        cost: The cost of the answers that runs have taken, US dollars by list prices; None: the price is unknown.
        nonce: The text that identifies it at the provider: in file names, metadata and the ids of requests.
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
        """Whether it may still be open at the provider, or has results that were not collected."""
        return self.stage not in ENDED


def tickets(store: str | os.PathLike[str]) -> list[BatchTicket]:
    """Return the batches of a store, the oldest first; an empty list if it never had any.

    Raises:
        ArtifactError: If the file cannot be read.
    """
    path = os.fspath(store)
    found = batches_of(path, format_of(path) or "sqlite") if os.path.exists(path) else None
    return [_ticket(one) for one in found or ()]


def cache_reads(store: str | os.PathLike[str] | None, provider: str, model: str) -> tuple[float, float]:
    """Tokens of prompts in the latest batches of a model, and those of them that were read from the provider's cache.

    Args:
        store: Where the batches are; None: there are none.
        provider: The provider's name.
        model: The model.

    Raises:
        ArtifactError: If the file cannot be read.
    """
    path = "" if store is None else os.fspath(store)
    found = batches_of(path, format_of(path) or "sqlite") if os.path.exists(path) else None
    theirs = [one for one in found or () if (one["provider"], one["model"]) == (provider, model)]
    used = [one for one in theirs if one["input_tokens"]][-LATEST:]
    return sum(one["input_tokens"] for one in used), sum(one["cached_input_tokens"] for one in used)


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
        stage="collected" if one["stage"] == "settled" else one["stage"],
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
