"""The vendors' own SDKs read the same replies: what they read, native strategies read too, and to the same effect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..served import DIALECTS, USAGE, answer, serve

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
genai = pytest.importorskip("google.genai")


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def by_sdk(server: Any, dialect: str) -> str | None:
    """The text that the vendor's SDK reads."""
    if dialect == "chat":
        client = openai.OpenAI(base_url=server.root + "/v1", api_key="k", max_retries=0)
        messages: Any = [{"role": "user", "content": "x"}]
        return client.chat.completions.create(model="m", messages=messages).choices[0].message.content
    if dialect == "responses":
        client = openai.OpenAI(base_url=server.root + "/v1", api_key="k", max_retries=0)
        return client.responses.create(model="m", input="x").output_text
    if dialect == "anthropic":
        client = anthropic.Anthropic(base_url=server.root, api_key="k", max_retries=0)
        messages = [{"role": "user", "content": "x"}]
        reply = client.messages.create(model="m", max_tokens=9, messages=messages)
        return "".join(block.text for block in reply.content if block.type == "text")
    options = genai.types.HttpOptions(base_url=server.root, api_version="v1beta")
    client = genai.Client(api_key="k", http_options=options)  # closed when nobody holds it
    return client.models.generate_content(model="m", contents="x").text


def bodies(dialect: str) -> list[bytes]:
    whole = {
        "chat": {"id": "c", "object": "chat.completion", "created": 1, "model": "m"},
        "responses": {"id": "r", "object": "response", "created_at": 1, "model": "m", "tools": []},
        "anthropic": {"id": "a", "role": "assistant", "model": "m", "stop_sequence": None},
        "gemini": {"modelVersion": "m", "responseId": "r"},
    }[dialect]
    usage = USAGE[dialect]
    replies = [
        answer(dialect, **whole),
        answer(dialect, **{**whole, "model": None, usage: None}),
        answer(dialect, **whole, **{usage: {"input_tokens": 5, "output_tokens": 2, "prompt_tokens": 5}}),
        answer(dialect, **whole, service_tier={"a": 1}, system_fingerprint=7),
        answer(dialect, 'caf\u00e9 \U0001f600 \u2028 \\ "', **whole),
        answer(dialect, '{"z": 1, "a": [98765432109876543210]}', **whole),
    ]
    texts = [json.dumps(reply) for reply in replies]
    texts.append(texts[0].replace('"hello"', '"caf\\ud83d\\ude00"'))
    texts.append(texts[0][:-1] + ', "score": NaN, "high": [Infinity, -Infinity]}')
    texts.append(texts[0][:-1] + ', "note": "\\ud83d"}')
    texts.append(texts[0][:-1] + ', "extra": 1, "extra": 2}')
    texts.append("\n\n  " + texts[0] + "\n")
    return [text.encode() for text in texts] + [b"\xef\xbb\xbf" + texts[0].encode()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_the_sdk_reads_is_read_alike(server, dialect):
    read = 0
    for body in bodies(dialect):
        server.reply = lambda _, number, body=body: body
        try:
            expected = by_sdk(server, dialect)
        except Exception:  # what it cannot read says nothing
            continue
        read += 1
        result = server.one(body, dialect)
        assert result.output == expected, (body, result.error)
    assert read >= 8
