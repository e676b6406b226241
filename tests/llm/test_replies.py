"""What real servers send: odd metadata, JSON that is not quite JSON, errors inside of successes, broken-off answers."""

from __future__ import annotations

import gzip
import json

import pytest
from pydantic import BaseModel

from ..served import COUNTS, DIALECTS, USAGE, answer, serve

ODD = [None, True, -1, 14417.92, "12", [], [1], {}, {"a": [None]}, 98765432109876543210]


class Answer(BaseModel):
    a: int


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


@pytest.mark.parametrize("dialect", DIALECTS)
def test_odd_metadata_does_not_cost_the_answer(server, dialect):
    fields = {
        "chat": [
            "id",
            "model",
            "object",
            "created",
            "system_fingerprint",
            "service_tier",
            "provider",
            "usage",
            "extra",
        ],
        "responses": ["id", "model", "service_tier", "usage", "incomplete_details", "reasoning", "metadata", "extra"],
        "anthropic": ["id", "model", "stop_sequence", "usage", "container", "role", "extra"],
        "gemini": ["modelVersion", "responseId", "usageMetadata", "promptFeedback", "createTime", "extra"],
    }[dialect]
    replies = [answer(dialect, **{name: odd}) for name in fields for odd in ODD]
    replies += [answer(dialect, **{USAGE[dialect]: {name: odd}}) for name in COUNTS[dialect] for odd in ODD]
    details = {
        "chat": ["prompt_tokens_details", "completion_tokens_details", "cost"],
        "responses": ["input_tokens_details", "output_tokens_details"],
        "anthropic": ["cache_creation", "output_tokens_details", "service_tier", "server_tool_use"],
        "gemini": ["promptTokensDetails", "thoughtsTokenCount", "totalTokenCount"],
    }[dialect]
    replies += [answer(dialect, **{USAGE[dialect]: {name: odd}}) for name in details for odd in ODD]
    server.bodies.clear()
    server.reply = lambda body, number: replies[int(json.dumps(body).split("prompt-")[1].split('"')[0])]
    results = server.ask(server.strategy(dialect), *(f"prompt-{number}" for number in range(len(replies))))
    failed = {json.dumps(replies[at]): one.error for at, one in enumerate(results) if one.output != "hello"}
    assert not failed
    assert len(server.bodies) == len(replies)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_null_lists_are_empty_lists(server, dialect):
    reply = answer(dialect)
    part = {
        "chat": lambda: reply["choices"][0]["message"].update(tool_calls=None, annotations=None, refusal=None),
        "responses": lambda: reply["output"].append({"type": "reasoning", "summary": None, "content": None}),
        "anthropic": lambda: reply["content"][0].update(citations=None),
        "gemini": lambda: reply["candidates"][0].update(safetyRatings=None, citationMetadata=None),
    }
    part[dialect]()
    if dialect == "chat":
        reply["choices"][0]["logprobs"] = None
    assert server.one(reply, dialect).output == "hello"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text + b"\n\ndata: [DONE]\n\n",
        lambda text: b"\n: keep-alive\n\n" + text,
        lambda text: b"data: " + text + b"\n\n",
        lambda text: text[:-1] + b', "score": NaN, "low": -Infinity, "high": [Infinity, 1e999]}',
        lambda text: text[:-1] + b', "note": "caf\\ud83d"}',
        lambda text: text[:-1] + b', "note": "line\nbreak\x01"}',
        lambda text: text[:-1] + b', "note": "\xff"}',
        lambda text: text[:-1] + b', "id": "a", "id": "b", "model": "m", "model": "n"}',
        lambda text: text[:-1] + b', "deep": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        lambda text: text[:-1] + b', "note": "\\x"}',
    ],
)
def test_json_that_others_read_is_read(server, dialect, change):
    result = server.one(change(json.dumps(answer(dialect)).encode()), dialect)
    assert (result.output, len(server.bodies)) == ("hello", 1), result.error


def test_half_a_surrogate_pair_is_replaced(server):
    body = b'{"choices": [{"message": {"content": "caf\\ud83d"}, "finish_reason": "length"}]}'
    assert server.one(body).output == "caf\ufffd"


def test_raw_is_what_pythons_json_reads(server):
    said = b'"choices": [{"message": {"content": "x"}}]'
    body = b'{"z": 1, "a": 98765432109876543210, "n": 0.1, %s, "nan": NaN}\n\ndata: [DONE]' % said
    raw = server.one(body, raw=True).metadata["raw"]
    assert list(raw) == ["z", "a", "n", "choices", "nan"]
    assert (raw["a"], raw["n"], raw["nan"] != raw["nan"]) == (98765432109876543210, 0.1, True)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("body", [b'{"choices": [{"mess', b"<html>busy</html>", b"", b"[]", b"null", b"{}"])
