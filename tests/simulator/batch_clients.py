"""What the tests of the simulated batch APIs have in common: clients, lines, waiting."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from batch_llm.testing import SimulatedBatches

SOON = SimulatedBatches(delay=0.0)
MESSAGES = [{"role": "user", "content": "say hello"}]


def wait(look, ended):
    """Look until it has ended."""
    until = time.monotonic() + 30
    while not ended(seen := look()):
        assert time.monotonic() < until, seen
        time.sleep(0.01)
    return seen


def request(url, body=None, method=None, key="k", **headers):
    """Status and JSON of a request without an SDK."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"authorization": f"Bearer {key}", **headers}, method=method)
    try:
        with urllib.request.urlopen(asked) as reply:
            status, text = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text)


def chat_lines(count, url="/v1/chat/completions", model="m", nonce="n"):
    """Lines of OpenAI's, with a question each."""
    for number in range(count):
        body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}
        yield {"custom_id": f"{nonce}-{number}", "method": "POST", "url": url, "body": body}


def jsonl(lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def sdk(opened, provider, name="openai", key="k"):
    openai = pytest.importorskip("openai")
    return opened(openai.OpenAI(base_url=provider.batch_url(name), api_key=key, max_retries=0))


def submit(client, lines, endpoint="/v1/chat/completions", name="input.jsonl", **more):
    """Upload lines and create a batch of them."""
    file = client.files.create(file=(name, jsonl(lines)), purpose="batch")
    wait(lambda: client.files.retrieve(file.id), lambda file: file.status == "processed")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


ENDS = ("completed", "failed", "expired", "cancelled")


def ended(client, batch):
    return wait(lambda: client.batches.retrieve(batch.id), lambda seen: seen.status in ENDS)


def read(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).content.split(b"\n") if line]


def claude(opened, provider, key="k"):
    anthropic = pytest.importorskip("anthropic")
    return opened(anthropic.Anthropic(base_url=provider.url, api_key=key, max_retries=0))


def params(text):
    return {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": text}]}


def gemini(opened, provider, key="k"):
    genai = pytest.importorskip("google.genai")
    return opened(genai.Client(api_key=key, http_options={"base_url": provider.url}))


GEMINI_ENDS = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")


def gemini_ended(client, job):
    return wait(lambda: client.batches.get(name=job.name), lambda seen: seen.state.name in GEMINI_ENDS)


def contents(text):
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": {"maxOutputTokens": 99}}


def gemini_live(provider, text):
    url = f"{provider.gemini_url}/models/gemini-2.5-flash:generateContent"
    return request(url, contents(text), **{"x-goog-api-key": "k"})[1]
