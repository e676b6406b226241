"""Wrong arguments: each is refused in the user's terms, with its name, its value and what it must be."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import time
import traceback
from pathlib import Path

import pytest

from batch_llm import (
    EmbeddingStrategy,
    LLMCallPool,
    OpenAIStrategy,
    ParallelBatchProcessor,
    call,
    llm,
    process_prompts,
    run,
    stream,
)

from ..helpers import until
from ..served import answer, serve

KINDS = [
    ({"temperature": "hot"}, "temperature must be a number, not 'hot' (str)"),
    ({"temperature": True}, "temperature must be a number, not True (bool)"),
    ({"temperature": float("nan")}, "temperature must be a number, not NaN"),
    ({"top_p": "a"}, "top_p must be a number, not 'a' (str)"),
    ({"max_tokens": "7"}, "max_tokens must be an integer, not '7' (str)"),
    ({"max_tokens": -1}, "max_tokens must be >= 1 (got -1)"),
    ({"seed": 1.5}, "seed must be an integer, not 1.5 (float)"),
    ({"n": True}, "n must be an integer, not True (bool)"),
    ({"logprobs": "a"}, "logprobs must be True, False or an integer (the number of alternatives), not 'a' (str)"),
    ({"stop": 5}, "stop must be a string or a list of strings, not 5 (int)"),
    ({"stop": ["a", 5]}, "stop must be a string or a list of strings, not a list with 5 (int)"),
    ({"system_prompt": 5}, "system_prompt must be a string, not 5 (int)"),
    ({"reasoning_effort": 5}, "reasoning_effort must be a string, not 5 (int)"),
    ({"tool_choice": 5}, "tool_choice must be a string, not 5 (int)"),
    ({"tools": 5}, "tools must be a list, not 5 (int)"),
    ({"extra_body": 5}, "extra_body must be a mapping, not 5 (int)"),
    ({"extra_headers": ["a"]}, "extra_headers must be a mapping, not ['a'] (list)"),
    ({"transport": 5}, "transport must be a Transport, not int"),
]


@pytest.mark.parametrize(("options", "says"), KINDS)
def test_options_of_the_model_must_be_of_their_kind(options, says):
    with pytest.raises((TypeError, ValueError)) as caught:
        llm("openai:m", api_key="any", **options)
    assert str(caught.value) == says


def test_what_is_right_is_taken():
    assert llm("openai:m", api_key="any", temperature=0, max_tokens=5, stop=("a", "b"), logprobs=True, seed=0, n=2)
    assert llm("openai:m", api_key="any", temperature=0.5, stop="a", logprobs=3, tools=(), extra_body={}, top_p=None)


def test_options_of_embeddings():
    with pytest.raises(TypeError, match="dimensions must be an integer, not 'a'"):
        EmbeddingStrategy("openai:m", api_key="any", dimensions="a")
    with pytest.raises(ValueError, match="names no provider: write 'openai:text-embedding-3-small'"):
        EmbeddingStrategy("text-embedding-3-small")


@pytest.mark.parametrize("name", ["anthropic.claude-3", "us.anthropic.claude-3-haiku-20240307-v1:0", "amazon.nova-pro"])
def test_names_of_bedrock(name):
    with pytest.raises(ValueError, match=f"is an Amazon Bedrock model, .*: write 'bedrock:{name}'"):
        llm(name)


def frames(error):
    """The file and line of each frame of a traceback."""
    return [(Path(f.filename).name, f.line) for f in traceback.extract_tb(error.__traceback__)]


WRONG = {
    "llm": lambda: llm("gpt-5-mini"),
    "a strategy": lambda: OpenAIStrategy("m", "any", temprature=0),
    "a strategy for embeddings": lambda: EmbeddingStrategy("text-embedding-3-small"),
    "a pool": lambda: LLMCallPool("gpt-5-mini"),
    "a processor": lambda: ParallelBatchProcessor(max_workers=0),
    "a value": lambda: llm("openai:m", api_key="any", temperature="hot"),
    "run": lambda: run("gpt-5-mini", ["x"]),
    "stream": lambda: stream("gpt-5-mini", ["x"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_tracebacks_end_at_the_users_line(wrong):
    with pytest.raises((TypeError, ValueError)) as caught:
        WRONG[wrong]()
    assert {name for name, _ in frames(caught.value)} == {Path(__file__).name}


WRONG_ASYNC = {
    "process_prompts": lambda: process_prompts("gpt-5-mini", ["x"]),
    "call": lambda: call("gpt-5-mini", "x"),
}


@pytest.mark.parametrize("wrong", WRONG_ASYNC)
async def test_tracebacks_of_coroutines_do_too(wrong):
    with pytest.raises((TypeError, ValueError)) as caught:
        await WRONG_ASYNC[wrong]()
    assert {name for name, _ in frames(caught.value)} == {Path(__file__).name}
    task = asyncio.create_task(WRONG_ASYNC[wrong]())
    assert asyncio.iscoroutine(task.get_coro())
    with pytest.raises((TypeError, ValueError)):
        await task


async def test_a_call_that_is_cancelled_ends():
    asked = []

    def ask(prompt):
        asked.append(prompt)
        time.sleep(0.01)

    task = asyncio.create_task(process_prompts(ask, ["x"] * 1000, concurrency=1))
    await until(lambda: asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    # A task of Python 3.10 raises another one, whose context ours is.
    error = caught.value if hasattr(caught.value, "partial_result") else caught.value.__context__
    assert error.partial_result.total_items >= 1


def test_public_functions_look_like_functions():
    for function, is_async in ((run, False), (stream, False), (llm, False), (process_prompts, True)):
        assert inspect.iscoroutinefunction(function) == asyncio.iscoroutinefunction(function) == is_async
        assert pickle.loads(pickle.dumps(function)) is function
        assert next(iter(inspect.signature(function).parameters)) in ("strategy", "name")
        assert inspect.isroutine(function)
        assert repr(function).startswith(f"<function {function.__name__}")


def test_errors_of_the_users_own_keep_their_frames():
    class Own(OpenAIStrategy):
        def __init__(self):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        Own()
    assert frames(caught.value)[-1] == (Path(__file__).name, 'raise ValueError("mine")')


async def test_a_pool_takes_options_of_the_model():
    with serve(lambda body, number: answer("chat", "3")) as served:
        where = {"base_url": served.root + "/v1", "api_key": "any"}
        async with LLMCallPool("openai-compatible:m", temperature=0, response_parser=int, **where) as pool:
            assert await pool.submit("x") == 3
    assert served.bodies[0]["temperature"] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temprature": 0}, "unknown option 'temprature'; did you mean 'temperature'"),
        ({"max_pendin": 0}, "did you mean 'max_pending'"),
        ({"concurrency": 3}, r"it is a field of the configuration: config=ProcessorConfig\(concurrency=...\)"),
        ({"max_workers": 3}, r"config=ProcessorConfig\(max_workers=...\)"),
    ],
)
def test_a_pool_knows_its_options(options, says):
    with pytest.raises(TypeError, match=says):
        LLMCallPool("openai-compatible:m", base_url="http://127.0.0.1:9", **options)
    with pytest.raises(TypeError, match="temperature is an option for models given by name"):
        LLMCallPool(lambda prompt: prompt, temperature=0)


def test_a_store_makes_its_folder_but_not_those_above(tmp_path):
    assert run(str.upper, ["x"], store=tmp_path / "new" / "run.db", cache=tmp_path / "other" / "cache.db").succeeded
    for where in ({"store": tmp_path / "slip" / "deep" / "run.db"}, {"cache": tmp_path / "slip" / "deep" / "c.db"}):
        with pytest.raises(ValueError, match="there is no folder .*slip'; check the path, or create it with") as caught:
            run(str.upper, ["x"], **where)
        assert "deep" in str(caught.value)
    assert not (tmp_path / "slip").exists()
