"""More runs that are limited by one known thing each: other runs, tools, estimates, what ``"auto"`` finds."""

from __future__ import annotations

import asyncio
from typing import Any

from batch_llm import TokenEstimate, process_prompts
from batch_llm.testing import SimulatedProvider

from ..helpers import Echo, quick
from .staged_runs import WORDS, answered, asked, stage

__all__: list[str] = []


class Shared(Echo):
    """Shares its limits with all others of this scope."""

    def __init__(self, scope: object, delay: float = 0.0) -> None:
        super().__init__(delay)
        self.quota_scope = scope


@stage("other_runs")
async def four_others_with_the_same_limit(path):
    return await _beside_others(4)


@stage("other_runs")
async def nine_others_with_the_same_limit(path):
    return await _beside_others(9)


async def _beside_others(count: int) -> Any:
    """Runs that take turns: most of the time, one waits for the turns of the others."""
    scope = object()
    fields: dict[str, Any] = {"concurrency": 50, "max_requests_per_minute": 3000, "quota_burst_seconds": 0.02}
    runs = [process_prompts(Shared(scope), WORDS[:10], config=quick(**fields), control=False) for _ in range(count + 1)]
    batches = await asyncio.gather(*runs)
    return batches[0].stats


@stage("tools")
async def tools_that_take_their_time(path):
    return await _with_tools(3, 10)


@stage("tools")
async def a_slow_tool_in_a_single_conversation(path):
    return await _with_tools(1, 1)


async def _with_tools(count: int, concurrency: int) -> Any:
    async def weather(city: str) -> str:
        """Tell the weather."""
        await asyncio.sleep(0.5)
        return "fine"

    with SimulatedProvider() as provider:
        prompts = [f"weather please, for {word}" for word in WORDS[:count]]
        place = {"tools": [weather], "rounds": 4}
        return await asked(provider, 0, prompts=prompts, place=place, config=quick(concurrency=concurrency))


@stage("estimates")
async def an_estimator_that_takes_its_time(path):
    return await answered(_Estimates(), 20, concurrency=10, max_tokens_per_minute=10**9)


@stage("estimates")
async def an_estimator_of_the_run(path):
    async def estimate(prompt: Any, **_: Any) -> TokenEstimate:
        await asyncio.sleep(0.04)
        return TokenEstimate(1, 1)

    with SimulatedProvider() as provider:
        config = quick(concurrency=10, max_tokens_per_minute=10**9, token_estimator=estimate)
        return await asked(provider, 20, config=config)


class _Estimates(Echo):
    async def estimate_tokens(self, prompt: Any, **_: Any) -> TokenEstimate:
        await asyncio.sleep(0.04)
        return TokenEstimate(1, 1)


@stage("pace")
async def a_rate_that_the_provider_does_not_report(path):
    # Google's headers say nothing of limits.
    with SimulatedProvider(requests_per_minute=1800, burst_seconds=0.1) as provider:
        prompts = WORDS[:80]
        batch = await process_prompts(
            "gemini:gemini-3-flash", prompts, api_key="key", base_url=provider.gemini_url, control=False,
            config=quick(concurrency="auto"),
        )  # fmt: skip
        return batch.stats


@stage("concurrency")
async def a_concurrency_that_is_still_found(path):
    with SimulatedProvider(latency=0.1) as provider:
        return await asked(provider, 600, config=quick(concurrency="auto"))
