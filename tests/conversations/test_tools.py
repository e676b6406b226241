"""Tools that run: what goes back to the model, and what becomes of an item whose tool fails."""

import asyncio
import pickle
import threading

import pytest
from pydantic import BaseModel

from batch_llm import (
    ProcessorConfig,
    RoundsExhaustedError,
    Tool,
    ToolContext,
    ToolError,
    call,
    llm,
    process_prompts,
)
from batch_llm.testing import SimulatedProvider

from ..served import DIALECTS, answer, serve
from .common import Steps, add, called, multiply, results, said


@pytest.fixture
def server():
    with serve() as served:
        yield served


def ask(server, reply, *prompts, **options):
    server.reply = lambda body, _: reply(body)
    options.setdefault("rounds", 8)
    return server.ask(server.strategy("chat", **options), *(prompts or ("go",)))


def test_tools_run_until_there_is_an_answer(server):
    def reply(body):
        done = results(body)
        if not done:
            return called(("a", "add", {"x": 2, "y": 3}), ("b", "multiply", {"x": 4, "y": 5}), text="Let me see.")
        return called(("c", "add", {"x": 5, "y": 20})) if len(done) == 2 else said(f"It is {done[-1]}.")

    (result,) = ask(server, reply, tools=[add, multiply])
    assert (result.output, result.rounds, result.attempts) == ("It is 25.", 3, 3)
    assert result.token_usage["input_tokens"] == 30
    assert [message["role"] for message in result.messages] == [
        "user", "assistant", "tool", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert results({"messages": result.messages}) == ["5", "20", "25"]
    assert [len(body["messages"]) for body in server.bodies] == [1, 4, 6]
    assert server.bodies[1]["messages"][1]["content"] == "Let me see."
    assert [attempt.success for attempt in result.timing.attempts] == [True, True, True]


def test_a_conversation_can_be_sent_again(server):
    (first,) = ask(
        server, lambda body: said("5") if results(body) else called(("a", "add", {"x": 2, "y": 3})), tools=[add]
    )
    (second,) = ask(
        server, lambda body: said(str(len(body["messages"]))), [*first.messages, {"role": "user", "content": "?"}]
    )
    assert second.output == "5"


def test_arguments_have_the_types_of_the_function(server):
    class Place(BaseModel):
        city: str

    seen = []

    def look_up(place: Place, days: int = 3) -> dict[str, object]:
        seen.append((place, days, threading.current_thread() is threading.main_thread()))
        return {"sunny": True, "days": days}

    (result,) = ask(
        server,
        lambda body: said(results(body)[0]) if results(body) else called(("a", "look_up", {"place": {"city": "Rome"}})),
        tools=[look_up],
    )
    assert seen == [(Place(city="Rome"), 3, False)]
    assert result.output == '{"sunny": true, "days": 3}'


def test_a_tool_with_a_schema_gets_its_arguments_by_name_and_one_with_a_model_an_object(server):
    class Sum(BaseModel):
        x: int
        y: int

    schema = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}
    tools = [
        Tool("plain", "d", schema, function=lambda x, y: x + y),
        Tool("typed", "d", Sum, function=lambda numbers: numbers.x - numbers.y),
    ]
    calls = [(name, name, {"x": 5, "y": 2}) for name in ("plain", "typed")]
    (result,) = ask(
        server, lambda body: said(" ".join(results(body))) if results(body) else called(*calls), tools=tools
    )
    assert result.output == "7 3"


def test_mistakes_of_the_model_are_shown_to_it(server):
    def reply(body):
        if results(body):
            return said(" | ".join(results(body)))
        return called(("a", "ad", {}), ("b", "add", {"x": "many", "y": 1}), ("c", "add", {"x": 1, "y": 1}))

    (result,) = ask(server, reply, tools=[add])
    unknown, invalid, fine = result.output.split(" | ")
    assert unknown == "Error: there is no tool 'ad'; the tools are add"
    assert invalid.startswith("Error: the arguments of the call of add do not match its schema")
    assert fine == "2"


def test_errors_of_tools_are_shown_to_the_model_or_end_the_item(server):
    def fail(x: int) -> int:
        raise LookupError(f"no row {x}")

    reply = lambda body: said(results(body)[0]) if results(body) else called(("a", "fail", {"x": 7}))  # noqa: E731
    (result,) = ask(server, reply, tools=[fail])
    assert result.output == "Error: LookupError: no row 7"
    (result,) = ask(server, reply, tools=[fail], tool_errors="raise")
    assert (result.error_category, result.rounds) == ("tool_error", 1)
    assert isinstance(result.exception, ToolError)
    assert isinstance(result.exception.__cause__, LookupError)
    assert result.token_usage["input_tokens"] == 10


