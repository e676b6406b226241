"""Pools with members in Python: strategies of a class, functions, and native ones beside them."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections import Counter

import pytest

from batch_llm import (
    CallableStrategy,
    ContentFilterError,
    EmbeddingStrategy,
    ErrorClassifier,
    ErrorInfo,
    Fallback,
    LLMCallStrategy,
    LLMWorkItem,
    MixedPoolStrategy,
    ParallelBatchProcessor,
    ProcessorConfig,
    ProviderError,
    RefusalError,
    RetryConfig,
    call_result,
    llm,
    pool,
    run,
)
from batch_llm._llm import scope_of
from batch_llm.testing import SimulatedProvider

from ..cli_helpers import answering

QUICK = ProcessorConfig(concurrency=10, retry=RetryConfig(max_attempts=2, initial_wait=0.001))
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


class Member(LLMCallStrategy[str]):
    """Answers with its name, or raises what ``fails`` returns for the number of the call."""

    def __init__(self, name, fails=lambda call: None, seconds=0.001):
        self.name, self.fails, self.seconds = name, fails, seconds
        self.calls = self.prepared = self.cleaned = 0
        self.errors = []

    async def prepare(self):
        self.prepared += 1

    async def cleanup(self):
        self.cleaned += 1

    async def on_error(self, exception, attempt, state=None):
        self.errors.append(type(exception).__name__)

    async def execute(self, prompt, attempt, timeout, state=None):
        self.calls += 1
        error = self.fails(self.calls)
        await asyncio.sleep(self.seconds)
        if error is not None:
            raise error
        return self.name, dict(USAGE)


def _status(code, **details):
    categories = {401: "authentication", 429: "rate_limit", 503: "server_overload", 500: "server_error"}
    retryable = code != 401
    return ProviderError(f"HTTP {code}", category=categories[code], is_retryable=retryable, status_code=code, **details)


def _prompts(count):
    return [f"prompt {number}" for number in range(count)]


def _answers(result):
    return Counter(one.output for one in result.results)


async def echo(prompt):
    return prompt


async def shout(prompt):
    await asyncio.sleep(0.02)
    return prompt.upper()


def test_members_share_the_load_and_are_prepared_and_cleaned_up_once():
    one, two = Member("one"), Member("two")
    strategy = pool([one, two])
    assert isinstance(strategy, MixedPoolStrategy)
    assert strategy.labels == ("Member #1", "Member #2")
    result = run(strategy, _prompts(200), config=QUICK)
    assert (result.succeeded, result.failed) == (200, 0)
    assert min(_answers(result).values()) > 20
    assert {one.metadata["member"] for one in result.results} == set(strategy.labels)
    assert (one.prepared, one.cleaned, two.prepared, two.cleaned) == (1, 1, 1, 1)
    assert run(strategy, _prompts(1)).succeeded == 1
    assert one.prepared + two.prepared == 3, "each run prepares those that it asks"


def test_functions_and_native_strategies_are_members_too():
    with SimulatedProvider(replies=["native"], latency=0.02) as server:
        native = llm("openai-compatible:m", base_url=server.base_url, api_key="k")
        strategy = pool([native, shout])
        result = run(strategy, _prompts(100), config=QUICK)
    assert result.succeeded == 100
    members = Counter(one.metadata["member"] for one in result.results)
    assert set(members) == {"openai-compatible:m", "shout"}
    assert min(members.values()) > 1
    by_native = next(one for one in result.results if one.metadata["member"] == "openai-compatible:m")
    assert by_native.output == "native"
    assert by_native.metadata["finish_reason"] == "stop"
    assert by_native.token_usage["input_tokens"] > 0


def test_weights_divide_the_load():
    strategy = pool([Member("one"), Member("two")], weights=[5, 1])
    answers = _answers(run(strategy, _prompts(300), config=QUICK))
    assert answers["one"] > 1.5 * answers["two"]


def test_a_failing_member_uses_up_no_attempt_and_hears_of_its_errors():
    sick, well = Member("sick", lambda call: _status(500) if call > 10 else None), Member("well")
    result = run(pool([sick, well]), _prompts(200), config=QUICK)
    assert result.failed == 0
    assert all(one.attempts == 1 for one in result.results)
    assert sick.errors == ["ProviderError"] * max(0, sick.calls - 10)
    assert well.errors == []
    assert sick.calls < 60


def test_a_member_that_fails_is_left_out(caplog):
    sick, spare = Member("sick", lambda call: _status(500)), Member("spare")
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        result = run(pool([sick], fallback=[Fallback(spare, on=["overload"])]), _prompts(100), config=QUICK)
    assert _answers(result) == {"spare": 100}
    assert sick.calls < 50
    assert "member_ejected" in [record.event for record in caplog.records if hasattr(record, "event")]


def test_sick_members_fail_nothing_and_cost_few_requests():
    well, slow = Member("well", seconds=0.01), Member("slow", seconds=0.1)
    flaky = Member("flaky", lambda call: _status(500) if call % 3 == 0 else None, seconds=0.01)
    dead = Member("dead", lambda call: _status(401))
    members = [well, slow, flaky, dead]
    result = run(pool(members), _prompts(500), config=QUICK)
    assert (result.succeeded, result.failed) == (500, 0)
    assert all(one.attempts == 1 for one in result.results)
    assert sum(one.calls for one in members) < 600


def test_a_dead_key_is_dropped_with_one_warning(caplog):
    dead = Member("dead", lambda call: _status(401))
    strategy = pool([dead, Member("well")])
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        result = run(strategy, _prompts(50), config=QUICK)
    assert _answers(result) == {"well": 50}
    assert strategy.dropped == ["Member #1"]
    warnings = [record.event for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["member_dropped"]


def test_a_member_that_is_back_is_asked_again():
    flaky = Member("flaky", lambda call: ConnectionError("refused") if call <= 1 else None)
    result = run(pool([flaky, Member("well")]), _prompts(200), config=QUICK)
    assert result.failed == 0
    assert _answers(result)["flaky"] > 10


def test_the_error_is_that_of_the_last_member_with_the_tokens_of_all():
    def fails(call):
        return _status(500, token_usage={"input_tokens": 7, "output_tokens": 0, "total_tokens": 7})

    one, two = Member("one", fails), Member("two", fails)
    config = ProcessorConfig(concurrency=1, retry=RetryConfig(max_attempts=1))
    (result,) = run(pool([one, two]), ["a"], config=config).results
    assert not result.success
    assert (one.calls, two.calls) == (1, 1)
    assert result.error_category == "server_error"
    assert result.token_usage["input_tokens"] == 14


def test_an_error_of_the_item_goes_to_no_other_member():
    one, two = Member("one", lambda call: ValueError("odd")), Member("two", lambda call: ValueError("odd"))
    (result,) = run(pool([one, two]), ["a"], config=QUICK).results
    assert result.error_category == "logic_error"
    assert one.calls + two.calls == 1


def test_while_the_others_are_at_their_limits_the_item_waits_in_the_queue():
    limited = Member("limited", lambda call: _status(429, retry_after=0.05) if call == 1 else None)
    sick = Member("sick", lambda call: _status(500) if call % 2 else None)
    config = ProcessorConfig(concurrency=4, retry=RetryConfig(max_attempts=3, initial_wait=0.001))
    result = run(pool([limited, sick]), _prompts(20), config=config)
    assert result.failed == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda: RefusalError("no", category="refusal", is_retryable=False), "refusal"),
        (lambda: RefusalError("I cannot help with that"), "refusal"),
        (lambda: ContentFilterError("blocked"), "content_filter"),
        (lambda: ProviderError("filtered", category="content_filter", is_retryable=False), "content_filter"),
        (
            lambda: ProviderError(
                "the prompt is too long", category="client_error", is_retryable=False, status_code=400
            ),
            "context_length",
        ),
        (lambda: _status(503), "overload"),
    ],
)
def test_a_fallback_answers_and_says_why(error, reason):
    others = [one for one in ("refusal", "content_filter", "context_length", "overload", "invalid") if one != reason]
    never, spare = Member("never"), Member("spare")
    strategy = pool(
        [Member("small", lambda call: error())], fallback=[Fallback(never, on=others), Fallback(spare, on=[reason])]
    )
    result = run(strategy, _prompts(10), config=QUICK)
    assert _answers(result) == {"spare": 10}
    assert {one.metadata["member_reason"] for one in result.results} == {reason}
    assert (never.calls, never.prepared) == (0, 0)


class _Invalid(ErrorClassifier):
    def classify(self, exception):
        return ErrorInfo(True, False, False, "validation_error")


def test_a_fallback_is_asked_for_a_second_invalid_answer():
    def bad(call):
        return ValueError("does not match")

    small = Member("small", bad)
    small.recommended_error_classifier = _Invalid
    result = run(pool([small], fallback=[Fallback(Member("large"), on=["invalid"])]), ["a"], config=QUICK)
    assert _answers(result) == {"large": 1}
    assert result.results[0].metadata["member_reason"] == "invalid"
    assert (small.calls, result.results[0].attempts) == (2, 2)


def test_doubtful_answers_are_escalated_and_all_tokens_counted():
    small, large = Member("hm"), Member("a long and careful answer")
    strategy = pool([small], fallback=[large], escalate_if=lambda output: len(output) < 5)
    result = run(strategy, _prompts(5), config=QUICK)
    assert _answers(result) == {"a long and careful answer": 5}
    assert {one.metadata["member_reason"] for one in result.results} == {"escalated"}
    assert all(one.token_usage["total_tokens"] == 30 for one in result.results)


def test_if_the_fallback_fails_or_escalate_if_raises_the_answer_stays(caplog):
    fails = Member("large", lambda call: ValueError("odd"))
    (result,) = run(pool([Member("hm")], fallback=[fails], escalate_if=len), ["a"], config=QUICK).results
    assert (result.output, result.metadata["member"], result.token_usage["total_tokens"]) == ("hm", "Member #1", 15)
    (result,) = run(pool([Member("hm")], fallback=[fails], escalate_if=lambda output: output.x), ["a"]).results
    assert result.output == "hm"
    assert "escalate_if failed" in caplog.text


def test_a_slow_request_gets_a_second_one_beside_it():
    def seconds(call):
        one.seconds = two.seconds = 5 if one.calls + two.calls == 150 else 0.002

    one, two = Member("one", seconds), Member("two", seconds)
    result = run(pool([one, two], hedge=True), _prompts(200), config=QUICK)
    assert result.succeeded == 200
    hedged = [one for one in result.results if one.metadata.get("hedged")]
    assert hedged
    assert all(one.token_usage["total_tokens"] == 30 for one in hedged), "as much again, at most"


def test_a_prepare_that_raises_is_a_failure_of_its_member():
    class Broken(Member):
        async def prepare(self):
            raise ConnectionError("refused")

    broken = Broken("broken")
    result = run(pool([broken, Member("well")]), _prompts(30), config=QUICK)
    assert _answers(result) == {"well": 30}
    assert broken.calls == 0
    assert broken.cleaned == 1


def test_hooks_that_raise_are_logged(caplog):
    class Odd(Member):
        async def on_error(self, exception, attempt, state=None):
            raise RuntimeError("in on_error")

        async def cleanup(self):
            raise RuntimeError("in cleanup")

    result = run(pool([Odd("odd", lambda call: _status(500)), Member("well")]), _prompts(30), config=QUICK)
    assert result.failed == 0
    assert "in on_error" in caplog.text
    assert "in cleanup" in caplog.text


def test_process_all_cleans_up_after_items_and_prepares_once():
    one = Member("one")

    async def main():
        async with ParallelBatchProcessor(config=ProcessorConfig(max_workers=2)) as processor:
            strategy = pool([one])
            for number in range(5):
                await processor.add_work(LLMWorkItem(item_id=str(number), strategy=strategy, prompt="a"))
            return await processor.process_all()

    assert asyncio.run(main()).succeeded == 5
    assert one.prepared == 1
    assert 1 <= one.cleaned <= 5


def test_a_time_out_is_told_to_the_member_that_was_asked():
    slow = Member("slow", seconds=60)
    config = ProcessorConfig(timeout_per_item=0.05, retry=RetryConfig(max_attempts=1))
    (result,) = run(pool([slow]), ["a"], config=config).results
    assert result.error_category == "framework_timeout"
    assert slow.errors == ["FrameworkTimeoutError"]


def test_a_malformed_answer_says_whose_it_is():
    class Odd(Member):
        async def execute(self, prompt, attempt, timeout, state=None):
            return "text"

    (result,) = run(pool([Odd("odd")]), ["a"], config=QUICK).results
    assert "Odd.execute() must return a pair" in result.error


def test_single_calls_direct_calls_and_dry_runs():
    one = Member("one")
    strategy = pool([one])

    async def main():
        await strategy.prepare()
        direct = await strategy.execute("a", 1, 10.0)
        await strategy.cleanup()
        single = await call_result(strategy, "a")
        return direct, single, await strategy.dry_run("a")

    direct, single, dry = asyncio.run(main())
    assert direct == ("one", USAGE, {"member": "Member"})
    assert single.metadata["member"] == "Member"
    assert "DRY-RUN" in dry[0]
    assert repr(strategy) == "MixedPoolStrategy(Member)"


def test_an_on_error_without_a_member_tells_nobody():
    one = Member("one")
    asyncio.run(pool([one]).on_error(ValueError("odd"), 1))
    assert one.errors == []


def test_prompts_must_suit_all_members():
    with pytest.raises(TypeError, match="prompt must be a string"):
        pool([echo, Member("one")]).check_prompt(1)
    pool([echo, shout]).check_prompt(1)


def test_a_store_knows_the_answers_whoever_gave_them(tmp_path):
    calls = Counter()

    class Counting(CallableStrategy):
        async def execute(self, *args):
            calls["all"] += 1
            return await super().execute(*args)

    one, two = Counting(echo), Counting(shout)
    for strategy in (pool([one, two]), pool([two, one])):
        assert run(strategy, _prompts(10), store=tmp_path / "s.db").succeeded == 10
    assert calls["all"] == 10
    assert (
        run(pool([one], fallback=[two], escalate_if=str.isupper), _prompts(3), store=tmp_path / "s.db").succeeded == 3
    )
    assert calls["all"] > 10


def test_pickles_make_the_pool_anew():
    strategy = pool([CallableStrategy(echo, model="gpt-5-mini"), CallableStrategy(shout, model="gpt-5")])
    made = pickle.loads(pickle.dumps(strategy))
    assert made.labels == strategy.labels == ("echo:gpt-5-mini", "shout:gpt-5")
    assert run(made, ["a"]).succeeded == 1


def test_the_price_is_that_of_the_most_expensive_model():
    prices = {"cheap": (1.0, 2.0), "dear": (10.0, 20.0)}
    members = [CallableStrategy(echo, model="cheap"), CallableStrategy(shout, model="dear")]
    from batch_llm import GuardrailConfig, Price

    known = {name: Price(input=given, output=answer) for name, (given, answer) in prices.items()}
    config = ProcessorConfig(guardrails=GuardrailConfig(prices=known))
    assert run(pool(members), ["a"], config=config).succeeded == 1
    assert pool(members)._price(known) == known["dear"]
    assert pool([*members, Member("one")])._price(known) is None


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MixedPoolStrategy([]), ValueError, "at least one"),
        (lambda: MixedPoolStrategy([1]), TypeError, "member 0 must be a strategy, not int"),
        (lambda: pool([pool([echo])]), ValueError, "member 0 is a pool itself"),
        (lambda: pool([echo], fallback=[pool(["openai:m"], api_key="k")]), ValueError, "member 1 is a pool itself"),
        (lambda: pool([echo], weights=[1, 2]), ValueError, "weights must be a list of 1"),
        (lambda: pool([echo], hedge="later"), ValueError, "hedge must be 'tail', True or False"),
        (lambda: pool([echo], escalate_if=len), ValueError, "escalate_if needs a fallback"),
        (lambda: pool([echo], temperature=0.5), ValueError, "temperature is for members given by name"),
        (lambda: pool([echo] * 65), ValueError, "1 to 64 members"),
        (
            lambda: pool([echo, EmbeddingStrategy("openai:text-embedding-3-small", api_key="k")]),
            ValueError,
            "member 1 is an embedding strategy",
        ),
    ],
)
def test_what_cannot_be_a_pool_says_why(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_native_members_learn_their_limits():
    with SimulatedProvider(requests_per_minute=6000, latency=0.001) as server:
        native = llm("openai-compatible:m", base_url=server.base_url, api_key="k")
        assert run(pool([native, shout]), _prompts(60), config=QUICK).succeeded == 60
        limits = scope_of(native).limits()
    assert ("requests", 6000.0, True) in {(one["measure"], one["amount"], one["learned"]) for one in limits}


def test_a_native_member_is_shown_what_was_wrong_with_its_answer():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with answering(lambda prompt: {"n": 1} if "not valid" in prompt else {"m": 1}) as url:
        native = llm("openai-compatible:m", base_url=url, api_key="k", response_model=schema)
        (result,) = run(pool([native], fallback=[Fallback(echo, on=["refusal"])]), ["a"], config=QUICK).results
    assert (result.output, result.attempts) == ({"n": 1}, 2)
