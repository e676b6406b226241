"""What requests have in common is marked where the provider needs that and where it pays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batch_llm import AnthropicStrategy, GoogleStrategy, NativeStrategy, OpenAIStrategy, llm, process_prompts, run
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
    if not dialect.startswith("gpt-6"):
        assert money.written_tokens == 0
    assert money.cost <= money.plain_cost or dialect.startswith("gpt-6"), "its own writes are OpenAI's"


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