def test_a_tool_has_so_much_time(server):
    async def sleep() -> None:
        await asyncio.sleep(60)

    def own() -> None:
        raise TimeoutError("of its own")

    def reply(body):
        return said(" | ".join(results(body))) if results(body) else called(("a", "sleep", {}), ("b", "own", {}))

    tools = [Tool.from_function(sleep, timeout=0.05), own]
    (result,) = ask(server, reply, tools=tools)
    assert (
        result.output
        == "Error: TimeoutError: it did not finish within 0.05 s (tool_timeout) | Error: TimeoutError: of its own"
    )


def test_without_an_answer_after_the_last_round_the_item_fails(server):
    (result,) = ask(server, lambda body: called(("a", "add", {"x": 1, "y": 1})), tools=[add], rounds=3)
    assert (result.error_category, result.rounds, len(server.bodies)) == ("rounds_exhausted", 3, 3)
    assert isinstance(result.exception, RoundsExhaustedError)
    assert "after 3 rounds: the model still calls add" in result.error
    assert result.token_usage["total_tokens"] == 45
    assert result.messages[-1]["tool_calls"][0]["name"] == "add"


def test_each_round_has_its_own_retries(server):
    failures = iter(range(100))

    def reply(body):
        if next(failures) % 3 < 2:
            return 500, {"error": {"message": "try again"}}, {}
        return said("done") if len(results(body)) == 2 else called(("a", "add", {"x": 1, "y": 1}))

    (result,) = ask(server, reply, tools=[add])
    assert (result.output, result.rounds, result.attempts) == ("done", 3, 9)


def test_the_answer_after_tools_has_its_type(server):
    class Total(BaseModel):
        total: int

    def reply(body):
        if not results(body):
            return called(("a", "add", {"x": 1, "y": 1}), text="Thinking, not JSON.")
        corrected = any("not valid" in str(message["content"]) for message in body["messages"])
        return said('{"total": 2}' if corrected else '{"total": "two"}')

    (result,) = ask(server, reply, tools=[add], response_model=Total)
    assert (result.output, result.rounds, result.attempts) == (Total(total=2), 2, 3)


def test_equal_calls_share_one_execution_if_that_is_wanted(server):
    ran = []

    async def look_up(city: str) -> str:
        ran.append(city)
        await asyncio.sleep(0.01)
        return city.upper()

    def reply(body):
        city = body["messages"][0]["content"]
        return said(results(body)[0]) if results(body) else called(("a", "look_up", {"city": city}))

    prompts = ["rome", "oslo", "rome", "rome"]
    tools = [Tool.from_function(look_up, shared=True)]
    assert [result.output for result in ask(server, reply, *prompts, tools=tools)] == ["ROME", "OSLO", "ROME", "ROME"]
    assert sorted(ran) == ["oslo", "rome"]
    ran.clear()
    ask(server, reply, *prompts, tools=[look_up])
    assert len(ran) == 4


async def test_no_tool_outlives_its_run(server):
    began, ended = asyncio.Event(), []

    async def slow() -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(1)
        return "never"

    server.reply = lambda body, _: said("x") if results(body) else called(("a", "slow", {}))
    tools = [Tool.from_function(slow, shared=True)]
    task = asyncio.ensure_future(process_prompts(server.strategy("chat", tools=tools, rounds=3), ["go"]))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ended == [1]


def test_so_many_calls_of_one_reply_run_and_no_more(server):
    calls = [(str(number), "add", {"x": number, "y": 0}) for number in range(200)]
    (result,) = ask(server, lambda body: said("ok") if results(body) else called(*calls), tools=[add])
    contents = results({"messages": result.messages})
    assert contents[:128] == [str(number) for number in range(128)]
    assert set(contents[128:]) == {"Error: more than 128 calls in one reply; this one was not run"}


def test_a_failed_shared_execution_is_tried_again_by_the_next(server):
    tries = []

    async def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not now")
        return "fine"

    def reply(body):
        return said(results(body)[-1]) if len(results(body)) == 2 else called(("a", "flaky", {}))

    (result,) = ask(server, reply, tools=[Tool.from_function(flaky, shared=True)])
    assert (result.output, len(tries)) == ("fine", 2)


