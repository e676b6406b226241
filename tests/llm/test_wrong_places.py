"""Keys that are put into the wrong place show in no message and no repr; names are suggested where they are near."""

from __future__ import annotations

import traceback

import pytest

from batch_llm import (
    AnthropicStrategy,
    EmbeddingStrategy,
    LLMWorkItem,
    OpenAIStrategy,
    SqliteArtifactStore,
    Transport,
    llm,
    run,
)
from batch_llm._guesses import nearest
from batch_llm._secrets import quoted

KEY = "sk-proj-Zq8vT3nL5xW2rK9mB7cD4fG6hJ1pS0aQ"
AT = {"api_key": "x", "base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: llm(KEY),
        lambda: llm(KEY + ":m"),
        lambda: llm("openai:" + KEY, **AT),
        lambda: llm(KEY + ":"),
        lambda: EmbeddingStrategy(KEY),
        lambda: EmbeddingStrategy(KEY + ":m"),
        lambda: EmbeddingStrategy("openai:" + KEY, **AT),
        lambda: OpenAIStrategy(KEY, **AT),
        lambda: AnthropicStrategy("m", api_key="x", provider=KEY),
        lambda: OpenAIStrategy("m", **AT, api=KEY),
        lambda: OpenAIStrategy("m", **AT, extra_headers={f"Authorization: Bearer {KEY}": ""}),
        lambda: OpenAIStrategy("m", **AT, extra_headers={f"{KEY}\n": "x"}),
        lambda: OpenAIStrategy("m", **AT, extra_headers={KEY: "x\n"}),
        lambda: OpenAIStrategy("m", **AT, transport=Transport(http2=KEY)),
        lambda: run({"model": "m", "api_key": KEY}, ["x"]),
        lambda: run({"model": "m", "api_key": "hunter"}, ["x"]),
        lambda: run([KEY], ["x"]),
        lambda: run("openai:m", ["x"], **AT, store={"password": "hunter"}),
        lambda: run("openai:m", ["x"], **AT, store=KEY),
        lambda: run("openai:m", ["x"], **AT, cache=[KEY]),
        lambda: run("openai:m", ["x"], **AT, progress=KEY),
        lambda: run("openai:m", [("id", {"api_key": KEY})], **AT),
        lambda: run("openai:m", [{"id": [KEY], "prompt": "x"}], **AT),
        lambda: run("openai:m", {"api_key": KEY}.get, **AT),
        lambda: run(KEY, ["x"]),
        lambda: SqliteArtifactStore([KEY]),
        lambda: LLMWorkItem("a", None, "x").strategy or llm("openai:m", **AT, response_model={"api_key": KEY}),
    ],
)
def test_a_key_in_a_wrong_place_is_not_shown(make, monkeypatch):
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    try:
        said = repr(make())
    except (TypeError, ValueError) as error:
        said = "".join(traceback.format_exception_only(error)) + repr(error)
        cause = error.__cause__
        while cause is not None:
            said, cause = said + repr(cause), cause.__cause__
    assert said
    for part in (KEY, KEY[8:20], "hunter"):
        assert part not in said


def test_what_is_no_key_is_quoted_as_it_is():
    assert quoted("gpt-5-mini") == "'gpt-5-mini'"
    assert quoted({"model": "m", "n": [1, 2]}) == "{'model': 'm', 'n': [1, 2]}"
    assert quoted(["x" * 200]) == repr(["x" * 200])[:80]

    class Odd:
        def __repr__(self):
            raise RuntimeError("no")

    assert quoted(Odd()) == "<Odd>"
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert quoted(deep) == "<list>"
    assert repr(llm("openai:ft:gpt-5-mini:my-org::abc123", **AT)).startswith(
        "OpenAIStrategy(model='ft:gpt-5-mini:my-org::abc123', "
    )


@pytest.mark.parametrize("name", ["openai:m", "anthropic:m", "gemini:m", "groq:m"])
@pytest.mark.parametrize("is_given", [True, False])
def test_it_is_said_that_a_key_is_not_sent_in_clear(monkeypatch, caplog, name, is_given):
    from batch_llm._llm import providers as _providers

    row = _providers.row_of(name.partition(":")[0])
    address = row.base_url.replace("https://", "http://")
    for variable in (*row.key_variables, *row.token_variables):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr(_providers, "_warned", set())
    if not is_given:
        if not row.address_variables:
            pytest.skip("no variable has its address")
        monkeypatch.setenv(row.address_variables[0], address)
    for _ in range(2):
        assert llm(name, base_url=address if is_given else None)._key_count == 0
    said = [record.getMessage() for record in caplog.records if "connection is not encrypted" in record.getMessage()]
    assert len(said) == 1
    assert row.key_variables[0] in said[0] or row.token_variables[0] in said[0]
    assert KEY not in said[0]


NAMES = (
    "system_prompt", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "user", "n", "logprobs",
    "response_model", "timeout_per_item", "extra_headers",
)  # fmt: skip


@pytest.mark.parametrize("name", ["api_key", "base_url", "input", "retries", "store", "messages", "key", "language"])
def test_nothing_is_suggested_from_afar(name):
    assert nearest(name, NAMES) == ""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temprature", "temperature"), ("max_token", "max_tokens"), ("system_promt", "system_prompt"),
        ("topp", "top_p"), ("headers", "extra_headers"),
        ("timeout", "timeout_per_item"), ("response_schema", ""), ("system", "system_prompt"),
        ("respose_model", "response_model"), ("seeds", "seed"),
    ],
)  # fmt: skip
def test_what_is_near_is_suggested(name, meant):
    assert nearest(name, NAMES) == (f"; did you mean {meant!r}?" if meant else "")
