"""Results that are reused: by every function that takes ``store=``, and for which strategies."""

from __future__ import annotations

import asyncio
import logging

import pytest

from batch_llm import (
    ArtifactIdentity,
    ArtifactIdentityError,
    BaseObserver,
    CallableStrategy,
    LLMCallPool,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    SqliteArtifactStore,
    call,
    inspect,
    process_prompts,
    process_stream,
    run,
    stream,
)
from batch_llm._store.identity import identity_of
from batch_llm._store.outcomes import PREPARATION

from ..helpers import Echo
from .common import PROMPTS, SUFFIXES, Invoice, _describe

# Surfaces


class Listener(BaseObserver):
    def __init__(self):
        self.events = []

    async def on_event(self, event, data):
        self.events.append((event.value, data.get("item_id")))


@SUFFIXES
async def test_every_surface(tmp_path, suffix):
    store, strategy, seen, listener = tmp_path / f"a{suffix}", Echo(), [], Listener()
    await process_prompts(strategy, PROMPTS[::2], store=store)
    options = {"store": store, "resume": "reuse_successes"}
    expected = [f"prompt {number}" for number in range(100)]

    batch = await process_prompts(
        strategy, PROMPTS, **options, post_processor=lambda result: seen.append(result.item_id), observers=[listener]
    )
    assert sorted(batch.outputs()) == sorted(expected)
    assert len(strategy.calls) == 100
    assert sorted(seen) == sorted(result.item_id for result in batch)
    kinds = [kind for kind, item in listener.events if item is not None]
    assert (kinds.count("item_replayed"), kinds.count("item_completed")) == (50, 50)

    results = [result async for result in process_stream(strategy, PROMPTS, **options, ordered=True)]
    assert [result.output for result in results] == expected
    async with process_stream(strategy, PROMPTS, **options) as streaming:
        assert {result.output async for result in streaming} == set(expected)
    assert streaming.stats.replayed == 100

    processor = ParallelBatchProcessor(max_workers=3, **options)
    for number, prompt in enumerate(PROMPTS):
        await processor.add_work(LLMWorkItem(str(number), strategy, prompt))
    batch = await processor.process_all()
    assert [result.output for result in batch.in_input_order()] == expected

    processor = ParallelBatchProcessor(max_workers=3, **options)
    await processor.start()
    for number, prompt in enumerate([*PROMPTS, "one more"]):
        await processor.add_work(LLMWorkItem(str(number), strategy, prompt))
    await processor.finish()
    assert len([result async for result in processor.results()]) == 101

    assert len(strategy.calls) == 101
    async with LLMCallPool(strategy, **options) as pool:
        answers = await asyncio.gather(*(pool.submit(prompt) for prompt in PROMPTS))
        assert answers == expected
        assert await pool.submit("something new") == "something new"
    assert len(strategy.calls) == 102
    assert await call(strategy, "something new", store=store) == "something new"
    assert await call(strategy, "for the cache", cache=tmp_path / "cache.db") == "for the cache"
    assert await call(strategy, "for the cache", cache=tmp_path / "cache.db") == "for the cache"
    assert len(strategy.calls) == 103


def test_blocking_surfaces(tmp_path):
    strategy, store = Echo(), tmp_path / "a.db"
    run(strategy, PROMPTS, store=store)
    assert len(list(stream(strategy, PROMPTS, store=store))) == 100
    assert len(strategy.calls) == 100


async def test_artifact_store_keeps_and_reuses_only_when_told(tmp_path):
    strategy = Echo()
    store = SqliteArtifactStore(tmp_path / "a.db")
    for resume, calls in ((None, 100), (None, 200), ("reuse_successes", 200)):
        await process_prompts(strategy, PROMPTS, artifact_store=store, resume=resume)
        assert len(strategy.calls) == calls


async def test_replays_wait_to_be_taken(tmp_path):
    store, read = tmp_path / "a.db", []
    await process_prompts(Echo(), map(str, range(2000)), store=store)

    def prompts():
        for number in range(2000):
            read.append(number)
            yield str(number)

    config = ProcessorConfig(max_workers=2, max_queue_size=10, max_result_queue_size=10)
    for ordered in (False, True):
        read.clear()
        results = process_stream(Echo(), prompts(), config=config, store=store, ordered=ordered)
        count = 0
        async for result in results:
            assert result.reused == "store"
            count += 1
            if count % 100 == 0:
                await asyncio.sleep(0.001)
                assert len(read) <= count + 64
        assert count == 2000


