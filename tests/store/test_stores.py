"""Stores: what is kept, what is asked again and what is not, on every surface."""

from __future__ import annotations

import array
import asyncio
import dataclasses
import enum
import itertools
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from batch_llm import (
    ArtifactFormatError,
    ArtifactIdentity,
    ArtifactIdentityError,
    ArtifactIOError,
    BaseObserver,
    CallableStrategy,
    CallOutcome,
    JsonlArtifactStore,
    LLMCallPool,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProcessorConfig,
    ResumePolicy,
    SqliteArtifactStore,
    call,
    inspect,
    llm,
    process_prompts,
    process_stream,
    run,
    stream,
)
from batch_llm._store.identity import identity_of
from batch_llm._store.run_store import PREPARATION, SERIALIZATION
from batch_llm.errors import ProviderError
from batch_llm.testing import FakeStrategy, SimulatedProvider

from ..helpers import USAGE, Echo, Scripted

SUFFIXES = pytest.mark.parametrize("suffix", [".db", ".jsonl"])
PROMPTS = [f"prompt {number}" for number in range(100)]


class Invoice(BaseModel):
    total: float
    lines: list[str] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


async def test_the_shortest_form(tmp_path):
    calls = []

    async def shout(prompt):
        calls.append(prompt)
        return prompt.upper()

    for _ in range(2):
        batch = await process_prompts(shout, ["a", "b"], store=tmp_path / "runs" / "shouting.db")
        assert sorted(batch.outputs()) == ["A", "B"]
    assert sorted(calls) == ["a", "b"]


@SUFFIXES
async def test_what_comes_back_is_what_went_in(tmp_path, suffix):
    store = tmp_path / f"a{suffix}"
    strategy = CallableStrategy(_describe)
    first = await process_prompts(strategy, [(str(n), p, {"n": n}) for n, p in enumerate(PROMPTS)], store=store)
    again = await process_prompts(strategy, [(str(n), p, {"n": n}) for n, p in enumerate(PROMPTS)], store=store)
    assert (first.stats.replayed, again.stats.replayed) == (0, 100)
    assert again.stats.processed == again.stats.succeeded == again.stats.total == 100
    assert again.stats.total_tokens == 0
    assert again.total_input_tokens == first.total_input_tokens == 1000
    for before, after in zip(first.in_input_order(), again.in_input_order(), strict=True):
        assert after == before
        assert (after.attempts, after.metadata, after.submission_index) == (1, {"extra": [1, None]}, int(after.item_id))
        assert (before.reused, after.reused, after.replayed_from_artifact) == (None, "store", True)
        assert after.timing.execution_seconds == pytest.approx(before.timing.execution_seconds, abs=1e-5)
    assert "reused      100 from the store" in again.summary()
    assert "tokens" not in again.summary()
    assert "tokens      1,000 input" in first.summary()
    assert set(again.to_pandas()["reused"]) == {"store"}
    assert again.to_pandas()["execution_seconds"].notna().all()


async def _describe(prompt):
    return CallOutcome(prompt * 2, USAGE, {"extra": [1, None]})


@SUFFIXES
async def test_failures_are_tried_again(tmp_path, suffix):
    broken = {"prompt 3", "prompt 5"}
    strategy = Scripted(lambda prompt, _: ValueError("no") if prompt in broken else prompt)
    config = ProcessorConfig(concurrency=10)
    store = tmp_path / f"a{suffix}"
    batch = await process_prompts(strategy, PROMPTS, config=config, store=store)
    assert batch.failed == 2
    asked = len(strategy.calls)
    batch = await process_prompts(strategy, PROMPTS, config=config, store=store, resume="reuse_all")
    assert (batch.failed, batch.stats.replayed, len(strategy.calls)) == (2, 100, asked)
    assert batch.by_id()["item_3"].error == "ValueError: no"
    broken.remove("prompt 3")
    batch = await process_prompts(strategy, PROMPTS, config=config, store=store)
    assert (batch.failed, batch.stats.replayed) == (1, 98)
    view = inspect(store)
    assert (view.runs, view.succeeded, view.failed, view.records) == (3, 99, 1, 102)
    # Of a request's records the last one counts.
    batch = await process_prompts(strategy, PROMPTS, config=config, store=store, resume=ResumePolicy.REUSE_ALL)
    assert (batch.failed, batch.stats.replayed) == (1, 100)
    for policy in ("force", ResumePolicy.NONE):
        batch = await process_prompts(strategy, PROMPTS, config=config, store=store, resume=policy)
        assert batch.stats.replayed == 0
    assert inspect(store).items == 100


