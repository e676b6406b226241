"""Rate limits: one shared pause, nobody early, nothing lost to a 429."""

from __future__ import annotations

import asyncio
import time

import pytest

from batch_llm import (
    BaseObserver,
    ErrorInfo,
    ExponentialBackoffStrategy,
    FixedDelayStrategy,
    GeminiErrorClassifier,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    RateLimitConfig,
    RateLimitStrategy,
    RetryConfig,
)
from batch_llm.testing import MockAgent, mock_strategy

from ..helpers import Echo, Scripted, quick, run

LIMIT = RuntimeError("429 Too Many Requests")


class Recorder(RateLimitStrategy):
    """Pauses for a fixed time and notes what it is asked."""

    def __init__(self, pause=0.02, delays=()):
        self.pause, self.delays = pause, delays
        self.limits, self.starts = [], []

    async def on_rate_limit(self, worker_id, consecutive_limit_count):
        self.limits.append(consecutive_limit_count)
        return self.pause

    def should_apply_slow_start(self, items_since_resume):
        self.starts.append(items_since_resume)
        if items_since_resume < len(self.delays):
            return True, self.delays[items_since_resume]
        return False, 0.0


class Events(BaseObserver):
    def __init__(self):
        self.events = []

    async def on_event(self, event, data):
        self.events.append((event.name, data))

    def of(self, name):
        return [data for event, data in self.events if event == name]


@pytest.mark.parametrize("workers", [10, 100])
async def test_all_workers_at_the_same_instant_make_one_cooldown_and_nobody_is_early(workers):
    pause, start, again = 0.1, asyncio.Event(), []

    class Together(Scripted):
        async def execute(self, prompt, attempt, timeout, state=None):
            self.calls.append((prompt, attempt))
            if attempt == 1:
                if len(self.calls) == workers:
                    self.refused_at = time.monotonic()
                    start.set()
                await start.wait()
                raise LIMIT
            again.append(time.monotonic())
            return prompt, {}

    strategy, limits, events = Together(None), Recorder(pause), Events()
    batch, processor = await run(
        strategy, ["x"] * workers, quick(max_workers=workers), rate_limit_strategy=limits, observers=[events]
    )
    assert batch.succeeded == workers
    assert len(strategy.calls) == 2 * workers
    assert limits.limits == [1]
    assert min(again) - strategy.refused_at >= pause * 0.99
    assert len(events.of("COOLDOWN_STARTED")) == len(events.of("COOLDOWN_ENDED")) == 1
    assert len(events.of("RATE_LIMIT_HIT")) == workers
    assert (await processor.get_stats())["rate_limit_count"] == workers


async def test_rate_limits_do_not_use_up_attempts_but_their_numbers_grow():
    strategy = Scripted(lambda prompt, attempt: LIMIT if attempt <= 5 else prompt)
    batch, _ = await run(strategy, config=quick(retry=RetryConfig(max_attempts=1)))
    assert batch.succeeded == 1
    assert [attempt for _, attempt in strategy.calls] == [1, 2, 3, 4, 5, 6]


async def test_rate_limit_retries_have_a_bound_of_their_own():
    strategy = Scripted(lambda prompt, attempt: LIMIT)
    config = quick(
        retry=RetryConfig(max_rate_limit_retries=3),
        rate_limit=RateLimitConfig(cooldown_seconds=0.001, slow_start_items=0),
    )
    batch, _ = await run(strategy, config=config)
    assert len(strategy.calls) == 4
    assert batch.results[0].error == "RuntimeError: 429 Too Many Requests"


async def test_a_rate_limit_that_the_classifier_calls_final_is_repeated():
    strategy = Scripted(lambda prompt, attempt: RuntimeError("RESOURCE_EXHAUSTED") if attempt == 1 else prompt)
    batch, _ = await run(strategy, error_classifier=GeminiErrorClassifier())
    assert batch.succeeded == 1


async def test_consecutive_pauses_grow_and_a_success_resets_them():
    limits = Recorder(0.001)
    failing = {1, 2, 3, 5}
    strategy = Scripted(lambda prompt, attempt: LIMIT if attempt in failing and prompt == "a" else prompt)
    await run(strategy, ["a"], quick(max_workers=1), rate_limit_strategy=limits)
    await run(strategy, ["a", "b"], quick(max_workers=1), rate_limit_strategy=limits)
    assert limits.limits == [1, 2, 3, 1, 2, 3]


