"""The simulated provider is honest: the vendors' own SDKs take its answers and raise their own errors on its errors."""

from __future__ import annotations

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
def opened():
    """Clients of SDKs that are to be closed."""
    clients = []
    yield lambda client: clients.append(client) or client
    for client in clients:
        client.close()


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
    config = {"response_mime_type": "application/json", "response_schema": City}
    assert isinstance(client.models.generate_content(model="m", contents="x", config=config).parsed, City)
    tool = {"function_declarations": [{"name": "weather", "parameters_json_schema": WEATHER["parameters"]}]}
    called = client.models.generate_content(model="m", contents="weather please", config={"tools": [tool]})
    assert called.function_calls[0].name == "weather"
    vectors = client.models.embed_content(model="e", contents=["a", "b"], config={"output_dimensionality": 8})
    assert [len(vector.values) for vector in vectors.embeddings] == [8, 8]


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
    assert "2 requests, at most 1 at a time, 0 too early; replies: 200: 1, 503: 1" in told
    wrong = subprocess.run([*command[:3], "--fault", "429"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "is not KIND:EVERY" in wrong.stderr


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
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
