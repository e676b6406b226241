"""Results, batches, items and errors in pickles and deep copies: within a process and across processes."""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import json
import multiprocessing
import pickle
import sys
import threading
import types
import warnings

import pytest

import batch_llm
from batch_llm import (
    Audio,
    BatchResult,
    BatchTermination,
    CallOutcome,
    File,
    FrameworkTimeoutError,
    GuardrailConfig,
    Image,
    LLMCallError,
    LLMWorkItem,
    Price,
    ProcessorConfig,
    ProviderError,
    Quota,
    RetryConfig,
    ToolCall,
    WorkItemResult,
    errors,
    llm,
    run,
)
from batch_llm.testing import SimulatedProvider

ONCE = ProcessorConfig(retry=RetryConfig(max_attempts=1))


def through_a_pickle(value):
    return pickle.loads(pickle.dumps(value))


both_ways = pytest.mark.parametrize("carried", [through_a_pickle, copy.deepcopy], ids=["pickle", "deepcopy"])


async def echo(prompt):
    return prompt, {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}


class SdkError(Exception):
    """As SDKs make them: they take other arguments than the text, and hold what cannot be pickled."""

    def __init__(self, message, *, response, code):
        super().__init__(message)
        self.response, self.code = response, code


class NeedsMore(Exception):
    """Is pickled without complaint, and cannot be made again."""

    def __init__(self, message, more):
        super().__init__(message)
        self.more = more


@both_ways
def test_a_batch_is_the_same(carried):
    batch = run(echo, [("a", "x", {"row": 1}), ("b", "y")])
    other = carried(batch)
    assert other == batch
    assert other.results[0].timing == batch.results[0].timing
    assert other.stats == batch.stats
    assert other.termination == batch.termination
    assert (other.total_items, other.succeeded, other.total_input_tokens) == (2, 2, 6)
    assert other.summary() == batch.summary()


@both_ways
def test_prices_of_any_mapping_go_along(carried):
    batch = BatchResult([], prices=types.MappingProxyType({"m": Price(1, 2)}))
    assert carried(batch).prices == {"m": Price(1, 2)}


