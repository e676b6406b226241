"""Failures: what is tried again, how often, and what a failed result says."""

from __future__ import annotations

import asyncio
import time
import traceback

import pydantic
import pytest

from batch_llm import (
    BaseMiddleware,
    BaseObserver,
    ErrorInfo,
    FrameworkTimeoutError,
    LLMCallStrategy,
    ProcessorConfig,
    RetryConfig,
)

from ..helpers import USAGE, Deaf, Echo, Scripted, quick, run


def always(error):
    return Scripted(lambda prompt, attempt: error)


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_an_unknown_error_uses_up_the_attempts(attempts):
    strategy = always(Exception("boom"))
    batch, _ = await run(strategy, config=quick(retry=RetryConfig(max_attempts=attempts, initial_wait=0.001)))
    (result,) = batch.results
    assert [attempt for _, attempt in strategy.calls] == list(range(1, attempts + 1))
    assert strategy.errors == [("Exception", attempt) for attempt in range(1, attempts + 1)]
    assert (result.success, result.error, result.attempts) == (False, "Exception: boom", attempts)
    assert result.exception is not None
    assert strategy.cleanups == 1


async def test_a_logic_error_is_final():
    strategy = always(ValueError("wrong " + "x" * 1000))
    batch, _ = await run(strategy)
    assert len(strategy.calls) == 1
    assert batch.results[0].error.startswith("ValueError: wrong xxx")
    assert batch.results[0].token_usage == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


