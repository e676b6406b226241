"""Tokens of a sample, counted by the provider's endpoint or by a tokenizer of Hugging Face's."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from batch_llm import ProcessorConfig, llm, run
from batch_llm.testing import Fault, SimulatedProvider

from ..cli_helpers import call

PROMPTS = [f"Describe the number {number} in {'many ' * (number % 7)}words." for number in range(12)]
TOOL = {"name": "weather", "description": "Tell it.", "parameters": {"type": "object", "properties": {}}}
NAMES = [
    "anthropic:claude-sonnet-5",
    "gemini:gemini-3-flash",
    "openai:o9",
    "vllm:owner/model",
    "bedrock:amazon.nova-pro-v1:0",
    "bedrock:us.anthropic.claude-opus-5-v1:0",
    "vertex:claude-sonnet-5@20260101",
    "vertex:gemini-3-flash",
]


def strategy_of(name, provider, **options):
    """A strategy at a simulated provider, whose clouds let in anybody."""
    kind = name.partition(":")[0]
    paths = {"openai": "/v1", "vllm": "/v1", "gemini": "/v1beta", "vertex": "/v1/projects/p/locations/l"}
    if kind == "openai":
        options["api"] = "responses"
    return llm(name, api_key="key", base_url=provider.url + paths.get(kind, ""), **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_provider_counts_what_it_will_be_paid_for(name):
    with SimulatedProvider() as provider:
        strategy = strategy_of(name, provider, system_prompt="Be brief, and kind.", max_tokens=50, tools=[TOOL])
        found = run(strategy, PROMPTS, dry_run="sample").estimate
        assert provider.stats.requests == found.sent_to_count == found.sampled == len(PROMPTS)
        assert (provider.stats.input_tokens, provider.stats.output_tokens) == (0, 0)
        batch = run(strategy, PROMPTS)
    assert batch.failed == 0
    assert found.input_tokens == pytest.approx((batch.total_input_tokens,) * 3)
    assert found.counted_by == f"{name.partition(':')[0]}'s endpoint that counts tokens, all prompts"
    assert f"{len(PROMPTS)} prompts were sent to the endpoint that counts tokens; no answer was generated" in str(found)
    assert found.to_dict()["sent_to_count"] == len(PROMPTS)


def test_of_a_large_run_the_provider_counts_a_small_sample():
    prompts = ["word " * (1 + number % 50) for number in range(3000)]
    with SimulatedProvider() as provider:
        strategy = strategy_of("anthropic:claude-sonnet-5", provider, max_tokens=50)
        found = run(strategy, iter(prompts), dry_run="sample").estimate
        assert provider.stats.requests == 100
    true = sum(-(-len(prompt) // 4) for prompt in prompts)
    assert (found.requests, found.sampled) == (3000, 100)
    assert found.input_tokens.low <= true <= found.input_tokens.high


def test_media_are_counted_by_the_provider_where_a_tokenizer_cannot(monkeypatch):
    encoding = SimpleNamespace(name="any", encode=lambda text, disallowed_special: text)
    tiktoken = SimpleNamespace(encoding_for_model=lambda model: encoding)
    monkeypatch.setitem(sys.modules, "tiktoken", tiktoken)
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    prompt = [{"role": "user", "content": ["what is it?", picture]}]
    with SimulatedProvider() as provider:
        strategy = strategy_of("openai:gpt-5-mini", provider)
        found = run(strategy, [{"prompt": prompt}], dry_run="sample").estimate
    assert found.counted_by == "openai's endpoint that counts tokens, all prompts"
    assert found.sampled == 1


def test_a_count_is_tried_again_and_some_that_fail_do_not_matter():
    faults = [Fault(500, on=[1]), Fault(400, on=range(2, 12))]
    prompts = [f"prompt {number}" for number in range(60)]
    with SimulatedProvider(faults=faults) as provider:
        found = run(strategy_of("anthropic:claude-sonnet-5", provider), prompts, dry_run="sample").estimate
    assert found.sampled == 50
    assert "a sample of 50" in found.counted_by


@pytest.mark.parametrize(
    ("fault", "why"), [(Fault(401, every=1), "401"), (Fault(404, every=1), "404"), (Fault("malformed", every=1), "")]
)
def test_if_the_provider_does_not_count_the_length_does_and_the_reason_is_said_once(fault, why):
    with SimulatedProvider(faults=[fault]) as provider:
        found = run(strategy_of("anthropic:claude-sonnet-5", provider), PROMPTS, dry_run="sample").estimate
    assert "-33% to +100%: anthropic did not count the tokens: " in found.counted_by
    assert why in found.counted_by
    assert found.sampled == 0
    assert found.sent_to_count


def test_the_limits_of_the_run_hold_for_counts(monkeypatch):
    from batch_llm import _token_counts

    monkeypatch.setattr(_token_counts, "SECONDS", 0.2)
    monkeypatch.setattr(_token_counts, "FEWEST", 1)
    with SimulatedProvider() as provider:
        strategy = strategy_of("anthropic:claude-sonnet-5", provider)
        config = ProcessorConfig(max_requests_per_minute=12)
        found = run(strategy, PROMPTS, config=config, dry_run="sample").estimate
        assert found.sampled == provider.stats.requests == 2


def test_keys_that_a_function_gives_are_used():
    with SimulatedProvider(api_key="fresh") as provider:
        strategy = llm("anthropic:claude-sonnet-5", api_key=lambda: "fresh", base_url=provider.url)
        assert run(strategy, PROMPTS, dry_run="sample").estimate.sampled == len(PROMPTS)


def test_the_command_line_has_the_provider_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "one two"}\n{"prompt": "three"}\n')
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    with SimulatedProvider(api_key="key") as provider:
        arguments = ("run", "in.jsonl", "-m", "anthropic:claude-x", "--dry-run", "--sample", "--base-url", provider.url)
        assert "2 prompts were sent to the endpoint that counts tokens" in call(*arguments).output
        assert json.loads(call(*arguments, "--json").output)["data"]["sent_to_count"] == 2
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    without = call(*arguments[:-2]).output
    assert "nothing was sent" in without
    assert "anthropic could count the tokens, but no API key is set" in without


# Tokenizers


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer whose tokens are words."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.enable_truncation(max_length=2)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


def test_a_tokenizer_of_the_users_counts(tokenizer, monkeypatch):
    prompts = ["one two three four", "five"]
    found = run("sglang:any", prompts, dry_run="sample", tokenizer=tokenizer).estimate
    assert found.input_tokens == pytest.approx((5 + 2 * (3 + 3),) * 3)
    assert found.counted_by == f"tokenizers ({tokenizer}), all prompts"
    assert found.sent_to_count == 0
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    found = run("sglang:any", prompts, dry_run="sample", tokenizer=str(tokenizer)).estimate
    assert "pip install 'batch-llm[tokenizers]'" in found.counted_by


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_tokenizer_of_an_open_model_is_found_in_the_cache(tokenizer, tmp_path, monkeypatch, variable):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    inside = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    folder = tmp_path / inside / "models--owner--model-1B" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    strategy = llm("together:owner/model-1B", api_key="key")
    missing = run(strategy, ["one two"], dry_run="sample").estimate
    assert "there is no tokenizer of owner/model-1B in Hugging Face's cache" in missing.counted_by
    tokenizer.rename(folder / "tokenizer.json")
    found = run(strategy, ["one two"], dry_run="sample").estimate
    assert found.counted_by == "tokenizers (owner/model-1B), all prompts"
    assert found.input_tokens.expected == pytest.approx(2 + 3 + 3)


@pytest.mark.parametrize("name", ["../../etc", "a/../b", "no-owner", "a/b/c", "/x"])
def test_names_of_models_are_no_paths(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = run(llm(f"sglang:{name}"), ["x"], dry_run="sample").estimate
    assert "there is no tokenizer of" in found.counted_by


def test_a_tokenizer_that_cannot_be_used_is_an_error(tokenizer, tmp_path, monkeypatch):
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    for path in (broken, tmp_path / "missing.json"):
        with pytest.raises(ValueError, match=r"tokenizers cannot load.*tokenizer must be the path"):
            run("sglang:any", ["x"], dry_run="sample", tokenizer=path)
    with pytest.raises(TypeError, match="tokenizer must be the path of a tokenizer.json.*not int"):
        run("sglang:any", ["x"], dry_run="sample", tokenizer=5)
    with pytest.raises(ValueError, match="tokenizer needs dry_run='sample'"):
        run("sglang:any", ["x"], tokenizer=tokenizer)
    from batch_llm import _token_counts

    monkeypatch.setattr(_token_counts, "LONGEST_TOKENIZER", 10)
    with pytest.raises(ValueError, match="the longest that is read has 10"):
        run("sglang:any", ["x"], dry_run="sample", tokenizer=tokenizer)


def test_the_command_line_takes_a_tokenizer(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "one two three"}\n')
    arguments = ("run", "in.jsonl", "-m", "sglang:any", "--dry-run")
    out = call(*arguments, "--sample", "--tokenizer", "tokenizer.json").output
    assert "counted by tokenizers (tokenizer.json), all prompts" in out
    assert "needs --dry-run --sample" in call(*arguments, "--tokenizer", "x", code=2).output
    assert "cannot load" in call(*arguments, "--sample", "--tokenizer", "in.jsonl", code=2).output