async def test_a_replayed_item_needs_no_limit_and_no_strategy(tmp_path):
    class Counting(Echo):
        prepared = 0

        async def prepare(self):
            type(self).prepared += 1

    store = tmp_path / "a.db"
    await process_prompts(Counting(), PROMPTS, store=store)
    config = ProcessorConfig(max_requests_per_minute=1)
    batch = await process_prompts(Counting(), PROMPTS, config=config, store=store)  # else it would take an hour
    assert batch.stats.replayed == 100
    assert Counting.prepared == 1


async def test_a_dry_run_keeps_nothing(tmp_path):
    await process_prompts(Echo(), PROMPTS, config=ProcessorConfig(dry_run=True), store=tmp_path / "a.db")
    assert not list(tmp_path.iterdir())


async def test_an_interrupted_item_is_not_a_result(tmp_path):
    store = tmp_path / "a.db"
    async with process_stream(Echo(0.01), PROMPTS, concurrency=2, store=store) as results:
        async for _ in results:
            results.interrupt()
    view = inspect(store)
    assert view.failed == 0
    assert 1 <= view.succeeded < 100


# Who it is that answers


class Tagger(Echo):
    def __init__(self, model, temperature, client=None):
        super().__init__()
        self.model, self._temperature, self.client = model, temperature, client


def test_identities_of_python_strategies(caplog):
    def digest(strategy, given=None):
        return identity_of(strategy, given).digest

    assert digest(Tagger("a", 1)) == digest(Tagger("a", 1, object()))
    assert len({digest(Tagger("a", 1)), digest(Tagger("a", 2)), digest(Tagger("b", 1)), digest(Echo())}) == 4
    assert digest(CallableStrategy(_describe)) != digest(CallableStrategy(test_blocking_surfaces, threads=True))
    with pytest.raises(ArtifactIdentityError, match="lambda"):
        digest(CallableStrategy(lambda prompt: prompt, threads=True))
    version = ArtifactIdentity(application_version="2")
    assert digest(CallableStrategy(lambda prompt: prompt, threads=True), version) == digest(Echo(), version)
    own = Tagger("a", 1)
    own.artifact_identity = "version 7"
    assert digest(own) == digest(Echo(), ArtifactIdentity(application_version="version 7"))
    with pytest.raises(ArtifactIdentityError, match="JSON"):
        SqliteArtifactStore("a.db", identity=ArtifactIdentity(extra={"a": object()}))


def test_agents_and_chains_are_known_by_what_they_ask():
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.prompts import ChatPromptTemplate
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    from batch_llm import PydanticAIStrategy
    from batch_llm.adapters import LangChainStrategy, LiteLLMStrategy

    def agent(name="a", **options):
        return identity_of(PydanticAIStrategy(Agent(TestModel(model_name=name), **options)), None).digest

    def chain(text):
        prompt = ChatPromptTemplate.from_messages([("system", text), ("human", "{input}")])
        return identity_of(LangChainStrategy(prompt | FakeListChatModel(responses=["x"])), None).digest

    def lite(**options):
        return identity_of(LiteLLMStrategy("a", **options), None).digest

    assert agent() == agent()
    others = [agent("b"), agent(system_prompt="x"), agent(instructions="x"), agent(output_type=Invoice)]
    assert len({agent(), *others}) == 5
    assert chain("Be brief.") == chain("Be brief.") != chain("Be long.")
    assert lite() == lite() != lite(temperature=1.0)
    assert lite(temperature=1.0) == lite(temperature=1)


def own_records(caplog):
    """The records of this package: a library that asks a server for its prices logs when there is no network."""
    return [record for record in caplog.records if record.name.startswith("batch_llm")]


async def test_reuse_of_what_is_known_by_name_only_is_said(tmp_path, caplog):
    store = tmp_path / "a.db"
    with caplog.at_level(logging.WARNING):
        await process_prompts(_describe, PROMPTS, store=store)
        assert not own_records(caplog)
        await process_prompts(_describe, PROMPTS, store=store)
        (record,) = own_records(caplog)
    assert "_describe" in record.getMessage()
    caplog.clear()
    stated = SqliteArtifactStore(tmp_path / "b.db", identity="1")
    for _ in range(2):
        await process_prompts(_describe, PROMPTS, store=stated)
    assert not own_records(caplog)
    batch = await process_prompts(_describe, PROMPTS, store=SqliteArtifactStore(tmp_path / "b.db", identity="2"))
    assert batch.stats.replayed == 0
    batch = await process_prompts(lambda prompt: prompt, ["a"], store=store)
    assert batch.results[0].error_category == PREPARATION
