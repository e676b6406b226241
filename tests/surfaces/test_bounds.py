"""Depth, length and number of everything that comes from outside have a bound, and waits for others' locks an end."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading

import pytest

from batch_llm import (
    ArtifactError,
    EmbeddingStrategy,
    ProcessorConfig,
    RetryConfig,
    SqliteArtifactStore,
    Tool,
    Transport,
    llm,
    run,
)
from batch_llm.testing import SimulatedProvider

from ..helpers import Echo
from ..served import DIALECTS, answer, serve

ONCE = ProcessorConfig(max_workers=4, timeout_per_item=20, retry=RetryConfig(max_attempts=1))


def ask(strategy, *prompts):
    return run(strategy, list(prompts) or ["x"], config=ONCE, progress=False).results


def nested(depth, kind=list):
    value = inner = kind()
    for _ in range(depth):
        deeper = kind()
        if kind is list:
            inner.append(deeper)
        else:
            inner["a"] = deeper
        inner = deeper
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_deep_values_are_rejected_by_name(kind):
    deep = nested(100_000, kind)
    for options in (
        {"extra_body": {"deep": deep}},
        {"response_model": {"type": "object", "properties": {"a": {"const": deep}}}},
        {"tools": [Tool("t", "d", {"type": "object", "default": deep})]},
    ):
        with pytest.raises(ValueError, match=r"nested deeper|cannot be written|recursion"):
            llm("openai:m", api_key="k", **options)
    strategy = llm("openai:m", api_key="k", base_url="http://127.0.0.1:1/v1")
    for prompt in (
        [{"role": "user", "content": "x", "reasoning_content": deep}],
        [{"role": "assistant", "tool_calls": [{"id": "1", "name": "f", "arguments": deep}]}],
    ):
        assert "nested deeper" in run(strategy, [prompt]).results[0].error


@pytest.mark.parametrize("dialect", DIALECTS)
def test_deep_replies_cost_their_item(dialect):
    for body in (b"[" * 500_000, b'{"a":' * 100_000, json.dumps(answer(dialect, "[" * 100_000)).encode()):
        with serve(lambda *_, body=body: body) as served:
            for options in ({}, {"response_model": list[int]}):
                (result,) = ask(served.strategy(dialect, **options))
                assert result.error is None or "HTTP 5" not in result.error


def schemas():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}, "required": ["next"]}
    return [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"$ref": "#/$defs/N", "$defs": {"N": node}},
        {"type": "array", "minItems": 2**53, "items": {"type": "string", "minLength": 2**53}},
        {"type": "array", "minItems": 90, "items": {"type": "array", "minItems": 90, "items": {"$ref": "#"}}},
        {"type": "integer", "minimum": -(2**63), "multipleOf": 2**63 - 1},
    ]


@pytest.mark.parametrize("number", range(len(schemas())))
def test_recursive_schemas_are_answered(number):
    """By the simulated provider, which stays alive, and in a dry run."""
    schema = schemas()[number]
    with SimulatedProvider() as provider:
        for name, below in (("openai-compatible", "/v1"), ("anthropic", ""), ("gemini", "/v1beta")):
            try:
                strategy = llm(f"{name}:m", api_key="k", base_url=provider.url + below, response_model=schema)
            except ValueError:
                continue  # it says itself what it cannot send
            ask(strategy)
            run(strategy, ["x"], config=ProcessorConfig(dry_run=True), progress=False)
        posted(provider, {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}})
        assert ask(llm("openai:m", api_key="k", base_url=provider.base_url))[0].success


def posted(provider, more, path="/v1/chat/completions", headers=None, body=None):
    """Post to a provider without any client of ours; the status and the reply."""
    connection = http.client.HTTPConnection("127.0.0.1", int(provider.url.rpartition(":")[2]), timeout=30)
    try:
        whole = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **more}
        connection.request("POST", path, json.dumps(whole) if body is None else body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def test_the_simulated_provider_gives_no_more_than_real_ones():
    with SimulatedProvider() as provider:
        assert posted(provider, {"n": 128})[0] == 200
        for more in ({"n": 129}, {"n": 2**40}, {"n": -1}, {"n": 2**70}, {"max_tokens": -1}, {"max_tokens": 2**70}):
            status, said = posted(provider, more)
            assert status == 400, more
        assert posted(provider, {"max_tokens": 2**60})[0] == 200
        assert posted(provider, {"input": "x", "dimensions": 8192}, "/v1/embeddings")[0] == 200
        for more in ({"dimensions": 2**40}, {"dimensions": 0}, {"input": ["x"] * 2048, "dimensions": 8192}):
            status, said = posted(provider, {"input": "x", **more}, "/v1/embeddings")
            assert status == 400
            assert "dimensions" in said or "numbers" in said
        gemini = {"generationConfig": {"candidateCount": 10**9}, "contents": [{"parts": [{"text": "x"}]}]}
        assert posted(provider, gemini, "/v1beta/models/m:generateContent")[0] == 400
        deep = '{"messages": ' + "[" * 100_000
        assert posted(provider, {}, body=deep)[0] == 400
        assert posted(provider, {}, body="x" * (65 << 20))[0] in (400, 413)
        cache = {"model": "models/g", "ttl": f"{2**60}s"}
        assert posted(provider, {}, "/v1beta/cachedContents", body=json.dumps(cache))[0] == 200
        assert posted(provider, {"n": 1})[0] == 200, "it is alive"


HERE = ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:9", "[::1]", "[::1]:8000", "localhost."]
ELSEWHERE = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "[2001:db8::1]",
             "", "10.0.0.1", "xlocalhost", "evil.example#localhost", "localhost@evil.example", "0.0.0.0"]  # fmt: skip


def test_the_simulated_provider_answers_no_page_of_others():
    with SimulatedProvider() as provider:
        for host in HERE:
            assert posted(provider, {}, headers={"Host": host})[0] == 200, host
            for origin in (f"http://{host}", f"https://{host}"):
                assert posted(provider, {}, headers={"Origin": origin})[0] == 200, origin
        for host in ELSEWHERE:
            status, said = posted(provider, {}, headers={"Host": host})
            assert status in (400, 421), host
            for path in ("/v1/chat/completions", "/v1beta/cachedContents", "/other"):
                status, said = posted(provider, {}, path, headers={"Origin": f"http://{host}"})
                assert status == 403, host
                assert "Simulated reply" not in said
        for headers in ({"Origin": "null"}, {"Origin": ""}, {"Sec-Fetch-Site": "cross-site"}):
            assert posted(provider, {}, headers=headers)[0] == 403
        assert posted(provider, {}, headers={"Sec-Fetch-Site": "same-origin"})[0] == 200
        assert provider.stats.statuses[421] >= 8
        for strategy in (
            llm("openai:m", api_key="k", base_url=provider.base_url),
            llm("openai:m", api_key="k", base_url=provider.base_url, transport=Transport(http2="always")),
            llm("openai:m", api_key="k", base_url=provider.base_url.replace("127.0.0.1", "localhost")),
        ):
            assert ask(strategy)[0].success


@pytest.mark.parametrize("arguments", [{"port": 65_536}, {"port": -1}, {"seed": -1}, {"seed": 2**64}, {"port": "80"}])
def test_numbers_of_the_simulated_provider_are_checked(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be an integer"):
        SimulatedProvider(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2**40),
        ("n", 0),
        ("max_tokens", -1),
        ("max_tokens", 2**70),
        ("logprobs", 2**40),
        ("logprobs", -1),
        ("n", 1.5),
    ],
)
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        llm("openai:m", api_key="k", **{name: value})
    with pytest.raises(ValueError, match="dimensions"):
        EmbeddingStrategy("openai:m", "k", dimensions=-1)
    with pytest.raises(ValueError, match="dimensions"):
        EmbeddingStrategy("openai:m", "k", dimensions=2**40)


class Endless:
    """A server whose error never ends: how much of it was taken."""

    def __init__(self, head, part):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.head, self.part, self.sent, self.dropped = head, part, 0, threading.Event()
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        connection, _ = self.listener.accept()
        with connection:
            connection.recv(1 << 16)
            try:
                connection.sendall(self.head)
                while self.sent < 1 << 30:
                    connection.sendall(self.part)
                    self.sent += len(self.part)
            except OSError:
                self.dropped.set()

    def close(self):
        self.listener.close()


def test_errors_are_read_as_far_as_needed():
    head = b"HTTP/1.1 400 Bad\r\ncontent-type: text/plain\r\ncontent-length: 999999999999\r\n\r\nslow down"
    server = Endless(head, b" now" * 4096)
    (result,) = ask(llm("openai-compatible:m", api_key="k", base_url=server.url))
    assert result.error_category == "client_error"
    assert "slow down now" in result.error
    assert server.dropped.wait(10), "the connection is dropped"
    assert server.sent < 64 << 20  # what the systems' buffers take of it
    server.close()


def test_a_body_that_is_announced_too_long_is_not_read():
    server = Endless(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n{", b" " * 16384)
    (result,) = ask(llm("openai-compatible:m", api_key="k", base_url=server.url))
    assert "max_body_bytes" in result.error
    assert server.dropped.wait(10)
    assert server.sent < 64 << 20
    server.close()


def test_packed_replies_are_bounded():
    zstandard = pytest.importorskip("zstandard")

    def packed(window, data):
        parameters = zstandard.ZstdCompressionParameters(window_log=window)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        return compressor.compress(data) + compressor.flush()

    good = json.dumps(answer("chat", "hello " * 100_000)).encode()
    bomb = b" " * (200 << 20)
    transport = Transport(max_body_bytes=8 << 20)
    with serve() as served:
        for encoding, body, expected in (
            ("zstd", packed(20, good), None),
            ("ZSTD", packed(23, good), None),
            ("zstd", packed(27, good), "zstd"),
            ("zstd", packed(20, good)[:-10], "zstd"),
            ("zstd", b"nonsense", "zstd"),
            ("zstd", packed(20, bomb), "max_body_bytes"),
            ("gzip", gzip.compress(bomb, 1), "max_body_bytes"),
            ("gzip", gzip.compress(good, 1), None),
        ):
            served.reply = lambda *_, body=body, encoding=encoding: (200, body, {"content-encoding": encoding})
            (result,) = ask(served.strategy("chat", transport=transport))
            if expected is None:
                assert result.output == "hello " * 100_000
            else:
                assert expected in result.error
        error = json.dumps({"error": {"message": "no such model"}}).encode()
        served.reply = lambda *_: (404, packed(20, error), {"content-encoding": "zstd"})
        assert "no such model" in ask(served.strategy("chat"))[0].error
        assert "zstd" in served.headers[-1]["accept-encoding"]


def test_many_large_replies_at_once_all_arrive():
    text = "hello " * 500_000
    with serve(lambda *_: answer("chat", text)) as served:
        results = run(
            served.strategy("chat"), ["x"] * 40, config=ProcessorConfig(max_workers=40), progress=False
        ).results  # fmt: skip
    assert all(result.output == text for result in results)


def test_a_locked_store_is_given_up(tmp_path):
    path = tmp_path / "a.db"
    ask_into(path)
    # In a process of its own: locks of one process do not hold against itself.
    code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('BEGIN EXCLUSIVE'); print(1, flush=True)"
    code += "; input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "1\n"
    with pytest.raises(ArtifactError, match=r"in use|locked"):
        ask_into(SqliteArtifactStore(path, busy_timeout_seconds=0.2))
    holder.communicate("\n", timeout=30)
    ask_into(path)


def ask_into(store):
    return run(Echo(), ["x"], config=ONCE, progress=False, store=store)