def test_what_cannot_be_read_is_requested_once_more(server, dialect, body):
    result = server.one(body, dialect)
    assert (result.error_category, len(server.bodies)) == ("invalid_response", 2), result.error
    recovered = server.one(lambda _, number: body if number == 0 else answer(dialect), dialect)
    assert recovered.output == "hello"


def test_what_cannot_be_unpacked_is_requested_once_more(server):
    broken = (200, b"not gzip at all", {"content-encoding": "gzip"})
    result = server.one(broken)
    assert (result.error_category, len(server.bodies)) == ("invalid_response", 2), result.error


@pytest.mark.parametrize(
    ("word", "category"),
    [
        ("rate_limit_exceeded", "rate_limit"),
        ("insufficient_quota", "insufficient_balance"),
        ("invalid_api_key", "authentication"),
        ("overloaded_error", "server_overload"),
        ("rate_limit_error", "rate_limit"),
        ("authentication_error", "authentication"),
        ("permission_error", "permission_denied"),
        ("invalid_request_error", "client_error"),
        ("not_found_error", "client_error"),
        ("billing_error", "insufficient_balance"),
        ("content_filter", "content_filter"),
        ("server_error", "server_error"),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_word_inside_a_success_is_what_it_says(server, dialect, word, category):
    result = server.one({"error": {"type": word, "message": "no"}}, dialect)
    assert result.error_category == category, result.error


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "error",
    [
        {"message": "slow", "code": 429},
        {"message": "slow", "code": "429"},
        '{"code": 429, "message": "slow"}',
        {"error": {"status": "RESOURCE_EXHAUSTED", "message": "slow"}},
        {"message": "Provider returned error", "code": 429, "metadata": {"raw": "Too Many Requests"}},
        "rate_limit_exceeded",
        [{"code": 429, "message": "slow"}],
    ],
)
def test_a_number_inside_a_success_is_a_status(server, dialect, error):
    nothing = {"id": None, "choices": None, "output": None, "content": None, "candidates": None, "usage": None}
    assert server.one({**nothing, "error": error}, dialect).error_category == "rate_limit"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("nothing", [None, False, 0, "", {}, [], {"message": None}])
def test_an_error_that_says_nothing_is_none(server, dialect, nothing):
    assert server.one(answer(dialect, error=nothing), dialect).output == "hello"


def test_errors_instead_of_choices(server):
    for reply, category in [
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient"}, "choices": None}, "insufficient_balance"),
        ({"base_resp": {"status_code": 1002, "status_msg": "limit"}}, "rate_limit"),
        ({"code": "1113", "msg": "in arrears", "success": False}, "insufficient_balance"),
        ({"object": "error", "message": "too long", "code": 400}, "client_error"),
        ({"detail": "Not authenticated", "status_code": 401}, "authentication"),
        ({"choices": [{"error": {"code": 502, "message": "gone"}, "message": {"content": ""}}]}, "server_error"),
        ({"choices": [{}], "base_resp": {"status_code": 1002, "status_msg": "limit"}}, "rate_limit"),
        ({"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}}, "invalid_response"),
    ]:
        assert server.one(reply).error_category == category, reply
    assert server.one({"error": True, "code": 429, "message": "slow"}).error_category == "rate_limit"
    with_answer = {**answer("chat"), "base_resp": {"status_code": 0, "status_msg": "success"}}
    assert server.one(with_answer).output == "hello"


@pytest.mark.parametrize(
    ("status", "body", "category", "requests"),
    [
        (429, {"error": {"type": "exceeded_current_quota_error", "message": "suspended"}}, "insufficient_balance", 1),
        (429, {"error": {"code": "1113", "message": "in arrears"}}, "insufficient_balance", 1),
        (429, {"error": {"type": "engine_overloaded_error", "message": "busy"}}, "server_overload", 3),
        (400, {"code": "Arrearage", "message": "overdue"}, "insufficient_balance", 1),
        (500, {"error": {"code": "context_length_exceeded", "message": "too long"}}, "client_error", 1),
    ],
)
def test_a_providers_own_words_count_before_the_status(server, status, body, category, requests):
    result = server.one((status, body, {}))
    assert (result.error_category, len(server.bodies)) == (category, requests), result.error


@pytest.mark.parametrize("body", [b'{"error": {"message": "lim', b"\x1f\x8b broken", b"\xef\xbb\xbf{}", b""])
def test_an_error_body_that_cannot_be_read_leaves_it_to_the_status(server, body):
    headers = {"content-encoding": "gzip"} if body.startswith(b"\x1f") else {}
    assert server.one((429, body, {"retry-after": "0.01", **headers})).error_category == "rate_limit"
    assert server.one((401, body, headers)).error_category == "authentication"


def test_an_error_body_that_is_cut_leaves_it_to_the_status(server):
    whole = gzip.compress(json.dumps({"error": {"message": "x" * 1000}}).encode())
    cut = (401, whole[: len(whole) // 2], {"content-encoding": "gzip"})
    assert server.one(cut).error_category == "authentication"


CHAT_ENDS = {
    "error": "server_error",
    "abort": "server_error",
    "network_error": "server_error",
    "insufficient_system_resource": "server_overload",
    "ERROR": "server_error",
    "malformed_function_call": "structured_output_validation_error",
    "sensitive": "content_filter",
}


@pytest.mark.parametrize(("word", "category"), CHAT_ENDS.items())
def test_an_interrupted_chat_is_no_success(server, word, category):
    reply = {
        "choices": [{"message": {"content": "The answer is"}, "finish_reason": word}],
        "usage": {"prompt_tokens": 5},
    }
    result = server.one(reply)
    assert result.error_category == category
    assert word in result.error
    assert len(server.bodies) == (1 if category == "content_filter" else 3)
    assert result.token_usage["input_tokens"] == 5 * len(server.bodies)
    assert result.metadata.get("native_finish_reason", "error") == word
    assert server.one(lambda _, number: reply if number == 0 else answer("chat")).output == (
        None if category == "content_filter" else "hello"
    )


@pytest.mark.parametrize("word", ["model_length", "max_tokens", "MAX_TOKENS"])
def test_other_words_for_length(server, word):
    reply = {"choices": [{"message": {"content": "The answer is"}, "finish_reason": word}]}
    metadata = server.one(reply).metadata
    assert (metadata["finish_reason"], metadata["native_finish_reason"]) == ("length", word)


@pytest.mark.parametrize("status", ["failed", "cancelled", "incomplete", "in_progress"])
def test_an_interrupted_response_is_no_success(server, status):
    result = server.one({**answer("responses", "The answer is"), "status": status, "error": None}, "responses")
    assert result.error_category == "server_error"
    assert status in result.error
    assert len(server.bodies) == 3


def test_a_failed_response_says_why(server):
    error = {"code": "rate_limit_exceeded", "message": "slow down"}
    result = server.one({"status": "failed", "error": error, "output": []}, "responses")
    assert result.error_category == "rate_limit"


def test_a_paused_turn_goes_on(server):
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 98765432109876543210}}
    paused = {
        "type": "message",
        "content": [{"type": "text", "text": "Let me see. "}, search],
        "stop_reason": "pause_turn",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
    last = answer("anthropic", "Found.", usage={"input_tokens": 9, "output_tokens": 3})
    result = server.one(lambda _, number: paused if number < 2 else last, "anthropic")
    assert (result.output, result.token_usage["input_tokens"]) == ("Let me see. Let me see. Found.", 19)
    turns = server.bodies[2]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "assistant"]
    assert turns[1]["content"] == paused["content"]
    endless = server.one(paused, "anthropic")
    assert endless.error_category == "truncated"
    assert "pause_turn" in endless.error
    assert len(server.bodies) == 11


def test_an_empty_stop_of_gemini_is_requested_again(server):
    empty = {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}
    assert server.one(lambda _, number: empty if number == 0 else answer("gemini"), "gemini").output == "hello"
    result = server.one(empty, "gemini")
    assert (result.error_category, len(server.bodies)) == ("empty_response", 3)


def test_a_malformed_call_of_gemini_is_requested_again(server):
    malformed = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "print(f(x"}]}
    assert server.one(lambda _, number: malformed if number == 0 else answer("gemini"), "gemini").output == "hello"
    result = server.one(malformed, "gemini")
    assert "MALFORMED_FUNCTION_CALL" in result.error
    assert len(server.bodies) == 3


