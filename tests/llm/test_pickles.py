"""Strategies, and what else a run takes, in another process: by pickle and cloudpickle, without secrets."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import batch_llm
from batch_llm import (
    AnthropicStrategy,
    CallableStrategy,
    EmbeddingStrategy,
    GoogleStrategy,
    GuardrailConfig,
    Image,
    LLMWorkItem,
    OpenAIStrategy,
    Price,
    ProcessorConfig,
    Quota,
    RateLimitConfig,
    RetryConfig,
    StartupRampConfig,
    Tool,
    Transport,
    llm,
    run,
)
from batch_llm.testing import SimulatedProvider

KEY = "sk-proj-Zx9Yq8Wp7Vo6Un5Tm4Sl3Rk2"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


class Rating(BaseModel):
    stars: int
    topic: Literal["price", "quality"]


class Branded(OpenAIStrategy[str]):
    """A strategy of a user, with a constructor and attributes of its own."""

    def __init__(self, brand: str) -> None:
        self.brand = brand
        super().__init__("gpt-5-mini", system_prompt=f"You speak for {brand}")
        self.seen = [brand]


def read_key() -> str:
    return os.environ["TEAM_KEY"]


def shout(text: str) -> str:
    return text.upper()


def search(query: str, limit: int = 5) -> str:
    """Search the web."""
    return query * limit


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in KEYS:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("TEAM_KEY", KEY)


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


STRATEGIES = {
    "openai": lambda: llm("openai:gpt-5-mini", temperature=0.5, max_tokens=7, stop=["x"], reask=False, api="chat"),
    "positional": lambda: OpenAIStrategy("gpt-5-mini", read_key, "https://gateway.example.com/v1"),
    "generic": lambda: OpenAIStrategy[dict[str, int]]("gpt-5-mini", response_model={"type": "object"}),
    "anthropic": lambda: AnthropicStrategy("claude-x", response_model=Rating, tools=[search]),
    "gemini": lambda: GoogleStrategy("gemini-x", response_parser=shout, extra_headers={"x-title": "tests"}),
    "another provider": lambda: llm("groq:llama", api_key_env="TEAM_KEY", extra_body={"prompt_cache_key": "team-17"}),
    "embeddings": lambda: EmbeddingStrategy("openai:text-embedding-3-small", dimensions=64, max_items=9),
    "transport": lambda: llm("openai:gpt-5-mini", transport=Transport(connect_timeout=3.0, http2="never")),
    "of a user": lambda: Branded("Acme"),
}


@pytest.mark.parametrize("made", STRATEGIES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_strategy_is_pickled_by_its_arguments(made, protocol):
    strategy = STRATEGIES[made]()
    pickled = pickle.dumps(strategy, protocol)
    other = pickle.loads(pickled)
    assert type(other) is type(strategy)
    assert other._asks == strategy._asks
    assert (repr(other), other._key_from, other._max_tokens) == (
        repr(strategy),
        strategy._key_from,
        strategy._max_tokens,
    )
    assert KEY.encode() not in pickled
    assert pickle.dumps(other, protocol) == pickled


def answers_of(strategy: Any, prompts: list[str]) -> list[Any]:
    """What another process answers."""
    batch = run(strategy, prompts)
    return [result.output if result.success else result.error for result in batch.results]


def test_strategies_work_in_a_spawned_process(monkeypatch):
    replies = ['{"stars": 4, "topic": "price"}']
    with SimulatedProvider(api_key=KEY, replies=replies) as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("OPENAI_API_KEY")  # it can only have come from where the strategy says
        strategies = [
            llm("openai:gpt-5-mini", api_key_env="TEAM_KEY", response_model=Rating),
            llm("openai:gpt-5-mini", api_key=read_key, response_model=Rating, tools=[search], transport=Transport()),
            AnthropicStrategy("claude-x", response_model=Rating),
        ]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            for strategy in strategies:
                answered = pool.submit(answers_of, strategy, ["a", "b"]).result(60)
                assert answered == [Rating(stars=4, topic="price")] * 2


def test_what_has_no_name_travels_by_cloudpickle():
    cloudpickle = pytest.importorskip("cloudpickle")

    class Local(BaseModel):
        stars: int

    strategy = llm("openai:gpt-5-mini", api_key=lambda: os.environ["TEAM_KEY"], response_model=Local)
    pickled = cloudpickle.dumps(strategy)
    assert KEY.encode() not in pickled
    other = pickle.loads(pickled)
    assert other._key() == KEY
    assert other._read(('{"stars": 3}', {}, {}))[0].stars == 3


# Keys


@pytest.mark.parametrize("key", [KEY, [KEY, "another"]])
@pytest.mark.parametrize("dumps", [pickle.dumps, "cloudpickle"])
def test_a_fixed_key_does_not_travel(key, dumps):
    if dumps == "cloudpickle":
        dumps = pytest.importorskip("cloudpickle").dumps
    for strategy in (
        OpenAIStrategy("gpt-5-mini", key),
        llm("openai:gpt-5-mini", api_key=key),
        EmbeddingStrategy("openai:text-embedding-3-small", key),
    ):
        with pytest.raises(pickle.PicklingError, match=r"api_key_env='MY_KEY'.*api_key=read_key") as raised:
            dumps(strategy)
        assert KEY not in str(raised.value)
        assert KEY not in repr(vars(strategy))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("base_url", "https://me:hunter2hunter2@gateway.example.com/v1"),
        ("base_url", f"https://gateway.example.com/v1?key={KEY}"),
        ("extra_headers", {"Authorization": "Bearer abc"}),
        ("extra_headers", {"x-team": KEY}),
        ("extra_body", {"nested": [{"api_key": "abc"}]}),
    ],
)
def test_no_other_secret_travels(place, value):
    strategy = llm("openai:gpt-5-mini", api_key_env="TEAM_KEY", **{place: value})
    with pytest.raises(pickle.PicklingError, match=place) as raised:
        pickle.dumps(strategy)
    assert "hunter2" not in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_proxy_with_a_password_does_not_travel():
    transport = Transport(proxy="http://me:hunter2hunter2@proxy.example.com:3128")
    with pytest.raises(pickle.PicklingError, match="HTTPS_PROXY") as raised:
        pickle.dumps(llm("openai:gpt-5-mini", transport=transport))
    assert "hunter2" not in str(raised.value)
    assert again(Transport(proxy="http://proxy.example.com:3128")).proxy == "http://proxy.example.com:3128"


def test_a_process_without_the_key_says_so(monkeypatch):
    default, named = pickle.dumps(llm("openai:gpt-5-mini")), pickle.dumps(llm("groq:x", api_key_env="TEAM_KEY"))
    for name in (*KEYS, "TEAM_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        pickle.loads(default)
    with pytest.raises(ValueError, match="TEAM_KEY"):
        pickle.loads(named)


def test_the_key_is_read_from_the_named_variable(monkeypatch):
    with SimulatedProvider(api_key=KEY) as provider:
        named = llm("openai:gpt-5-mini", base_url=provider.base_url, api_key_env="TEAM_KEY")
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        assert all(result.success for result in run(named, ["a"]).results)
        batch = run("openai:gpt-5-mini", ["a"], base_url=provider.base_url, api_key_env="TEAM_KEY")
        assert all(result.success for result in batch.results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key_env": "ABSENT_KEY"}, "environment variable ABSENT_KEY"),
        ({"api_key_env": KEY}, "not a key"),
        ({"api_key_env": "a1b2c3d4e5f6a1b2c3d4e5f6"}, "not a key"),
        ({"api_key_env": "TEAM_KEY", "api_key": "x"}, "cannot be combined"),
    ],
)
def test_a_wrong_variable_is_an_error_that_shows_no_key(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        llm("openai:gpt-5-mini", **options)
    assert KEY not in str(raised.value)
    assert "a1b2c3" not in str(raised.value)


# What a user has set


def test_attributes_of_a_subclass_travel_with_it():
    strategy = Branded("Acme")
    strategy.seen.append("later")
    strategy.quota_scope = "team"
    other = again(strategy)
    assert (other.brand, other.seen, other.quota_scope) == ("Acme", ["Acme", "later"], "team")
    assert other._asks["system_prompt"] == "You speak for Acme"


def test_arguments_that_change_later_do_not_change_a_pickle():
    extra = {"user": "first"}
    strategy = llm("openai:gpt-5-mini", extra_body=extra)
    extra["user"] = "second"
    assert again(strategy)._asks["extra_body"] == {"user": "first"}


def test_strategies_of_one_pickle_share_a_transport_and_those_of_two_processes_do_not():
    transport = Transport()
    one, two = again([llm("openai:a", transport=transport), llm("openai:b", transport=transport)])
    shared = [strategy._origin.arguments["transport"] for strategy in (one, two)]
    assert shared[0] is shared[1]
    # A number of this process could be that of another transport there.
    assert shared[0]._spec["shared"] != transport._spec["shared"]


def test_an_item_is_pickled_with_its_strategy():
    item = again(LLMWorkItem("a", llm("openai:gpt-5-mini"), "hello"))
    assert item.strategy.model == "gpt-5-mini"
    with pytest.warns(UserWarning, match="strategy of an item"):
        assert again(LLMWorkItem("a", llm("openai:gpt-5-mini", api_key=KEY), "hello")).strategy is None


# Copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_shares_connections_key_and_limits(copied):
    with SimulatedProvider(api_key=KEY) as provider:
        strategy = llm("openai:gpt-5-mini", api_key=KEY, base_url=provider.base_url, response_parser=shout)
        other = copied(strategy)
        assert other is not strategy
        assert other._client is strategy._client
        assert other.quota_scope == strategy.quota_scope
        other.quota_scope = "its own"
        assert strategy.quota_scope != "its own"
        assert all(result.success for result in run(other, ["a"]).results)
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(other)


def test_a_deep_copy_has_its_own_attributes_of_a_subclass():
    strategy = Branded("Acme")
    strategy.itself = strategy
    shallow, deep = copy.copy(strategy), copy.deepcopy(strategy)
    strategy.seen.append("later")
    assert shallow.seen == ["Acme", "later"]
    assert deep.seen == ["Acme"]
    assert deep.itself is deep


# Everything else


VALUES = {
    "config": ProcessorConfig(
        retry=RetryConfig(max_attempts=5, jitter=False),
        guardrails=GuardrailConfig(max_total_cost=2.0, prices={"m": Price(1.0, 2.0)}, abort_mode="cancel_active"),
        quotas=[Quota(requests=5, tokens=7)],
        startup_ramp=StartupRampConfig(),
        shared_limits="/tmp/team.limits",
    ),
    "rate limits": RateLimitConfig(cooldown_seconds=3.0),
    "transport": Transport(idle_timeout=4.0, ca_bundle="/etc/ca.pem"),
    "tool": Tool("look", "Looks it up.", Rating),
    "tool with a schema": Tool("look", "Looks it up.", {"type": "object", "properties": {"a": {"type": "string"}}}),
    "estimator": batch_llm.CharacterTokenEstimator(),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("copied", [again, copy.copy, copy.deepcopy])
def test_configurations_are_pickled_and_copied(name, copied):
    assert copied(VALUES[name]) == VALUES[name]


OBJECTS = {
    "function": lambda: CallableStrategy(shout, threads=True, on_error=search, max_concurrency=3, model="m"),
    "classifier": batch_llm.DefaultErrorClassifier,
    "backoff": batch_llm.ExponentialBackoffStrategy,
    "delay": batch_llm.FixedDelayStrategy,
    "image": lambda: Image(b"\x89PNG\r\n\x1a\n", media_type="image/png"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_other_objects_are_pickled(name):
    made = OBJECTS[name]()
    assert repr(again(made)).split(" at 0x")[0] == repr(made).split(" at 0x")[0]


def test_a_function_is_a_strategy_in_another_process_too():
    strategy = again(OBJECTS["function"]())
    assert [result.output for result in run(strategy, ["a"]).results] == ["A"]


def test_a_tool_of_a_function_is_pickled_by_the_function():
    tool = Tool.of(search)
    other = again(tool)
    assert (other.name, other.description) == (tool.name, tool.description)
    assert other.parameters.model_json_schema() == tool.parameters.model_json_schema()
    assert copy.deepcopy(tool) == copy.copy(tool) == tool
