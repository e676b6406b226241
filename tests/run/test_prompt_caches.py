"""Requests that begin alike: one writes the provider's prompt cache, and the others wait until they can read it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import Any

import pytest

from batch_llm import (
    BaseMiddleware,
    LLMCallPool,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    llm,
    process_prompts,
    process_stream,
)
from batch_llm.testing import Fault, PromptCaches, SimulatedProvider

HEADS, EACH = 3, 12
"""Fewer than fifteen each: OpenAI's simulated caches spread more over several machines."""
CACHES = PromptCaches(time_scale=1e-9)
"""Nothing expires."""
MODELS = {
    "anthropic": ("anthropic:claude-sonnet-5", {}),
    "responses": ("openai:gpt-6-luna", {"api": "responses"}),
    "chat": ("openai:gpt-5-mini", {"api": "chat"}),
    "gemini": ("gemini:gemini-2.5-flash", {}),
}


def strategy_of(dialect: str, provider: SimulatedProvider, **options: Any) -> Any:
    model, more = MODELS[dialect]
    base_url = provider.base_url if model.startswith("openai") else provider.url
    return llm(model, base_url=base_url, api_key="any", **more, **options)


def prompts(each: int = EACH, heads: int = HEADS) -> list[Any]:
    documents = [f"Contract {number}. " * 1200 for number in range(heads)]
    return [[documents[number % heads], f"Question {number}?"] for number in range(each * heads)]


def simulated(**options: Any) -> SimulatedProvider:
    return SimulatedProvider(0.02, prompt_caches=CACHES, **options)


def assert_written_once(provider: SimulatedProvider, items: int = HEADS * EACH, heads: int = HEADS) -> int:
    """Return how many requests read the cache: all but the first of each head.

    On a machine that is busy, a run may begin with fewer questions of a head than show that they begin alike: these go
    at once, and some of them write too.
    """
    caches = provider.stats.prompt_caches
    assert caches is not None
    assert provider.stats.requests == items
    assert items - 3 * heads <= caches.hits <= min(items - heads, caches.possible_hits)
    assert caches.cost <= 2 * caches.ideal_cost
    return int(caches.hits)


@pytest.mark.parametrize("dialect", MODELS)
@pytest.mark.parametrize("stored", [False, True])
async def test_each_head_is_written_once(dialect, stored, tmp_path):
    with simulated() as provider:
        store = tmp_path / "run.db" if stored else None
        batch = await process_prompts(strategy_of(dialect, provider), prompts(), concurrency=50, store=store)
        assert batch.succeeded == HEADS * EACH
        hits = assert_written_once(provider)
    assert batch.stats.prompt_cache["first"] == HEADS
    assert batch.stats.prompt_cache["hit"] <= hits
    assert batch.stats.bound_by["prompt_cache"] > 0
    if dialect == "anthropic":
        assert all("first_token_seconds" not in result.metadata for result in batch.results), "nobody wanted streams"


class Hooks(BaseMiddleware[Any, Any, Any]):
    async def before_process(self, work_item: Any) -> Any:
        await asyncio.sleep(0)
        return work_item


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
async def test_so_it_is_where_python_starts_attempts(dialect):
    with simulated() as provider:
        strategy = strategy_of(dialect, provider)
        batch = await process_prompts(strategy, prompts(), concurrency=50, middlewares=[Hooks()])
        assert batch.succeeded == HEADS * EACH
        assert_written_once(provider)


async def test_streams_of_items_know_their_heads():
    with simulated() as provider:
        results = process_stream(strategy_of("gemini", provider), prompts(200), concurrency=50)
        assert len([result async for result in results]) == 200 * HEADS
        assert_written_once(provider, 200 * HEADS)


async def test_calls_that_come_one_by_one_wait_for_the_first_that_shares_something():
    with simulated() as provider:
        strategy = strategy_of("gemini", provider)
        async with LLMCallPool(strategy, config=ProcessorConfig(max_workers=50)) as pool:
            results = await asyncio.gather(*(pool.submit_result(prompt) for prompt in prompts(40, 1)))
        assert all(result.success for result in results)
        caches = provider.stats.prompt_caches
        # Of two nobody knows that there will be more.
        assert caches is not None
        assert caches.hits >= 40 - 4


async def test_items_that_join_a_run_wait_as_well():
    with simulated() as provider:
        strategy = strategy_of("gemini", provider)
        processor: ParallelBatchProcessor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=50))
        items = [LLMWorkItem(f"item-{n}", strategy, prompt) for n, prompt in enumerate(prompts(40, 1))]
        for item in items[:3]:
            await processor.add_work(item)
        run = asyncio.create_task(processor.process_all())
        await asyncio.sleep(0)
        for item in items[3:]:
            await processor.add_work(item)
        assert (await run).succeeded == 40
        assert_written_once(provider, 40, 1)


async def test_a_leader_that_fails_costs_one_more_write_at_most():
    with simulated(faults=[Fault(500, on=[1])]) as provider:
        batch = await process_prompts(strategy_of("anthropic", provider), prompts(heads=1), concurrency=50)
        assert batch.succeeded == EACH
        caches = provider.stats.prompt_caches
        assert caches is not None
        assert caches.hits == EACH - 1


