"""Clients that may create caches at their providers for the prompts of a run. Used by ``attempts``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core import NativeClient


class OpenCaches:
    """The clients whose caches a run holds; those that no other run holds are deleted when it releases them."""

    def __init__(self) -> None:
        self._clients: dict[int, NativeClient] = {}

    def hold(self, client: NativeClient) -> None:
        """Hold the caches of a client until :meth:`release`."""
        if id(client) not in self._clients:
            client.open_caches()
            self._clients[id(client)] = client

    async def release(self) -> None:
        """Release all of them; wait until they are deleted, or for ten seconds."""
        clients, self._clients = self._clients, {}
        await asyncio.gather(*(client.release_caches() for client in clients.values()))