async def test_success_on_the_last_attempt_counts_the_tokens_of_all():
    class Costly(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            if attempt < 3:
                error = RuntimeError("again")
                error.__dict__["_failed_token_usage"] = {**USAGE, "cached_input_tokens": 2}
                raise error
            return prompt, dict(USAGE)

    batch, processor = await run(Costly())
    (result,) = batch.results
    assert result.success
    assert result.attempts == 3
    assert result.token_usage == {
        "input_tokens": 30,
        "output_tokens": 15,
        "total_tokens": 45,
        "cached_input_tokens": 4,
    }
    assert (await processor.get_stats())["cached_input_tokens"] == 4


async def test_one_exception_object_for_many_items_counts_once_each():
    error = RuntimeError("shared")
    error.usage = {"input_tokens": 3, "output_tokens": 3, "total_tokens": 6}
    batch, _ = await run(always(error), ["a", "b", "c"], quick(retry=RetryConfig(max_attempts=1)))
    assert [result.token_usage["total_tokens"] for result in batch.results] == [6, 6, 6]


async def test_unreadable_token_counts_leave_a_debug_record(caplog):
    class Odd(RuntimeError):
        @property
        def usage(self):
            raise KeyError("no usage today")

    with caplog.at_level("DEBUG"):
        batch, _ = await run(always(Odd("x")), config=quick(retry=RetryConfig(max_attempts=1)))
    assert batch.failed == 1
    assert any("no token counts" in record.message for record in caplog.records)


async def test_state_is_one_per_item_and_the_same_everywhere():
    seen = {}

    class Notes(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            seen.setdefault(prompt, set()).add(id(state))
            state.set("tries", state.get("tries", 0) + 1)
            self.keep = [*getattr(self, "keep", []), state]
            if attempt < 3:
                raise RuntimeError("again")
            return str(state.get("tries")) + str(timeout), {}

        async def on_error(self, exception, attempt, state=None):
            seen[next(p for p, ids in seen.items() if id(state) in ids)].add(id(state))

    batch, _ = await run(Notes(), "abcde", quick(timeout_per_item=9.0))
    assert [result.output for result in batch.results] == ["39.0"] * 5
    assert all(len(ids) == 1 for ids in seen.values())
    assert len({next(iter(ids)) for ids in seen.values()}) == 5


async def test_validation_errors_are_asked_again_at_once():
    class Model(pydantic.BaseModel):
        number: int

    def script(prompt, attempt):
        if attempt == 1:
            try:
                Model.model_validate({"number": "429 quota connection"})
            except pydantic.ValidationError as error:
                return error
        return prompt

    # With a wait the next attempt would come later than any test may take.
    batch, processor = await run(Scripted(script), config=quick(retry=RetryConfig(initial_wait=5000, max_wait=6000)))
    assert batch.succeeded == 1
    # What the answer quotes is no rate limit.
    assert (await processor.get_stats())["rate_limit_count"] == 0


async def test_the_wait_before_the_second_attempt():
    times = []

    def script(prompt, attempt):
        times.append(time.monotonic())
        return RuntimeError("again") if attempt == 1 else prompt

    await run(Scripted(script), config=quick(retry=RetryConfig(initial_wait=0.1)))
    assert times[1] - times[0] >= 0.05


async def test_a_timeout_of_ours_says_so_and_carries_its_facts():
    cancelled = []

    class Slow(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.append(attempt)
                raise

    batch, _ = await run(Slow(), config=quick(timeout_per_item=0.03, retry=RetryConfig(2, 0.01)))
    (result,) = batch.results
    assert cancelled == [1, 2]
    assert result.error == "FrameworkTimeoutError: Framework timeout after 0.0s (limit: 0.03s)"
    error = result.exception
    assert isinstance(error, FrameworkTimeoutError)
    assert (error.item_id, error.timeout_limit) == ("item-0", 0.03)
    assert error.elapsed >= 0.03
    assert error.__cause__ is not None


async def test_a_timeout_of_the_strategys_own_is_left_alone():
    for error in (TimeoutError("socket timed out"), asyncio.TimeoutError("mine")):
        batch, _ = await run(always(error), config=quick(retry=RetryConfig(max_attempts=1)))
        assert batch.results[0].error == f"TimeoutError: {error}"


async def test_a_strategy_that_swallows_its_cancellation_once_keeps_its_result():
    class Stubborn(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
            return "made it", {}

    batch, _ = await run(Stubborn(), config=quick(timeout_per_item=0.02))
    assert batch.results[0].output == "made it"


async def test_a_strategy_that_never_reacts_does_not_hold_up_the_run(monkeypatch):
    monkeypatch.setattr("batch_llm.base.WORKER_CANCELLATION_TIMEOUT", 0.05)
    strategy = Deaf()
    monkeypatch.setattr("batch_llm._run.settings.RunSettings.abandon_after", 0.05)
    config = quick(timeout_per_item=0.02, max_workers=1, retry=RetryConfig(max_attempts=1))
    batch, _ = await run(strategy, ["a", "b"], config)
    strategy.released.set()  # first of all: what waits for it would hold up the loop's end
    await asyncio.sleep(0.01)
    assert [result.error.split(":")[0] for result in batch.results] == ["FrameworkTimeoutError"] * 2
    assert batch.total_items == 2


class Custom(BaseException):
    """Neither an error nor a cancellation."""


async def test_a_cancellation_from_inside_the_strategy_is_a_failed_item():
    batch, _ = await run(always(asyncio.CancelledError("inner task")), ["a", "b"])
    assert [result.error for result in batch.results] == ["CancelledError: inner task"] * 2


async def test_an_odd_base_exception_ends_the_run():
    with pytest.raises(Custom, match="odd") as caught:
        await run(Scripted(lambda p, a: Custom("odd") if p == "b" else p), ["a", "b"], quick(max_workers=1))
    assert [str(result.error) for result in caught.value.partial_result.results] == ["None", "Custom: odd"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "None"),
        ("just text", "just text"),
        (("a", {}, {}, "b"), "a tuple of 4"),
        (("a", {}, "b"), "metadata as a dict"),
        (("a", 5), "int"),
        (("a", [("input_tokens", 1)]), "list"),
    ],
)
async def test_a_wrong_answer_is_named(answer, says):
    class Wrong(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return answer

    batch, _ = await run(Wrong(), config=quick())
    assert batch.results[0].error.startswith("TypeError: Wrong.execute() must return")
    assert says in batch.results[0].error


async def test_an_execute_that_is_not_async_is_named():
    class Sync(LLMCallStrategy[str]):
        def execute(self, prompt, attempt, timeout, state=None):
            return prompt, {}

    batch, _ = await run(Sync(), ["a", "b"])
    assert all(r.error.startswith("TypeError: Sync.execute() must be async") for r in batch.results)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None, "output_tokens": "many", "total_tokens": 1.5}])
