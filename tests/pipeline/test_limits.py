"""Quotas, scopes, the concurrency that is found out; over real HTTP where a provider matters."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from batch_llm import (
    BatchResult,
    GoogleStrategy,
    LLMCallStrategy,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProcessingStats,
    ProcessorConfig,
    Quota,
    QuotaScopeError,
    StartupRampConfig,
    TokenEstimate,
    TokenEstimateExceedsLimit,
    TokenEstimationError,
)
from batch_llm._core import Scope
from batch_llm._pipeline.estimates import Limits
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import Echo, Scripted, quick, run, until

# Quotas


async def test_a_quota_of_tokens_is_kept_with_estimates_that_learn():
    # 600 tokens a second, 15 an item: 40 items a second after the first burst.
    strategy = Echo()
    began = time.monotonic()
    config = quick(max_workers=50, quotas=[Quota(tokens=600, per="second")], quota_burst_seconds=1)
    batch, processor = await run(strategy, ["x"] * 100, config)
    took = time.monotonic() - began
    assert batch.succeeded == 100
    assert took >= (100 * 15 - 600 - 400) / 600
    stats = await processor.get_stats()
    assert stats["bound_by"]["quota:tokens"] > 0.5


async def test_a_quota_of_a_day_may_be_used_at_once_and_then_waits():
    strategy = Echo()
    config = quick(max_workers=10, quotas=[Quota(requests=7, per="day")])
    processor = ParallelBatchProcessor(config=config)
    for number in range(10):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    running = asyncio.ensure_future(processor.process_all())
    await until(lambda: len(strategy.calls) == 7)
    await asyncio.wait([running], timeout=0.1)
    assert not running.done()
    assert len(strategy.calls) == 7
    running.cancel()
    await asyncio.wait([running])


async def test_estimates_come_from_the_user_sync_or_async_and_an_error_fails_that_item_alone():
    asked = []

    def estimator(prompt, *, strategy, attempt, state):
        asked.append((prompt, attempt, state))
        if prompt == "bad":
            raise RuntimeError("no idea")
        if prompt == "odd":
            return "many"
        return TokenEstimate(10, 5)

    async def later(prompt, **given):
        await asyncio.sleep(0)
        return estimator(prompt, **given)

    for one in (estimator, later):
        config = quick(max_tokens_per_minute=100_000, token_estimator=one)
        batch, processor = await run(Echo(), ["a", "bad", "odd", "b"], config)
        failed = {result.context: result for result in batch.results if not result.success}
        assert sorted(failed) == [1, 2]
        assert batch.succeeded == 2
        assert isinstance(failed[1].exception, TokenEstimationError)
        assert failed[1].error_category == "token_estimation_error"
        assert "no idea" in failed[1].error
        assert "TokenEstimate" in failed[2].error
        stats = await processor.get_stats()
        assert (stats["processed"], stats["failed"]) == (4, 2)
        assert stats["error_counts"] == {"TokenEstimationError": 2}
    assert ("a", 1, None) in asked


async def test_a_strategy_estimates_for_itself_unless_the_configuration_does():
    class Own(Echo):
        def estimate_tokens(self, prompt, *, strategy, attempt, state):
            assert strategy is self
            return SimpleNamespace(input_tokens=3, output_tokens=10_000)

    batch, _ = await run(Own(), ["x"], quick(max_tokens_per_minute=1000))
    error = batch.results[0].exception
    assert isinstance(error, TokenEstimateExceedsLimit)
    assert "'item-0'" in str(error)
    assert "10003 tokens" in str(error)
    assert "1000" in str(error)
    config = quick(max_tokens_per_minute=1000, token_estimator=lambda *_, **__: TokenEstimate(1, 1))
    batch, _ = await run(Own(), ["x"], config)
    assert batch.succeeded == 1


async def test_items_that_are_refused_reach_the_post_processor_and_the_progress_too():
    seen, progress = [], []
    config = quick(max_tokens_per_minute=100, token_estimator=lambda *_, **__: TokenEstimate(500), progress_interval=1)
    batch, _ = await run(
        Echo(),
        ["x"] * 5,
        config,
        post_processor=lambda result: seen.append(result.item_id),
        progress_callback=lambda done, total, item: progress.append(done),
    )
    assert batch.failed == 5
    assert sorted(seen) == [f"item-{n}" for n in range(5)]
    assert max(progress) == 5


async def test_a_retry_takes_from_the_quota_again():
    strategy = Scripted(lambda prompt, attempt: ConnectionError("x") if attempt == 1 else "ok")
    config = quick(max_workers=10, quotas=[Quota(requests=20, per="second")], quota_burst_seconds=0.5)
    began = time.monotonic()
    batch, _ = await run(strategy, ["x"] * 10, config)
    assert batch.succeeded == 10
    assert len(strategy.calls) == 20
    assert time.monotonic() - began >= (20 - 10) / 20 - 0.01


async def test_priority_goes_before_order():
    strategy = Echo()
    processor = ParallelBatchProcessor(config=quick(max_workers=1))
    for number, priority in enumerate([0, 0, 5, -1, 5]):
        await processor.add_work(LLMWorkItem(str(number), strategy, str(number), priority=priority))
    await processor.process_all()
    assert [prompt for prompt, _ in strategy.calls] == ["2", "4", "0", "1", "3"]
    with pytest.raises(ValueError, match="priority must be an integer"):
        LLMWorkItem("x", strategy, "x", priority=1.5)


# Scopes


class Scoped(Echo):
    def __init__(self, scope):
        super().__init__()
        self.quota_scope = scope


async def test_limits_hold_per_scope_and_one_scope_does_not_hold_another_back():
    one, other, same = Scoped("one"), Scoped("other"), Scoped("one")
    config = quick(max_workers=20, quotas=[Quota(requests=20, per="second")], quota_burst_seconds=0.5)
    processor = ParallelBatchProcessor(config=config)
    for number in range(30):
        await processor.add_work(LLMWorkItem(str(number), one if number % 2 else same, "x"))
    for number in range(10):
        await processor.add_work(LLMWorkItem(f"other-{number}", other, "x"))
    began = time.monotonic()
    batch = await processor.process_all()
    assert batch.succeeded == 40
    assert time.monotonic() - began >= (30 - 10) / 20 - 0.01
    place = [result.item_id for result in batch.results].index("other-9")
    assert place < 25, "the other scope did not wait for the first"


async def test_runs_of_one_process_share_a_scope_fairly():
    name = object()
    config = quick(max_workers=20, quotas=[Quota(requests=100, per="second")], quota_burst_seconds=0.05)
    first, second = Scoped(name), Scoped(name)
    began = time.monotonic()
    ended = []

    async def go(strategy):
        await run(strategy, ["x"] * 40, config)
        ended.append(time.monotonic() - began)

    await asyncio.gather(go(first), go(second))
    assert ended[0] >= (2 * 40 - 10) / 100 * 0.8, "together they keep the limit, and nobody is served first"


async def test_a_scope_that_cannot_be_named_is_refused_when_the_item_is_added():
    class Odd(Echo):
        @property
        def quota_scope(self):
            raise RuntimeError("no scope today")

    processor = ParallelBatchProcessor(config=quick())
    with pytest.raises(QuotaScopeError, match=r"Odd\.quota_scope .* no scope today"):
        await processor.add_work(LLMWorkItem("a", Odd(), "x"))
    with pytest.raises(QuotaScopeError, match="unhashable"):
        await processor.add_work(LLMWorkItem("a", Scoped([]), "x"))


def test_native_strategies_share_by_provider_key_and_model():
    def scope(key="k", model="m", url="http://h/v1"):
        return OpenAIStrategy(model, key, url).quota_scope

    assert scope() == scope()
    assert len({scope(), scope(key="other"), scope(model="n"), scope(url="http://i/v1")}) == 4
    assert "secret-key" not in repr(scope(key="secret-key"))
    strategy = OpenAIStrategy("m", "k", "http://h/v1")
    strategy.quota_scope = "mine"
    assert strategy.quota_scope == "mine"


def test_items_are_told_to_the_engine_by_queue_and_priority():
    class Handle:
        queues = 0

        def queue(self, scope):
            assert isinstance(scope, Scope)
            self.queues += 1
            return self.queues

    from batch_llm._llm.lifecycle import KnownStrategies

    limits = Limits(ProcessorConfig(), KnownStrategies())
    limits.begin(Handle())
    plain, a, b = Echo(), Scoped("groups-a"), Scoped("groups-b")
    order = [(plain, 0), (plain, 0), (a, 0), (a, 2), (a, 2), (b, 2), (plain, 0)]
    items = [LLMWorkItem(str(n), strategy, "x", priority=priority) for n, (strategy, priority) in enumerate(order)]
    assert limits.groups(items) == [(0, 0, 2), (1, 0, 1), (1, 2, 2), (2, 2, 1), (0, 0, 1)]
    assert limits.groups([]) == []


# Concurrency that is found out


async def test_auto_finds_a_rate_without_headers_and_without_pausing_everybody():
    with SimulatedProvider(latency=0.05, requests_per_minute=6000, burst_seconds=0.5) as provider:
        strategy = GoogleStrategy("auto", "k", provider.gemini_url)
        batch, processor = await run(strategy, ["hello"] * 400, quick(concurrency="auto"))
        stats = await processor.get_stats()
        assert batch.succeeded == 400
        assert stats["rate_limit_count"] < 80
        assert stats["concurrency"] > 0


async def test_auto_grows_while_the_provider_copes():
    with SimulatedProvider(latency=0.05) as provider:
        strategy = OpenAIStrategy("grow", base_url=provider.base_url)
        batch, processor = await run(strategy, ["hello"] * 600, quick(concurrency="auto"))
        assert batch.succeeded == 600
        stats = await processor.get_stats()
        assert stats["concurrency"] > 16, "it begins with 8"
        assert stats["bound_by"].get("concurrency", 0) > 0


async def test_auto_heeds_retry_after_for_everybody():
    with SimulatedProvider(faults=[Fault(429, on=[5], retry_after=0.5)]) as provider:
        strategy = OpenAIStrategy("word", base_url=provider.base_url)
        began = time.monotonic()
        batch, _ = await run(strategy, ["hello"] * 50, quick(concurrency="auto"))
        assert batch.succeeded == 50
        assert time.monotonic() - began >= 0.5


async def test_auto_works_with_strategies_in_python():
    strategy = Echo(0.01)
    batch, _ = await run(strategy, ["x"] * 300, quick(concurrency="auto"))
    assert batch.succeeded == 300
    assert 8 <= strategy.peak <= 300


async def test_a_ramp_begins_slowly():
    starts = []

    class Noting(Echo):
        async def execute(self, prompt, attempt, timeout, state=None):
            starts.append(time.monotonic())
            return await super().execute(prompt, attempt, timeout, state)

    strategy, began = Noting(1000.0), time.monotonic()
    ramp = StartupRampConfig(initial_concurrency=2, concurrency_step=3, ramp_interval_seconds=0.2)
    processor = ParallelBatchProcessor(config=quick(max_workers=50, startup_ramp=ramp))
    for number in range(50):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    task = asyncio.ensure_future(processor.process_all())
    await until(lambda: strategy.active >= 11)
    task.cancel()
    await asyncio.wait([task])
    # Two at once, and three more at each step: the loop may see them late, but never early.
    for place, step in ((2, 1), (5, 2), (8, 3)):
        assert starts[place] - began >= 0.2 * step - 0.01


async def test_concurrency_is_the_one_number():
    strategy = Echo(0.005)
    await run(strategy, ["x"] * 50, quick(concurrency=7))
    assert strategy.peak == 7
    with pytest.raises(ValueError, match="they are the same setting"):
        ParallelBatchProcessor(max_workers=3, config=quick(concurrency=7))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"concurrency": 0}, "concurrency must be >= 1"),
        ({"concurrency": "many"}, "an integer or 'auto'"),
        ({"concurrency": 2.5}, "concurrency must be an integer"),
        ({"max_tokens_per_minute": 0}, "max_tokens_per_minute must be > 0"),
        ({"max_tokens_per_minute": float("nan")}, "NaN"),
        ({"quota_burst_seconds": -1}, "quota_burst_seconds must be > 0"),
        ({"quotas": ["500"]}, "quotas must be Quota objects"),
        ({"startup_ramp": StartupRampConfig(initial_concurrency=0)}, "initial_concurrency must be >= 1"),
        ({"startup_ramp": StartupRampConfig(ramp_interval_seconds=0)}, "ramp_interval_seconds must be > 0"),
    ],
)
def test_nonsense_is_refused_by_name(fields, words):
    with pytest.raises(ValueError, match=words):
        ParallelBatchProcessor(config=ProcessorConfig(**fields))


def test_quotas_and_estimates_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match="per must be one of second, minute, hour, day"):
        Quota(requests=5, per="week")
    with pytest.raises(ValueError, match="tokens must be > 0"):
        Quota(tokens=0)
    with pytest.raises(ValueError, match="input_tokens must be >= 0"):
        TokenEstimate(-1)
    with pytest.raises(TypeError, match="token_estimator must be callable"):
        ParallelBatchProcessor(config=ProcessorConfig(token_estimator=5))
    assert TokenEstimate(10, 5).total_tokens == 15


def test_strategies_without_a_scope_share_that_of_their_run():
    class Plain(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return prompt, {}

    assert getattr(Plain(), "quota_scope", None) is None


# What bound the run


async def test_a_run_says_what_bound_it_and_what_to_change(caplog):
    caplog.set_level("INFO", "batch_llm")
    config = quick(max_workers=20, quotas=[Quota(requests=20, per="second")], quota_burst_seconds=0.05)
    batch, processor = await run(Echo(), ["x"] * 10, config)
    words = batch.stats.explain()
    assert "the limit of 20 requests per second (set by you) was used up" in words
    assert "was used up: raise the limit, if the provider allows it" in words
    assert words[4:].split(": ", 1)[1] in caplog.text
    batch, _ = await run(Echo(0.02), ["x"] * 20, quick(max_workers=2))
    assert "all workers were busy" in batch.stats.explain()
    assert "raise the concurrency" in batch.stats.explain()
    assert 0.19 <= sum(batch.stats.bound_by.values()) <= 1.1 * batch.wall_time_seconds
    assert BatchResult([]).stats is None
    assert ProcessingStats().explain() == "No time was recorded: nothing has run."


async def test_what_the_provider_told_is_called_so():
    with SimulatedProvider(requests_per_minute=1200, burst_seconds=0.5) as provider:
        strategy = OpenAIStrategy("explained", base_url=provider.base_url)
        batch, _ = await run(strategy, ["hello"] * 40, quick(concurrency="auto"))
    assert "1,200 requests per minute (reported by the provider) was used up" in batch.stats.explain()
