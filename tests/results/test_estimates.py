"""``dry_run="sample"``: what a run would cost, with the tokens of a sample counted; nothing is sent."""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace

import pytest

from batch_llm import llm, process_prompts, run
from batch_llm._results import by_sample
from batch_llm.testing import SimulatedProvider

from ..cli_helpers import call
from ..helpers import Echo


class Words:
    """A tokenizer whose tokens are words."""

    name = "words"

    def encode(self, text, *, disallowed_special):
        assert disallowed_special == ()
        return text.split()


@pytest.fixture
def tiktoken(monkeypatch):
    def encoding_for_model(model):
        if not model.startswith("gpt"):
            raise KeyError(model)
        return Words()

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=encoding_for_model))


def texts(count, seed=0):
    draw = random.Random(seed)
    return ["word " * draw.randint(1, 200) + "supercalifragilistic " * draw.randint(0, 50) for _ in range(count)]


def test_a_small_run_is_counted_wholly_and_nothing_is_sent(tiktoken):
    with SimulatedProvider() as provider:
        prompts = ["one two three", "four five"]
        strategy = llm("openai:gpt-5-mini", base_url=provider.base_url, max_tokens=100, system_prompt="be brief")
        batch = run(strategy, prompts, dry_run="sample")
        assert provider.stats.requests == 0
    found = batch.estimate
    assert batch.results == []
    # Two prompts, and for each: the system prompt, two frames and the primer.
    assert found.input_tokens == pytest.approx((5 + 2 * (2 + 3 + 3 + 3),) * 3)
    assert (found.requests, found.sampled, found.output_tokens, found.most_output_tokens) == (2, 2, 200, 200)
    least, about, most = found.cost
    assert 0 < least < about == most
    assert found.counted_by == "tiktoken (words), all prompts"
    assert batch.summary() == str(found)
    assert "2 requests; nothing was sent" in str(found)


async def test_a_sample_of_a_large_run_has_an_interval(tiktoken):
    prompts = texts(3000)
    batch = await process_prompts("openai:gpt-5-mini", iter(prompts), api_key="key", dry_run="sample")
    found = batch.estimate
    true = sum(len(text.split()) + 6 for text in prompts)
    assert (found.requests, found.sampled) == (3000, 400)
    low, expected, high = found.input_tokens
    assert low < true < high
    assert (high - low) / expected < 0.1
    assert found.most_output_tokens is None
    assert found.cost[2] is None
    assert "no maximum" in str(found)


def test_intervals_of_samples_hold():
    held = 0
    for seed in range(100):
        draw = random.Random(seed)
        lengths = [draw.lognormvariate(5, 1) for _ in range(2000)]
        tokens = [length * draw.uniform(0.6, 1.4) for length in lengths]
        sample = draw.sample(list(zip(lengths, tokens, strict=True)), 200)
        found = by_sample(sample, sum(lengths), 2000)
        held += found.low <= sum(tokens) <= found.high
    assert held >= 88


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (llm("xai:grok-x", api_key="key"), "no tokenizer of grok-x is public"),
        (llm("openai:o9", api_key="key", api="chat"), "does not know o9"),
    ],
)
def test_where_nothing_can_be_counted_the_length_counts_and_the_error_is_said(tiktoken, strategy, why):
    found = run(strategy, ["x" * 4000] * 10, dry_run="sample").estimate
    assert why in found.counted_by
    assert "-33% to +100%" in found.counted_by
    low, expected, high = found.input_tokens
    assert (low / expected, high / expected) == (pytest.approx(2 / 3), 2.0)
    assert found.sampled == 0


def test_without_tiktoken_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    found = run("openai:gpt-5-mini", ["x"], api_key="key", api="chat", dry_run="sample").estimate
    assert "pip install 'batch-llm[tiktoken]'" in found.counted_by


def test_an_encoding_that_cannot_be_loaded_is_no_error(monkeypatch):
    def fail(model):
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=fail))
    found = run("openai:gpt-5-mini", ["x"], api_key="key", api="chat", dry_run="sample").estimate
    assert "cannot load the encoding of gpt-5-mini (OSError)" in found.counted_by


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ([{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}], 3 + 2 * 3 + 3),
        ([{"role": "user", "content": [{"type": "text", "text": "one "}, "two"]}], 2 + 3 + 3),
        (["one ", "two"], 2 + 3 + 3),
    ],
)
def test_messages_are_counted(tiktoken, prompt, tokens):
    found = run("openai:gpt-5-mini", [{"prompt": prompt}], api_key="key", dry_run="sample").estimate
    assert found.input_tokens.expected == pytest.approx(tokens)


def test_media_are_not_counted(tiktoken):
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    prompt = [{"role": "user", "content": ["what is it?", picture]}]
    found = run("openai:gpt-5-mini", [{"prompt": prompt}], api_key="key", api="chat", dry_run="sample").estimate
    assert "a prompt has media" in found.counted_by


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(TypeError, match="dry_run='sample' needs a native strategy.*not Echo"):
        run(Echo(), ["x"], dry_run="sample")
    with pytest.raises(ValueError, match="dry_run must be 'sample' or None, not True"):
        run("openai:gpt-5-mini", ["x"], api_key="key", dry_run=True)
    found = run("openai:gpt-5-mini", [], api_key="key", dry_run="sample").estimate
    assert (found.requests, found.input_tokens.high) == (0, 0.0)


def test_the_lane_has_its_price(tiktoken, tmp_path):
    live, batch = (
        run("openai:gpt-5-mini", ["x y z"], api_key="key", dry_run="sample", lane=lane, **stored).estimate
        for lane, stored in (("live", {}), ("batch", {"store": tmp_path / "x.db"}))
    )
    assert batch.cost[1] == pytest.approx(live.cost[1] / 2)
    assert not (tmp_path / "x.db").exists()


def test_the_command_line_samples_too(tiktoken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "one two"}\n{"prompt": "three"}\n')
    arguments = ("run", "in.jsonl", "-m", "openai:gpt-5-mini", "--dry-run", "--sample")
    out = call(*arguments).output
    assert "2 requests; nothing was sent" in out
    assert "counted by tiktoken (words), all prompts" in out
    data = json.loads(call(*arguments, "--json").output)["data"]
    assert data["input_tokens"] == {"low": 15, "expected": 15, "high": 15}
    assert data["invalid_rows"] == 0
    wrong = call("run", "in.jsonl", "-m", "openai:gpt-5-mini", "--sample", code=2)
    assert "--sample needs --dry-run" in wrong.output
