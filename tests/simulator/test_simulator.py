"""The simulated provider is honest: the vendors' own SDKs take its answers and raise their own errors on its errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pydantic
import pytest

from batch_llm.testing import Fault, SimulatedProvider

pytest_plugins = ["pytester"]


class City(pydantic.BaseModel):
    name: str
    people: int


WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def provider():
    with SimulatedProvider() as simulated:
        yield simulated


def test_openai(provider, opened):
    openai = pytest.importorskip("openai")
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    messages = [{"role": "user", "content": "say hello"}]
    completion = client.chat.completions.create(model="m", messages=messages, n=2, logprobs=True)
    assert [choice.message.content.endswith(": say hello") for choice in completion.choices] == [True, True]
    assert completion.choices[0].logprobs.content[0].logprob < 0
    parsed = client.chat.completions.parse(model="m", messages=messages, response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City)
    tools = [{"type": "function", "function": WEATHER}]
    called = client.chat.completions.create(model="m", messages=messages, tools=tools, tool_choice="required")
    assert called.choices[0].message.tool_calls[0].function.name == "weather"
    response = client.responses.create(model="m", input="say hello")
    assert response.output_text.endswith(": say hello")
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert isinstance(client.responses.parse(model="m", input="x", text_format=City).output_parsed, City)
    counted = client.responses.input_tokens.count(model="m", input="say hello")
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", response.usage.input_tokens)
    cut = client.responses.create(model="m", input="x", max_output_tokens=1)
    assert cut.incomplete_details.reason == "max_output_tokens"
    for encoding in ("float", "base64"):
        vectors = client.embeddings.create(model="e", input=["a", "b"], dimensions=8, encoding_format=encoding)
        assert len(vectors.data) == 2
    assert len(client.embeddings.create(model="e", input="a", dimensions=8).data[0].embedding) == 8


def test_anthropic(provider, opened):
    anthropic = pytest.importorskip("anthropic")
    client = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0))
    messages = [{"role": "user", "content": "say hello"}]
    message = client.messages.create(model="m", max_tokens=100, messages=messages)
    assert message.content[0].text.endswith(": say hello")
    assert message.usage.input_tokens > 0
    counted = client.messages.count_tokens(model="m", messages=messages)
    assert counted.input_tokens == message.usage.input_tokens
    tools = [{"name": "weather", "description": "", "input_schema": WEATHER["parameters"]}]
    called = client.messages.create(
        model="m", max_tokens=100, messages=messages, tools=tools, tool_choice={"type": "any"}
    )
    assert called.stop_reason == "tool_use"
    assert isinstance(called.content[0].input["city"], str)
    cut = client.messages.create(model="m", max_tokens=1, messages=messages)
    assert cut.stop_reason == "max_tokens"


def test_google(provider, opened):
    genai = pytest.importorskip("google.genai")
    client = opened(genai.Client(api_key="k", http_options={"base_url": provider.url}))
    reply = client.models.generate_content(model="m", contents="say hello")
    assert reply.text.endswith(": say hello")
    assert reply.usage_metadata.total_token_count > 0
    counted = client.models.count_tokens(model="m", contents="say hello")
    assert counted.total_tokens == reply.usage_metadata.prompt_token_count
    config = {"response_mime_type": "application/json", "response_schema": City}
    assert isinstance(client.models.generate_content(model="m", contents="x", config=config).parsed, City)
    tool = {"function_declarations": [{"name": "weather", "parameters_json_schema": WEATHER["parameters"]}]}
    called = client.models.generate_content(model="m", contents="weather please", config={"tools": [tool]})
    assert called.function_calls[0].name == "weather"
    vectors = client.models.embed_content(model="e", contents=["a", "b"], config={"output_dimensionality": 8})
    assert [len(vector.values) for vector in vectors.embeddings] == [8, 8]


CLOCK = {"name": "clock", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}}
BOTH = "weather and clock please"


@pytest.mark.parametrize("model", ["m", "deepseek-v4", "kimi-k3"])
def test_openais_sdk_goes_on_with_its_own_chat(provider, opened, model):
    openai = pytest.importorskip("openai")
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    tools = [{"type": "function", "function": tool} for tool in (WEATHER, CLOCK)]
    first = {"role": "user", "content": BOTH}
    message = client.chat.completions.create(model=model, messages=[first], tools=tools).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["weather", "clock"]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in message.tool_calls]

    def ask(*messages):
        return client.chat.completions.create(model=model, messages=[first, *messages], tools=tools)

    said = message.model_dump(exclude_none=True)
    assert ask(said, *results).choices[0].message.content.endswith(": fine")
    wrong = {
        "must be a response to a preceeding message with 'tool_calls'": [results[0]],
        f"did not have response messages: {message.tool_calls[1].id}": [said, results[0]],
        "not found in 'tool_calls' of previous message": [said, {**results[0], "tool_call_id": "other"}],
        "empty array": [{"role": "assistant", "content": "x", "tool_calls": []}],
    }
    if model != "m":
        assert message.reasoning_content
        wrong["reasoning_content"] = [{name: said[name] for name in ("role", "tool_calls")}, *results]
    for says, messages in wrong.items():
        with pytest.raises(openai.BadRequestError, match=says):
            ask(*messages)
    one = client.chat.completions.create(model=model, messages=[first], tools=tools, parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls) == 1
    if model == "deepseek-v4":
        body = {"thinking": {"type": "disabled"}}
        client.chat.completions.create(
            model=model, messages=[first, {**said, "reasoning_content": ""}, *results], tools=tools, extra_body=body
        )


def test_openais_sdk_goes_on_with_its_own_responses(provider, opened):
    openai = pytest.importorskip("openai")
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    tools = [{"type": "function", "strict": False, **tool} for tool in (WEATHER, CLOCK)]
    options = {"model": "m", "tools": tools, "store": False, "reasoning": {"effort": "low"}}
    first = {"role": "user", "content": BOTH}
    output = client.responses.create(input=[first], **options).output
    assert [item.type for item in output] == ["reasoning", "function_call", "function_call"]
    assert output[0].encrypted_content
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "fine"}
        for item in output
        if item.type == "function_call"
    ]

    def ask(*items):
        return client.responses.create(input=[first, *items], **options)

    assert ask(*output, *results).output_text.endswith(": fine")
    broken = {**output[0].model_dump(), "encrypted_content": "broken"}
    for says, items in {
        "No tool output found for function call": [*output, results[0]],
        "No tool call found for function call output with call_id": [results[0]],
        "could not be verified": [broken, *output[1:], *results],
    }.items():
        with pytest.raises(openai.BadRequestError, match=says):
            ask(*items)
    options.pop("store")
    with pytest.raises(openai.BadRequestError, match="without its required following item"):
        ask({"type": "reasoning", "id": "rs_1", "summary": []})


def test_anthropics_sdk_goes_on_with_its_own_messages(provider, opened):
    anthropic = pytest.importorskip("anthropic")
    client = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0))
    tools = [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in (WEATHER, CLOCK)]
    first = {"role": "user", "content": BOTH}
    thinking = {"type": "enabled", "budget_tokens": 1024}

    def ask(*messages, thinking=thinking):
        return client.messages.create(
            model="m", max_tokens=2000, messages=[first, *messages], tools=tools, thinking=thinking
        )

    content = ask().content
    assert [block.type for block in content] == ["thinking", "tool_use", "tool_use"]
    said = {"role": "assistant", "content": content}
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "fine"}
        for block in content
        if block.type == "tool_use"
    ]

    def user(*blocks):
        return {"role": "user", "content": list(blocks)}

    assert ask(said, user(*results)).content[-1].text.endswith(": fine")
    text = {"type": "text", "text": "here"}
    changed = [{**content[0].model_dump(), "thinking": "other"}, *content[1:]]
    picture = {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AAAA"}}
    for says, messages in {
        "Expected `thinking` or `redacted_thinking`": [{**said, "content": content[1:]}, user(*results)],
        "Invalid `signature` in `thinking` block": [{**said, "content": changed}, user(*results)],
        f"without `tool_result` blocks immediately after: {content[2].id}": [said, user(results[0])],
        "without `tool_result` blocks": [said, user(text, *results)],
        "unexpected `tool_use_id`": [said, user(*results, {**results[0], "tool_use_id": "other"})],
        "must be non-empty": [said, user(*results, {**text, "text": ""})],
        "non-whitespace": [said, user(*results, {**text, "text": " "})],
        "Only HTTPS URLs": [said, user(*results, picture)],
    }.items():
        with pytest.raises(anthropic.BadRequestError, match=says):
            ask(*messages)
    # Without thinking none is wanted, and of turns that are over none either.
    ask({**said, "content": content[1:]}, user(*results), thinking={"type": "disabled"})
    ask({**said, "content": content[1:]}, user(*results), {"role": "assistant", "content": "so"}, user(text))


def test_googles_sdk_goes_on_with_its_own_contents(provider, opened):
    genai = pytest.importorskip("google.genai")
    types = genai.types
    client = opened(genai.Client(api_key="k", http_options={"base_url": provider.url}))
    declarations = [{"name": tool["name"], "parameters_json_schema": tool["parameters"]} for tool in (WEATHER, CLOCK)]
    automatic = {"disable": True}
    config = {"tools": [{"function_declarations": declarations}], "automatic_function_calling": automatic}
    first = types.Content(role="user", parts=[types.Part(text=BOTH)])

    def ask(*contents, model="gemini-3-pro"):
        return client.models.generate_content(model=model, contents=[first, *contents], config=config)

    said = ask().candidates[0].content
    calls = [part.function_call for part in said.parts]
    assert [call.name for call in calls] == ["weather", "clock"]
    assert [part.thought_signature is not None for part in said.parts] == [True, False]

    def results(*calls):
        parts = [
            types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"r": "fine"}))
            for call in calls
        ]
        return types.Content(role="user", parts=parts)

    assert ask(said, results(*calls)).text
    bare = types.Content(role="model", parts=[types.Part(function_call=call) for call in calls])
    foreign = [types.Part(function_call=calls[0], thought_signature=b"other"), said.parts[1]]
    for says, contents in {
        "function call `weather` in the 2. content block is missing a `thought_signature`": [bare, results(*calls)],
        "Thought signature is not valid": [types.Content(role="model", parts=foreign), results(*calls)],
        "number of function response parts is equal": [said, results(calls[0])],
        "immediately after a function call turn": [results(calls[0])],
        "is equal to the number": [said, results(calls[0]), results(calls[1])],
    }.items():
        with pytest.raises(genai.errors.ClientError, match=says):
            ask(*contents)
    # Older models and older turns do without, and so do calls that say that they are somebody else's.
    ask(bare, results(*calls), model="gemini-2.5-flash")
    ask(bare, results(*calls), types.Content(role="user", parts=[types.Part(text="thanks")]))
    word = b"skip_thought_signature_validator"
    made = [types.Part(function_call=calls[0], thought_signature=word), said.parts[1]]
    ask(types.Content(role="model", parts=made), results(*calls))


@pytest.mark.parametrize("response", ["fine", ["fine"], 5, None])
def test_googles_results_are_objects(provider, response):
    call = {"functionCall": {"name": "f", "args": {}}}
    result = {"functionResponse": {"name": "f", "response": response}}
    contents = [{"parts": [{"text": "x"}]}, {"role": "model", "parts": [call]}, {"role": "user", "parts": [result]}]
    body = json.dumps({"contents": contents}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(provider.url + "/v1beta/models/m:generateContent", data=body)
    with caught.value as reply:
        assert "google.protobuf.Struct" in reply.read().decode()


def test_schemas_that_are_not_strict_are_rejected(provider, opened):
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    messages = [{"role": "user", "content": "x"}]
    schema = {"type": "object", "properties": {"a": {"oneOf": []}}, "required": ["a"], "additionalProperties": False}
    wanted = {"name": "S", "schema": schema, "strict": True}
    says = r"Invalid schema for response_format 'S': In context=\('properties', 'a'\), 'oneOf' is not permitted"
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        client.chat.completions.create(
            model="m", messages=messages, response_format={"type": "json_schema", "json_schema": wanted}
        )
    assert caught.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match=says):
        client.responses.create(model="m", input="x", text={"format": {"type": "json_schema", **wanted}})
    tool = {"type": "function", "function": {**WEATHER, "strict": True}}
    with pytest.raises(openai.BadRequestError, match="Invalid schema for function 'weather': .*additionalProperties"):
        client.chat.completions.create(model="m", messages=messages, tools=[tool])
    # Without a promise nothing is rejected.
    loose = {"type": "json_schema", "json_schema": {**wanted, "strict": False}}
    client.chat.completions.create(model="m", messages=messages, response_format=loose)
    other = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0))
    for properties, says in (
        ({"a": {"type": "integer", "minimum": 1}}, "property 'minimum' is not supported"),
        ({"a": {"type": "object"}}, "must be explicitly set to false"),
    ):
        closed = {"type": "object", "properties": properties, "additionalProperties": False}
        output = {"format": {"type": "json_schema", "schema": closed}}
        with pytest.raises(anthropic.BadRequestError, match=says):
            other.messages.create(model="m", max_tokens=9, messages=messages, extra_body={"output_config": output})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (429, "RateLimitError"),
        ("billing", "RateLimitError"),
        (500, "InternalServerError"),
        (529, None),
        ("reset", "APIConnectionError"),
        ("cut", None),
    ],
)
def test_the_sdks_raise_their_own_errors(kind, name, opened):
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    with SimulatedProvider(faults=[Fault(kind, every=1)]) as provider:
        messages = [{"role": "user", "content": "x"}]
        first = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
        with pytest.raises(Exception) as caught:
            first.chat.completions.create(model="m", messages=messages)
        assert isinstance(caught.value, getattr(openai, name or "APIError")) or (kind == "cut" and caught.value)
        if kind == "billing":
            assert caught.value.code == "insufficient_quota"
        second = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0))
        with pytest.raises(Exception) as caught:
            second.messages.create(model="m", max_tokens=9, messages=messages)
        assert isinstance(caught.value, getattr(anthropic, name or "APIError")) or (kind == "cut" and caught.value)


def test_google_raises_its_own_errors(opened):
    genai = pytest.importorskip("google.genai")
    faults = [Fault(429, on=[1], retry_after=7), Fault(503, on=[2])]
    with SimulatedProvider(faults=faults) as provider:
        client = opened(genai.Client(api_key="k", http_options={"base_url": provider.url}))
        with pytest.raises(genai.errors.ClientError) as caught:
            client.models.generate_content(model="m", contents="x")
        assert caught.value.code == 429
        assert "7s" in str(caught.value.details)
        with pytest.raises(genai.errors.ServerError):
            client.models.generate_content(model="m", contents="x")


def test_quotas_are_enforced_in_the_providers_own_words(opened):
    openai = pytest.importorskip("openai")
    with SimulatedProvider(requests_per_minute=60, burst_seconds=2) as provider:
        client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
        headers = [_create(client) for _ in range(2)]
        assert headers[0]["x-ratelimit-limit-requests"] == "60"
        assert headers[1]["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            _create(client)
        assert 0 < float(caught.value.response.headers["retry-after-ms"]) <= 1000
        (early,) = provider.stats.violations
        assert early.limit == "requests"
        assert 0 < early.early_by <= 1
    with SimulatedProvider(tokens_per_minute=600, burst_seconds=1) as provider:
        client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
        _create(client)
        with pytest.raises(openai.RateLimitError):
            _create(client)
        assert provider.stats.violations[0].limit == "tokens"


def _create(client):
    messages = [{"role": "user", "content": "x"}]
    return client.chat.completions.with_raw_response.create(model="m", messages=messages).headers


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/chat/completions", b"{", "EOF"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "x"}]}', "model is missing"),
        ("/v1/chat/completions", b'{"model": "m", "messages": [{"role": "king", "content": "x"}]}', "king"),
        ("/v1/messages", b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}', "max_tokens is required"),
        ("/v1/embeddings", b'{"model": "m", "input": [""]}', "1 to 8192 tokens"),
        ("/v1beta/models/m:generateContent", b'{"contents": []}', "contents is empty"),
        ("/v1/nowhere", b"{}", "the simulated provider serves"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(provider, path, body, says):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(provider.url + path, data=body)
    with caught.value as reply:
        assert reply.code in (400, 404)
        assert says in reply.read().decode()


def test_what_makes_no_sense_is_refused():
    for arguments, says in (
        ({"requests_per_minute": 0}, "requests_per_minute must be > 0"),
        ({"distribution": "normal"}, "uniform, exponential or lognormal"),
        ({"faults": [Fault("explode", every=1)]}, "a fault must be"),
    ):
        with pytest.raises(ValueError, match=says):
            SimulatedProvider(**arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_from_the_shell():
    command = [sys.executable, "-m", "batch_llm.testing.simulate", "--fault", "503:2@0.1", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[1]
        body = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'
        assert b"Simulated reply" in urllib.request.urlopen(f"{url}/chat/completions", data=body).read()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/chat/completions", data=body)
        with caught.value as reply:
            assert reply.headers["retry-after"] == "0.1"
        process.send_signal(signal.SIGINT)
        told = process.stdout.read()
    assert process.returncode == 0
    assert "2 requests, at most 1 at a time, 0 too early for the quota; replies: 200: 1, 503: 1" in told
    wrong = subprocess.run([*command[:3], "--fault", "429"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "is not KIND:WHEN" in wrong.stderr


def test_the_fixtures_of_the_plugin(pytester):
    pytester.makeconftest('pytest_plugins = ["batch_llm.testing.pytest_plugin"]')
    pytester.makepyfile(
        """
        import urllib.request

        BODY = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'

        def ask(provider):
            return urllib.request.urlopen(provider.base_url + "/chat/completions", data=BODY).read()

        def test_plain(simulated_provider):
            assert b"Simulated reply" in ask(simulated_provider)

        def test_made(make_simulated_provider):
            assert b"pong" in ask(make_simulated_provider(replies=["pong"]))
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
