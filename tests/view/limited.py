"""A run whose limit changes: first a cooldown after a rate limit, then one worker for a slow provider."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from batch_llm import BatchResult, ProviderError, process_prompts

from ..helpers import quick

SECONDS = 2.2
"""How long each of the two lasts, at least: longer than two intervals, so that one of these is within it."""


def strategy(gate: str | None) -> Any:
    """Answers the first prompt, meets a rate limit at the second, and then takes its time: until there is a file."""
    calls = 0

    async def answer(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ProviderError("slow down", category="rate_limit", status_code=429, retry_after=SECONDS)
        if calls > 2 and gate is None:
            await asyncio.sleep(SECONDS / 2)
        while calls > 2 and gate is not None and not os.path.exists(gate):
            await asyncio.sleep(0.02)
        return prompt

    return answer


async def limited_run(gate: str | None = None, **options: Any) -> BatchResult[Any, Any]:
    """Answer some prompts so."""
    config = quick(max_workers=1)
    return await process_prompts(strategy(gate), ["a", "b", "c", "d"], config=config, progress=False, **options)


def changes_of(over_time: dict[str, Any]) -> list[str]:
    """Which of the two limits took most of an interval, in order; on a slow machine there are others, too."""
    found: list[str] = []
    for values in zip(*over_time["seconds"].values(), strict=True):
        name, most = max(zip(over_time["seconds"], values, strict=True), key=lambda entry: entry[1])
        if most > over_time["interval"] / 2 and name in ("cooldown", "workers") and found[-1:] != [name]:
            found.append(name)
    return found
