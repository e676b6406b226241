"""What a provider wants back with a turn goes back byte by byte, unless something before it was changed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from batch_llm import llm

from ..served import answer, serve

TOOLS = [{"name": name, "description": "d", "parameters": {"type": "object", "properties": {}}} for name in ("f", "g")]


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def go_on(calls, first="go", **more):
    said = [{"role": "user", "content": first}, {"role": "assistant", "tool_calls": calls, **more}]
    return [*said, *({"role": "tool", "tool_call_id": call.id, "content": "1"} for call in calls)]


ODD = (
    rb"""{"z": 1.0, "a" :1e2, "b":-0.0,"c": 12345678901234567890.10, "t": "\u00e9\/\u0041 \ud83d\ude00","""
    rb"""  "k": {"y":[ ],"x":{ }}}"""
)
"""A value that no two libraries write in the same way: numbers, escapes, spaces and the order of keys."""
CALL = (
    rb"""{"type": "function", "id": "c1", "extra_content": {"google":%s}, "function": {"name":"f","arguments":"{}"}}"""
)
MESSAGE = rb"""{"role":"assistant","content":null,"reasoning_details":[%s, {"type" : "encrypted"}],"tool_calls":[%s]}"""
REPLIES = {
    "chat": (
        rb"""{"choices":[{"index":0,"finish_reason":"tool_calls","message":%s}]}""" % (MESSAGE % (ODD, CALL % ODD)),
        [rb'"reasoning_details":[%s, {"type" : "encrypted"}]' % ODD, rb'"extra_content":{"google":%s}' % ODD],
    ),
    "responses": (
        rb"""{"status":"completed","output":[{"type":"reasoning","id":"rs","encrypted_content":"\u0065A==","summary":[%s]},
        {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"z\": 1.0, \"a\":1e2}","more":%s}]}"""
        % (ODD, ODD),
        [
            rb'{"type":"reasoning","encrypted_content":"\u0065A==","summary":[%s]}' % ODD,
            rb'"arguments":"{\"z\": 1.0, \"a\":1e2}","more":%s}' % ODD,
        ],
    ),
    "anthropic": (
        rb"""{"type":"message","stop_reason":"tool_use","content":[
        {"type": "thinking", "signature":"\u0063","thinking": "\u00e9"},
        {"type":"tool_use","id":"t1","name":"f" ,"input":%s}]}"""
        % ODD,
        [
            rb'{"type": "thinking", "signature":"\u0063","thinking": "\u00e9"}',
            rb'{"type":"tool_use","id":"t1","name":"f" ,"input":%s}' % ODD,
        ],
    ),
    "gemini": (
        rb"""{"candidates":[{"finishReason":"STOP","content":{"role":"model","parts":[{"text":"\u00e9","thought" :true},
        {"functionCall":{"name":"f", "args": %s},"thoughtSignature":"\u0063\u0032"}]}}]}"""
        % ODD,
        [
            rb'{"text":"\u00e9","thought" :true}',
            rb'{"functionCall":{"name":"f", "args": %s},"thoughtSignature":"\u0063\u0032"}' % ODD,
        ],
    ),
}


@pytest.mark.parametrize("travels", ["at once", "as JSON"])
@pytest.mark.parametrize("dialect", REPLIES)
def test_state_goes_back_byte_by_byte(server, dialect, travels):
    reply, wanted = REPLIES[dialect]
    json.loads(reply)
    strategy = server.strategy(dialect, tools=TOOLS)
    server.sent.clear()
    server.bodies.clear()
    server.reply = lambda body, number: reply if number == 0 else answer(dialect)
    calls = server.ask(strategy, "go")[0].tool_calls
    if travels == "as JSON":
        calls = [type(call)(**one) for call, one in ((c, json.loads(json.dumps(dataclasses.asdict(c)))) for c in calls)]
    assert server.ask(strategy, go_on(calls))[0].output == "hello"
    for fragment in wanted:
        assert fragment in server.sent[1], server.sent[1]


THOUGHTS = [
    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
    {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    {"type": "thinking", "thinking": "and", "signature": "YW5k"},
    {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
]
SEARCH = [
    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted_content": "eA=="}]},
]


def rounds(server, **options):
    """Two rounds of Claude's, and what was said in them."""
    replies = [THOUGHTS, [*SEARCH, {**THOUGHTS[0], "thinking": "more"}, {**THOUGHTS[1], "id": "t3"}]]
    server.reply = lambda body, number: (
        {"type": "message", "content": replies[number], "stop_reason": "tool_use"}
        if number < 2
        else answer("anthropic")
    )
    server.bodies.clear()
    strategy = server.strategy("anthropic", tools=TOOLS, **options)
    said = go_on(server.ask(strategy, "go")[0].tool_calls)
    calls = server.ask(strategy, said)[0].tool_calls
    return strategy, [*said, *go_on(calls)[1:]]