@both_ways
@pytest.mark.parametrize(
    "error",
    [
        SdkError("no room", response=threading.Lock(), code="slow"),
        NeedsMore("no", threading.Lock()),
        NeedsMore("no", 3),
        ValueError("plain", threading.Lock()),
        ProviderError("gone", status_code=503, code="x", retry_after=2.0, token_usage={"input_tokens": 1}),
        LLMCallError("boom", WorkItemResult("a", False, error="boom")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_is_carried_with_its_class_and_text(carried, error):
    async def fail(prompt):
        raise error

    batch = run(fail, ["x"], config=ONCE)
    other = carried(batch).results[0]
    assert other == batch.results[0]
    assert (other.error, other.error_category) == (batch.results[0].error, batch.results[0].error_category)
    assert type(other.exception) is type(error)
    assert str(other.exception).split("<")[0] == str(error).split("<")[0]
    for name in ("code", "status_code", "retry_after", "usage", "result"):
        assert getattr(other.exception, name, None) == getattr(error, name, None)


def test_an_error_of_a_class_that_nobody_finds_is_one_of_a_class_that_all_know():
    class Local(KeyError):
        pass

    async def fail(prompt):
        raise Local("here")

    other = through_a_pickle(run(fail, ["x"], config=ONCE)).results[0]
    assert type(other.exception) is KeyError
    assert other.exception.args == ("here",)
    assert other.error == "Local: 'here'"


class Odd(ValueError):
    """Says what it cannot take along."""

    def __init__(self, code):
        self.code, self.lock = code, threading.Lock()

    def __str__(self):
        return f"code {self.code}, {self.lock.locked()}"


class OddKey(KeyError):
    def __reduce__(self):
        raise TypeError("never")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (Odd(5), ValueError, "code 5, False"),
        (OddKey("k"), OddKey, "'k'"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), UnicodeDecodeError, None),
        (OSError(2, "gone", "file"), FileNotFoundError, "[Errno 2] gone: 'file'"),
        (json.JSONDecodeError("no", "doc", 1), json.JSONDecodeError, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_stays_whatever_becomes_of_the_error(error, kind, text):
    async def fail(prompt):
        raise error

    other = through_a_pickle(run(fail, ["x"], config=ONCE)).results[0].exception
    assert (type(other), str(other)) == (kind, str(error) if text is None else text)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups of exceptions")
def test_groups_of_errors_keep_their_parts():
    async def fail(prompt):
        raise ExceptionGroup("both", [Odd(1), SdkError("no", response=threading.Lock(), code="c")])  # noqa: F821

    other = through_a_pickle(run(fail, ["x"], config=ONCE)).results[0].exception
    assert [(type(one), str(one)) for one in other.exceptions] == [(ValueError, "code 1, False"), (SdkError, "no")]


@both_ways
@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_of_ours_goes_with_its_attributes(carried, name):
    kind = getattr(errors, name)
    more = [WorkItemResult("a", False, error="no")] if kind is LLMCallError else []
    more = ["what to do"] if kind is errors.ControlError else more
    error = kind("what happened", *more)
    named = [one.name for one in inspect.signature(kind.__init__).parameters.values() if one.kind is one.KEYWORD_ONLY]
    for told in (*named, *(errors.ErrorDetails.__annotations__ if isinstance(error, ProviderError) else ())):
        setattr(error, told, f"its {told}")
    error.partial_result = run(echo, ["x"])
    error.__cause__ = OSError(2, "gone")
    other = carried(error)
    assert type(other) is kind
    assert (str(other), other.args) == (str(error), error.args)
    assert vars(other) == vars(error)
    assert str(other.__cause__) == "[Errno 2] gone"


@both_ways
def test_a_time_out_goes_with_its_attributes(carried):
    other = carried(FrameworkTimeoutError("late", item_id="a", elapsed=2.0, timeout_limit=1.0))
    assert (str(other), other.item_id, other.elapsed, other.timeout_limit) == ("late", "a", 2.0, 1.0)


def test_an_error_goes_without_what_cannot_be_pickled():
    error = ProviderError("no", code="c")
    error.lock = threading.Lock()
    error.__cause__ = SdkError("inner", response=threading.Lock(), code="i")
    other = through_a_pickle(error)
    assert (other.code, hasattr(other, "lock")) == ("c", False)
    assert (type(other.__cause__), str(other.__cause__), other.__cause__.code) == (SdkError, "inner", "i")


def test_causes_that_go_in_a_circle_are_left_out():
    first, second = ProviderError("one"), ProviderError("two")
    first.__cause__, second.__cause__ = second, first
    assert str(through_a_pickle(first)) == "one"
    first.__cause__ = first
    assert str(through_a_pickle(first)) == "one"


def test_a_context_that_cannot_be_pickled_is_none_with_one_warning():
    batch = run(echo, [("a", "x", threading.Lock()), ("b", "y", threading.Lock()), ("c", "z", {"row": 3})])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        other = through_a_pickle(batch)
    assert [result.context for result in other.in_input_order()] == [None, None, {"row": 3}]
    assert [result.output for result in other.in_input_order()] == ["x", "y", "z"]
    assert [str(one.message)[:42] for one in said] == ["the context of an item cannot be pickled ("]


def test_metadata_go_without_what_cannot_be_pickled():
    async def ask(prompt):
        return CallOutcome(prompt, {}, {"model": "m", "client": threading.Lock()})

    with pytest.warns(UserWarning, match="the metadata of a result cannot be pickled"):
        other = through_a_pickle(run(ask, ["x"]))
    assert other.results[0].metadata == {"model": "m", "client": None}


def test_errors_of_sdks_are_carried():
    openai, httpx = pytest.importorskip("openai"), pytest.importorskip("httpx")
    reply = httpx.Response(400, request=httpx.Request("POST", "https://example.com"))

    async def fail(prompt):
        raise openai.BadRequestError("too long", response=reply, body={"code": "context_length"})

    other = through_a_pickle(run(fail, ["x"], config=ONCE)).results[0].exception
    assert type(other) is openai.BadRequestError
    assert (str(other), other.status_code, other.body) == ("too long", 400, {"code": "context_length"})


def test_a_deep_copy_shares_what_cannot_be_copied():
    lock, rows = threading.Lock(), [1]
    batch = run(echo, [("a", "x", {"lock": lock}), ("b", "y", rows)])
    other = copy.deepcopy(batch).by_id()
    assert other["a"].context["lock"] is lock
    assert other["b"].context == rows
    assert other["b"].context is not rows


def test_a_shallow_copy_shares_everything():
    result = run(echo, [("a", "x", [1])]).results[0]
    other = copy.copy(result)
    assert other == result
    assert other.context is result.context
    assert other.timing == result.timing


def test_an_item_goes_without_a_strategy_that_holds_a_client():
    with SimulatedProvider() as provider:
        item = LLMWorkItem("a", llm("openai:m", base_url=provider.base_url, api_key="sk-planted"), "x", [1], 2)
        assert copy.deepcopy(item).strategy is copy.copy(item).strategy is item.strategy
        with pytest.warns(UserWarning, match="the strategy of an item cannot be pickled"):
            data = pickle.dumps(item)
        assert b"sk-planted" not in data
        other = pickle.loads(data)
        assert other.strategy is None
        assert (other.item_id, other.prompt, other.context, other.priority) == ("a", "x", [1], 2)
        assert run(echo, [other]).results[0].output == "x"


@both_ways
@pytest.mark.parametrize(
    "value",
    [
        BatchTermination("fail_fast", "no", "client_error", "a"),
        ToolCall("1", "look", "{}", {"x": 1}, "state"),
        ProcessorConfig(quotas=(Quota(requests=3),), guardrails=GuardrailConfig(prices={"m": Price(1, 2)})),
        WorkItemResult("a", True, {"x": 1}, token_usage={"input_tokens": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_the_same(carried, value):
    assert carried(value) == value


def test_answers_of_a_native_strategy_go_along():
    with SimulatedProvider() as provider:
        batch = run(llm("openai:m", base_url=provider.base_url, api_key="any"), ["x", "y"])
    assert through_a_pickle(batch) == batch
    assert through_a_pickle(batch).results[0].metadata == batch.results[0].metadata


@both_ways
@pytest.mark.parametrize(
    "medium",
    [
        Image(b"\x89PNG\r\n\x1a\n", detail="low"),
        Image("https://example.com/a"),
        Audio(b"RIFF....WAVEfmt ", media_type="audio/wav"),
        File(b"%PDF-1.4", name="a.pdf"),
    ],
    ids=repr,
)
def test_media_go_along(carried, medium):
    other = carried(medium)
    assert type(other) is type(medium)
    assert repr(other) == repr(medium)
    assert other._media.__getnewargs_ex__() == medium._media.__getnewargs_ex__()
    item = carried(LLMWorkItem("a", echo, ["What is it?", medium]))
    assert repr(item.prompt) == repr(["What is it?", medium])


def answer_elsewhere(prompts):
    async def ask(prompt):
        if prompt == "bad":
            raise SdkError("no", response=threading.Lock(), code="c")
        return prompt.upper()

    return batch_llm.run(ask, prompts, config=ONCE)


def raise_elsewhere():
    raise LLMCallError("boom", WorkItemResult("a", False, error="boom"))


def test_they_go_from_one_process_to_another():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        batch = pool.submit(answer_elsewhere, [("a", "x", {"row": 1}), ("b", "bad")]).result(60)
        assert batch.by_id()["a"].output == "X"
        assert batch.by_id()["a"].context == {"row": 1}
        assert type(batch.by_id()["b"].exception) is SdkError
        with pytest.raises(LLMCallError, match="boom") as caught:
            pool.submit(raise_elsewhere).result(60)
        assert caught.value.result.error == "boom"
