"""The batch lane at its edges: what it cannot take, full queues, batches of strangers, and what expires."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from collections import Counter
from random import random

import pytest

from batch_llm import GuardrailConfig, Image, ProcessorConfig, inspect, run
from batch_llm.testing import BatchFault

from .common import FAST, of, simulated
from .test_batch_lane import plain

PIXEL = b"\x89PNG\r\n\x1a\n pixel"
PROMPTS = [f"prompt {number}" for number in range(40)]


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic", "gemini", "mistral"])
def test_images_are_answered_as_live(tmp_path, name):
    prompts = [
        [f"What is this? {number}", Image(PIXEL + bytes([number]), media_type="image/png")] for number in range(10)
    ]
    with simulated() as provider:
        strategy, batched = of(provider, name, tmp_path / "run.db")
        batch = run(strategy, prompts, preserve_order=True, **batched)
        live = {key: batched[key] for key in ("api_key", "base_url")}
        expected = run(strategy, prompts, preserve_order=True, stream=False, **live)
        ledger = provider.batches
    assert batch.succeeded == len(prompts), batch.results[0].error
    assert [plain(result) for result in batch.results] == [plain(result) for result in expected.results]
    assert (ledger.batch.answers, ledger.violations) == (10, [])


def test_several_answers_are_those_of_live_requests(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", n=3)
        batch = run(strategy, PROMPTS, preserve_order=True, **batched)
        live = {key: batched[key] for key in ("api_key", "base_url", "n")}
        expected = run(strategy, PROMPTS, preserve_order=True, stream=False, **live)
    assert [len(result.output) for result in batch.results] == [3] * len(PROMPTS)
    assert [plain(result) for result in batch.results] == [plain(result) for result in expected.results]


@pytest.mark.parametrize("name", ["openai", "azure", "gemini", "anthropic"])
def test_a_queue_that_takes_a_fifth_of_the_work_is_waited_for(tmp_path, name):
    # Three tokens a prompt: 100 prompts have 300, of which the queue takes 60.
    with simulated(queue_tokens=60) as provider:
        settings = dataclasses.replace(FAST, size=10)
        strategy, batched = of(provider, name, tmp_path / "run.db", batches=settings)
        batch = run(strategy, [f"prompt {number:03}" for number in range(100)], **batched)
        ledger = provider.batches
    assert (batch.succeeded, batch.failed) == (100, 0)
    assert {result.attempts for result in batch.results} == {1}
    assert 0 < ledger.peak_queue_tokens <= 60
    assert (ledger.batch.answers, ledger.live.answers, ledger.paid_twice) == (100, 0, 0)


def test_what_expires_is_asked_again_without_an_attempt_and_costs_once(tmp_path):
    store = tmp_path / "run.db"
    with simulated(delay=3600.0, time_scale=500_000.0, faults=[BatchFault("expire_after:0.6", on=[1])]) as provider:
        strategy, batched = of(provider, "openai", store)
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert {result.attempts for result in batch.results} == {1}
    # 24 of the first batch, and the rest of the second.
    per_batch = Counter(result.metadata["batch_id"] for result in batch.results)
    assert sorted(per_batch.values()) == [16, 24]
    assert inspect(store).cost == pytest.approx(ledger.batch.cost)


def test_what_does_not_fit_goes_live_and_the_others_do_not(tmp_path):
    image = [{"role": "user", "content": [
        {"type": "text", "text": "b"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}},
    ]}]  # fmt: skip
    with simulated() as provider:
        strategy, batched = of(provider, "openrouter", tmp_path / "run.db", lane="auto")
        batch = run(strategy, [*PROMPTS, image], preserve_order=True, **batched)
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS) + 1
    *others, last = (result.metadata for result in batch.results)
    assert (last["lane"], last["lane_reason"]) == ("live", "unfit")
    assert {metadata["lane"] for metadata in others} == {"batch"}
    assert (ledger.batch.answers, ledger.live.answers) == (len(PROMPTS), 1)


def test_a_cap_that_all_fits_under_is_not_used_up_by_reservations(tmp_path):
    """Fifty batches reserve the most that they may cost, and give back what they do not use: all of them have room."""
    with simulated() as provider:
        settings = dataclasses.replace(FAST, size=4)
        strategy, batched = of(provider, "openai", tmp_path / "run.db", max_tokens=1000, batches=settings)
        prompts = [f"prompt {number}" for number in range(200)]
        most = 200 * 1000 * 1.6e-6 / 2  # dollars: 1000 tokens of an answer each
        config = ProcessorConfig(guardrails=GuardrailConfig(max_total_cost=most * 1.1))
        batch = run(strategy, prompts, config=config, **batched)
        ledger = provider.batches
    assert (batch.succeeded, batch.termination.kind, ledger.calls["create"]) == (200, "completed", 50)
    assert batch.stats.budget_cost_used == pytest.approx(ledger.batch.cost)


def stranger(provider, lines):
    """Make a batch of Anthropic's with the same key and so many lines, as another program."""

    def asked(number):
        message = {"role": "user", "content": f"theirs {number} of {lines} {random()}"}
        return {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [message]}

    body = {"requests": [{"custom_id": f"theirs-{number}", "params": asked(number)} for number in range(lines)]}
    headers = {"x-api-key": "key", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    url = f"{provider.batch_url('anthropic').removesuffix('/v1')}/v1/messages/batches"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).read()


@pytest.mark.parametrize("sizes", [(39, 41, 20), (40, 40)])
def test_a_lost_batch_is_told_from_those_of_strangers(tmp_path, sizes):
    """By its size; where that is the same, by its results: until these are there, nothing is sent again."""
    with simulated(faults=[BatchFault("create_lost", on=[1 + len(sizes)])]) as provider:
        for lines in sizes:
            stranger(provider, lines)
        strategy, batched = of(provider, "anthropic", tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS), batch.results[0].error
    assert {result.output for result in batch.results if "theirs" in str(result.output)} == set()
    assert (ledger.calls["create"], ledger.paid_twice) == (1 + len(sizes), 0)
    assert ledger.batch.answers == len(PROMPTS) + sum(sizes)