async def test_what_is_wrong_outside_of_requests_is_never_reused(tmp_path):
    class Locked(FakeStrategy):
        async def execute(self, prompt, attempt, timeout, state=None):
            raise ProviderError("wrong key", category="authentication", is_retryable=False, status_code=401)

    store = tmp_path / "a.db"
    await process_prompts(Locked("a"), PROMPTS[:3], store=store, resume="reuse_all")
    assert inspect(store).errors == {"authentication": 3}
    batch = await process_prompts(Locked("a"), PROMPTS[:3], store=store, resume="reuse_all")
    assert batch.stats.replayed == 0


@pytest.fixture(scope="module")
def provider():
    with SimulatedProvider() as provider:
        yield provider


def ours(server, **options):
    given = {"model": "a", "api_key": "none", "base_url": server.base_url, "temperature": 0.0}
    return OpenAIStrategy(**{**given, **options})


SAME = [{"api_key": "other"}, {"temperature": 0}, {"extra_headers": {"Authorization": "Bearer x"}}, {"reask": False}]
OTHER = [
    {"model": "b"},
    {"temperature": 0.1},
    {"system_prompt": "Be brief."},
    {"max_tokens": 100},
    {"seed": 1},
    {"n": 2},
    {"stop": "x"},
    {"extra_body": {"a": 1}},
    {"extra_headers": {"x-beta": "1"}},
    {"tools": [{"name": "tool"}]},
    {"response_model": Invoice},
    {"response_parser": str.upper},
    {"provider": "vllm"},
    {"base_url": "http://localhost:1/v1"},
    {"api": "responses"},
]


def test_a_changed_parameter_is_another_request(provider):
    digest = identity_of(ours(provider), None).digest
    assert all(identity_of(ours(provider, **options), None).digest == digest for options in SAME)
    others = [identity_of(ours(provider, **options), None).digest for options in OTHER]
    assert len({digest, *others}) == len(OTHER) + 1
    stated = identity_of(ours(provider), ArtifactIdentity(prompt_version="2")).digest
    assert stated not in {digest, *others}
    assert b"none" not in identity_of(ours(provider), None).text.encode()


async def test_a_changed_concurrency_is_the_same_request(tmp_path, provider):
    store = tmp_path / "a.db"
    strategy = ours(provider)
    await process_prompts(strategy, PROMPTS, store=store, concurrency=3)
    before = provider.stats.requests
    with SimulatedProvider() as other:  # on another port, as after a restart
        batch = await process_prompts(ours(other), PROMPTS, store=store, concurrency=30, timeout_per_item=7.0)
        assert (batch.stats.replayed, other.stats.requests, provider.stats.requests) == (100, 0, before)
    batch = await process_prompts(ours(provider, temperature=1), PROMPTS, store=store)
    assert batch.stats.replayed == 0
    models = [identity["model"] for identity in inspect(store).identities]
    assert models == ["a", "a"]


