"""Fetches the results of a store's batches without the program that made them. For ``batches`` and ``collect``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .._core import BatchLane
from .._lanes import BatchSettings, BatchTicket, tickets
from ..embeddings import EmbeddingStrategy
from ..native import llm

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..artifacts import ArtifactStore

LOOK_SECONDS = 0.1


async def collect(
    store: ArtifactStore,
    *,
    wait: bool = True,
    cancel: bool = False,
    settings: BatchSettings | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[BatchTicket]:
    """Fetch what batches have answered into the store, where the next run takes it from.

    Args:
        store: The store.
        wait: Whether to wait for batches that have not ended; otherwise each is polled once.
        cancel: Whether they are cancelled first.
        settings: How often the provider is polled.
        tell: Called with messages for the user.

    Returns:
        The batches of the store, as they are afterwards.

    Raises:
        ArtifactError: If the store cannot be used, for example because a run is using it.
        ValueError: If a key is missing, or belongs to another account.
    """
    open_ones = [ticket for ticket in tickets(store.path) if ticket.is_open]
    if open_ones:
        assert store._format is not None
        lane = BatchLane(store.path, store._format, store, (settings or BatchSettings())._for_extension())
        try:
            clients = [lane.client(_strategy(*parts)._client) for parts in {_parts(ticket) for ticket in open_ones}]
            if cancel:
                await lane.cancel()
            await _ended(lane, wait, tell)
            del clients
        finally:
            lane.close(False)
    return tickets(store.path)


async def _ended(lane: BatchLane, wait: bool, tell: Callable[[str], None]) -> None:
    """Wait until nothing is left at providers; without ``wait``, until each batch was asked for."""
    loop = asyncio.get_running_loop()
    end = None if wait else loop.time() + 3 * BatchSettings.first_poll
    while True:
        for note in lane.take_notes():
            tell(note)
        _, sending, in_batches, batches, *_ = lane.counts()
        if not (sending or in_batches or batches) or (end is not None and loop.time() >= end):
            await lane.at_rest()
            return
        await asyncio.sleep(LOOK_SECONDS)


def _parts(ticket: BatchTicket) -> tuple[str, str, str, str]:
    return ticket.provider, ticket.model, ticket.base_url, ticket.endpoint


def _strategy(provider: str, model: str, base_url: str, endpoint: str) -> Any:
    name = f"{provider}:{model}"
    if "embed" in endpoint.lower():
        return EmbeddingStrategy(name, base_url=base_url)
    if provider in ("openai", "azure"):
        return llm(name, base_url=base_url, api="responses" if endpoint == "responses" else "chat")
    return llm(name, base_url=base_url)
