"""The first request of a model goes live before the first batch is made: what is wrong shows in seconds."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from batch_llm import run
from batch_llm._lanes import tickets

from .common import FAST, of, simulated

PROMPTS = [f"prompt {number}" for number in range(30)]
PROBING = {"batches": dataclasses.replace(FAST, probe=True)}


def lanes(batch):
    return Counter(result.metadata["lane"] for result in batch.results if result.success)


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("lane", ["batch", "auto"])
def test_the_first_request_goes_live_and_is_answered_once(tmp_path, name, lane):
    with simulated() as provider:
        strategy, batched = of(provider, name, tmp_path / "run.db", lane=lane, **PROBING)
        first = run(strategy, PROMPTS, **batched)
        more = run(strategy, [*PROMPTS, "one", "two"], **batched)
        ledger = provider.batches
    assert (lanes(first), first.succeeded) == ({"live": 1, "batch": len(PROMPTS) - 1}, len(PROMPTS))
    assert [result.metadata["lane_reason"] for result in first.results if result.metadata["lane"] == "live"] == [
        "probe"
    ]
    assert more.succeeded == len(PROMPTS) + 2
    assert (ledger.live.answers, ledger.batch.answers, ledger.paid_twice) == (1, len(PROMPTS) + 1, 0)


def test_a_store_with_answers_needs_none(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **PROBING)
        live = {name: batched[name] for name in ("api_key", "base_url", "store")}
        run(strategy, PROMPTS[:1], stream=False, **live)
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS)
    # The first request may be on its way before the store has been read.
    assert ledger.live.answers <= 2
    assert (ledger.live.answers + ledger.batch.answers, ledger.paid_twice) == (len(PROMPTS), 0)


def test_the_call_returns_once_the_rest_is_in_batches(tmp_path):
    with simulated(delay=5.0) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **PROBING)
        left = run(strategy, PROMPTS, **batched, wait=False)
        assert (left.succeeded, len(left.pending)) == (1, len(PROMPTS) - 1)
        provider.advance(hours=1)
        assert run(strategy, PROMPTS, **batched).succeeded == len(PROMPTS)
        ledger = provider.batches
    assert (ledger.live.answers, ledger.calls["create"], ledger.paid_twice) == (1, 1, 0)


def test_a_wrong_request_fails_before_anything_is_uploaded(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", **PROBING)
        # No such path: every request is refused, as a wrong model is.
        batch = run(strategy, PROMPTS, **{**batched, "base_url": batched["base_url"] + "/nowhere"})
        ledger = provider.batches
    assert batch.succeeded == 0
    assert {result.error_category for result in batch.results if not result.not_sent} <= {"client_error", "not_found"}
    assert ledger.calls.get("upload", 0) == 0
    assert tickets(tmp_path / "run.db") == []