def test_fingerprints_are_the_same_everywhere():
    # In other processes, on other machines, with other versions of Python: whoever changes these re-runs all stores.
    from batch_llm._core import fingerprint
    from batch_llm.serialization import to_plain

    value = {"b": [1, 2.0, 0.1, -3e300, True, None], "a": 'ü\n"', "c": {"y": 10**30, "x": Point(1, 2)}}
    assert fingerprint(value, to_plain).hex() == "a12f28fb56c58f948af35ba2059acc49"
    same = {"c": {"x": {"y": 2, "x": 1}, "y": 10**30}, "b": [1.0, 2, 0.1, -3e300, True, None], "a": 'ü\n"'}
    assert fingerprint(same, to_plain) == fingerprint(value, to_plain)
    strategy = OpenAIStrategy("gpt-5-mini", api_key="none", temperature=0.5, tools=[{"name": "t"}])
    assert identity_of(strategy, None).digest.hex() == "1e91f05ce224277d76881cd67bf5b7c2"
    for bad in ({1: 2}, object()):
        with pytest.raises((ValueError, TypeError)):
            fingerprint(bad, to_plain)


@SUFFIXES
async def test_equal_requests_stay_several(tmp_path, suffix):
    numbers = itertools.count()
    strategy = Scripted(lambda prompt, attempt: f"{prompt} {next(numbers)}")
    store = tmp_path / f"a{suffix}"
    first = await process_prompts(strategy, ["a", "a", "b", "a"], store=store)
    assert len(set(first.outputs())) == 4
    # One more in front: everything has another place, and another id.
    again = await process_prompts(strategy, ["new", "a", "a", "b", "a", "a"], store=store)
    assert len(strategy.calls) == 6
    assert again.stats.replayed == 4
    assert len(set(again.outputs())) == 6
    # Those with ids get their own back, in whatever order they come.
    named = [(name, "c") for name in "xyz"]
    first = await process_prompts(strategy, named, store=store)
    again = await process_prompts(strategy, named[::-1], store=store)
    assert {r.item_id: r.output for r in first} == {r.item_id: r.output for r in again}


