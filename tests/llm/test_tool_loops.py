"""Conversations with tools: what a provider wants back with its turns, and arguments that do not fit."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
from pydantic import BaseModel

from batch_llm import Tool, ToolCall, llm

from ..served import DIALECTS, answer, serve

TOOLS = [{"name": name, "description": "d", "parameters": {"type": "object", "properties": {}}} for name in ("f", "g")]
BIG = 98765432109876543210


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def go_on(result, answers=None, **more):
    """The conversation that the guide to providers shows."""
    answers = answers or {"f": "1", "g": "2"}
    said = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": result.tool_calls, **more}]
    said += [{"role": "tool", "tool_call_id": call.id, "content": answers[call.name]} for call in result.tool_calls]
    return said


def second_request(server, dialect, first, prompt=go_on, **options):
    """What is sent after a first reply that calls tools."""
    strategy = server.strategy(dialect, tools=TOOLS, **options)
    server.bodies.clear()
    server.reply = lambda body, number: first if number == 0 else answer(dialect)
    result = server.ask(strategy, "go")[0]
    assert server.ask(strategy, prompt(result))[0].output == "hello"
    return server.bodies[1]


def gemini(*parts):
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP"}]}


def test_geminis_signatures_go_back_in_their_parts(server):
    parts = [
        {"text": "hm", "thought": True},
        {"text": "Let me see."},
        {"functionCall": {"name": "f", "args": {"x": BIG}, "id": "a1"}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "g", "args": {"z": 1, "a": 2}, "id": "a2"}},
    ]
    contents = second_request(server, "gemini", gemini(*parts))["contents"]
    assert contents[1] == {"role": "model", "parts": parts}
    assert list(contents[1]["parts"][3]["functionCall"]["args"]) == ["z", "a"]
    answers = [part["functionResponse"] for part in contents[2]["parts"]]
    assert [(one["id"], one["name"]) for one in answers] == [("a1", "f"), ("a2", "g")]
    assert len(contents) == 3


def test_gemini_gets_no_ids_that_it_has_not_given(server):
    first = gemini(
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "g", "args": {}}},
    )
    contents = second_request(server, "gemini", first)["contents"]
    assert contents[1]["parts"][0]["thoughtSignature"] == "c2ln"
    assert all("id" not in part["functionResponse"] for part in contents[2]["parts"])


def test_repeated_ids_mean_the_newest_call(server):
    strategy = server.strategy("gemini", tools=TOOLS)
    rounds = [gemini({"functionCall": {"name": name, "args": {}}}) for name in ("f", "g")]
    server.bodies.clear()
    server.reply = lambda body, number: rounds[number] if number < 2 else answer("gemini")
    said = [{"role": "user", "content": "go"}]
    for _ in range(2):
        result = server.ask(strategy, said)[0]
        said = [*said, *go_on(result)[1:]]
    assert server.ask(strategy, said)[0].output == "hello"
    names = [
        part["functionResponse"]["name"]
        for content in server.bodies[2]["contents"]
        for part in content["parts"]
        if "functionResponse" in part
    ]
    assert names == ["f", "g"]


def test_a_call_by_hand_gets_a_signature_that_gemini_takes(server):
    said = [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "name": "f", "arguments": {}}, {"id": "d", "name": "g", "arguments": ""}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": "2"},
    ]
    server.one(answer("gemini"), "gemini", said)
    first, second = server.bodies[0]["contents"][1]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second
    assert second["functionCall"] == {"name": "g", "args": {}}


THINKING = [
    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "eA=="},
    {"type": "text", "text": "Let me see."},
    {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": BIG, "a": 1.0}},
    {"type": "thinking", "thinking": "and", "signature": "YW5k"},
    {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
]


def anthropic(blocks):
    return {"type": "message", "content": blocks, "stop_reason": "tool_use"}


def test_claudes_thinking_goes_back_in_its_place(server):
    messages = second_request(server, "anthropic", anthropic(THINKING))["messages"]
    assert messages[1] == {"role": "assistant", "content": THINKING}
    assert list(messages[1]["content"][3]["input"]) == ["z", "a"]
    assert [block["tool_use_id"] for block in messages[2]["content"]] == ["t1", "t2"]
    assert len(messages) == 3


def test_what_the_user_has_changed_is_changed(server):
    def edited(result):
        calls = [result.tool_calls[0], dataclasses.replace(result.tool_calls[1], arguments='{"new": 1}')]
        said = go_on(result, content="I look.")
        said[1]["tool_calls"] = calls
        return said

    blocks = second_request(server, "anthropic", anthropic(THINKING), edited)["messages"][1]["content"]
    # What was thought after the change is left out.
    expected = [*THINKING[:2], {"type": "text", "text": "I look."}, THINKING[3]]
    assert blocks == [*expected, {"type": "tool_use", "id": "t2", "name": "g", "input": {"new": 1}}]


def test_empty_texts_are_left_out_for_claude(server):
    for first in (
        anthropic([{"type": "text", "text": ""}, *THINKING[3:4]]),
        anthropic([{"type": "text", "text": ""}, *THINKING[:1], *THINKING[3:4]]),
    ):
        for content in ("", None, [], [{"type": "text", "text": " "}]):
            sent = second_request(server, "anthropic", first, lambda result, c=content: go_on(result, content=c))
            assert all(block.get("text") != "" for block in sent["messages"][1]["content"])
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}]
    server.one(answer("anthropic"), "anthropic", said)
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["user", "user"]


def test_reasoning_items_go_back_without_their_ids(server):
    output = [
        {"type": "reasoning", "id": "rs", "encrypted_content": "eA==", "summary": [], "status": None},
        {
            "type": "message",
            "id": "msg",
            "role": "assistant",
            "phase": "commentary",
            "status": "completed",
            "content": [{"type": "output_text", "text": "So.", "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc",
            "call_id": "c1",
            "name": "f",
            "arguments": '{"z": 1, "a": 2}',
            "status": "completed",
        },
        {"type": "function_call", "id": "fd", "call_id": "c2", "name": "g", "arguments": "{}", "status": "completed"},
    ]
    sent = second_request(server, "responses", {"status": "completed", "output": output}, reasoning_effort="low")
    kept = [{name: value for name, value in item.items() if name not in ("id", "status")} for item in output]
    assert sent["input"][1:5] == kept
    assert [item["call_id"] for item in sent["input"][5:]] == ["c1", "c2"]
    assert sent["include"] == ["reasoning.encrypted_content"]
    stored = second_request(server, "responses", {"status": "completed", "output": output}, extra_body={"store": True})
    assert stored["input"][1]["id"] == "rs"


@pytest.mark.parametrize(
    "thoughts",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.encrypted", "data": "eA==", "index": 0}]},
        {"reasoning": "hm"},
    ],
)
def test_thoughts_of_a_chat_go_back_in_the_servers_own_fields(server, thoughts):
    first = answer("chat", "", [("c1", "f", {})])
    first["choices"][0]["message"].update(thoughts)
    message = second_request(server, "chat", first)["messages"][1]
    assert {name: message[name] for name in thoughts} == thoughts
    by_hand = second_request(server, "chat", first, lambda result: go_on(result, reasoning_content="mine"))["messages"][
        1
    ]
    assert by_hand["reasoning_content"] == "mine"
    assert "reasoning_details" not in by_hand


def test_deepseek_gets_thoughts_with_each_turn(server):
    strategy = llm("deepseek:m", base_url=server.root + "/v1", api_key="k", tools=TOOLS)
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    server.reply = lambda body, number: answer("chat")
    server.ask(strategy, said)
    assert server.bodies[-1]["messages"][1]["reasoning_content"] == " "
    said[1]["reasoning_content"] = "hm"
    server.ask(strategy, said)
    assert server.bodies[-1]["messages"][1]["reasoning_content"] == "hm"
    server.ask(llm("deepseek:m", base_url=server.root + "/v1", api_key="k"), [*said[:1], said[0]])
    assert "reasoning_content" not in json.dumps(server.bodies[-1])


def test_signatures_in_a_chats_calls_and_thoughts_in_its_content_go_back(server):
    first = answer("chat", "", [("c1", "f", {}), ("c2", "g", {})])
    message = first["choices"][0]["message"]
    message["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "c2ln"}}
    message["content"] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "So."},
    ]
    sent = second_request(server, "chat", first)["messages"][1]
    assert sent["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert "extra_content" not in sent["tool_calls"][1]
    assert sent["content"] == message["content"]


def test_state_is_for_one_model_and_protocol_alone(server):
    server.bodies.clear()
    server.reply = lambda body, number: anthropic(THINKING) if number == 0 else answer("anthropic")
    result = server.ask(server.strategy("anthropic", tools=TOOLS), "go")[0]
    for dialect in ("chat", "responses", "gemini"):
        server.reply = lambda body, number, dialect=dialect: answer(dialect)
        assert server.ask(server.strategy(dialect, tools=TOOLS), go_on(result))[0].output == "hello"
        assert "c2ln" not in json.dumps(server.bodies[-1])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_state_survives_a_store(server, dialect, tmp_path):
    from batch_llm import run

    first = {
        "chat": answer("chat", "", [("c1", "f", {})]),
        "responses": {
            "status": "completed",
            "output": [
                {"type": "reasoning", "encrypted_content": "eA==", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            ],
        },
        "anthropic": anthropic(THINKING[:4]),
        "gemini": gemini({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}),
    }[dialect]
    if dialect == "chat":
        first["choices"][0]["message"]["reasoning_content"] = "hm"
    strategy = server.strategy(dialect, tools=TOOLS)
    server.bodies.clear()
    server.reply = lambda body, number: first
    for _ in range(2):
        result = run(strategy, ["go"], store=tmp_path / "run.db").results[0]
    assert len(server.bodies) == 1
    assert result.tool_calls[0].state is not None
    server.reply = lambda body, number: answer(dialect)
    assert server.ask(strategy, go_on(result))[0].output == "hello"
    word = {"chat": '"hm"', "responses": "eA==", "anthropic": "c2ln", "gemini": "c2ln"}[dialect]
    assert word in json.dumps(server.bodies[1])
    assert "state" not in repr(result.tool_calls)


class Arguments(BaseModel):
    x: int


@pytest.mark.parametrize(
    "parameters", [Arguments, {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_arguments_that_do_not_fit_are_requested_again(server, dialect, parameters):
    wrong = [{"x": "one"}, {}] + (['{"x": 1', "", "[1]"] if dialect in ("chat", "responses") else [])
    for arguments in wrong:
        good = answer(dialect, "", [("c", "f", {"x": 1})])
        bad = answer(dialect, "", [("c", "f", arguments)])
        result = server.one(
            lambda _, number, bad=bad, good=good: bad if number == 0 else good,
            dialect,
            tools=[Tool("f", "d", parameters)],
        )
        assert result.success, (arguments, result.error)
        assert result.tool_calls[0].value in ({"x": 1}, Arguments(x=1))
        again = json.dumps(server.bodies[1])
        assert "Your answer is not valid" in again
        assert "f(" in again
        failed = server.one(bad, dialect, tools=[Tool("f", "d", parameters)])
        assert (failed.error_category, len(server.bodies)) == ("structured_output_validation_error", 3)


def test_a_call_of_a_tool_that_is_not_there_is_requested_again(server):
    calls = [answer("chat", "", [("c", name, '{"x": 1}')]) for name in ("other", "f")]
    result = server.one(lambda body, number: calls[number], tools=TOOLS)
    assert [call.name for call in result.tool_calls] == ["f"]
    assert "there is no tool 'other'; the tools are f" in json.dumps(server.bodies[1])


NAMES = ["functions.f", "functions.f:0", "f:3", " f\n", "f<|channel|>commentary", "default_api.f", "default_api:f"]


@pytest.mark.parametrize("name", NAMES)
def test_names_as_models_write_them_are_known(server, name):
    result = server.one(answer("chat", "", [("c", name, '{"x": 1}')]), tools=TOOLS)
    assert (result.tool_calls[0].name, result.tool_calls[0].value, len(server.bodies)) == ("f", {"x": 1}, 1)


@pytest.mark.parametrize("name", ["default_api", "functions.", "<|channel|>f", "g.f"])
def test_other_names_are_not(server, name):
    result = server.one(answer("chat", "", [("c", name, '{"x": 1}')]), tools=TOOLS)
    assert result.error_category == "structured_output_validation_error"


@pytest.mark.parametrize("nothing", ["null", "[]", '""', " [] "])
def test_arguments_may_be_nothing(server, nothing):
    result = server.one(answer("chat", "", [("c", "f", nothing)]), tools=[Tool("f", "d")])
    assert (result.tool_calls[0].arguments, result.tool_calls[0].value, len(server.bodies)) == ("{}", {}, 1)


def test_arguments_may_be_json_in_a_string(server):
    result = server.one(answer("chat", "", [("c", "f", json.dumps('{"x": 1}'))]), tools=TOOLS)
    assert (result.tool_calls[0].arguments, result.tool_calls[0].value) == ('{"x": 1}', {"x": 1})
    assert len(server.bodies) == 1
    broken = server.one(answer("chat", "", [("c", "f", json.dumps('{"x": 1'))]), tools=[Tool("f", "d")])
    assert broken.error_category == "structured_output_validation_error"


def test_integers_and_the_order_of_arguments_are_kept(server):
    text = f'{{"z": {BIG}, "a": -{BIG}, "f": 0.1}}'
    for dialect in DIALECTS:
        if dialect in ("chat", "responses"):
            body = json.dumps(answer(dialect, "", [("c", "f", text)])).encode()
        else:
            body = json.dumps(answer(dialect, "", [("c", "f", "MARK")])).replace('"MARK"', text).encode()
        (call,) = server.one(body, dialect, tools=TOOLS).tool_calls
        assert call.arguments == text
        assert list(call.value.items()) == [("z", BIG), ("a", -BIG), ("f", 0.1)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_arguments_go_back_as_json(server, dialect):
    calls = [
        ToolCall("c1", "f", '{"x": 1}'),
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "c3", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
        {"id": "c4", "name": "f", "arguments": {"x": 1}},
    ]
    said = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": calls}]
    said += [{"role": "tool", "tool_call_id": f"c{number}", "content": {"y": [number]}} for number in range(1, 5)]
    assert server.one(answer(dialect), dialect, said).success
    sent = server.bodies[0]
    arguments = {
        "chat": lambda: [json.loads(call["function"]["arguments"]) for call in sent["messages"][1]["tool_calls"]],
        "responses": lambda: [
            json.loads(item["arguments"]) for item in sent["input"] if item.get("type") == "function_call"
        ],
        "anthropic": lambda: [block["input"] for block in sent["messages"][1]["content"]],
        "gemini": lambda: [part["functionCall"]["args"] for part in sent["contents"][1]["parts"]],
    }[dialect]()
    assert arguments == [{"x": 1}] * 4
    returned = '"response": {"y": [1]}' if dialect == "gemini" else '{\\"y\\":[1]}'
    assert returned in json.dumps(sent)


def test_what_was_said_beside_a_call_goes_back(server):
    first = answer("chat", "Let me see.", [("c1", "f", {})])
    assert second_request(server, "chat", first)["messages"][1]["content"] == "Let me see."
    other = second_request(server, "chat", first, lambda result: go_on(result, content="mine"))
    assert other["messages"][1]["content"] == "mine"


def test_both_halves_of_a_paused_turn_go_back(server):
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    halves = [
        [THINKING[0], search],
        [{"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, THINKING[3]],
    ]
    replies = [{"content": halves[0], "stop_reason": "pause_turn"}, anthropic(halves[1]), answer("anthropic")]
    server.bodies.clear()
    server.reply = lambda body, number: replies[number]
    strategy = server.strategy("anthropic", tools=TOOLS)
    result = server.ask(strategy, "go")[0]
    assert result.metadata["reasoning"] == "hm"
    assert server.ask(strategy, go_on(result))[0].output == "hello"
    assert server.bodies[2]["messages"][1]["content"] == halves[0] + halves[1]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_a_tool_returned_is_sent_as_it_is(server, dialect):
    for returned, text in [(None, "null"), ([], "[]"), ([{"a": 1}], '[{\\"a\\":1}]'), (5, "5"), (["a", "b"], None)]:
        said = [
            {"role": "user", "content": "go"},
            {"role": "assistant", "tool_calls": [ToolCall("c", "f", "{}")]},
            {"role": "tool", "tool_call_id": "c", "content": returned},
        ]
        assert server.one(answer(dialect), dialect, said).success
        assert text is None or text in json.dumps(server.bodies[0])


def test_results_for_gemini_are_in_the_order_of_the_calls(server):
    first = gemini(*({"functionCall": {"name": name, "args": {}}} for name in ("f", "g")))

    def reversed_results(result):
        said = go_on(result)
        return [*said[:2], *said[:1:-1]]

    contents = second_request(server, "gemini", first, reversed_results)["contents"]
    assert [part["functionResponse"]["name"] for part in contents[2]["parts"]] == ["f", "g"]


def test_a_call_that_is_truncated_is_none(server):
    for dialect in ("chat", "anthropic"):
        reply = answer(dialect, "", [("c", "f", {})])
        if dialect == "chat":
            reply["choices"][0]["finish_reason"] = "length"
        else:
            reply["stop_reason"] = "max_tokens"
        result = server.one(reply, dialect, tools=TOOLS)
        assert (result.error_category, len(server.bodies)) == ("truncated", 1)


def test_words_beside_a_call_need_not_fit(server):
    reply = answer("chat", "Let me look that up.", [("c", "f", {"x": 1})])
    for options in ({"response_model": Arguments}, {"response_parser": json.loads}):
        result = server.one(reply, tools=TOOLS, **options)
        assert (result.output, len(result.tool_calls)) == ("Let me look that up.", 1)
        assert len(server.bodies) == 1


def test_results_with_calls_can_be_copied(server):
    result = server.one(anthropic(THINKING), "anthropic", "go", tools=TOOLS)
    for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert copied.tool_calls == result.tool_calls
        assert copied.timing == result.timing
    calls = [dataclasses.asdict(call) for call in result.tool_calls]
    server.reply = lambda body, number: answer("anthropic")
    said = go_on(result)
    said[1]["tool_calls"] = json.loads(json.dumps(calls))
    assert server.ask(server.strategy("anthropic", tools=TOOLS), said)[0].success
    assert server.bodies[-1]["messages"][1]["content"] == THINKING
    assert dataclasses.asdict(result)["item_id"] == result.item_id
