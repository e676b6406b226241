"""Pools: several endpoints as one strategy, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import pickle
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack

import pytest

from batch_llm import (
    CallableStrategy,
    EmbeddingStrategy,
    Fallback,
    OpenAIStrategy,
    PoolStrategy,
    ProcessorConfig,
    call_result,
    llm,
    pool,
    process_prompts,
    run,
    stream,
)
from batch_llm.testing import Fault, SimulatedProvider


def _urls(*providers):
    return [one.base_url for one in providers]


def _prompts(count):
    return [f"prompt {number}" for number in range(count)]


def _members(result):
    return Counter(one.metadata["member"] for one in result.results)


@pytest.fixture
def servers():
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(SimulatedProvider(**options))


def test_addresses_share_the_load(servers):
    one, two = servers(latency=0.01), servers(latency=0.01)
    strategy = pool("openai-compatible:m", base_url=_urls(one, two), api_key="k")
    result = run(strategy, [f"prompt {number}" for number in range(200)])
    assert result.succeeded == 200
    members = _members(result)
    assert set(members) == set(strategy.labels)
    assert min(members.values()) > 10
    assert 200 <= one.stats.requests + two.stats.requests <= 203  # the last ones may be sent twice
    assert all(label.startswith("openai-compatible:m at 127.0.0.1:") for label in strategy.labels)


def test_a_dead_key_fails_nothing_and_is_reported_once(servers, caplog):
    server = servers(api_key="good", latency=0.01)
    strategy = pool("openai-compatible:m", base_url=server.base_url, api_key=["good", "wrong-key-abcdef"])
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        result = run(strategy, [f"prompt {number}" for number in range(100)])
    assert (result.succeeded, result.failed) == (100, 0)
    assert all(one.attempts == 1 for one in result.results)
    assert strategy.dropped == ["openai-compatible:m #2"]
    assert set(_members(result)) == {"openai-compatible:m #1"}
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.event for record in warnings] == ["member_dropped"]
    assert warnings[0].getMessage().endswith("provided. Check its key and its model")
    assert "wrong-key-abcdef" not in caplog.text


def test_if_all_keys_are_dead_the_error_says_so(servers):
    server = servers(api_key="good")
    strategy = pool("openai-compatible:m", base_url=server.base_url, api_key=["bad-1", "bad-2"])
    result = run(strategy, ["a", "b"])
    assert {one.error_category for one in result.results} <= {"authentication", "batch_aborted", "fail_early"}
    assert any("401" in str(one.error) for one in result.results)


def test_a_failing_member_uses_up_no_attempt(servers):
    sick, well = servers(faults=[Fault(500, every=2)], latency=0.005), servers(latency=0.005)
    strategy = pool("openai-compatible:m", base_url=_urls(sick, well), api_key="k")
    result = run(strategy, [f"prompt {number}" for number in range(200)])
    assert result.succeeded == 200
    assert all(one.attempts == 1 for one in result.results)
    assert sick.stats.requests < 60


def test_an_address_where_nobody_listens(servers):
    well, gone = servers(latency=0.005), servers()
    url = gone.base_url
    gone.stop()
    result = run(pool("openai-compatible:m", base_url=[url, well.base_url], api_key="k"), ["a"] * 100)
    assert result.succeeded == 100
    assert all(one.attempts == 1 for one in result.results)


def test_limits_are_those_of_each_member(servers):
    one = servers(requests_per_minute=600, burst_seconds=1)
    two = servers(requests_per_minute=600, burst_seconds=1)
    strategy = pool("openai-compatible:m", base_url=_urls(one, two), api_key="k")
    config = ProcessorConfig(concurrency="auto")
    result = run(strategy, [f"prompt {number}" for number in range(60)], config=config)
    assert result.succeeded == 60
    assert min(_members(result).values()) > 5


def test_a_fallback_answers_and_says_why(servers):
    down, spare = servers(faults=[Fault(503, every=1)]), servers()
    members = [OpenAIStrategy("small", base_url=down.base_url, api_key="k", provider="openai-compatible")]
    fallback = OpenAIStrategy("large", base_url=spare.base_url, api_key="k", provider="openai-compatible")
    never = Fallback(fallback, on=["refusal"])
    result = run(pool(members, fallback=[never, Fallback(fallback, on=["overload"])]), ["a"] * 20)
    assert result.succeeded == 20
    assert {one.metadata["member_reason"] for one in result.results} == {"overload"}
    assert set(_members(result)) == {"openai-compatible:large #2"}


def _is_short(output):
    return len(output) < 20


def test_doubtful_answers_are_escalated(servers):
    small, large = servers(replies=["Hm."]), servers(replies=["A long and careful answer."])
    members = [OpenAIStrategy("small", base_url=small.base_url, api_key="k", provider="openai-compatible")]
    fallback = OpenAIStrategy("large", base_url=large.base_url, api_key="k", provider="openai-compatible")
    result = run(pool(members, fallback=[fallback], escalate_if=_is_short), ["a"] * 10)
    assert {one.output for one in result.results} == {"A long and careful answer."}
    assert {one.metadata["member_reason"] for one in result.results} == {"escalated"}
    assert (small.stats.requests, large.stats.requests) == (10, 10)
    tokens = small.stats.input_tokens + large.stats.input_tokens
    assert sum(one.token_usage["input_tokens"] for one in result.results) == tokens


def test_an_escalate_if_that_raises_keeps_the_answer(servers, caplog):
    server = servers(replies=["Hm."])
    strategy = OpenAIStrategy("small", base_url=server.base_url, api_key="k", provider="openai-compatible")
    result = run(pool([strategy], fallback=[strategy], escalate_if=lambda output: output.missing), ["a"])
    assert result.results[0].output == "Hm."
    assert "escalate_if failed" in caplog.text


def test_process_prompts_streams_and_calls(servers):
    one, two = servers(), servers()
    strategy = pool("openai-compatible:m", base_url=_urls(one, two), api_key="k")

    async def main():
        result = await process_prompts(strategy, ["a", "b"])
        single = await call_result(strategy, "c")
        return result, single

    result, single = asyncio.run(main())
    assert result.succeeded == 2
    assert single.metadata["member"] in strategy.labels
    with stream(strategy, ["d", "e"]) as results:
        assert sum(one.success for one in results) == 2


@pytest.mark.parametrize("provider", ["vllm", "sglang"])
def test_a_member_that_others_keep_busy_gets_fewer_requests(servers, provider):
    busy, idle = servers(latency=0.01, queued=100), servers(latency=0.01, queued=0)
    strategy = pool(f"{provider}:m", base_url=_urls(busy, idle), api_key="k", hedge=False)
    config = ProcessorConfig(concurrency=8)
    warm = run(strategy, _prompts(20), config=config)  # the pages are read beside the first requests
    result = run(strategy, _prompts(200), config=config)
    assert (warm.failed, result.failed) == (0, 0)
    members = _members(result)
    assert members[strategy.labels[0]] * 5 < members[strategy.labels[1]]
    assert busy.stats.requests + idle.stats.requests == 220, "the pages are no requests to the model"


def test_a_server_without_a_page_of_metrics_is_a_member_like_any_other(servers):
    one, two = servers(latency=0.01), servers(latency=0.01, queued=0)
    result = run(pool("vllm:m", base_url=_urls(one, two), api_key="k"), _prompts(200))
    assert result.failed == 0
    assert min(_members(result).values()) > 20


def test_the_page_of_metrics_is_vllms(servers):
    server = servers(queued=7)
    with urllib.request.urlopen(f"{server.url}/metrics") as page:
        lines = page.read().decode().splitlines()
    assert 'vllm:num_requests_waiting{engine="0",model_name="simulated"} 7.0' in lines
    assert 'vllm:num_requests_running{engine="0",model_name="simulated"} 0.0' in lines
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{servers().url}/metrics")
    with pytest.raises(ValueError, match="queued must be an integer"):
        servers(queued=-1)


def test_typed_answers_come_from_any_member(servers):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    one, two = servers(), servers()
    strategy = pool("openai-compatible:m", base_url=_urls(one, two), api_key="k", response_model=schema)
    result = run(strategy, [f"prompt {number}" for number in range(20)])
    assert result.succeeded == 20
    assert all(isinstance(one.output["n"], int) for one in result.results)


def test_a_store_knows_the_answers_of_a_pool(servers, tmp_path):
    one, two = servers(), servers()
    strategy = pool("openai-compatible:m", base_url=_urls(one, two), api_key="k")
    prompts = [f"prompt {number}" for number in range(10)]
    assert run(strategy, prompts, store=tmp_path / "s.db").succeeded == 10
    again = pool("openai-compatible:m", base_url=_urls(two, one), api_key="k")
    assert run(again, prompts, store=tmp_path / "s.db").succeeded == 10
    assert one.stats.requests + two.stats.requests == 10  # too few to send any twice


def test_pickles_and_copies(servers, monkeypatch):
    monkeypatch.setenv("POOL_KEY", "k")
    server = servers()
    strategy = pool("openai-compatible:m", base_url=[server.base_url] * 2, api_key_env="POOL_KEY", hedge=False)
    made = pickle.loads(pickle.dumps(strategy))
    assert made.labels == strategy.labels
    assert run(made, ["a"]).succeeded == 1


def test_a_pool_works_in_a_forked_child(servers):
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork")
    server = servers()
    strategy = pool("openai-compatible:m", base_url=[server.base_url] * 2, api_key="k")
    assert run(strategy, ["a"]).succeeded == 1
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(run(strategy, ["b"] * 10).succeeded))
    child.start()
    assert queue.get(timeout=60) == 10
    child.join()


async def _echo(prompt):
    return prompt


def _model(**options):
    return llm("openai-compatible:m", base_url="http://127.0.0.1:9/v1", api_key="k", **options)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: pool([]), ValueError, "at least one"),
        (lambda: PoolStrategy([CallableStrategy(_echo)]), TypeError, "member 0 must be a native strategy"),
        (lambda: pool([1]), TypeError, "a function of a prompt"),
        (lambda: pool([pool([_model()])]), ValueError, "is a pool itself"),
        (lambda: pool([_model(), _model(response_model=dict[str, int])]), ValueError, "another response_model"),
        (lambda: pool([_model()], weights=[1, 2]), ValueError, "weights must be a list of 1"),
        (lambda: pool([_model()], weights=[0]), ValueError, "positive"),
        (lambda: pool([_model()], hedge="later"), ValueError, "hedge must be 'tail', True or False"),
        (lambda: pool([_model()], temperature=0.5), ValueError, "temperature is for members given by name"),
        (lambda: pool("openai:m", api_key=["a", "b"], base_url=["http://a"] * 3), ValueError, "api_key has 2 values"),
        (lambda: pool("openai:m", api_key=["a"], temprature=1), TypeError, "temprature"),
        (lambda: Fallback("openai:m", on=["boredom"]), ValueError, "on must be a list of"),
        (
            lambda: pool([llm("openai:m", api_key=lambda: "k")]),
            ValueError,
            "function as api_key",
        ),
        (
            lambda: pool([EmbeddingStrategy("openai:text-embedding-3-small", api_key="k")]),
            ValueError,
            "embedding strategy",
        ),
        (lambda: pool([_model()], escalate_if=len), ValueError, "escalate_if needs a fallback"),
        (lambda: pool([_model()], fallback=[_model()], escalate_if=1), TypeError, "escalate_if must be a function"),
        (lambda: pool(["openai:m"] * 65, api_key="k"), ValueError, "1 to 64 members"),
    ],
)
def test_what_cannot_be_a_pool_says_why(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_lane_that_a_pool_has_not_is_refused(servers, tmp_path):
    strategy = pool("openai-compatible:m", base_url=[servers().base_url] * 2, api_key="k")
    for lane in ("batch", "flex"):
        with pytest.raises((TypeError, ValueError), match="pool"):
            run(strategy, ["a"], lane=lane, store=tmp_path / "s.db")