async def test_no_attempt_starts_during_a_pause_retries_included():
    starts, calls = [], []

    def script(prompt, attempt):
        starts.append(time.monotonic())
        calls.append((prompt, attempt))
        if prompt == "limited" and attempt == 1:
            return LIMIT
        return RuntimeError("again") if prompt == "retried" and attempt == 1 else prompt

    config = quick(max_workers=3, retry=RetryConfig(initial_wait=0.01))
    await run(
        Scripted(script),
        ["limited", "retried", *["x"] * 20],
        config,
        rate_limit_strategy=Recorder(0.5),
    )
    # What had started before the refusal may be seen a little later; then comes the pause, in one piece.
    first_after = next(place for place in range(1, len(starts)) if starts[place] - starts[place - 1] >= 0.4)
    assert {("limited", 2), ("retried", 2)} <= set(calls[first_after:])
    assert first_after <= 3


async def test_an_attempt_that_was_still_being_prepared_waits_too():
    sent, paused = [], asyncio.Event()

    class Told(Recorder):
        async def on_rate_limit(self, worker_id, consecutive_limit_count):
            paused.set()
            return self.pause

    class Prepared(Echo):
        async def prepare(self):
            await paused.wait()

        async def execute(self, prompt, attempt, timeout, state=None):
            sent.append(time.monotonic())
            return prompt, {}

    processor = ParallelBatchProcessor(config=quick(max_workers=2), rate_limit_strategy=Told(0.15))
    start = time.monotonic()
    await processor.add_work(LLMWorkItem("a", Scripted(lambda p, a: LIMIT if a == 1 else p), "x"))
    await processor.add_work(LLMWorkItem("b", Prepared(), "x"))
    batch = await processor.process_all()
    assert batch.succeeded == 2
    assert sent[0] - start >= 0.14


async def test_slow_start_spaces_fresh_items_and_asks_from_zero():
    limits = Recorder(0.01, delays=[0.03] * 5)
    starts = []

    def script(prompt, attempt):
        starts.append((prompt, time.monotonic()))
        return LIMIT if prompt == "first" and attempt == 1 else prompt

    config = quick(max_workers=1)
    await run(Scripted(script), ["first", *"abc"], config, rate_limit_strategy=limits)
    assert limits.starts[:2] == [0, 1]
    began = next(at for prompt, at in starts if prompt == "first")
    fresh = [at for prompt, at in starts if prompt in "abc"]
    # Each is delayed from the start of the one before; a loop that is late for one of them is so for all.
    assert all(at - began >= 0.01 + 0.029 * number for number, at in enumerate(fresh))


async def test_slow_start_is_not_asked_without_a_rate_limit():
    limits = Recorder()
    await run(Echo(), ["x"] * 20, rate_limit_strategy=limits)
    assert limits.starts == limits.limits == []


async def test_an_endless_slow_start_lets_the_run_end():
    limits = FixedDelayStrategy(cooldown=0.01, delay_between_requests=0.0001)
    strategy = Scripted(lambda prompt, attempt: LIMIT if prompt == "0" and attempt == 1 else prompt)
    batch, _ = await run(strategy, [str(n) for n in range(300)], rate_limit_strategy=limits)
    assert batch.succeeded == 300


@pytest.mark.parametrize("answer", [RuntimeError("strategy bug"), "soon", float("nan"), -1, None])
async def test_a_failing_strategy_never_blocks_the_batch(answer):
    class Broken(Recorder):
        async def on_rate_limit(self, worker_id, consecutive_limit_count):
            if isinstance(answer, Exception):
                raise answer
            return answer

        def should_apply_slow_start(self, items_since_resume):
            raise RuntimeError("slow start bug")

    events = Events()
    strategy = Scripted(lambda prompt, attempt: LIMIT if attempt == 1 else prompt)
    batch, _ = await run(strategy, ["x"] * 20, rate_limit_strategy=Broken(), observers=[events])
    assert batch.succeeded == 20
    assert events.of("COOLDOWN_STARTED")[0]["duration"] == 0.0
    assert "error" in events.of("COOLDOWN_ENDED")[0]


class ServerSays(Exception):
    def __init__(self, retry_after, status_code=429):
        super().__init__("refused")
        self.status_code = status_code
        self.retry_after = retry_after


