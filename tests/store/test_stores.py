"""Stores: what is kept, what is asked again and what is not, on every surface."""

from __future__ import annotations

import array
import dataclasses
import enum
import itertools

import pytest

from batch_llm import (
    ArtifactIdentity,
    CallableStrategy,
    JsonlArtifactStore,
    OpenAIStrategy,
    ProcessorConfig,
    ResumePolicy,
    SqliteArtifactStore,
    inspect,
    process_prompts,
)
from batch_llm._store.identity import identity_of
from batch_llm._store.outcomes import PREPARATION, SERIALIZATION
from batch_llm.errors import ProviderError
from batch_llm.testing import FakeStrategy, SimulatedProvider

from ..helpers import Echo, Scripted
from .common import PROMPTS, SUFFIXES, Invoice, _describe


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
