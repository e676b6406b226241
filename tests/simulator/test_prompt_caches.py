"""Prompt caches of the simulated provider, as a client sees them. Their rules are tested in Rust."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from batch_llm.prices import Price
from batch_llm.testing import PromptCaches, SimulatedProvider

HEAD = "x" * 8192  # 2,048 tokens
SLOW = PromptCaches(time_scale=1e-9)
"""Nothing expires."""


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def messages(provider: SimulatedProvider, question: str, **mark: str) -> Any:
    head = {"type": "text", "text": HEAD, "cache_control": {"type": "ephemeral", **mark}}
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": 8,
        "system": [head],
        "messages": [{"role": "user", "content": question}],
    }
    return post(f"{provider.url}/v1/messages", body)["usage"]


def test_nothing_is_cached_unless_asked_for() -> None:
    with SimulatedProvider() as provider:
        usage = [messages(provider, "a"), messages(provider, "b")]
        assert [(one["cache_read_input_tokens"], one["cache_creation_input_tokens"]) for one in usage] == [(0, 0)] * 2
        assert "cache_creation" not in usage[0]
        assert provider.stats.prompt_caches is None
    with pytest.raises(TypeError, match="prompt_caches must be True, False or a PromptCaches, not int"):
        SimulatedProvider(prompt_caches=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time_scale must be > 0"):
        PromptCaches(time_scale=0)


def test_usage_and_money() -> None:
    price = Price(2.0, 10.0, 0.2, 2.5, cache_write_1h=4.0)
    with SimulatedProvider(
        prompt_caches=PromptCaches(time_scale=1e-9, prices={"claude-sonnet-5": price}), replies=["four"]
    ) as provider:
        first, second = messages(provider, "1234", ttl="1h"), messages(provider, "5678", ttl="1h")
        assert first["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2048}
        assert (first["input_tokens"], first["cache_creation_input_tokens"], first["cache_read_input_tokens"]) == (
            1, 2048, 0,
        )  # fmt: skip
        assert (second["input_tokens"], second["cache_read_input_tokens"]) == (1, 2048)
        money = provider.stats.prompt_caches
    assert money is not None
    assert (money.possible_hits, money.hits, money.hit_rate, money.wasted_writes) == (1, 1, 1.0, 0)
    assert (money.possible_tokens, money.read_tokens, money.written_tokens) == (2048, 2048, 2048)
    rest = (2 * 2.0 + 2 * 10.0) / 1e6  # a token of each question and answer
    assert money.cost == pytest.approx(rest + 2048 * (4.0 + 0.2) / 1e6)
    assert money.plain_cost == pytest.approx(rest + 2048 * (2.0 + 2.0) / 1e6)
    assert money.ideal_cost == pytest.approx(rest + 2048 * (2.5 + 0.2) / 1e6)
    assert provider.stats.prompt_caches == money, "also once it has stopped"


def test_five_minutes_pass_in_a_moment() -> None:
    with SimulatedProvider(prompt_caches=PromptCaches(time_scale=1e9)) as provider:
        usage = [messages(provider, "a"), messages(provider, "b")]
        assert [one["cache_read_input_tokens"] for one in usage] == [0, 0]
        money = provider.stats.prompt_caches
        assert money is not None
        assert (money.possible_hits, money.hits, money.hit_rate, money.wasted_writes) == (0, 0, 1.0, 2)


def test_every_dialect_says_what_it_has_read() -> None:
    with SimulatedProvider(prompt_caches=SLOW) as provider:

        def chat(question: str) -> Any:
            said = [{"role": "system", "content": HEAD}, {"role": "user", "content": question}]
            return post(f"{provider.base_url}/chat/completions", {"model": "gpt-5-mini", "messages": said})["usage"]

        def responses(question: str) -> Any:
            part = {"type": "input_text", "text": HEAD, "prompt_cache_breakpoint": {"mode": "explicit"}}
            said = [{"role": "developer", "content": [part]}, {"role": "user", "content": question}]
            body = {"model": "gpt-6-luna", "input": said, "prompt_cache_options": {"mode": "explicit"}}
            return post(f"{provider.base_url}/responses", body)["usage"]

        def gemini(question: str) -> Any:
            body = {
                "systemInstruction": {"parts": [{"text": HEAD}]},
                "contents": [{"role": "user", "parts": [{"text": question}]}],
            }
            return post(f"{provider.gemini_url}/models/gemini-2.5-flash:generateContent", body)["usageMetadata"]

        first, second = chat("1234"), chat("5678")
        assert (first["prompt_tokens_details"], second["prompt_tokens_details"]) == (
            {"cached_tokens": 0}, {"cached_tokens": 2048},
        )  # fmt: skip
        assert second["prompt_tokens"] == 2049
        first, second = responses("1234"), responses("5678")
        assert first["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 2048}
        assert second["input_tokens_details"] == {"cached_tokens": 2048, "cache_write_tokens": 0}
        first, second = gemini("1234"), gemini("5678")
        assert "cachedContentTokenCount" not in first
        assert second["cachedContentTokenCount"] == 2048
        money = provider.stats.prompt_caches
        assert money is not None
        assert (money.possible_hits, money.hits, money.wasted_writes) == (3, 3, 0)


def test_explicit_caches_of_google_are_in_the_ledger() -> None:
    price = Price(1.0, 0.0, 0.1, cache_storage=1.0)
    caches = PromptCaches(time_scale=3600.0, prices={"gemini-2.5-flash": price})
    with SimulatedProvider(prompt_caches=caches) as provider:
        said = {"role": "user", "parts": [{"text": HEAD}]}
        body = {"model": "models/gemini-2.5-flash", "contents": [said], "ttl": "36000s"}
        name = post(f"{provider.gemini_url}/cachedContents", body)["name"]
        question = {"contents": [{"role": "user", "parts": [{"text": "1234"}]}], "cachedContent": name}
        url = f"{provider.gemini_url}/models/gemini-2.5-flash:generateContent"
        usage = post(url, question)["usageMetadata"]
        assert (usage["promptTokenCount"], usage["cachedContentTokenCount"]) == (2049, 2048)
        with pytest.raises(urllib.error.HTTPError):
            post(url, {**question, "systemInstruction": {"parts": [{"text": "x"}]}})
        with pytest.raises(urllib.error.HTTPError):
            post(url.replace("flash", "pro"), question)
        money = provider.stats.prompt_caches
    assert money is not None
    assert (money.hits, money.read_tokens) == (1, 2048)
    without_storage = (2048 * 1.0 + 1 + 2048 * 0.1) / 1e6
    assert without_storage < money.cost < without_storage + 2048 * 10 / 1e6, "ten hours at most"


def test_marks_that_cannot_be_are_rejected() -> None:
    with SimulatedProvider(prompt_caches=True) as provider, pytest.raises(urllib.error.HTTPError) as caught:
        messages(provider, "a", ttl="2h")
    error = json.loads(caught.value.read())
    assert (caught.value.code, error["error"]["type"]) == (400, "invalid_request_error")
    assert "'5m' or '1h'" in error["error"]["message"]


def test_a_stream_that_has_not_begun_has_written_nothing_yet() -> None:
    with SimulatedProvider(prompt_caches=SLOW, latency=3600.0) as provider:
        head = {"type": "text", "text": HEAD, "cache_control": {"type": "ephemeral"}}
        body = {
            "model": "claude-sonnet-5",
            "max_tokens": 8,
            "stream": True,
            "system": [head],
            "messages": [{"role": "user", "content": "a"}],
        }
        request = urllib.request.Request(f"{provider.url}/v1/messages", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=5.0) as first:
            # An hour passes before its first event: another one pays as well.
            with urllib.request.urlopen(request, timeout=5.0):
                money = provider.stats.prompt_caches
            assert first.status == 200
    assert money is not None
    assert (money.possible_hits, money.hits, money.written_tokens) == (1, 0, 2 * 2048)