@pytest.mark.parametrize("begins_alike", [False, True])
async def test_prompts_that_a_middleware_changes_are_counted_apart(begins_alike):
    class Rewrites(BaseMiddleware[Any, Any, Any]):
        async def before_process(self, work_item: Any) -> Any:
            document, question = work_item.prompt
            document, question = (document, question * 2) if begins_alike else (question + document, question)
            work_item.prompt = [document, question]
            return work_item

    with simulated() as provider:
        strategy = strategy_of("anthropic", provider)
        batch = await process_prompts(strategy, prompts(), concurrency=50, middlewares=[Rewrites()])
    counts = batch.stats.prompt_cache
    if begins_alike:
        assert "changed" not in counts
        assert counts["hit"] > 0
    else:
        # Those that were staged before anybody knew that they begin alike had no head.
        assert counts["changed"] >= HEADS * EACH - 3 * HEADS
        assert counts.keys() <= {"changed", "short"}
        text = f"{counts['changed']} no longer began with it, because a hook had changed the prompt"
        assert text in batch.stats.explain()
        assert text in batch.summary()


async def test_nobody_waits_without_a_cache():
    with simulated() as provider:
        batch = await process_prompts(strategy_of("gemini", provider, cache_prompt=False), prompts(), concurrency=50)
        assert batch.succeeded == HEADS * EACH
    assert "prompt_cache" not in batch.stats.bound_by
    assert batch.stats.prompt_cache == {}
    with simulated() as provider:
        batch = await process_prompts(strategy_of("gemini", provider), [f"short {n}" for n in range(9)])
    assert "prompt_cache" not in batch.stats.bound_by
    assert batch.stats.prompt_cache == {"short": 9}
    assert "cache" not in batch.summary() + batch.stats.explain()


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
@pytest.mark.parametrize(
    ("share", "options", "is_said"),
    [
        (0.6, {}, True),
        (0.4, {}, False),
        (0.01, {"cache_prompt": "1h"}, True),
        (0.6, {"cache_prompt": False}, False),
    ],
    ids=["within reach", "far too short", "wanted", "unwanted"],
)
async def test_who_may_expect_a_cache_is_told_that_prompts_are_too_short_for_it(dialect, share, options, is_said):
    least = {"anthropic": 1_024, "gemini": 2_048}[dialect]
    instructions = "x" * int(4 * least * share)
    with simulated() as provider:
        strategy = strategy_of(dialect, provider, system_prompt=instructions, **options)
        for count in (20, 2):
            batch = await process_prompts(strategy, [f"Question {number}?" for number in range(count)])
            text = f"0 of {count} requests read it; {count} share no prefix that is long enough"
            is_there = is_said and count > 2  # of two nobody expects it
            assert (f"The provider's prompt cache: {text}." in batch.stats.explain()) is is_there
            assert (text in batch.summary()) is is_there


async def test_each_reason_for_a_miss_has_its_words():
    with simulated() as provider:
        batch = await process_prompts(strategy_of("anthropic", provider), ["short"])
    counts = {"hit": 1_000, "first": 1, "expired": 2, "unwritten": 1, "absent": 3, "changed": 4, "short": 5}
    stats = dataclasses.replace(batch.stats, prompt_cache={**counts, "too_short": 6})
    words = [
        "1,000 of 1,022 requests read it; 1 was the first with its prefix",
        "2 came after the entry had expired",
        "1 was sent while the entry was being written",
        "4 no longer began with it, because a hook had changed the prompt",
        "3 found no entry where there should be one, because the provider had dropped it",
        "11 share no prefix that is long enough",
    ]
    assert f"The provider's prompt cache: {', '.join(words)}." in stats.explain()
    unwritten = "3 were sent while the entry was being written"
    for name, count, said in (("expired", 2, words[1]), ("unwritten", 3, unwritten)):
        stats = dataclasses.replace(batch.stats, prompt_cache={"hit": 5, name: count})
        assert f"The provider's prompt cache: 5 of {5 + count} requests read it; {said}." in stats.explain()


async def test_the_summary_says_what_the_cache_has_done():
    with simulated() as provider:
        batch = await process_prompts(strategy_of("anthropic", provider), prompts(), concurrency=50)
    text = batch.summary()
    assert "% of the input was read from the provider's prompt cache, which saved $0." in text
    assert re.search(r"3[0-3] of 3[3-6] requests read it; 3 were the first with their prefix", text)
    assert "provider&#x27;s prompt cache" in batch._repr_html_()
    # A cache that nobody can read from: the second request of a head, if not the first, comes too late.
    with SimulatedProvider(0.02, prompt_caches=PromptCaches(time_scale=1e9)) as provider:
        batch = await process_prompts(strategy_of("anthropic", provider), prompts(), concurrency=1)
    counts = batch.stats.prompt_cache
    assert counts["absent"] >= HEADS * (EACH // 2), counts
    assert "hit" not in counts
    assert f"{counts['absent']} found no entry where there should be one" in batch.stats.explain()
    assert ", which cost $0." in batch.summary()
