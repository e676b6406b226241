"""Pools with members in Python beside servers of vLLM and SGLang, which have queues and prompt caches of their own."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import ExitStack

import pytest

from batch_llm import MixedPoolStrategy, ProcessorConfig, llm, pool, run
from batch_llm.testing import SimulatedProvider


@pytest.fixture
def servers():
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(SimulatedProvider(**options))


async def answer(prompt):
    await asyncio.sleep(0.01)
    return "python"


async def slow(prompt):
    await asyncio.sleep(0.5)
    return "python"


def _server(server, provider="vllm"):
    return llm(f"{provider}:m", base_url=server.base_url, api_key="k")


def _members(result):
    return Counter(one.metadata["member"] for one in result.results)


@pytest.mark.parametrize("provider", ["vllm", "sglang"])
def test_a_server_that_others_keep_busy_gets_fewer_requests(servers, provider):
    busy, idle = servers(latency=0.01, queued=100), servers(latency=0.01, queued=0)
    strategy = pool([_server(busy, provider), _server(idle, provider), answer], hedge=False)
    assert isinstance(strategy, MixedPoolStrategy)
    config = ProcessorConfig(concurrency=12)
    warm = run(strategy, ["warm"] * 30, config=config)  # the pages are read beside the first requests
    result = run(strategy, [f"prompt {number}" for number in range(300)], config=config)
    assert (warm.failed, result.failed) == (0, 0)
    members = _members(result)
    assert members[strategy.labels[0]] * 5 < min(members[label] for label in strategy.labels[1:])


def test_prompts_that_begin_alike_stay_together_among_the_servers(servers):
    one, two = servers(latency=0.01), servers(latency=0.01)
    strategy = pool([_server(one), _server(two), slow], hedge=False)
    documents = [f"document {number:02} " + "words " * 400 for number in range(60)]
    prompts = [f"{document} question {number}" for number in range(12) for document in documents]
    result = run(strategy, prompts, config=ProcessorConfig(concurrency=60))
    assert result.failed == 0
    by_document = defaultdict(Counter)
    in_order = sorted(result.results, key=lambda one: one.submission_index)
    for found, prompt in zip(in_order, prompts, strict=True):
        if found.metadata["member"] != "slow":
            by_document[prompt[:11]][found.metadata["member"]] += 1
    by_servers = sum(sum(counts.values()) for counts in by_document.values())
    assert by_servers > 300
    assert {label for counts in by_document.values() for label in counts} == set(strategy.labels[:2])
    assert sum(max(counts.values()) for counts in by_document.values()) >= 0.9 * by_servers
