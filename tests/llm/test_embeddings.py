"""Packs of texts that a provider rejects, and vectors that make no sense."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_llm import EmbeddingStrategy, RetryConfig
from batch_llm.errors import ProviderResponseError

from ..helpers import quick, run


class Embedder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # a reply in one piece, or the client's system waits for the rest

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body["input"])
        self.server.body = body
        status, reply = self.server.answer(body["input"])
        reply = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Embedder)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def embed(server, texts, attempts=1, **options):
    base_url = f"http://127.0.0.1:{server.server_port}/v1"
    # A pack leaves when it is full, so that nothing depends on how fast its texts come.
    options = {"linger": 30, "max_items": len(texts), **options}
    strategy = EmbeddingStrategy("openai-compatible:e", "k", base_url, **options)
    config = quick(max_workers=len(texts), retry=RetryConfig(attempts, 0.001))
    batch, _ = asyncio.run(run(strategy, texts, config))
    return sorted(batch.results, key=lambda result: result.context)


def vectors(texts):
    return 200, {"data": [{"index": place, "embedding": [1.0, 2.0]} for place in range(len(texts))]}


def error(message, code=None, status=400):
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": code}}


@pytest.mark.parametrize(
    ("reply", "category", "requests"),
    [
        (error("The model does not exist", "model_not_found", 404), "client_error", 1),
        (error("not found", None, 404), "client_error", 1),
        (error("wrong key", "invalid_api_key", 401), "authentication", 1),
        (error("not allowed", None, 403), "permission_denied", 1),
        (error("unknown model", "model_not_found", 400), "client_error", 1),
        (error("no dimensions for this model", "unsupported_parameter", 400), "client_error", 1),
        # No code says so, but pack, halves and single texts are rejected alike.
        (error("This model does not support specifying dimensions."), "client_error", 7),
        ((422, {"detail": [{"loc": ["body", "dimensions"], "msg": "not allowed"}]}), "client_error", 7),
        # The whole pack is sent once more, without the field.
        ((422, {"detail": [{"loc": ["body", "encoding_format"], "msg": "not allowed"}]}), "client_error", 8),
    ],
)
def test_what_concerns_the_request_is_not_looked_for_in_texts(server, reply, category, requests):
    server.answer = lambda texts: reply
    results = embed(server, [f"text {n}" for n in range(64)])
    assert {result.error_category for result in results} == {category}
    assert len(server.seen) == requests


def test_errors_that_differ_end_the_search_too(server):
    server.answer = lambda texts: error(f"rejected (request {len(server.seen)})")
    results = embed(server, [f"text {n}" for n in range(64)])
    assert all(result.error_category == "client_error" for result in results)
    assert len(server.seen) == 2 * 6 + 4


@pytest.mark.parametrize("bad", [{0}, {40}, {63}, {3, 60}, {0, 21, 42, 63}, set(range(32))])
def test_bad_texts_fail_alone(server, bad):
    def answer(texts):
        if any(int(text.split()[1]) in bad for text in texts):
            return error("too long")
        return vectors(texts)

    server.answer = answer
    results = embed(server, [f"text {n}" for n in range(64)])
    assert {result.context for result in results if not result.success} == bad
    if len(bad) == 1:
        assert len(server.seen) <= 1 + 2 * 6


def test_an_error_of_another_kind_ends_the_search(server):
    def answer(texts):
        if len(server.seen) == 1:
            return error("too long")
        return error("wrong key", "invalid_api_key", 401) if len(server.seen) > 2 else vectors(texts)

    server.answer = answer
    results = embed(server, [f"text {n}" for n in range(8)])
    assert Counter(result.error_category for result in results) == {None: 4, "authentication": 4}
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "0 vectors for 2 texts"),
        ([{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}], "vector 0 has 1 numbers, but 2"),
        ([{"embedding": [1.0]}, {"embedding": [1.0]}], "2 were requested"),
        ([{"embedding": []}, {"embedding": []}], "is empty"),
        ([{"embedding": [1.0, 1e39]}, {"embedding": [1e39, 2.0]}], "not finite"),
        ([{"index": 0, "embedding": [1, 2]}, {"index": "0", "embedding": [1, 2]}], "two vectors with index 0"),
        ([{"index": 0, "embedding": [1, 2]}, {"index": 5, "embedding": [1, 2]}], "a vector with index 5"),
        (None, "0 vectors for 2 texts"),
    ],
)
def test_wrong_vectors_are_asked_for_again(server, data, says):
    server.answer = lambda texts: (200, {"data": data})
    for result in embed(server, ["a", "b"], dimensions=2):
        assert isinstance(result.exception, ProviderResponseError)
        assert result.error_category == "invalid_response"
        assert says in result.error
    server.seen.clear()
    server.answer = lambda texts: (200, {"data": data}) if len(server.seen) == 1 else vectors(texts)
    assert all(result.success for result in embed(server, ["a", "b"], attempts=2, dimensions=2))


@pytest.mark.parametrize(
    "usage", [None, [], "many", {}, {"prompt_tokens": None}, {"prompt_tokens": "5"}, {"prompt_tokens": -1}]
)
def test_odd_usage_costs_no_vector(server, usage):
    server.answer = lambda texts: (200, {**vectors(texts)[1], "usage": usage})
    for result in embed(server, ["a", "b"]):
        assert list(result.output) == [1.0, 2.0]
    server.answer = lambda texts: (200, {**vectors(texts)[1], "usage": {"prompt_tokens": 4.0}})
    assert sum(result.token_usage["input_tokens"] for result in embed(server, ["a", "b"])) == 4


@pytest.mark.parametrize("wrong", [None, [], [None, 1.0], [1e300, 1.0], "?"])
def test_a_text_whose_vector_is_of_no_use_fails_alone(server, wrong):
    def reply(texts):
        data = [{"index": at, "embedding": wrong if text == "bad" else [1.0, 2.0]} for at, text in enumerate(texts)]
        return 200, {"data": data}

    server.answer = reply
    results = embed(server, ["a", "bad", "b", "c"])
    assert [result.success for result in results] == [True, False, True, True]
    assert results[1].error_category == "invalid_response"
    assert len(server.seen) == 1


def test_servers_without_base64_are_asked_for_numbers(server):
    bodies = []

    def reply(texts):
        bodies.append(server.body)
        if "encoding_format" in server.body:
            return 422, {"detail": [{"loc": ["body", "encoding_format"], "msg": "extra fields not permitted"}]}
        return vectors(texts)

    server.answer = reply
    base_url = f"http://127.0.0.1:{server.server_port}/v1"
    strategy = EmbeddingStrategy("openai-compatible:e", "k", base_url, linger=0.01)
    for text in "ab":
        batch, _ = asyncio.run(run(strategy, [text], quick(retry=RetryConfig(1, 0.001))))
        assert batch.succeeded == 1
    assert ["encoding_format" in body for body in bodies] == [True, False, False]
    batch, _ = asyncio.run(
        run(
            EmbeddingStrategy("openai-compatible:e", "k", base_url, extra_body={"encoding_format": "float"}),
            ["a"],
            quick(retry=RetryConfig(1, 0.001)),
        )
    )
    assert (batch.failed, len(bodies)) == (1, 4)


def test_an_index_that_all_vectors_have_tells_nothing(server):
    server.answer = lambda texts: (200, {"data": [{"index": 0, "embedding": [float(len(text))]} for text in texts]})
    assert [list(result.output) for result in embed(server, ["a", "bbb", "cc"])] == [[1.0], [3.0], [2.0]]