@SUFFIXES
async def test_only_what_is_asked_for_is_written(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    prompts = [("an id", "the prompt", {"the": "context", "api_key": "the key"})]
    kind = SqliteArtifactStore if suffix == ".db" else JsonlArtifactStore

    async def answer(prompt):
        return "the answer"

    await process_prompts(answer, prompts, store=path)
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"the answer" in content
    for secret in (b"the prompt", b"the key", b"context"):
        assert secret not in content
    path.unlink()
    await process_prompts(answer, prompts, store=kind(path, include_output=False))
    assert b"the answer" not in path.read_bytes()
    batch = await process_prompts(answer, prompts, store=kind(path))
    assert batch.stats.replayed == 0, "what has no output cannot be reused"
    path.unlink()
    full = kind(path, include_prompt=True, include_context=True, user_metadata={"by": "me"})
    await process_prompts(answer, prompts, store=full)
    content = path.read_bytes()
    assert b"the prompt" in content
    assert b"the key" not in content
    (result,) = inspect(path).results()
    assert result.context == {"the": "context", "api_key": "[REDACTED]"}
    assert inspect(path).user_metadata == {"by": "me"}


OUTPUTS = [
    "text", 1, 1.5, None, True, {"secret": "kept"}, [1, [2]], Invoice(total=1, lines=["x"]), Point(1, 2), Colour.RED,
    array.array("f", [1.5, 2.5]), [Invoice(total=1), Invoice(total=2)], [array.array("f", [1])], [],
]  # fmt: skip


@SUFFIXES
async def test_outputs_of_all_kinds(tmp_path, suffix):
    async def answer(prompt):
        return OUTPUTS[int(prompt)]

    store = tmp_path / f"a{suffix}"
    prompts = [str(number) for number in range(len(OUTPUTS))]
    for replayed in (0, len(OUTPUTS)):
        batch = await process_prompts(answer, prompts, store=store)
        assert batch.stats.replayed == replayed
        assert batch.in_input_order().outputs() == OUTPUTS


async def test_native_outputs(tmp_path, provider):
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    for options in (
        {"response_model": Invoice},
        {"response_model": Invoice, "n": 2},
        {"tools": [weather], "tool_choice": "required"},
    ):
        strategy, store = ours(provider, **options), tmp_path / "a.db"
        first = await process_prompts(strategy, ["What?"], store=store)
        again = await process_prompts(strategy, ["What?"], store=store)
        assert again.stats.replayed == 1
        assert again.results == first.results
        assert again.results[0].output == first.results[0].output
        assert [call.name for call in again.results[0].tool_calls] == [c.name for c in first.results[0].tool_calls]
        assert again.results[0].metadata["model"] == "a"


async def test_what_cannot_be_stored_fails_alone(tmp_path):
    async def answer(prompt):
        return object() if prompt == "prompt 7" else prompt

    store = tmp_path / "a.db"
    batch = await process_prompts(answer, PROMPTS, store=store)
    (failure,) = batch.failures
    assert (failure.item_id, failure.error_category, failure.success) == ("item_7", SERIALIZATION, False)
    assert "encoder" in failure.error
    assert failure.output is not None, "it was paid for"
    assert inspect(store).errors == {SERIALIZATION: 1}
    coded = SqliteArtifactStore(
        tmp_path / "b.db", encoder=lambda value: "an object", output_decoder=lambda value: {"decoded": value}
    )
    assert (await process_prompts(answer, PROMPTS, store=coded)).failed == 0
    batch = await process_prompts(answer, PROMPTS, store=coded)
    assert batch.stats.replayed == 100
    assert batch.by_id()["item_7"].output == {"decoded": "an object"}


async def test_what_cannot_be_made_again_is_not_asked_again(tmp_path):
    gone = dataclasses.make_dataclass("Gone", ["x"])
    gone.__module__ = "gone"  # which is no module of the program

    async def answer(prompt):
        return gone(1)

    from batch_llm._store import output_types as _output_types

    await process_prompts(answer, ["a"], store=tmp_path / "a.db")
    _output_types._SEEN.clear()
    batch = await process_prompts(answer, ["a"], store=tmp_path / "a.db")
    assert batch.results[0].error_category == PREPARATION
    assert "output_decoder" in batch.results[0].error
    assert "gone.Gone" in batch.results[0].error


async def test_contexts_take_part(tmp_path):
    strategy, store = Echo(), tmp_path / "a.db"
    await process_prompts(strategy, [("1", "a", {"page": 1})], store=store)
    for context, replayed in (({"page": 1}, 1), ({"page": 2}, 0), (None, 0)):
        batch = await process_prompts(strategy, [("1", "a", context)], store=store)
        assert batch.stats.replayed == replayed
        assert batch.results[0].context is context
    # What cannot be compared is refused before it is asked.
    calls = len(strategy.calls)
    batch = await process_prompts(strategy, [("1", "a", object()), ("2", "b")], store=store)
    assert batch.by_id()["1"].error_category == PREPARATION
    assert batch.by_id()["2"].success
    assert len(strategy.calls) == calls + 1
    for options in ({"context_in_identity": False}, {"context_fingerprinter": lambda context: "same"}):
        path = tmp_path / f"{next(iter(options))}.db"
        for replayed in (0, 1):
            loose = SqliteArtifactStore(path, **options)
            batch = await process_prompts(strategy, [("1", "a", object())], store=loose)
            assert batch.stats.replayed == replayed


async def test_money_of_failed_attempts_is_in_the_account(tmp_path):
    class Costly(FakeStrategy):
        model = "gpt-4o"

        async def execute(self, prompt, attempt, timeout, state=None):
            if attempt < 3 or prompt == "hopeless":
                error = ConnectionError("cut")
                error.usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
                raise error
            return "answer", {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}

    from batch_llm import RetryConfig

    config = ProcessorConfig(retry=RetryConfig(max_attempts=3, initial_wait=0.001, max_wait=0.002))
    store = tmp_path / "a.db"
    batch = await process_prompts(Costly("x"), ["fine", "hopeless"], config=config, store=store)
    view = inspect(store)
    assert (
        (view.input_tokens, view.output_tokens) == (600, 100) == (batch.total_input_tokens, batch.total_output_tokens)
    )
    assert view.cost == pytest.approx(600 * 2.5e-6 + 100 * 10e-6)
    assert (view.failed_attempts, view.records_without_cost) == (5, 0)
    # Replays cost nothing.
    await process_prompts(Costly("x"), ["fine"], config=config, store=store)
    assert inspect(store).input_tokens == 600
    priced = SqliteArtifactStore(tmp_path / "b.db", cost_calculator=lambda result: 7.0)
    await process_prompts(Echo(), ["a", "b"], store=priced)
    assert inspect(tmp_path / "b.db").cost == 14.0
    assert "cost: $14" in inspect(tmp_path / "b.db").summary()


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


# Files


def test_what_makes_no_sense_is_refused_at_once(tmp_path):
    for options, error in (
        ({"store": "a.txt"}, ValueError),
        ({"store": 7}, TypeError),
        ({"store": "a.db", "artifact_store": "b.db"}, ValueError),
        ({"resume": "reuse_all"}, ValueError),
        ({"store": "a.db", "resume": "sometimes"}, ValueError),
        ({"cache": 7}, TypeError),
        ({"dedupe": "yes"}, TypeError),
    ):
        with pytest.raises(error):
            ParallelBatchProcessor(**options)
    for options in ({"busy_timeout_seconds": 0}, {"durability": "some"}):
        with pytest.raises(ValueError, match=r"busy_timeout|some"):
            SqliteArtifactStore("a.db", **options)
    with pytest.raises(TypeError, match="encoder"):
        JsonlArtifactStore("a.jsonl", encoder=1)
    assert repr(JsonlArtifactStore("a.jsonl")) == "JsonlArtifactStore('a.jsonl')"


def test_files_of_others_are_left_alone(tmp_path):
    strategy = Echo()
    foreign = tmp_path / "a.jsonl"
    foreign.write_text('{"mine": 1}\n')
    text = tmp_path / "b.db"
    text.write_text("not a database, but long enough to look at" * 100)
    other = tmp_path / "c.db"
    sqlite3.connect(other).execute("CREATE TABLE a (b)").connection.close()
    newer = tmp_path / "d.db"
    run(strategy, ["a"], store=newer)
    sqlite3.connect(newer).execute("PRAGMA user_version = 99").connection.close()
    cache = tmp_path / "e.db"
    run(strategy, ["a"], cache=cache)
    calls = len(strategy.calls)
    for path, words in (
        (foreign, "not a store"),
        (text, "not an SQLite"),
        (other, "not a store"),
        (newer, "newer"),
        (cache, "not a store"),
    ):
        before = path.read_bytes()
        with pytest.raises(ArtifactFormatError, match=words):
            run(strategy, ["a"], store=path)
        with pytest.raises(ArtifactFormatError, match=words):
            inspect(path)
        assert path.read_bytes() == before
    assert len(strategy.calls) == calls
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "nothing.db")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(ArtifactFormatError):
        inspect(tmp_path / "x.txt")