def test_a_tool_learns_of_its_call(server):
    seen = []

    def note(text: str, about: ToolContext) -> str:
        seen.append(about)
        return text

    reply = lambda body: said("ok") if len(results(body)) == 2 else called(("a", "note", {"text": "x"}))  # noqa: E731
    server.reply = lambda body, _: reply(body)
    strategy = server.strategy("chat", tools=[note], rounds=5)
    (result,) = server.ask(strategy, {"id": "item 1", "prompt": "go", "context": {"row": 7}})
    assert result.success
    assert [(one.item_id, one.context, one.call_id, one.round) for one in seen] == [
        ("item 1", {"row": 7}, "a", 1), ("item 1", {"row": 7}, "a", 2),
    ]  # fmt: skip
    assert seen[0].idempotency_key != seen[1].idempotency_key
    assert "about" not in str(server.bodies[0]["tools"])


def test_annotations_may_be_texts():
    def unknown(x): ...
    def known(x, call): ...

    unknown.__annotations__ = {"x": "Nowhere", "return": "Nowhere"}
    known.__annotations__ = {"x": "int", "call": "batch_llm.ToolContext", "return": "Nowhere"}
    with pytest.raises(TypeError, match=r"tool 'unknown': the annotation 'Nowhere' of 'x' cannot be evaluated"):
        Tool.from_function(unknown)
    assert list(Tool.from_function(known).parameters.model_fields) == ["x"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_converses(server, dialect):
    server.reply = lambda body, number: (
        answer(dialect, "", [("c1", "add", {"x": 2, "y": 3})]) if number == 0 else answer(dialect, "five")
    )
    (result,) = server.ask(server.strategy(dialect, tools=[add], rounds=4), "go")
    assert (result.output, result.rounds) == ("five", 2)
    assert "5" in str(server.bodies[1])


def test_errors_are_marked_where_the_provider_takes_a_mark(server):
    def fail() -> None:
        raise ValueError("no")

    server.reply = lambda body, number: (
        answer("anthropic", "", [("c1", "fail", {})]) if number == 0 else answer("anthropic", "ok")
    )
    (result,) = server.ask(server.strategy("anthropic", tools=[fail], rounds=4), "go")
    assert result.success
    assert server.bodies[1]["messages"][-1]["content"][0]["is_error"] is True


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rounds": 0}, "rounds must be an integer >= 1"),
        ({"rounds": True}, "rounds must be an integer >= 1"),
        ({"rounds": 3, "n": 2}, "n cannot be combined with rounds"),
        ({"rounds": 3, "tools": [{"name": "f"}]}, "tool 'f' has no function"),
        ({"tool_errors": "raise"}, "tool_errors needs rounds="),
        ({"rounds": 2, "tool_errors": "maybe"}, "tool_errors must be"),
        ({"rounds": 2, "tool_timeout": 0}, "tool_timeout must be a positive"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(options, problem):
    with pytest.raises(ValueError, match=problem):
        llm("openai:m", api_key="k", **options)
    with pytest.raises(TypeError, match="turn must be a function"):
        llm("openai:m", api_key="k", turn="x")
    with pytest.raises(ValueError, match="timeout must be a positive"):
        Tool("f", function=add, timeout=-1)
    with pytest.raises(TypeError, match="function must be callable"):
        Tool("f", function="add")


def test_a_strategy_with_tools_can_be_pickled():
    strategy = llm("ollama:m", tools=[Tool.from_function(add, timeout=3, shared=True)], rounds=3)
    (tool,) = pickle.loads(pickle.dumps(strategy))._toolbox.tools
    assert (tool.function, tool.timeout, tool.shared) == (add, 3, True)


async def test_single_calls_converse_too(server):
    server.reply = lambda body, _: said(results(body)[0]) if results(body) else called(("a", "add", {"x": 1, "y": 2}))
    strategy = server.strategy("chat", tools=[add], rounds=3)
    assert await call(strategy, "go") == "3"
    output, usage, metadata = await strategy.execute("go", 1, 10.0)
    assert (output, usage["total_tokens"], metadata["rounds"]) == ("3", 30, 2)


async def test_items_do_not_wait_for_each_others_tools():
    """The last conversation ends although others are stuck in their tools: nothing waits for a whole round."""
    stuck = asyncio.Event()
    steps = Steps(3)

    async def advance(about: ToolContext) -> str:
        """Go one step further."""
        if about.item_id == "item_0":
            await stuck.wait()
        return await steps.advance(about)

    with SimulatedProvider() as provider:
        strategy = llm("openai:m", base_url=provider.base_url, tools=[advance], rounds=8)
        ended = []

        def done(result):
            ended.append(result.item_id)
            if len(ended) == 9:
                stuck.set()

        batch = await process_prompts(
            strategy, ["call advance"] * 10, config=ProcessorConfig(concurrency=1), post_processor=done
        )
    assert batch.succeeded == 10
    assert ended[-1] == "item_0"
    assert all(result.rounds == 4 for result in batch.results)
    assert provider.stats.requests == 40
    assert provider.stats.peak_concurrency == 1
