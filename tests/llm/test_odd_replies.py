"""Replies that are paid for and come in a form of the server's own: what they say is not lost."""

from __future__ import annotations

import json

import pytest

from ..served import COUNTS, DIALECTS, USAGE, answer, serve


@pytest.fixture
def server():
    with serve() as served:
        yield served


def events(*objects, end=b""):
    """A stream of these; ``type`` is also an event's name."""
    names = [f"event: {one['type']}\n" if "type" in one else "" for one in objects]
    data = "".join(f"{name}data: {json.dumps(one)}\n\n" for name, one in zip(names, objects, strict=True))
    return 200, data.encode() + end, {"content-type": "text/event-stream"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("told", "count"), [(14417.92, 14418), ("14418", 14418), ("14417.92", 14418)])
def test_counts_may_be_fractions_and_texts(server, dialect, told, count):
    first, second = COUNTS[dialect]
    result = server.one(answer(dialect, **{USAGE[dialect]: {first: 12, second: told}}), dialect)
    assert (result.token_usage["input_tokens"], result.token_usage["output_tokens"]) == (12, count)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("told", [-1, -0.5, "many", "-3", None, True, [], {}])
def test_counts_that_are_none_count_as_unknown(server, dialect, told):
    first, second = COUNTS[dialect]
    result = server.one(answer(dialect, **{USAGE[dialect]: {first: 12, second: told}}), dialect)
    assert (result.token_usage["input_tokens"], result.token_usage["output_tokens"]) == (12, 0)


def test_usage_in_the_field_of_groq_counts(server):
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    sample = {"choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]}
    plain = server.one({**sample, "x_groq": {"id": "r", "usage": usage}})
    delta = {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}
    stream = events({**delta, "x_groq": {"usage": usage}}, end=b"data: [DONE]\n\n")
    streamed = server.one(stream, stream=True)
    for result in (plain, streamed):
        assert result.output == "hello"
        assert (result.token_usage["input_tokens"], result.token_usage["output_tokens"]) == (5, 2)


def test_samples_are_in_the_order_of_their_indexes(server):
    choices = [{"index": at, "message": {"content": f"text {at}"}, "finish_reason": "stop"} for at in (2, 0, 1)]
    assert server.one({"choices": choices}, n=3).output == ["text 0", "text 1", "text 2"]
    candidates = [
        {"index": at, "content": {"parts": [{"text": f"text {at}"}]}, "finishReason": "STOP"} for at in (2, 0, 1)
    ]
    assert server.one({"candidates": candidates}, "gemini", n=3).output == ["text 0", "text 1", "text 2"]
    unnumbered = [{"message": {"content": text}, "finish_reason": "stop"} for text in "ba"]
    assert server.one({"choices": unnumbered}, n=2).output == ["b", "a"]


def test_the_transcript_of_what_is_spoken_is_the_answer(server):
    message = {"role": "assistant", "content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "hello"}}
    assert server.one({"choices": [{"message": message, "finish_reason": "stop"}]}).output == "hello"


def test_what_a_model_says_on_its_way_is_not_the_answer(server):
    def message(text, **more):
        return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **more}

    way, end = message("Let me look. ", phase="commentary"), message("42", phase="final_answer")
    assert server.one({"status": "completed", "output": [way, end]}, "responses").output == "42"
    assert server.one({"status": "completed", "output": [way]}, "responses").output == "Let me look. "


def test_arguments_of_google_may_be_a_text(server):
    calls = [("c", "f", '{"x": 1}')]
    tools = [{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}]
    result = server.one(answer("gemini", "", calls), "gemini", tools=tools)
    assert [call.value for call in result.tool_calls] == [{"x": 1}]


def test_a_stream_of_messages_without_the_start_of_its_block_is_read(server):
    start = {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("hel", "lo")
    ]
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    result = server.one(events(start, *deltas, end, {"type": "message_stop"}), "anthropic", stream=True)
    assert (result.output, len(server.bodies)) == ("hello", 1)


def test_a_zero_at_the_end_of_a_stream_of_messages_does_not_hide_a_count(server):
    start = {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 5, "output_tokens": 0}}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "hello"}}
    usage = {"input_tokens": 0, "output_tokens": 2}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    result = server.one(events(start, block, end, {"type": "message_stop"}), "anthropic", stream=True)
    assert (result.token_usage["input_tokens"], result.token_usage["output_tokens"]) == (5, 2)


def test_a_prompt_too_long_for_llama_cpp_is_not_sent_again(server):
    error = {"code": 500, "message": "the context size has been exceeded", "type": "exceed_context_size_error"}
    result = server.one((500, {"error": error}, {}))
    assert (result.error_category, len(server.bodies)) == ("client_error", 1)