def test_a_wrong_key_of_gemini_is_a_wrong_key(server):
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    body = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no", "details": [info]}}
    assert server.one((400, body, {}), "gemini").error_category == "authentication"


@pytest.mark.parametrize(
    "nothing", [{"code": 0, "message": ""}, {"code": "0", "msg": "ok"}, "none", 200, {"code": 200}]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_that_says_that_all_is_well_is_none(server, dialect, nothing):
    assert server.one(answer(dialect, error=nothing), dialect).output == "hello"


def test_shapes_of_answers_that_gateways_make(server):
    for dialect, reply in [
        ("anthropic", {"content": "hello", "stop_reason": "end_turn"}),
        ("anthropic", {"content": [{"text": "hello"}], "stop_reason": "stop"}),
        ("anthropic", {"content": {"type": "text", "text": "hello"}}),
        ("responses", {"status": "COMPLETED", "output": [{"type": "message", "content": "hello"}]}),
        ("responses", {"status": "", "output": [{"content": [{"text": "hello"}]}]}),
        ("chat", {"choices": {"message": {"content": "hello"}}}),
        (
            "chat",
            {"choices": [{"message": {"content": "hello", "refusal": "None"}, "finish_reason": {"type": "stop"}}]},
        ),
    ]:
        result = server.one(reply, dialect)
        assert (result.output, len(server.bodies)) == ("hello", 1), (reply, result.error)


def test_words_of_google_in_a_chat(server):
    for word, category in [
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", "structured_output_validation_error"),
        ({"type": "abort"}, "server_error"),
    ]:
        reply = {"choices": [{"message": {"content": "The answer is"}, "finish_reason": word}]}
        assert server.one(reply).error_category == category, word


def test_numbers_and_depths_that_python_cannot_read_do_not_end_the_run(server):
    deep = b"[" * 100_000 + b"]" * 100_000
    for value in (b"9" * 5000, deep, b"[-1e999]", b'["\\ud83d"]'):
        body = b'{"choices": [{"message": {"content": "hello"}, "logprobs": %s}], "usage": {"cost": %s}}' % (
            value,
            value,
        )
        assert server.one(body).output == "hello"


def test_what_stores_cannot_keep_beside_an_answer_does_not_cost_it(server, tmp_path):
    from batch_llm import run

    for number, value in enumerate((b"[-1e999]", b'["\\ud83d"]', b"[NaN]")):
        body = b'{"choices": [{"message": {"content": "hello"}, "logprobs": {"content": %s}}]}' % value
        server.bodies.clear()
        server.reply = lambda _, __, body=body: body
        for _ in range(2):
            result = run(server.strategy(), ["x"], store=tmp_path / f"{number}.db").results[0]
            assert result.output == "hello", result.error
        assert len(server.bodies) == 1


def test_samples_of_use_are_kept_without_the_others(server):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    texts = ['{"a": 1}', '{"a": "x"}', '{"a": 3}']
    reply = {"choices": [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]}
    for model in (schema, Answer):
        result = server.one(reply, n=3, response_model=model)
        assert [getattr(one, "a", None) or one["a"] for one in result.output] == [1, 3]
        assert len(server.bodies) == 1
        assert len(result.metadata["finish_reason"]) == 2
    reply["choices"][1] = {"error": {"code": 502, "message": "gone"}, "message": {"content": ""}}
    assert server.one(reply, n=3).output == [texts[0], texts[2]]


def test_what_failed_after_a_pause_was_paid_for(server):
    usage = {"input_tokens": 5, "output_tokens": 2}
    paused = {"content": [{"type": "text", "text": "a"}], "stop_reason": "pause_turn", "usage": usage}
    result = server.one(
        lambda _, number: paused if number == 0 else (400, {"error": {"message": "no"}}, {}), "anthropic"
    )
    assert (result.error_category, result.token_usage["input_tokens"]) == ("client_error", 5)


def test_a_failure_inside_a_success_was_paid_for(server):
    failed = {"status": "failed", "error": {"code": "invalid_prompt", "message": "no"}, "usage": {"input_tokens": 7}}
    assert server.one(failed, "responses").token_usage["input_tokens"] == 7


@pytest.mark.parametrize(
    ("status", "error", "category", "requests"),
    [
        (400, {"code": "tool_use_failed", "message": "m"}, "structured_output_validation_error", 3),
        (413, {"code": "rate_limit_exceeded", "message": "Request too large"}, "client_error", 1),
        (400, {"type": "budget_exceeded", "code": "400", "message": "m"}, "insufficient_balance", 1),
        (403, {"code": 403, "message": "m", "metadata": {"flagged_input": "x"}}, "content_filter", 1),
        (400, "Incorrect API key provided: xa***xx.", "authentication", 1),
        (200, {"type": "resource_not_found_error", "message": "m"}, "client_error", 1),
    ],
)
def test_words_of_more_providers(server, status, error, category, requests):
    result = server.one((status, {"error": error}, {}))
    assert (result.error_category, len(server.bodies)) == (category, requests)


def test_messages_are_shown_whatever_they_begin_with(server):
    for message in ("[] is too short - 'messages'", "{} is not of type 'string'"):
        assert server.one((400, {"error": {"message": message}}, {})).error.endswith(f"HTTP 400: {message}")
    raw = json.dumps({"error": {"message": "too long", "code": "context_length_exceeded"}})
    gateway = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}
    assert "Provider returned error: too long" in server.one((400, gateway, {})).error


@pytest.mark.parametrize(
    "body", [{"code": 200, "msg": "ok", "data": {"message": "x"}}, {"success": True, "message": "ok"}, {"code": 0}]
)
def test_a_success_without_an_answer_is_no_error_of_the_provider(server, body):
    assert server.one(body).error_category == "invalid_response"