async def test_odd_usage_is_no_failure(usage):
    class Odd(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return prompt, usage

    batch, processor = await run(Odd())
    assert batch.succeeded == 1
    assert (await processor.get_stats())["total_input_tokens"] == 0


async def test_any_object_with_classify_will_do_and_may_fail():
    class Stubborn:
        def classify(self, exception):
            return ErrorInfo(False, False, False, "mine")

    strategy = always(RuntimeError("x"))
    batch, _ = await run(strategy, error_classifier=Stubborn())
    assert len(strategy.calls) == 1

    class Broken:
        def classify(self, exception):
            raise LookupError("classifier bug")

    strategy = always(RuntimeError("x"))
    batch, _ = await run(strategy, ["a", "b"], error_classifier=Broken())
    assert [result.error for result in batch.results] == ["LookupError: classifier bug"] * 2


async def test_errors_that_cannot_be_shown_are_survived():
    class Unprintable(RuntimeError):
        def __str__(self):
            raise ValueError("no text")

    batch, _ = await run(always(Unprintable()), config=quick(retry=RetryConfig(max_attempts=1)))
    assert batch.results[0].error.startswith(("Unprintable:", "ValueError:"))


async def test_a_strategy_without_the_methods_fails_its_item_only():
    from batch_llm import LLMWorkItem, ParallelBatchProcessor

    processor = ParallelBatchProcessor(config=quick())
    await processor.add_work(LLMWorkItem("bad", object(), "x"))  # type: ignore[arg-type]
    await processor.add_work(LLMWorkItem("good", Echo(), "x"))
    batch = await processor.process_all()
    by_id = {result.item_id: result for result in batch.results}
    assert by_id["bad"].error.startswith("AttributeError:")
    assert by_id["good"].success


async def test_on_error_of_the_strategy_may_fail():
    class Clumsy(Scripted):
        async def on_error(self, exception):  # the wrong signature
            raise AssertionError

    strategy = Clumsy(lambda p, a: RuntimeError("x") if a == 1 else p)
    batch, _ = await run(strategy)
    assert batch.succeeded == 1


def test_default_config_is_what_the_documentation_says():
    assert ProcessorConfig() == ProcessorConfig(5, 120.0, RetryConfig(3, 1.0, 60.0, 2.0, True))


async def test_a_busy_loop_does_not_eat_the_time_of_attempts_that_begin_late():
    class Busy(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            time.sleep(0.02)  # blocks the loop: the fiftieth begins a second after the engine started it
            await asyncio.sleep(0.05)
            return prompt, {}

    limit = 0.5
    config = quick(max_workers=50, timeout_per_item=limit, retry=RetryConfig(max_attempts=1))
    batch, _ = await run(Busy(), ["x"] * 50, config)
    # Before Python 3.12 the first ones wait for all the others to begin: their own time is over.
    for result in batch.results:
        if not result.success:
            assert "Framework timeout" in str(result.error)
            assert result.timing.attempts[0].execution_seconds >= limit


@pytest.mark.parametrize("around", ["nothing", "an observer", "a middleware"])
async def test_a_traceback_in_a_result_begins_with_the_users_code(around):
    """Frames of a run would keep all of it alive for as long as the result."""
    hooks = {"an observer": {"observers": [BaseObserver()]}, "a middleware": {"middlewares": [BaseMiddleware()]}}
    batch, _ = await run(always(ValueError("wrong")), **hooks.get(around, {}))
    frames = traceback.extract_tb(batch.results[0].exception.__traceback__)
    assert [frame.name for frame in frames] == ["execute"]
