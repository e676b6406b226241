"""What requests have in common is marked where the provider needs that and where it pays."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from batch_llm import (
    AnthropicStrategy,
    GoogleStrategy,
    NativeStrategy,
    OpenAIStrategy,
    Tool,
    llm,
    process_prompts,
    run,
)
from batch_llm.testing import PromptCaches, SimulatedProvider

from ..served import answer, serve

LONG = "Answer in the style of a ledger. " * 500
"""About 4,125 tokens."""
QUESTIONS = [f"What is {number}?" for number in range(20)]
FOREVER = PromptCaches(time_scale=1e-9)
"""Nothing expires, and no minute ends."""


def strategy(provider: SimulatedProvider, dialect: str, **options: Any) -> NativeStrategy[str]:
    options = {"system_prompt": LONG, **options}
    if dialect == "anthropic":
        return AnthropicStrategy("claude-sonnet-5", "key", provider.url, **options)
    if dialect == "gemini":
        return GoogleStrategy("gemini-3.8-flash", "key", provider.gemini_url, **options)
    if dialect == "openrouter":
        address = provider.batch_url("openrouter")
        return llm("openrouter:anthropic/claude-sonnet-5", api_key="key", base_url=address, **options)
    model, _, api = dialect.partition("/")
    kind: Any = api or "responses"
    return OpenAIStrategy(model, "key", provider.base_url, api=kind, **options)


def ledger(dialect: str, prompts: Any = QUESTIONS, **options: Any) -> Any:
    """Asks one after another, and returns the ledger."""
    with SimulatedProvider(prompt_caches=FOREVER) as provider:
        batch = run(strategy(provider, dialect, **options), prompts, concurrency=1)
        assert batch.failed == 0, batch.results[0].error
        money = provider.stats.prompt_caches
        assert money is not None
        # The provider's counts are what results say.
        usage = [result.token_usage for result in batch.results]
        assert sum(one.get("cached_input_tokens", 0) for one in usage) == money.read_tokens
        assert sum(one.get("cache_write_tokens", 0) for one in usage) == money.written_tokens
        return money


DIALECTS = ["anthropic", "openrouter", "gpt-6-luna", "gpt-6-luna/chat", "gpt-5-mini", "gpt-5-mini/chat", "gemini"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_request_but_the_first_reads_the_instructions(dialect: str) -> None:
    money = ledger(dialect)
    # Two machines of OpenAI's have served twenty requests, and entries without a key are others.
    assert money.possible_hits >= (19 if dialect in ("anthropic", "openrouter", "gemini") else 17)
    assert money.hits >= money.possible_hits - 2, "those that began before it was known that there are more"
    assert money.cost < 0.45 * money.plain_cost


@pytest.mark.parametrize("dialect", ["anthropic", "gpt-6-luna"])
def test_without_marks_nothing_is_read(dialect: str) -> None:
    money = ledger(dialect, cache_prompt=False)
    assert (money.hits, money.possible_hits > 0) == (0, True)
    if dialect == "gpt-6-luna":
        assert money.cost > money.plain_cost, "every request pays for a write that nobody reads"
    else:
        assert money.written_tokens == 0


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        (QUESTIONS[:1], {}),
        (QUESTIONS[:2], {}),
        (QUESTIONS, {"system_prompt": "Be brief."}),
        (QUESTIONS, {"system_prompt": None}),
    ],
    ids=["one item", "two items", "a short head", "no head"],
)
def test_nothing_is_marked_where_it_cannot_pay(dialect: str, prompts: Any, options: dict[str, Any]) -> None:
    money = ledger(dialect, prompts, **options)
    without = ledger(dialect, prompts, **options, cache_prompt=False)
    # OpenAI's newer models write what they are sent, whatever a request says.
    assert money.written_tokens == without.written_tokens
    assert money.cost == without.cost
    assert money.cost <= money.plain_cost or money.written_tokens > 0
    if not dialect.startswith("gpt-6"):
        assert money.written_tokens == 0


@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize(
    ("prompts", "options", "is_marked"),
    [
        (QUESTIONS[:1], {}, False),
        (QUESTIONS[:2], {}, False),
        (QUESTIONS, {"system_prompt": "Be brief."}, False),
        (QUESTIONS, {"system_prompt": None}, False),
        (QUESTIONS, {}, True),
    ],
    ids=["one item", "two items", "a short head", "no head", "a long head"],
)
def test_openais_newer_models_are_told_nothing_where_it_cannot_pay(
    api: str, prompts: Any, options: dict[str, Any], is_marked: bool
) -> None:
    with serve(lambda body, number: answer(api)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("batch_llm._llm.providers.simulators", {server.root})
        options = {"system_prompt": LONG, **options}
        kind: Any = api
        strategy = OpenAIStrategy("gpt-6-luna", "key", server.root + "/v1", api=kind, **options)
        assert {result.output for result in server.ask(strategy, *prompts)} == {"hello"}
        assert any("prompt_cache" in json.dumps(body) for body in server.bodies) is is_marked


def test_long_prompts_without_a_head_are_not_written() -> None:
    prompts = [f"{number}: {LONG}" for number in range(20)]
    money = ledger("gpt-6-luna", prompts, system_prompt=None)
    assert money.written_tokens < 3 * 5_000, "those that began before it was known that there are more"
    assert ledger("gpt-6-luna", prompts, system_prompt=None, cache_prompt=False).written_tokens > 20 * 4_000


@pytest.mark.parametrize("dialect", ["anthropic"])
def test_an_hour_is_asked_for_and_paid_for(dialect: str) -> None:
    with SimulatedProvider(prompt_caches=FOREVER) as provider:
        batch = run(strategy(provider, dialect, cache_prompt="1h"), QUESTIONS, concurrency=1)
    written = [result.token_usage.get("cache_write_1h_tokens", 0) for result in batch.results]
    assert sum(written) > 4_000
    assert sum(written) == sum(result.token_usage.get("cache_write_tokens", 0) for result in batch.results)


def test_documents_in_front_of_questions_are_read_by_the_next() -> None:
    documents = [f"Document {number}. {LONG}" for number in range(3)]
    prompts = [[document, f"Question {number}?"] for document in documents for number in range(6)]
    for dialect in ("anthropic", "openrouter", "gpt-6-luna", "gpt-6-luna/chat"):
        money = ledger(dialect, prompts, system_prompt=None)
        assert money.hits >= 3 * 3, dialect
        assert money.cost < money.plain_cost


def test_prompts_from_a_template_are_split_where_the_template_ends() -> None:
    template = LONG.replace(". ", ".\n")
    prompts = [f"{template}Question {number}?" for number in range(20)]
    for dialect in DIALECTS:
        money = ledger(dialect, prompts, system_prompt=None)
        assert money.hits >= money.possible_hits - 3, dialect
        assert money.cost < 0.5 * money.plain_cost


@pytest.mark.parametrize("dialect", ["anthropic", "openrouter"])
async def test_a_conversation_reads_its_earlier_rounds(dialect: str) -> None:
    steps: list[int] = []

    def lookup(step: int) -> str:
        """Look up a step."""
        steps.append(step)
        return f"{step}: now use lookup again" if len(steps) < 6 else "done"

    costs = {}
    for how in ("auto", False):
        steps.clear()
        options: dict[str, Any] = {"tools": [lookup], "rounds": 10, "cache_prompt": how, "system_prompt": None}
        with SimulatedProvider(prompt_caches=FOREVER) as provider:
            batch = await process_prompts(strategy(provider, dialect, **options), [f"{LONG} Use lookup."])
            assert (batch.results[0].rounds, batch.failed) == (7, 0)
            money = provider.stats.prompt_caches
        assert money is not None
        costs[how] = money.cost
        assert money.hits == (5 if how == "auto" else 0), "the first two rounds have nothing to read"
    assert costs["auto"] < 0.55 * costs[False]


@pytest.mark.parametrize("dialect", ["anthropic", "openrouter"])
@pytest.mark.parametrize("calls", [2, 12, 30])
async def test_rounds_with_many_calls_read_what_the_round_before_has_written(dialect: str, calls: int) -> None:
    names = [f"look{number:02}" for number in range(calls)]
    ran: list[str] = []

    def look(name: str) -> str:
        ran.append(name)
        return " ".join(["now", *names]) if ran.count(name) < 5 else "seen"

    schema = {"type": "object", "properties": {}}
    tools = [Tool(name, "d", schema, function=lambda name=name: look(name)) for name in names]
    options: dict[str, Any] = {"tools": tools, "rounds": 10, "system_prompt": None}
    with SimulatedProvider(prompt_caches=FOREVER) as provider:
        batch = await process_prompts(strategy(provider, dialect, **options), [f"{LONG} {' '.join(names)}"])
        (result,) = batch.results
        assert (result.success, result.rounds, len(ran)) == (True, 6, 5 * calls), result.error
        money = provider.stats.prompt_caches
    assert money is not None
    # The second is the first with results, and writes; each of the four after it reads what the one before has written.
    assert money.hits == 4
    assert money.read_tokens > 0.6 * result.token_usage["input_tokens"]


def test_heads_are_known_before_anything_is_sent() -> None:
    with SimulatedProvider() as provider:
        client = strategy(provider, "anthropic")._client
        heads = client.heads(QUESTIONS)
        assert len({head[0] for head in heads if head is not None}) == 1
        assert heads[0] is not None
        assert heads[0][1:] == (len(LONG) // 4, 300.0, True, True)
        assert strategy(provider, "anthropic")._client.heads(QUESTIONS[:2]) == [None, None]
        assert strategy(provider, "gpt-6-luna")._client.heads(QUESTIONS)[0][1:] == (len(LONG) // 4, 1800.0, False, True)  # type: ignore[index]
        assert strategy(provider, "anthropic", cache_prompt=False)._client.heads(QUESTIONS) == [None] * 20


def test_servers_that_imitate_openai_are_told_nothing() -> None:
    strategy = OpenAIStrategy("gpt-6-luna", "key", "http://127.0.0.1:9/v1", system_prompt=LONG)
    assert strategy._client.heads(QUESTIONS) == [None] * 20


def test_the_identity_of_a_request_is_the_same_with_and_without() -> None:
    with SimulatedProvider() as provider:
        asked = [strategy(provider, "anthropic", cache_prompt=how)._asks for how in ("auto", "1h", False)]
    assert asked[0] == asked[1] == asked[2]


def test_what_it_can_be() -> None:
    for value in (True, "2h", None):
        with pytest.raises(ValueError, match="cache_prompt must be 'auto', '1h' or False"):
            llm("anthropic:claude-sonnet-5", api_key="k", cache_prompt=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("dialect", "field"), [("anthropic", "cache_control"), ("responses", "prompt_cache_key")])
def test_a_server_that_does_not_know_marks_is_asked_without(dialect: str, field: str, stream: bool) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        if field in json.dumps(body):
            return 400, {"error": {"message": f"{field}: Extra inputs are not permitted"}}, {}
        return answer(dialect)

    with serve(reply) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("batch_llm._llm.providers.simulators", {server.root})
        asked = server.strategy(dialect, system_prompt=LONG, stream=stream)
        results = server.ask(asked, *QUESTIONS, attempts=1)
        assert [result.output for result in results] == ["hello"] * len(QUESTIONS)
        rejected = [body for body in server.bodies if field in json.dumps(body)]
        assert 1 <= len(rejected) <= 4, "those in flight when the first was rejected"
        assert asked._client.heads(QUESTIONS) == [None] * len(QUESTIONS)


def explicit(prompts: Any, share: float = 0.0, *, concurrency: int = 4, **options: Any) -> Any:
    """Asks Gemini, whose own cache finds this share of what is there; returns results, ledger and paths."""
    caches = PromptCaches(time_scale=1e-9, implicit_hits=share)
    with SimulatedProvider(prompt_caches=caches, latency=0.01) as provider:
        batch = run(strategy(provider, "gemini", **options), prompts, concurrency=concurrency)
        assert batch.failed == 0, batch.results[0].error
        # All are deleted at the end of the run.
        with urllib.request.urlopen(f"{provider.gemini_url}/cachedContents") as reply:
            assert json.load(reply)["cachedContents"] == []
        stats = provider.stats
        return batch, stats.prompt_caches, stats.paths


MANY = [f"What is {number}?" for number in range(60)]


def test_gemini_gets_a_cache_of_its_own_where_its_own_misses() -> None:
    batch, money, paths = explicit(MANY)
    assert paths["/v1beta/cachedContents"] == 2, "one is made, and we have listed them"
    assert money.hits >= 60 - 12, "those before it was known that others miss"
    assert money.cost < 0.5 * money.plain_cost
    usage = [result.token_usage for result in batch.results]
    # What it cost to make is with the item for which it was made.
    written = [one["cache_write_tokens"] for one in usage if "cache_write_tokens" in one]
    assert written == [pytest.approx(len(LONG) // 4, rel=0.05)]
    assert sum(one.get("cache_storage_token_hours", 0) for one in usage) == round(written[0] / 12)
    assert sum(one.get("cached_input_tokens", 0) for one in usage) == money.read_tokens
    answers = {result.output for result in explicit(MANY, cache_prompt=False)[0].results}
    assert {result.output for result in batch.results} == answers


@pytest.mark.parametrize(
    ("prompts", "share", "options"),
    [
        (MANY, 1.0, {}),
        (MANY[:4], 0.0, {}),
        (MANY, 0.0, {"system_prompt": "Be brief."}),
        (MANY, 0.0, {"cache_prompt": False}),
    ],
    ids=["the provider's own is enough", "few", "short", "switched off"],
)
def test_gemini_gets_no_cache_where_it_cannot_pay(prompts: Any, share: float, options: dict[str, Any]) -> None:
    _, money, paths = explicit(prompts, share, concurrency=1, **options)
    assert paths["/v1beta/cachedContents"] == 1, "our own look"
    assert money.written_tokens == 0


def test_documents_and_tools_are_in_the_cache_too() -> None:
    def lookup(step: int) -> str:
        """Look up a step."""
        return "done"

    document = f"The document. {LONG}"
    prompts = [[document, f"Question {number}?"] for number in range(40)]
    for options in ({}, {"tools": [lookup], "rounds": 1}):
        _, money, _ = explicit(prompts, system_prompt=None, **options)
        assert money.hits >= 40 - 12
        _, money, _ = explicit(MANY, **options)
        assert money.hits >= 60 - 12


def test_a_cache_that_is_gone_is_made_again() -> None:
    asked: list[str] = []

    def reply(body: dict[str, Any], number: int) -> Any:
        asked.append(body.get("cachedContent", "made" if "ttl" in body else "whole"))
        if "ttl" in body:
            made = asked.count("made")
            return 200, {"name": f"cachedContents/{made}", "usageMetadata": {"totalTokenCount": 4125}}, {}
        if asked[-1] == "cachedContents/1" and asked.count("cachedContents/1") > 3:
            return 403, {"error": {"code": 403, "message": "CachedContent not found (or permission denied)"}}, {}
        return answer("gemini")

    with serve(reply) as server:
        asked_by = llm("gemini:gemini-3.8-flash", api_key="k", base_url=server.root + "/v1beta", system_prompt=LONG)
        batch = run(asked_by, MANY, concurrency=1)
        assert (batch.failed, {result.attempts for result in batch.results}) == (0, {1})
    assert asked.count("cachedContents/1") == 4
    assert asked.count("made") == 2
    assert asked.count("cachedContents/2") > 30


@pytest.mark.parametrize("status", [400, 429, 500])
def test_without_a_cache_questions_are_asked_as_a_whole(status: int) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        if "ttl" in body:
            return status, {"error": {"code": status, "message": "Cached content is too small."}}, {}
        return answer("gemini")

    with serve(reply) as server:
        asked_by = llm("gemini:gemini-3.8-flash", api_key="k", base_url=server.root + "/v1beta", system_prompt=LONG)
        batch = run(asked_by, MANY, concurrency=1)
        assert (batch.failed, {result.attempts for result in batch.results}) == (0, {1})
        assert sum("ttl" in body for body in server.bodies) == 1
