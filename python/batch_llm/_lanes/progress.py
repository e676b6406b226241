"""How far the requests of a run are that wait in batches."""

from __future__ import annotations

from typing import NamedTuple


class BatchProgress(NamedTuple):
    """Numbers of requests of a run, by where they are."""

    queued: int = 0
    """No provider works on them yet: their batch is being filled, is on its way, or waits at the provider."""
    running: int = 0
    """In batches that a provider works on."""
    writing: int = 0
    """In batches whose results a provider writes, or that are being fetched."""
    collected: int = 0
    """Their replies have been collected in this run."""

    @property
    def waiting(self) -> int:
        """Those that wait in batches, or for one."""
        return self.queued + self.running + self.writing

    def words(self) -> list[str]:
        """Say it; nothing is said of what there is none of."""
        parts = ((self.queued, "queued"), (self.running, "running"), (self.writing, "being written"))
        detail = ", ".join(f"{count:,} {word}" for count, word in parts if count)
        words = [f"{self.waiting:,} in batches ({detail})"] if self.waiting else []
        return words + ([f"{self.collected:,} collected"] if self.collected else [])
