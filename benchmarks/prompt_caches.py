"""Prompt caches: ``python prompt_caches.py [DIALECT ...]``. 2,000 items over 5 heads of 4,000 tokens, 100 in flight.

Prints for each dialect of a simulated provider with prompt caches, and for three ways to ask it: the hits as a part of
the possible ones, the ledger's cost as a multiple of the ideal one and of the one without a cache, and the seconds.

``auto``; ``False``, which is ours with ``cache_prompt=False``: what caching may cost in time; ``gather``, a loop over
aiohttp's requests with a semaphore, which marks what the vendors' guides tell to mark. ``+`` after a dialect: one
machine serves all requests of a head, where others have one for each 15 a minute.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from batch_llm import llm, process_prompts
from batch_llm.testing import PromptCaches, SimulatedProvider

ITEMS, HEADS, IN_FLIGHT = 2_000, 5, 100
HEAD_TOKENS = 4_000
LATENCY, SPREAD, PER_TOKEN = 0.6, 0.2, 0.01
"""Seconds until a reply begins, what they vary by, and seconds for each of its tokens."""
ANSWER = "The supplier delivers within thirty days unless otherwise agreed in writing by both parties. " * 2
EPHEMERAL = {"type": "ephemeral"}

MODELS = {
    "anthropic": ("anthropic:claude-sonnet-5", {}),
    "chat": ("openai:gpt-5-mini", {"api": "chat"}),
    "responses": ("openai:gpt-6-luna", {"api": "responses"}),
    "gemini": ("gemini:gemini-2.5-flash", {}),
}


def head(number: int) -> str:
    line = f'Contract {number}: the "Supplier" shall deliver within 30 days unless otherwise agreed in writing. '
    return (line * (HEAD_TOKENS * 4 // len(line) + 1))[: HEAD_TOKENS * 4]


DOCUMENTS = [head(number) for number in range(HEADS)]


def question(number: int) -> str:
    return f"Question {number}: what does clause {number % 97} say about delivery?"


def address(dialect: str, provider: SimulatedProvider) -> str:
    return provider.base_url if dialect in ("chat", "responses") else provider.url


async def ours(dialect: str, provider: SimulatedProvider, cache_prompt: Any) -> None:
    model, options = MODELS[dialect]
    strategy = llm(model, base_url=address(dialect, provider), api_key="any", cache_prompt=cache_prompt, **options)
    prompts = [[DOCUMENTS[number % HEADS], question(number)] for number in range(ITEMS)]
    batch = await process_prompts(strategy, prompts, concurrency=IN_FLIGHT)
    assert batch.succeeded == ITEMS, batch.summary()


def request(dialect: str, number: int) -> tuple[str, dict[str, Any]]:
    """Path and body of a request, as the vendor's guide to prompt caching has it."""
    document, asked = DOCUMENTS[number % HEADS], question(number)
    model = MODELS[dialect][0].partition(":")[2]
    if dialect == "anthropic":
        parts = [
            {"type": "text", "text": document, "cache_control": EPHEMERAL},
            {"type": "text", "text": asked},
        ]
        return "/v1/messages", {
            "model": model,
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": parts}],
        }
    if dialect == "gemini":
        parts = [{"text": document}, {"text": asked}]
        return f"/v1beta/models/{model}:generateContent", {"contents": [{"role": "user", "parts": parts}]}
    if dialect == "chat":
        parts = [{"type": "text", "text": document}, {"type": "text", "text": asked}]
        return "/chat/completions", {"model": model, "messages": [{"role": "user", "content": parts}]}
    parts = [
        {"type": "input_text", "text": document, "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_text", "text": asked},
    ]
    return "/responses", {
        "model": model,
        "input": [{"role": "user", "content": parts}],
        "prompt_cache_options": {"mode": "explicit"},
        "prompt_cache_key": f"contract-{number % HEADS}",
    }


async def gather(dialect: str, provider: SimulatedProvider) -> None:
    import aiohttp

    headers = {"x-api-key": "any", "authorization": "Bearer any", "x-goog-api-key": "any"}
    async with aiohttp.ClientSession(headers=headers) as client:
        semaphore = asyncio.Semaphore(IN_FLIGHT)

        async def ask(number: int) -> None:
            path, body = request(dialect, number)
            async with semaphore, client.post(address(dialect, provider) + path, json=body) as reply:
                reply.raise_for_status()
                await reply.json()

        await asyncio.gather(*(ask(number) for number in range(ITEMS)))


def measure(dialect: str, way: Callable[[str, SimulatedProvider], Awaitable[None]]) -> tuple[float, Any]:
    caches = PromptCaches(requests_per_machine=1e9) if dialect.endswith("+") else True
    with SimulatedProvider(
        LATENCY, SPREAD, latency_per_token=PER_TOKEN, replies=[ANSWER], prompt_caches=caches
    ) as provider:
        began = time.perf_counter()
        asyncio.run(way(dialect.rstrip("+"), provider))  # type: ignore[arg-type]
        return time.perf_counter() - began, provider.stats.prompt_caches


WAYS: dict[str, Callable[[str, SimulatedProvider], Awaitable[None]]] = {
    "auto": lambda dialect, provider: ours(dialect, provider, "auto"),
    "False": lambda dialect, provider: ours(dialect, provider, False),
    "gather": gather,
}


def main(*dialects: str) -> None:
    print("| dialect | how | of possible hits | cost / ideal | cost / without | seconds |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for dialect in dialects or ("anthropic", "responses+", "responses", "chat", "gemini"):
        for name, way in WAYS.items():
            seconds, caches = measure(dialect, way)
            ideal, plain = caches.cost / caches.ideal_cost, caches.cost / caches.plain_cost
            print(
                f"| {dialect} | {name} | {caches.hit_rate:.1%} | {ideal:.3f} | {plain:.3f} | {seconds:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
