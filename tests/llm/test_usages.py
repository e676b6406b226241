"""Token counts as SDKs tell them: an answer is one whatever is wrong with its counts."""

from __future__ import annotations

import dataclasses
import logging
import types

import pytest

from batch_llm import CallOutcome, LLMCallStrategy, ProcessorConfig, RetryConfig, run

ONCE = ProcessorConfig(retry=RetryConfig(max_attempts=1))
OPENAI = {
    "prompt_tokens": 30,
    "completion_tokens": 20,
    "total_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
COUNTED = {
    "input_tokens": 30,
    "output_tokens": 20,
    "total_tokens": 50,
    "cached_input_tokens": 10,
    "reasoning_tokens": 5,
}


@dataclasses.dataclass
class Usage:
    prompt_tokens: int = 30
    completion_tokens: int = 20
    total_tokens: int = 50
    prompt_tokens_details: object = dataclasses.field(default_factory=lambda: types.SimpleNamespace(cached_tokens=10))
    completion_tokens_details: object = dataclasses.field(
        default_factory=lambda: types.SimpleNamespace(reasoning_tokens=5)
    )


TOLD = [
    pytest.param(OPENAI, COUNTED, id="Chat Completions"),
    pytest.param(Usage(), COUNTED, id="an SDK's object"),
    pytest.param(types.MappingProxyType(OPENAI), COUNTED, id="a mapping"),
    pytest.param({**OPENAI, "prompt_tokens_details": None, "completion_tokens_details": None}, None, id="no details"),
    pytest.param(
        {
            "input_tokens": 30,
            "input_tokens_details": {"cached_tokens": 10},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 5},
            "total_tokens": 50,
        },
        COUNTED,
        id="Responses",
    ),
    pytest.param(
        {
            "input_tokens": 15,
            "cache_creation_input_tokens": 5,
            "cache_read_input_tokens": 10,
            "output_tokens": 20,
            "service_tier": "standard",
            "server_tool_use": None,
        },
        {"input_tokens": 30, "output_tokens": 20, "cached_input_tokens": 10, "cache_write_tokens": 5},
        id="Messages",
    ),
    pytest.param(
        {
            "prompt_token_count": 30,
            "candidates_token_count": 15,
            "thoughts_token_count": 5,
            "cached_content_token_count": None,
            "total_token_count": 50,
            "prompt_tokens_details": [{"modality": "TEXT", "token_count": 30}],
        },
        {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50, "reasoning_tokens": 5},
        id="Gemini",
    ),
    pytest.param(
        {"prompt_token_count": 30, "candidates_token_count": None, "thoughts_token_count": 20, "total_token_count": 50},
        {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50, "reasoning_tokens": 20},
        id="thoughts alone",
    ),
    pytest.param(
        {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50, "cache_read_input_tokens": 10},
        {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50, "cached_input_tokens": 10},
        id="LiteLLM",
    ),
    pytest.param(
        {"inputTokens": 20, "outputTokens": 20, "totalTokens": 50, "cacheReadInputTokens": 10},
        {"input_tokens": 30, "output_tokens": 20, "total_tokens": 50, "cached_input_tokens": 10},
        id="Bedrock",
    ),
    pytest.param(
        {
            "input_tokens": 30,
            "output_tokens": 20,
            "total_tokens": 50,
            "input_token_details": {"cache_read": 10},
            "output_token_details": {"reasoning": 5},
        },
        COUNTED,
        id="LangChain",
    ),
    pytest.param(
        {"input_tokens": 30, "output_tokens": 20, "cached_input_tokens": None},
        {"input_tokens": 30, "output_tokens": 20},
        id="None",
    ),
    pytest.param({"input_tokens": 30.0, "output_tokens": 20}, {"input_tokens": 30, "output_tokens": 20}, id="floats"),
]


@pytest.mark.parametrize("way", ["tuple", "outcome", "strategy"])
@pytest.mark.parametrize(("usage", "counted"), TOLD)
def test_counts_of_any_sdk_are_read(way, usage, counted):
    counted = counted or {key: COUNTED[key] for key in ("input_tokens", "output_tokens", "total_tokens")}

    async def ask(prompt):
        return ("the answer", usage) if way == "tuple" else CallOutcome("the answer", usage)

    class Own(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return "the answer", usage

    batch = run(Own() if way == "strategy" else ask, ["x"], config=ONCE)
    result = batch.results[0]
    assert (result.error, result.output) == (None, "the answer")
    told = {key: value for key, value in result.token_usage.items() if value is not None}
    if way != "strategy":
        counted = {"total_tokens": 50, **counted}
    assert told == counted
    assert (batch.total_input_tokens, batch.total_output_tokens) == (30, 20)
    assert (batch.stats.total_input_tokens, batch.stats.total_output_tokens) == (30, 20)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"tokens": 3}, "there are no counts (its keys are ['tokens'])"),
        ({"input_tokens": True}, "input_tokens=True is not an integer >= 0"),
        ({"input_tokens": -1}, "input_tokens=-1 is not an integer >= 0"),
        ({"input_tokens": 1.5}, "input_tokens=1.5"),
        ({"input_tokens": 10**30}, "input_tokens=1000"),
        ({"input_tokens": float("nan")}, "input_tokens=nan"),
        ({"input_tokens": "many", "output_tokens": 3}, "input_tokens='many'"),
    ],
)
@pytest.mark.parametrize("way", ["outcome", "strategy"])
def test_an_answer_with_unusable_counts_is_a_success_and_a_record_says_so(way, usage, words, caplog):
    async def ask(prompt):
        return CallOutcome("the answer", usage)

    class Own(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return "the answer", usage

    with caplog.at_level(logging.DEBUG, "batch_llm.parallel"):
        batch = run(Own() if way == "strategy" else ask, ["x"], config=ONCE)
    assert (batch.results[0].error, batch.results[0].output) == (None, "the answer")
    assert batch.total_input_tokens == 0 or way == "strategy"
    said = [record for record in caplog.records if getattr(record, "event", "") == "usage_unusable"]
    assert len(said) == 1
    assert said[0].levelno == logging.DEBUG
    assert words in said[0].getMessage()


@pytest.mark.parametrize(("usage", "counted"), TOLD[:9])
def test_a_failed_attempt_tells_its_counts_under_any_name_too(usage, counted):
    class Failed(Exception):
        pass

    async def fail(prompt):
        error = Failed("no")
        error.usage = usage
        raise error

    told = run(fail, ["x"], config=ONCE).results[0].token_usage
    assert told["input_tokens"] == 30
    assert told["output_tokens"] == 20
    assert told.get("cached_input_tokens") == (counted or {}).get("cached_input_tokens")


def test_an_sdks_object_without_counts_is_no_output():
    async def ask(prompt):
        return "the answer", types.SimpleNamespace(input_tokens=None, output_tokens=None)

    assert run(ask, ["x"]).outputs() == ["the answer"]


def test_an_outcome_whose_usage_is_none_at_all_is_a_success():
    async def ask(prompt):
        return CallOutcome("the answer", object())

    assert run(ask, ["x"]).outputs() == ["the answer"]


def test_counts_by_our_names_stay_the_very_dict():
    usage = {"input_tokens": 3, "output_tokens": None, "requests": 1}

    class Own(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return "x", usage

    assert run(Own(), ["x"]).results[0].token_usage is usage


@pytest.mark.parametrize("pair", [("x", {"label": 1}), ("x", None), ("x", [1]), ("x", "y"), ("x", 3), ("x", object)])
def test_other_pairs_are_outputs(pair):
    async def ask(prompt):
        return pair

    assert run(ask, ["x"]).results[0].output == pair