def thoughts(server, strategy, said):
    """The thoughts that are sent with a conversation, and all blocks of its second turn of the model."""
    assert server.ask(strategy, said)[0].output == "hello"
    blocks = [message["content"] for message in server.bodies[-1]["messages"] if message["role"] == "assistant"]
    sent = [block["thinking"] for turn in blocks for block in turn if block["type"] == "thinking"]
    return sent, blocks[-1]


def test_thoughts_behind_a_change_are_not_sent(server):
    strategy, said = rounds(server)
    whole = ["hm", "and", "more"]
    assert thoughts(server, strategy, said)[0] == whole
    assert thoughts(server, strategy, [*said, {"role": "user", "content": "thanks"}])[0] == whole
    edited = [{"role": "user", "content": "go on"}, *said[1:]]
    sent, last = thoughts(server, strategy, edited)
    assert (sent, last) == ([], [*SEARCH, {**THOUGHTS[1], "id": "t3"}]), "all else stays as it was"
    result = {**said[2], "content": "2"}
    assert thoughts(server, strategy, [*said[:2], result, *said[3:]])[0] == ["hm", "and"]
    # A call that the user has changed: what was thought before it stays.
    first = dataclasses.replace(said[1]["tool_calls"][0], arguments='{"x": 1}')
    turn = {**said[1], "tool_calls": [first, *said[1]["tool_calls"][1:]]}
    assert thoughts(server, strategy, [said[0], turn, *said[2:]])[0] == ["hm"]
    # A round that is left out; another system prompt; other tools.
    assert thoughts(server, strategy, [said[0], *said[4:]])[0] == []
    for options in ({"system_prompt": "Be brief."}, {"tools": TOOLS[:1]}):
        other = server.strategy("anthropic", **{"tools": TOOLS, **options})
        assert thoughts(server, other, said)[0] == []


def test_older_models_that_think_with_a_budget_get_all_thoughts(server):
    thinking = {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
    strategy, said = rounds(server, **thinking)
    assert thoughts(server, strategy, [{"role": "user", "content": "go on"}, *said[1:]])[0] == ["hm", "and", "more"]


def test_so_it_is_at_openrouter_for_claude_alone(server):
    details = [{"type": "reasoning.text", "text": "hm", "signature": "c2ln", "index": 0}]
    first = answer("chat", "", [("c1", "f", {})])
    first["choices"][0]["message"]["reasoning_details"] = details
    for model, kept in (("anthropic/claude-opus-5.5", False), ("google/gemini-3-pro", True)):
        strategy = llm(f"openrouter:{model}", base_url=server.root + "/v1", api_key="k", tools=TOOLS)
        server.bodies.clear()
        server.reply = lambda body, number: first if number == 0 else answer("chat")
        calls = server.ask(strategy, "go")[0].tool_calls
        for prompt, has_thoughts in (("go", True), ("go on", kept)):
            assert server.ask(strategy, go_on(calls, prompt))[0].output == "hello"
            assert (server.bodies[-1]["messages"][1].get("reasoning_details") == details) is has_thoughts


UNREADABLE = {
    "message": "The encrypted content eA==... could not be verified.",
    "type": "invalid_request_error",
    "code": "invalid_encrypted_content",
}


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_that_cannot_be_decrypted_is_left_out(server, stream):
    output = [
        {"type": "reasoning", "id": "rs", "encrypted_content": "eA==", "summary": []},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": "{}"},
    ]

    def reply(body, number):
        if number == 0:
            return {"status": "completed", "output": output, "usage": {"input_tokens": 5, "output_tokens": 5}}
        if "eA==" in json.dumps(body):
            return 400, {"error": UNREADABLE}, {}
        return answer("responses", usage={"input_tokens": 7, "output_tokens": 3})

    strategy = server.strategy("responses", tools=TOOLS, stream=stream, extra_body={"store": True})
    server.reply = reply
    server.bodies.clear()
    calls = server.ask(strategy, "go")[0].tool_calls
    (result,) = server.ask(strategy, go_on(calls), attempts=1)
    assert (result.output, result.attempts, result.token_usage["input_tokens"]) == ("hello", 1, 7)
    rejected, again = server.bodies[1:]
    assert [item.get("type") for item in rejected["input"]] == [
        None,
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    expected = [item for item in rejected["input"] if item.get("type") != "reasoning"]
    # With its id, the server would want the reasoning before it.
    del expected[1]["id"]
    assert again == {**rejected, "input": expected}


@pytest.mark.parametrize("reasoning", [True, False])
def test_it_is_tried_once_more_and_not_again(server, reasoning):
    output = [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}]
    if reasoning:
        output.insert(0, {"type": "reasoning", "encrypted_content": "eA==", "summary": []})
    strategy = server.strategy("responses", tools=TOOLS)
    server.bodies.clear()
    server.reply = lambda body, number: (
        {"status": "completed", "output": output} if number == 0 else (400, {"error": UNREADABLE}, {})
    )
    calls = server.ask(strategy, "go")[0].tool_calls
    (result,) = server.ask(strategy, go_on(calls))
    assert (result.success, result.attempts) == (False, 1)
    assert "could not be verified" in result.error
    assert len(server.bodies) == (3 if reasoning else 2)
