"""Dialogues that a function of the user's continues."""

import pytest
from pydantic import BaseModel

from batch_llm import End, ToolError, llm, process_prompts

from ..served import answer, serve
from .common import add, called, results, said


@pytest.fixture
def server():
    with serve() as served:
        yield served


def ask(server, reply, *prompts, **options):
    server.reply = lambda body, _: reply(body)
    return server.ask(server.strategy("chat", **options), *(prompts or ("go",)))


def test_a_dialogue_goes_on_until_the_function_ends_it(server):
    def turn(conversation, reply):
        conversation.state["seen"] = [*conversation.state.get("seen", ()), reply.output]
        assert conversation.messages[-1]["content"] == reply.output
        assert reply.token_usage["input_tokens"] == 10
        return None if conversation.rounds == 3 else f"again, {conversation.rounds}"

    (result,) = ask(server, lambda body: said(f"answer {len(body['messages'])}"), turn=turn)
    assert (result.output, result.rounds) == ("answer 5", 3)
    assert [message["content"] for message in result.messages] == [
        "go", "answer 1", "again, 1", "answer 3", "again, 2", "answer 5",
    ]  # fmt: skip
    assert result.token_usage["total_tokens"] == 45


def test_an_async_function_may_return_messages_or_another_output(server):
    async def turn(conversation, reply):
        if conversation.rounds == 2:
            return End({"first": conversation.messages[1]["content"], "second": reply.output})
        return [{"role": "user", "content": "Criticize this."}, {"role": "user", "content": "Be brief."}]

    (result,) = ask(server, lambda body: said(f"answer {len(body['messages'])}"), turn=turn)
    assert result.output == {"first": "answer 1", "second": "answer 4"}


def test_after_the_last_round_the_last_answer_counts(server):
    (result,) = ask(server, lambda body: said(f"answer {len(body['messages'])}"), turn=lambda *_: "more", rounds=2)
    assert (result.success, result.output, result.rounds) == (True, "answer 3", 2)
    (result,) = ask(server, lambda body: said("x"), turn=lambda *_: "more")
    assert result.rounds == 8


def test_tools_come_before_the_function(server):
    turns = []

    def reply(body):
        return said("sum") if len(results(body)) % 2 else called(("a", "add", {"x": 1, "y": 1}))

    def turn(conversation, reply):
        turns.append(conversation.rounds)
        return

    (result,) = ask(server, reply, tools=[add], turn=turn, rounds=5)
    assert (result.output, result.rounds, turns) == ("sum", 2, [2])


def test_typed_answers_reach_the_function_as_objects(server):
    class Draft(BaseModel):
        text: str
        good: bool

    def turn(conversation, reply):
        return None if reply.output.good else "Improve it."

    def reply(body):
        return said(
            f'{{"text": "t{len(body["messages"])}", "good": {"true" if len(body["messages"]) > 2 else "false"}}}'
        )

    (result,) = ask(server, reply, turn=turn, response_model=Draft)
    assert result.output == Draft(text="t3", good=True)
    assert result.messages[1]["content"] == '{"text": "t1", "good": false}'


@pytest.mark.parametrize("returned", [7, [], {"text": "x"}, [{"role": "wizard", "content": "x"}]])
def test_what_the_function_must_not_return_ends_the_item(server, returned):
    (result,) = ask(server, lambda body: said("x"), turn=lambda *_: returned)
    assert not result.success
    assert result.error_category == "tool_error"
    assert (result.rounds, len(server.bodies)) == (1, 1)


def test_a_function_that_fails_ends_its_item_alone(server):
    def turn(conversation, reply):
        if conversation.item_id == "item_1":
            raise KeyError("score")
        return

    first, second = ask(server, lambda body: said("x"), "a", "b", turn=turn)
    assert first.success
    assert second.error_category == "tool_error"
    assert isinstance(second.exception, ToolError)
    assert "the turn function failed: KeyError" in second.error


def opaque(dialect):
    """A first reply without calls, with what its provider wants back in later turns; and how that is found."""
    if dialect == "chat":
        message = {"role": "assistant", "content": "hm", "reasoning_content": "deep thought"}
        return {"choices": [{"message": message, "finish_reason": "stop"}]}, '"reasoning_content":"deep thought"'
    if dialect == "responses":
        items = [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hm"}]},
        ]
        return {"status": "completed", "output": items}, '"encrypted_content":"gAAAA"'
    if dialect == "anthropic":
        blocks = [{"type": "thinking", "thinking": "t", "signature": "c2ln"}, {"type": "text", "text": "hm"}]
        return {"type": "message", "content": blocks, "stop_reason": "end_turn"}, '"signature":"c2ln"'
    parts = [{"text": "hm", "thoughtSignature": "c2ln"}]
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}, "c2ln"


@pytest.mark.parametrize("dialect", ["chat", "responses", "anthropic", "gemini"])
def test_what_a_provider_wants_back_goes_back_without_calls_too(server, dialect):
    import json

    first, wanted = opaque(dialect)
    server.bodies.clear()
    server.reply = lambda body, number: first if number == 0 else answer(dialect, "done")
    strategy = server.strategy(dialect, turn=lambda c, _: "go on" if c.rounds == 1 else None)
    (result,) = server.ask(strategy, "go")
    assert result.output == "done"
    assert wanted in json.dumps(server.bodies[1], separators=(",", ":"))
    # One request per item costs nothing of this.
    plain = server.ask(server.strategy(dialect), "go")[0]
    assert "state" not in plain.metadata


async def test_user_simulators_run_side_by_side(server):
    async def turn(conversation, reply):
        return None if conversation.rounds == 4 else f"question {conversation.rounds} of {conversation.context}"

    server.reply = lambda body, _: said(body["messages"][-1]["content"].upper())
    strategy = server.strategy("chat", turn=turn)
    prompts = [{"prompt": "hello", "context": number} for number in range(20)]
    batch = await process_prompts(strategy, prompts, preserve_order=True)
    assert [result.output for result in batch.results] == [f"QUESTION 3 OF {number}" for number in range(20)]


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="turn"):
        llm("openai:m", api_key="k", turns=print)
