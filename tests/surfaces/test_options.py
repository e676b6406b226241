"""Names of models and their options, as people write them; errors that end where the user's own code does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import traceback

import pandas
import pytest

from batch_llm import (
    OpenAIStrategy,
    call,
    call_result,
    llm,
    process_frame,
    process_prompts,
    process_stream,
    run,
    run_frame,
    stream,
)

from ..helpers import Echo
from ..served import answer, serve

SURFACES = ("run", "process_prompts", "stream", "process_stream", "call", "call_result", "run_frame", "process_frame")


async def ask(surface, strategy, **options):
    """The output of one prompt, on any surface."""
    if surface == "run":
        return run(strategy, ["x"], **options).results[0].output
    if surface == "process_prompts":
        return (await process_prompts(strategy, ["x"], **options)).results[0].output
    if surface == "stream":
        return next(stream(strategy, ["x"], **options)).output
    if surface == "process_stream":
        return (await anext(process_stream(strategy, ["x"], **options))).output
    if surface == "call":
        return await call(strategy, "x", **options)
    if surface == "call_result":
        return (await call_result(strategy, "x", **options)).output
    frame = pandas.DataFrame({"text": ["x"]})
    if surface == "run_frame":
        return run_frame(frame, "{text}", strategy, **options).output[0]
    return (await process_frame(frame, "{text}", strategy, **options)).output[0]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with serve(lambda body, number: answer("chat")) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.root + "/v1")
        yield served


@pytest.mark.parametrize("surface", SURFACES)
async def test_options_of_the_model_reach_it(server, surface):
    output = await ask(surface, "openai:m", temperature=0, max_tokens=7, system_prompt="Be brief.", api_key="own")
    assert output == "hello"
    (body,) = server.bodies
    assert body["temperature"] == 0
    assert 7 in body.values()
    assert body["messages"][0]["content"] == "Be brief."
    assert server.headers[0]["authorization"] == "Bearer own"


async def test_a_parser_and_a_model_make_the_output(server):
    assert await ask("run", "openai:m", response_parser=len) == 5
    server.reply = lambda body, number: answer("chat", '{"value": 3}')
    batch = run("openai:m", ["x"], response_model=int)
    assert batch.outputs() == [3]


async def test_options_mix_with_those_of_the_processor(server, tmp_path):
    seen = []
    batch = run(
        "openai:m", ["x"], temperature=0.5, post_processor=seen.append, store=tmp_path / "run.db", concurrency=2
    )
    assert batch.succeeded == len(seen) == 1


@pytest.mark.parametrize("surface", SURFACES)
async def test_with_a_strategy_that_is_made_already_they_belong_there(surface):
    strategy = OpenAIStrategy("m", "key", "http://127.0.0.1:9")
    with pytest.raises(TypeError, match=r"temperature is an option of the model: .* OpenAIStrategy\(..., temperature="):
        await ask(surface, strategy, temperature=0)
    with pytest.raises(TypeError, match="a function takes no options"):
        await ask(surface, lambda prompt: prompt, max_tokens=5)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("wrong", "meant"), [("temprature", "temperature"), ("max_token", "max_tokens")])
async def test_a_slip_is_recognised(surface, wrong, meant):
    with pytest.raises(TypeError, match=f"unknown option {wrong!r}; did you mean {meant!r}"):
        await ask(surface, "openai:m", **{wrong: 1})


@pytest.mark.parametrize(("wrong", "hint"), [("post_procesor", "post_processor"), ("max_workers", "use concurrency"),
    ("retry", r"config=ProcessorConfig\(retry="), ("provider", "first part of the model's name")])  # fmt: skip
def test_so_are_those_of_the_processor(wrong, hint):
    with pytest.raises(TypeError, match=hint):
        run("openai:m", ["x"], **{wrong: 1})


NAMES = {
    "gpt-5-mini": "openai:gpt-5-mini",
    "o3": "openai:o3",
    "o4-mini": "openai:o4-mini",
    "chatgpt-4o-latest": "openai:chatgpt-4o-latest",
    "claude-haiku-4-5": "anthropic:claude-haiku-4-5",
    "Claude-Sonnet-4-5": "anthropic:Claude-Sonnet-4-5",
    "gemini-2.5-flash": "gemini:gemini-2.5-flash",
    "deepseek-chat": "deepseek:deepseek-chat",
    "mistral-large-latest": "mistral:mistral-large-latest",
    "grok-4": "xai:grok-4",
    "meta-llama/llama-3.3-70b-instruct": "openrouter:meta-llama/llama-3.3-70b-instruct",
    "llama3.2": "ollama:llama3.2",
    "llama3.2:3b": "ollama:llama3.2:3b",
    "openai": "openai:MODEL",
    "something": "openai:something",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_without_its_provider(name):
    with pytest.raises(ValueError, match=f"write '{NAMES[name]}'") as caught:
        run(name, ["x"])
    assert name in str(caught.value)
    with pytest.raises(ValueError, match=f"write '{NAMES[name]}'"):
        llm(name)


def test_a_slip_in_the_provider_is_still_one():
    with pytest.raises(ValueError, match="unknown provider 'opnai'; did you mean 'openai'"):
        run("opnai:gpt-5-mini", ["x"])


def own_frames(error):
    """The frames of this package in a traceback, by the names of functions."""
    return [f.name for f in traceback.extract_tb(error.__traceback__) if "/batch_llm/" in f.filename]


WRONG = {
    "an unknown option": {"temprature": 1},
    "a model without provider": {"strategy": "gpt-5-mini"},
    "no list": {"prompts": "x"},
    "no configuration": {"config": 3},
    "an entry": {"prompts": ["x", 3]},
    "a number": {"concurrency": 0},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_tracebacks_end_at_the_users_line(wrong):
    arguments = {"strategy": Echo(), "prompts": ["x"], **WRONG[wrong]}
    if wrong == "an unknown option":
        arguments["strategy"] = "openai:m"
    with pytest.raises((TypeError, ValueError)) as caught:
        run(**arguments)
    assert own_frames(caught.value) == []
    with pytest.raises((TypeError, ValueError)) as caught:
        await process_prompts(**arguments)
    assert own_frames(caught.value) == []


def test_in_ipython_they_end_in_the_cell(tmp_path):
    pytest.importorskip("IPython")
    code = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_line_magic("colors", "NoColor")
        shell.run_cell("from batch_llm import run, process_prompts")
        shell.run_cell("run('gpt-5-mini', ['x'])")
        shell.run_cell("await process_prompts('gpt-5-mini', ['x'])")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
        timeout=120,
    )
    assert done.stdout.count("ValueError: a model's name has the form") == 2, done.stderr
    assert done.stdout.count("Cell In") == 2
    assert "batch_llm/" not in done.stdout


def test_what_the_users_own_code_raises_keeps_its_traceback():
    def prompts():
        yield "x"
        try:
            raise KeyError("before")
        except KeyError:
            raise ValueError("mine")  # noqa: B904 - its context is what matters here

    with pytest.raises(ValueError, match="mine") as caught:
        run(Echo(), prompts())
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "prompts"
    assert caught.value.partial_result.succeeded == 1
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__
