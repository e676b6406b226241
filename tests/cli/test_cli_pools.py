"""Pools on the command line: several servers, and models to fall back on."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from batch_llm.testing import Fault, SimulatedProvider

from ..cli_helpers import call, lines, write_lines


@pytest.fixture
def servers():
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(SimulatedProvider(**options))


@pytest.fixture
def rows(at):
    write_lines(at / "in.jsonl", *({"id": number, "text": f"Text {number}"} for number in range(60)))
    return at


def test_several_addresses_share_the_load(rows, servers):
    one, two = servers(latency=0.01), servers(latency=0.01)
    addresses = ("--base-url", one.base_url, "--base-url", two.base_url)
    call("run", "in.jsonl", "-m", "vllm:m", *addresses, "-o", "out.jsonl", "-q")
    found = lines(rows / "out.jsonl")
    assert [row["id"] for row in found] == list(range(60))
    assert not [row for row in found if row.get("error")]
    assert min(one.stats.requests, two.stats.requests) > 5


def test_a_server_that_is_down_fails_nothing(rows, servers):
    well, down = servers(), servers()
    address = down.base_url
    down.stop()
    call("run", "in.jsonl", "-m", "vllm:m", "--base-url", address, "--base-url", well.base_url, "-o", "o.jsonl", "-q")
    assert not [row for row in lines(rows / "o.jsonl") if row.get("error")]


def test_a_fallback_answers_what_the_model_does_not(rows, servers, monkeypatch):
    down, spare = servers(faults=[Fault(503, every=1)]), servers(replies=["from the fallback"])
    for name, value in spare.environment.items():
        monkeypatch.setenv(name, value)
    options = ("--base-url", down.base_url, "--fallback", "anthropic:claude-x", "-o", "out.jsonl", "-q")
    call("run", "in.jsonl", "-m", "openai-compatible:m", *options)
    found = lines(rows / "out.jsonl")
    assert {row["output"] for row in found} == {"from the fallback"}
    assert {row["model"] for row in found} == {"claude-x"}


def test_an_estimate_has_the_price_of_the_most_expensive_model(rows, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def cost(*options):
        done = call("run", "in.jsonl", "-m", "openai:gpt-5-nano", "--max-tokens", 9, "--dry-run", "--json", *options)
        return json.loads(done.output)["data"]["cost"]

    assert cost("--fallback", "openai:gpt-5") > 5 * cost()
    assert cost("--fallback", "openai:gpt-5-nano") == cost()


def test_what_cannot_be_combined_says_so(rows):
    call("run", "in.jsonl", "-m", "openai:m", "--fallback", "nobody:m", code=1)
    refused = call("run", "in.jsonl", "-m", "openai:m", "--fallback", "openai:n", "--lane", "flex", code=2)
    assert "--lane flex needs one model" in refused.output
    refused = call("run", "in.jsonl", "-m", "openai:m", "--simulate", "--base-url", "http://127.0.0.1:1", code=2)
    assert "--simulate and --base-url cannot be combined" in refused.output
