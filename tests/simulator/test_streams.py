"""The simulated provider's streams are honest: the vendors' SDKs and our strategies read them as they read its plain
replies, and a stream that ends early is never taken for a whole reply."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request

import pydantic
import pytest

from batch_llm import ProviderError, ProviderTimeoutError, RetryConfig, Tool, Transport, llm
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick, run


class City(pydantic.BaseModel):
    name: str
    people: int


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Tell the weather.", "parameters": SCHEMA}
CLOCK = {"name": "clock", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}}
TEXT, CALLS = "say grüße to everybody \U0001f600", "weather and clock please"
_OF_ONE_REPLY = ("request_id", "processing_ms", "first_token_seconds")
DIALECTS = ["chat", "responses", "anthropic", "gemini"]


@pytest.fixture(scope="module")
def provider():
    with SimulatedProvider() as simulated:
        yield simulated


@pytest.mark.parametrize("model", ["m", "deepseek-v4"])
def test_openais_sdk_reads_streams_of_chat(provider, opened, model):
    openai = pytest.importorskip("openai")
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    tools = [{"type": "function", "function": tool} for tool in (WEATHER, CLOCK)]
    for prompt, options in ((TEXT, {"n": 3, "logprobs": True}), (CALLS, {"tools": tools})):
        options |= {"model": model, "messages": [{"role": "user", "content": prompt}]}
        plain = client.chat.completions.create(**options)
        with client.chat.completions.stream(**options, stream_options={"include_usage": True}) as stream:
            chunks = [event.chunk for event in stream if event.type == "chunk"]
            whole = stream.get_final_completion()
        assert len(chunks) > 10
        assert whole.usage == plain.usage
        assert [choice.finish_reason for choice in whole.choices] == [one.finish_reason for one in plain.choices]
        for choice, expected in zip(whole.choices, plain.choices, strict=True):
            assert choice.message.content == expected.message.content
            calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
            assert calls == [
                (call.id, call.function.name, call.function.arguments) for call in expected.message.tool_calls or ()
            ]
    assert calls
    unasked = list(client.chat.completions.create(**options, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in unasked)


def test_openais_sdk_reads_streams_of_responses(provider, opened):
    openai = pytest.importorskip("openai")
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    tools = [{"type": "function", "strict": False, **tool} for tool in (WEATHER, CLOCK)]
    for prompt, options in ((TEXT, {}), (CALLS, {"tools": tools, "store": False, "reasoning": {"effort": "low"}})):
        plain = client.responses.create(model="m", input=prompt, **options)
        events = list(client.responses.create(model="m", input=prompt, stream=True, **options))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].response.model_dump() == plain.model_dump()
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
            plain.output_text
        )
        with client.responses.stream(model="m", input=prompt, **options) as stream:
            whole = stream.get_final_response()
        assert whole.output_text == plain.output_text
        assert whole.usage == plain.usage
        assert [item.type for item in whole.output] == [item.type for item in plain.output]


def test_anthropics_sdk_reads_streams(provider, opened):
    anthropic = pytest.importorskip("anthropic")
    client = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0))
    tools = [{"name": tool["name"], "description": "", "input_schema": tool["parameters"]} for tool in (WEATHER, CLOCK)]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for prompt, options in ((TEXT, {}), (CALLS, {"tools": tools, "thinking": thinking})):
        options |= {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": prompt}]}
        plain = client.messages.create(**options)
        with client.messages.stream(**options) as stream:
            whole = stream.get_final_message()
        assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in plain.content]
        assert whole.stop_reason == plain.stop_reason
        assert whole.usage == plain.usage


def test_googles_sdk_reads_streams(provider, opened):
    genai = pytest.importorskip("google.genai")
    client = opened(genai.Client(api_key="k", http_options={"base_url": provider.url}))
    declared = [{"name": tool["name"], "parameters_json_schema": tool["parameters"]} for tool in (WEATHER, CLOCK)]
    for prompt, config in ((TEXT, {}), (CALLS, {"tools": [{"function_declarations": declared}]})):
        options = {"model": "gemini-3-pro", "contents": prompt, "config": config}
        plain = client.models.generate_content(**options)
        chunks = list(client.models.generate_content_stream(**options))
        parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
        expected = plain.candidates[0].content.parts
        assert "".join(part.text or "" for part in parts) == "".join(part.text or "" for part in expected)
        assert [part for part in parts if part.function_call] == [part for part in expected if part.function_call]
        assert chunks[-1].usage_metadata == plain.usage_metadata
        assert [chunk.candidates[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_gemini_streams_an_array_without_sse(provider):
    body = json.dumps({"contents": [{"parts": [{"text": TEXT}]}]}).encode()

    def post(verb):
        request = urllib.request.Request(f"{provider.gemini_url}/models/m:{verb}", body)
        with urllib.request.urlopen(request) as reply:
            return reply.headers["content-type"], json.load(reply)

    kind, replies = post("streamGenerateContent")
    assert kind == "application/json"
    parts = [reply["candidates"][0]["content"]["parts"][0]["text"] for reply in replies]
    assert len(parts) > 5
    assert "".join(parts) == post("generateContent")[1]["candidates"][0]["content"]["parts"][0]["text"]


def strategy(provider, dialect, **options):
    if dialect in ("chat", "responses"):
        return llm("openai:gpt-4o", api_key="key", base_url=provider.base_url, api=dialect, **options)
    base_url = provider.url if dialect == "anthropic" else provider.gemini_url
    return llm(f"{dialect}:m", api_key="key", base_url=base_url, **options)


def told(result):
    """What a result says, but for what differs between any two requests."""
    metadata = {name: value for name, value in result.metadata.items() if name not in _OF_ONE_REPLY}
    return result.success, result.output, result.token_usage, metadata, result.tool_calls


@pytest.mark.parametrize("http2", ["never", "always"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_strategies_read_streams_as_plain_replies(provider, dialect, http2):
    tools = [Tool(tool["name"], tool["description"], tool["parameters"]) for tool in (WEATHER, CLOCK)]
    several = {"n": 2} if dialect in ("chat", "gemini") else {}
    for prompt, options in (
        (TEXT, several),
        (TEXT, {"response_model": City}),
        (CALLS, {"tools": tools}),
        (TEXT * 20, {"max_tokens": 20}),
    ):
        results = []
        for stream in (False, True):
            asking = strategy(provider, dialect, stream=stream, transport=Transport(http2=http2), **options)
            batch, _ = await run(asking, [prompt], quick(retry=RetryConfig(1)))
            results += batch.results
        plain, streamed = results
        if options == {"max_tokens": 20}:
            assert str(streamed.error) == str(plain.error)
        assert told(streamed) == told(plain)


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [(dialect, kind) for dialect in DIALECTS for kind in ("crlf", "data_lines", "unknown_events", "thinking")]
    + [("chat", "running_usage"), ("chat", "no_call_indexes")],
)
async def test_servers_write_streams_in_different_ways(provider, dialect, kind):
    tools = [Tool(tool["name"], tool["description"], tool["parameters"]) for tool in (WEATHER, CLOCK)]
    several = {"n": 2} if dialect in ("chat", "gemini") else {}
    with SimulatedProvider(faults=[Fault(kind, every=1)]) as other:
        for prompt, options in ((TEXT, several), (CALLS, {"tools": tools})):
            plain, _ = await run(strategy(provider, dialect, stream=False, **options), [prompt])
            streamed, _ = await run(
                strategy(other, dialect, stream=True, **options), [prompt], quick(retry=RetryConfig(1))
            )
            assert told(streamed.results[0]) == told(plain.results[0])
        assert [hit.kind for hit in other.stats.faults] == [kind] * 2


@pytest.mark.parametrize("kind", ["stall", "ping_only"])
async def test_the_error_names_the_clock_and_the_last_event(kind):
    with SimulatedProvider(faults=[Fault(kind, every=1)]) as provider:

        async def message(dialect):
            asking = strategy(provider, dialect, stream=True, transport=Transport(progress_timeout=3.0))
            with pytest.raises(ProviderTimeoutError) as caught:
                await asking.execute(TEXT, 1, 100.0)
            return str(caught.value)

        messages = dict(zip(DIALECTS, await asyncio.gather(*map(message, DIALECTS)), strict=True))
    last = {"chat": "data", "responses": "response.output_text.delta", "gemini": "data"}
    # Only Anthropic's pings are events.
    last["anthropic"] = "ping" if kind == "ping_only" else "content_block_delta"
    for dialect, text in messages.items():
        assert text.endswith(f'the last event was "{last[dialect]}"')
        if last[dialect] == "ping":
            assert "the answer did not progress for 3 s (progress timeout)" in text
        else:
            assert "no event arrived for 3 s (event timeout)" in text


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("kind", "part"),
    [("stall", True), ("ping_only", True), ("cut", True), ("malformed", True), ("stream_error", True)]
    + [(kind, False) for kind in ("html", "error_inside", "reset", 503, 429)],
)
async def test_a_stream_that_fails_is_retried_and_never_whole(dialect, kind, part):
    transport = Transport(total_timeout=2.0 if kind in ("stall", "ping_only") else None)
    with SimulatedProvider(faults=[Fault(kind, on=[1, 2])]) as provider:
        asking = strategy(provider, dialect, stream=True, transport=transport)
        with pytest.raises(ProviderError) as caught:
            await asking.execute(TEXT, 1, 30.0)
        assert caught.value.is_retryable
        batch, _ = await run(asking, [TEXT], quick(retry=RetryConfig(9, 0.001)))
        result = batch.results[0]
        assert result.success, result.error
        assert result.attempts >= 2  # a busy machine may need more than the time limit once again
        assert result.output.endswith(TEXT)
        if part:
            assert result.output.startswith(caught.value.text)
            assert 0 < len(caught.value.text) < len(result.output)
        assert provider.stats.requests == 1 + result.attempts


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_gateways_comments_and_slow_bytes_are_no_failures(dialect):
    faults = [Fault("keep_alive", on=[2]), Fault("drip", on=[3] if dialect == "chat" else [9])]
    with SimulatedProvider(faults=faults) as provider:
        batch, _ = await run(strategy(provider, dialect, stream=True), ["x"] * 3, quick(max_workers=1))
        assert [result.attempts for result in batch.results] == [1, 1, 1]
        assert len({result.output for result in batch.results}) == 1


async def test_streams_take_as_long_as_plain_replies_and_count_alike():
    with SimulatedProvider(latency=0.3, latency_per_token=0.001) as provider:
        for stream in (False, True):
            before, began = provider.stats, time.monotonic()
            batch, _ = await run(strategy(provider, "chat", stream=stream), [TEXT])
            after, usage = provider.stats, batch.results[0].token_usage
            assert after.output_tokens - before.output_tokens == usage["output_tokens"]
            assert after.input_tokens - before.input_tokens == usage["input_tokens"]
            assert time.monotonic() - began >= 0.3
        assert provider.stats.peak_concurrency == 1
        assert provider.stats.statuses == {200: 2}
        # The headers do not wait for the answer.
        body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
        with urllib.request.urlopen(f"{provider.base_url}/chat/completions", body) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            assert float(reply.headers["openai-processing-ms"]) < 300
            assert reply.read().endswith(b"data: [DONE]\n\n")


async def test_plain_replies_have_the_faults_of_streams_too():
    faults = [Fault("stall", on=[1]), Fault("ping_only", on=[2]), Fault("stream_error", on=[3])]
    with SimulatedProvider(faults=faults) as provider:
        asking = strategy(provider, "chat", stream=False, transport=Transport(total_timeout=2.0))
        batch, _ = await run(asking, [TEXT], quick(retry=RetryConfig(9, 0.001)))
        assert batch.results[0].success
        assert batch.results[0].attempts >= 4