def test_a_text_file_has_one_writer(tmp_path):
    store = tmp_path / "a.jsonl"
    results = stream(Echo(0.01), PROMPTS, store=store, concurrency=2)
    next(results)
    with pytest.raises(ArtifactIOError, match=r"another process \(\d+\)|another process") as caught:
        run(Echo(), ["a"], store=store)
    assert ".db" in str(caught.value)
    results.close()
    run(Echo(), ["a"], store=store)


def test_a_damaged_database_is_said(tmp_path):
    store = tmp_path / "a.db"
    run(Echo(), PROMPTS, store=store)
    content = bytearray(store.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    store.write_bytes(content)
    with pytest.raises(ArtifactFormatError, match="damaged"):
        run(Echo(), PROMPTS, store=store)
    with pytest.raises(ArtifactFormatError, match="damaged"):
        inspect(store)
    assert store.read_bytes() == content


async def test_a_database_that_another_process_holds(tmp_path):
    store = SqliteArtifactStore(tmp_path / "a.db", busy_timeout_seconds=0.05)
    program = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = None

    def prompts():
        nonlocal other
        for number in range(1000):
            if number == 500:
                command = [sys.executable, "-c", program, store.path]
                other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                assert other.stdout.readline() == b"held\n"
            yield str(number)

    with pytest.raises(ArtifactIOError, match="busy_timeout_seconds") as caught:
        await process_prompts(Echo(0.001), prompts(), store=store, concurrency=5)
    other.communicate(b"")
    batch = caught.value.partial_result
    assert batch.termination.kind == "artifact_error"
    stored = inspect(store.path).succeeded
    assert batch.succeeded - 5 <= stored <= batch.succeeded
    again = await process_prompts(Echo(0.001), map(str, range(1000)), artifact_store=store, resume="reuse_successes")
    assert (again.succeeded, again.stats.replayed) == (1000, stored)


def test_a_torn_line_is_said_and_asked_again(tmp_path, caplog):
    store, strategy = tmp_path / "a.jsonl", Echo()
    run(strategy, PROMPTS, store=store)
    whole = store.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last + 1, len(whole), 7):
        store.write_bytes(whole[:length])
        strategy.calls.clear()
        with caplog.at_level(logging.WARNING):
            batch = run(strategy, PROMPTS, store=store)
        assert (batch.succeeded, len(strategy.calls)) == (100, 1)
        assert any("torn" in record.getMessage() for record in caplog.records)


