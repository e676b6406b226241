"""Tools and turn functions of every shape, and what they may raise and return."""

import asyncio
import functools
import sys
import time
from typing import Annotated

import pytest
from pydantic import SecretStr

from batch_llm import Image, ProcessorConfig, Tool, ToolContext, llm, run

from ..served import serve
from .common import add, called, results, said

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


@pytest.fixture
def server():
    with serve() as served:
        yield served


def once(server, *calls, tools, prompts=("go",), **options):
    """Have these calls made, and answer with their results."""
    server.reply = lambda body, _: said(" | ".join(map(str, results(body)))) if results(body) else called(*calls)
    options.setdefault("rounds", 4)
    return server.ask(server.strategy("chat", tools=tools, **options), *prompts)


def test_arguments_of_every_kind(server):
    def mixed(x: int, /, y: int = 2, *, z: int = 3, about: ToolContext | None = None) -> str:
        return f"{x}{y}{z} {about.round}"

    def noted(x: int, about: Annotated[ToolContext, "not shown"]) -> str:
        return f"{x} {about.call_id}"

    tools = [mixed, noted]
    (result,) = once(server, ("a", "mixed", {"x": 1, "z": 9}), ("b", "noted", {"x": 7}), tools=tools)
    assert result.output == "129 1 | 7 b"
    assert "about" not in str(server.bodies[0]["tools"])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Tool.from_function(functools.partial(add, 1)), "has no name that a model could call"),
        (lambda: Tool.from_function(lambda: 1), "has no name that a model could call"),
        (lambda: Tool.from_function(named("_x")), "cannot be called '_x'"),
        (lambda: Tool.from_function(named("model_config")), "cannot be called 'model_config'"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(make, problem):
    with pytest.raises(TypeError, match=problem):
        make()


def named(argument):
    space = {}
    exec(f"def f({argument}: int): ...", space)
    return space["f"]


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two tools have the name 'add'"):
        llm("openai:m", api_key="k", tools=[add, add], rounds=3)


def test_methods_and_callable_objects_run(server):
    class Shop:
        def __init__(self, name):
            self.name = name

        def status(self) -> str:
            return self.name

        async def __call__(self, x: int) -> int:
            return x + 1

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tools = [Shop("one").status, Tool("plus", "d", schema, function=Shop("two"))]
    (result,) = once(server, ("a", "status", {}), ("b", "plus", {"x": 4}), tools=tools)
    assert result.output == "one | 5"


def test_odd_results_are_sent_as_text(server):
    async def inner():
        return "inner"

    async def outer():
        return inner()

    def halved() -> str:
        return "a\udc80b"

    tools = [outer, halved, Tool("nothing", function=lambda: None), Tool("number", function=lambda: float("nan"))]
    (result,) = once(server, *((name, name, {}) for name in ("outer", "halved", "nothing", "number")), tools=tools)
    assert result.output == "inner | a\\udc80b | null | null"


def test_an_image_is_a_result_that_is_stored_and_sent_again(server, tmp_path):
    made = []

    def draw() -> Image:
        made.append(1)
        return Image(PNG + bytes([len(made)]), media_type="image/png")

    def reply(body, _):
        drawn = [message for message in body["messages"] if message["role"] == "tool"]
        return said("done") if len(drawn) == 2 else called(("a", "draw", {}))

    server.reply = reply
    first = run(server.strategy("chat", tools=[draw], rounds=1), ["go"], store=tmp_path / "run.db")
    assert first.results[0].error_category == "rounds_exhausted"
    second = run(server.strategy("chat", tools=[draw], rounds=2), ["go"], store=tmp_path / "run.db")
    assert second.results[0].error_category == "rounds_exhausted"
    third = run(server.strategy("chat", tools=[draw], rounds=9), ["go"], store=tmp_path / "run.db")
    assert (third.succeeded, len(made), len(server.bodies)) == (1, 2, 3)
    url = third.results[0].messages[2]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    assert url in str(server.bodies[-1])


def test_secrets_tell_equal_calls_apart(server):
    seen = []

    async def login(password: SecretStr) -> str:
        seen.append(password.get_secret_value())
        return "in as " + password.get_secret_value()

    def reply(body, _):
        who = body["messages"][0]["content"]
        return said(results(body)[0]) if results(body) else called(("a", "login", {"password": who}))

    server.reply = reply
    strategy = server.strategy("chat", tools=[Tool.from_function(login, shared=True)], rounds=3)
    outputs = [result.output for result in server.ask(strategy, "alice", "bob", "alice")]
    assert outputs == ["in as alice", "in as bob", "in as alice"]
    assert sorted(seen) == ["alice", "bob"]


def test_equal_conversations_of_different_items_have_keys_of_their_own(server, tmp_path):
    keys = {}

    def refund(about: ToolContext) -> str:
        keys.setdefault(about.idempotency_key, []).append(about.item_id)
        return "ok"

    server.reply = lambda body, _: said("done") if results(body) else called(("a", "refund", {}))
    run(server.strategy("chat", tools=[refund], rounds=3), ["Refund 5 cents"] * 3, store=tmp_path / "run.db")
    assert sorted(keys.values()) == [["item_0"], ["item_1"], ["item_2"]]


def test_the_wait_for_a_thread_is_not_time_of_the_tool(server):
    running, most = [], []

    def slow() -> str:
        running.append(1)
        most.append(len(running))
        time.sleep(0.2)
        running.pop()
        return "ok"

    strategy = server.strategy("chat", tools=[slow], rounds=3, tool_timeout=5.0)
    strategy._toolbox._places = type(strategy._toolbox._places)(4)
    calls = [(str(number), "slow", {}) for number in range(40)]
    server.reply = lambda body, _: said("".join(results(body))) if results(body) else called(*calls)
    (result,) = server.ask(strategy, "go")
    assert result.output == "ok" * 40
    assert max(most) <= 4


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks do not know whether they were cancelled")
@pytest.mark.parametrize("shared", [True, False])
def test_a_cancellation_of_the_tools_own_is_an_error_of_the_tool(server, shared):
    tries = []

    async def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise asyncio.CancelledError("of a library")
        return "fine"

    server.reply = lambda body, _: said(results(body)[-1]) if "fine" in results(body) else called(("a", "flaky", {}))
    strategy = server.strategy("chat", tools=[Tool.from_function(flaky, shared=shared)], rounds=4)
    (result,) = server.ask(strategy, "go")
    assert (result.output, len(tries)) == ("fine", 2)
    assert "CancelledError" in results({"messages": result.messages})[0]


async def test_a_cancelled_run_counts_what_its_conversations_have_paid(server):
    from batch_llm import ParallelBatchProcessor
    from batch_llm.base import LLMWorkItem

    began = asyncio.Event()

    async def slow() -> str:
        began.set()
        await asyncio.sleep(60)
        return "never"

    server.reply = lambda body, _: called(("a", "slow", {}))
    processor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=2))
    await processor.add_work(LLMWorkItem("x", server.strategy("chat", tools=[slow], rounds=3), "go"))
    partial = []

    async def process():
        try:
            await processor.process_all()
        except asyncio.CancelledError as error:
            partial.extend(error.partial_result.results)
            raise

    task = asyncio.ensure_future(process())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (result,) = partial
    assert (result.rounds, result.token_usage["input_tokens"]) == (1, 10)
    assert result.messages[-1]["tool_calls"][0]["name"] == "slow"