async def test_the_server_decides_in_place_of_the_default_strategy():
    strategy = Scripted(lambda prompt, attempt: ServerSays(0.05) if attempt == 1 else prompt)
    start = time.monotonic()
    batch, _ = await run(strategy, ["x"] * 3, quick(rate_limit=RateLimitConfig(slow_start_items=0)))
    assert batch.succeeded == 3
    assert time.monotonic() - start >= 0.05  # with the default's five minutes, the test's own time would be over


async def test_the_servers_word_is_the_least_for_a_strategy_of_ones_own():
    strategy = Scripted(lambda prompt, attempt: ServerSays(0.1) if attempt == 1 else prompt)
    start = time.monotonic()
    await run(strategy, rate_limit_strategy=Recorder(0.001))
    assert time.monotonic() - start >= 0.1


async def test_a_classifiers_suggested_wait_is_honoured():
    class Patient:
        def classify(self, exception):
            return ErrorInfo(True, False, False, "busy", suggested_wait=0.1)

    strategy = Scripted(lambda prompt, attempt: RuntimeError("busy") if attempt == 1 else prompt)
    start = time.monotonic()
    await run(strategy, error_classifier=Patient())
    assert time.monotonic() - start >= 0.1


async def test_an_overloaded_server_is_waited_for_without_a_pause_for_all():
    strategy = Scripted(lambda prompt, attempt: ServerSays(0.05, 503) if attempt == 1 else prompt)
    batch, processor = await run(strategy, ["x"] * 3)
    assert batch.succeeded == 3
    assert (await processor.get_stats())["rate_limit_count"] == 0


async def test_a_mock_agents_rate_limit_is_over_after_a_short_cooldown():
    strategy = mock_strategy(MockAgent(latency=0.001, rate_limit_on_call=1))
    # The usual cooldown, or a slow start of what is tried again, would take longer than any test may.
    config = ProcessorConfig(rate_limit=RateLimitConfig(slow_start_initial_delay=1000.0))
    processor = ParallelBatchProcessor(max_workers=3, rate_limit_cooldown=0.01, config=config)
    for number in range(3):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    batch = await processor.process_all()
    assert batch.succeeded == 3


async def test_requests_per_minute_let_a_burst_through_and_then_the_rate():
    starts = []

    def script(prompt, attempt):
        starts.append(time.monotonic())
        return prompt

    # 1200 a minute: 200 at once, then one every 50 ms. (The first ones may be seen late, the last one never early.)
    began = time.monotonic()
    batch, _ = await run(Scripted(script), ["x"] * 206, quick(max_workers=206, max_requests_per_minute=1200))
    assert batch.succeeded == 206
    assert starts[-1] - began >= 5 * 0.05


async def test_a_fraction_of_a_request_per_minute_works():
    batch, _ = await run(Echo(), ["x"], quick(max_requests_per_minute=0.5))
    assert batch.succeeded == 1


async def test_exponential_backoff_numbers():
    strategy = ExponentialBackoffStrategy(initial_cooldown=2.0, backoff_multiplier=3.0)
    waits = [await strategy.on_rate_limit(worker_id=0, consecutive_count=count) for count in (1, 2, 3, 10, 10**9)]
    assert waits == [2.0, 6.0, 18.0, 600.0, 600.0]
    assert strategy.should_apply_slow_start(items_since_resume=0) == (True, 2.0)
    assert strategy.should_apply_slow_start(25) == (True, pytest.approx(1.05))
    assert strategy.should_apply_slow_start(50) == (False, 0.0)
    assert ExponentialBackoffStrategy(slow_start_items=0).should_apply_slow_start(0) == (False, 0.0)
    fixed = FixedDelayStrategy(cooldown=7.0, delay_between_requests=0.5)
    assert (await fixed.on_rate_limit(0, 5), fixed.delay) == (7.0, 0.5)
    assert fixed.should_apply_slow_start(10**6) == (True, 0.5)


def test_the_default_strategy_takes_the_configuration():
    config = RateLimitConfig(cooldown_seconds=900.0, backoff_multiplier=3.0, slow_start_items=7)
    strategy = ParallelBatchProcessor(config=quick(rate_limit=config)).rate_limit_strategy
    assert isinstance(strategy, ExponentialBackoffStrategy)
    assert (strategy.initial_cooldown, strategy.max_cooldown) == (900.0, 900.0)
    assert (strategy.backoff_multiplier, strategy.slow_start_items) == (3.0, 7)