def test_several_processes_write_to_one_database(tmp_path):
    store = tmp_path / "a.db"
    program = (
        "import sys, batch_llm\n"
        "from batch_llm.testing import FakeStrategy\n"
        "name = sys.argv[1]\n"
        "prompts = [(f'{name}-{n}', f'{name} {n}') for n in range(500)]\n"
        f"batch = batch_llm.run(FakeStrategy('answer', latency=0.001), prompts, store={str(store)!r}, concurrency=20)\n"
        "assert batch.succeeded == 500, batch.summary()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    view = inspect(store)
    assert (view.succeeded, view.runs, view.records) == (1500, 3, 1500)


async def test_looking_into_a_store_in_use(tmp_path):
    store = tmp_path / "a.db"
    async with process_stream(Echo(0.001), map(str, range(500)), concurrency=5, store=store) as results:
        seen = 0
        async for _ in results:
            seen += 1
            if seen % 100 == 0:
                assert inspect(store).succeeded >= seen
    view = inspect(store)
    assert view.succeeded == view.items == 500
    frame = view.to_pandas()
    assert len(frame) == 500
    assert len(view.to_polars()) == view.to_arrow().num_rows == 500
    assert SqliteArtifactStore.read_results(store).succeeded == 500
    assert len(list(SqliteArtifactStore(store).iter_results(successes_only=True))) == 500
    assert view.batch().total_input_tokens == view.input_tokens == 5000
    assert "500 succeeded" in view.summary()


DATA = Path(__file__).parents[1] / "data"


@SUFFIXES
def test_stores_of_earlier_versions_open(tmp_path, suffix):
    for old in sorted(DATA.glob(f"store-*{suffix}")):
        store = tmp_path / old.name
        store.write_bytes(old.read_bytes())
        assert inspect(store).succeeded == 3
        strategy = llm("openai:gpt-5-mini", api_key="none", base_url="http://127.0.0.1:9/v1", temperature=0.5)
        batch = run(strategy, [("1", "One?"), ("2", "Two?", {"page": 2}), ("3", ["Three?"])], store=store)
        assert (batch.stats.replayed, batch.succeeded) == (3, 3), batch.failures
    assert list(DATA.glob(f"store-*{suffix}"))
