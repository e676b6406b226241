"""Native strategies of every dialect against the simulated provider, over real sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from pathlib import Path

import pydantic
import pytest
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from batch_llm import (
    AnthropicStrategy,
    Audio,
    BaseMiddleware,
    EmbeddingStrategy,
    File,
    GoogleStrategy,
    Image,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProviderError,
    RetryConfig,
    StructuredOutputValidationError,
    Tool,
    Transport,
    TruncatedResponseError,
    llm,
)
from batch_llm._llm.providers import table
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick, run, until


class Line(pydantic.BaseModel):
    name: str
    amount: float = pydantic.Field(gt=0)


class Invoice(pydantic.BaseModel):
    number: int
    lines: list[Line]
    note: str | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(TypedDict):
    left: str
    right: bool


def strategies(provider, **options):
    return {
        "chat": OpenAIStrategy("m", base_url=provider.base_url, api="chat", **options),
        "responses": OpenAIStrategy("m", base_url=provider.base_url, api="responses", **options),
        "anthropic": AnthropicStrategy("m", "key", provider.url, **options),
        "gemini": GoogleStrategy("m", "key", provider.gemini_url, **options),
    }


DIALECTS = ["chat", "responses", "anthropic", "gemini"]


@pytest.fixture(scope="module")
def provider():
    with SimulatedProvider() as simulated:
        yield simulated


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_answers_alike(provider, dialect):
    strategy = strategies(provider, system_prompt="Be brief.", max_tokens=200)[dialect]
    batch, processor = await run(strategy, [f"say {n}" for n in range(50)], quick(max_workers=10))
    assert batch.succeeded == 50, batch.results[0].error
    for result in batch.results:
        assert result.output.endswith(f": say {result.context}")
        usage = result.token_usage
        assert usage["input_tokens"] > 3  # the system prompt counts
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert result.metadata["finish_reason"] == "stop"
        assert result.metadata["model"] == "m"
        assert result.metadata["request_id"].startswith("req_")
    assert (await processor.get_stats())["total_input_tokens"] == batch.total_input_tokens


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (Invoice, Invoice),
        (Point, Point),
        (Pair, dict),
        (list[int], list),
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, dict),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1}, list),
    ],
    ids=["pydantic", "dataclass", "TypedDict", "list", "schema", "array schema"],
)
async def test_answers_have_the_shape_that_was_asked_for(provider, dialect, model, kind):
    strategy = strategies(provider, response_model=model)[dialect]
    batch, _ = await run(strategy, [f"invoice {n}" for n in range(20)])
    assert batch.succeeded == 20, batch.results[0].error
    assert all(isinstance(result.output, kind) for result in batch.results)
    assert len({repr(result.output) for result in batch.results}) > 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_tools_are_called_with_typed_arguments(provider, dialect):
    def weather(city: str, days: int = 3) -> str:
        """Tell the weather."""
        return city

    plain = {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
    strategy = strategies(provider, tools=[weather, Tool("point", "A point.", Point), plain])[dialect]
    batch, _ = await run(strategy, ["use point please", "call weather now", "clock!", "nothing of these"])
    by_prompt = {result.context: result for result in batch.results}
    assert batch.succeeded == 4, batch.results[0].error
    (call,) = by_prompt[0].tool_calls
    assert call.name == "point"
    assert isinstance(call.value, Point)
    assert json.loads(call.arguments)["x"] == call.value.x
    assert by_prompt[0].output is None
    assert by_prompt[0].metadata["finish_reason"] == "tool_calls"
    assert isinstance(by_prompt[1].tool_calls[0].value.city, str)
    assert isinstance(by_prompt[2].tool_calls[0].value, dict)
    assert by_prompt[3].tool_calls == []
    assert by_prompt[3].output.endswith("nothing of these")
    forced = strategies(provider, tools=[weather, plain], tool_choice="clock")[dialect]
    batch, _ = await run(forced, ["x"])
    assert batch.results[0].tool_calls[0].name == "clock"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_conversation_with_a_tools_result_goes_on(provider, dialect):
    strategy = strategies(provider)[dialect]
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": ["What time is it?", "In Lima."]},
        {"role": "assistant", "tool_calls": [{"id": "c1", "name": "clock", "arguments": "{}"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "user", "content": "So?"},
    ]
    batch, _ = await run(strategy, [messages])
    assert batch.results[0].output.endswith(": So?"), batch.results[0].error


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_dry_run_gives_values_of_the_right_shape_and_asks_nobody(provider, dialect):
    before = provider.stats.requests
    named = {"type": "object", "properties": {"a": {"type": "string"}}}
    for model, kind in ((Invoice, Invoice), (list[int], list), (named, dict), (None, str)):
        strategy = strategies(provider, response_model=model)[dialect]
        batch, _ = await run(strategy, ["x"], quick(dry_run=True))
        assert isinstance(batch.results[0].output, kind), batch.results[0].error
    vectors = EmbeddingStrategy("openai:e", "key", provider.base_url, dimensions=4)
    batch, _ = await run(vectors, ["x"], quick(dry_run=True))
    assert list(batch.results[0].output) == [0.0] * 4
    assert provider.stats.requests == before


async def test_what_is_too_long_is_cut_and_said_so(provider):
    for strategy in strategies(provider, max_tokens=2).values():
        batch, _ = await run(strategy, ["x"])
        assert batch.results[0].metadata["finish_reason"] == "length"
        assert len(batch.results[0].output) == 8
    for strategy in strategies(provider, max_tokens=2, response_model=Invoice).values():
        batch, _ = await run(strategy, ["x"])
        assert isinstance(batch.results[0].exception, TruncatedResponseError)
        assert batch.results[0].attempts == 1
        assert batch.results[0].token_usage["output_tokens"] == 2


async def test_samples_logprobs_and_the_raw_reply(provider):
    strategy = OpenAIStrategy("m", base_url=provider.base_url, n=3, logprobs=True, raw=True)
    batch, _ = await run(strategy, ["x"])
    result = batch.results[0]
    assert len(set(result.output)) == 3
    assert result.metadata["finish_reason"] == ["stop"] * 3
    assert len(result.metadata["logprobs"]) == 3
    assert len(result.metadata["raw"]["choices"]) == 3
    batch, _ = await run(OpenAIStrategy("m", base_url=provider.base_url, n=2, response_model=Point), ["x"])
    assert all(isinstance(point, Point) for point in batch.results[0].output)


async def test_media_of_all_kinds_are_sent(provider, tmp_path):
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n....")
    image, pdf = Image(picture, detail="auto"), File(b"%PDF-1.4 ...", name="a.pdf")
    assert repr(image).startswith("Image(image/png, ")
    for dialect, strategy in strategies(provider).items():
        prompts = [["What is this?", image, pdf], ["And this?", Image("https://example.com/a.jpg")]]
        prompts.append([{"role": "user", "content": [{"type": "text", "text": "Hm?"}, image]}])
        batch, _ = await run(strategy, prompts)
        assert batch.succeeded == 3, (dialect, batch.results[0].error)
    sound = Audio(b"RIFF\0\0\0\0WAVE")
    results = {}
    for dialect, strategy in strategies(provider).items():
        batch, _ = await run(strategy, [["Listen", sound]])
        results[dialect] = batch.results[0]
    assert results["chat"].success
    assert results["gemini"].success
    assert results["anthropic"].error.startswith("PromptError: Anthropic's Messages API does not accept audio")
    assert results["responses"].attempts == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(b"what is this"), "media type cannot be guessed"),
        (lambda: Image(b"%PDF-1.4"), "application/pdf is not of type image"),
        (lambda: Audio(5), "takes bytes, a path or a URL, not int"),
        (lambda: File("/nowhere.pdf"), "No such file"),
    ],
)
def test_media_that_are_none_are_named(make, says):
    with pytest.raises((ValueError, TypeError, OSError), match=says):
        make()


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (5, "must be a string, a list of messages"),
        ([], "empty list"),
        ([{"role": "user", "content": "x"}, "y"], "mixes messages"),
        ([{"role": "boss", "content": "x"}], "role must be"),
        ([{"role": "user", "contents": "x"}], "unknown key"),
        ([{"role": "user"}], "no content"),
        ([{"role": "tool", "content": "x"}], "needs tool_call_id"),
        ([object()], "part 0: a part must be"),
    ],
)
async def test_prompts_that_are_none_are_refused_at_once_and_by_name(provider, prompt, says):
    strategy = strategies(provider)["chat"]
    processor = ParallelBatchProcessor(config=quick())
    with pytest.raises((TypeError, ValueError), match=f"item 'odd': .*{says}"):
        await processor.add_work(LLMWorkItem("odd", strategy, prompt))

    class Spoil(BaseMiddleware):
        async def before_process(self, work_item):
            work_item.prompt = prompt
            return work_item

    batch, _ = await run(strategy, ["x"], middlewares=[Spoil()])
    assert says.split(" ")[0] in batch.results[0].error
    item = LLMWorkItem("odd", strategy, "fine")
    await processor.add_work(item)
    item.prompt = prompt  # behind everybody's back
    batch = await processor.process_all()
    assert batch.failed == 1


async def test_an_invalid_answer_is_shown_to_the_model_and_paid_for():
    needed = {"type": "object", "properties": {"y": {"type": "integer"}}, "required": ["y"]}
    with SimulatedProvider(replies=['{"x": 1}']) as provider:
        for strategy in (
            OpenAIStrategy("m", base_url=provider.base_url, response_model=Point, raw=True),
            AnthropicStrategy("m", "k", provider.url, response_model=needed),
        ):
            before = provider.stats
            batch, _ = await run(strategy, ["where?"], quick(retry=RetryConfig(max_attempts=3)))
            result = batch.results[0]
            assert not result.success
            assert result.attempts == 3
            after = provider.stats
            assert after.requests - before.requests == 3
            paid = after.output_tokens - before.output_tokens
            assert result.token_usage["output_tokens"] == paid
            # The later prompts hold the answer and the problem, so they are longer.
            assert after.input_tokens - before.input_tokens > 3 * 20
        error = result.exception
        assert isinstance(error, StructuredOutputValidationError)
        assert '"y" is a required property' in error.problem
        assert error.text == '{"x": 1}'
        silent = OpenAIStrategy("m", base_url=provider.base_url, response_model=Point, reask=False)
        before = provider.stats.input_tokens
        await run(silent, ["where?"], quick(retry=RetryConfig(max_attempts=3)))
        assert provider.stats.input_tokens - before == 3 * 2  # "where?" three times


async def test_fences_and_trailing_words_are_tolerated():
    with SimulatedProvider(replies=['```json\n{"x": 1, "y": 2}\n```\nHope it helps!']) as provider:
        for strategy in strategies(provider, response_model=Point).values():
            batch, _ = await run(strategy, ["where?"])
            assert batch.results[0].output == Point(1, 2)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("kind", "category", "retried"),
    [
        (400, "client_error", False),
        (401, "authentication", False),
        (403, "permission_denied", False),
        (429, "rate_limit", True),
        ("billing", None, False),
        (500, "server_error", True),
        (503, "server_overload", True),
        (529, "server_overload", True),
        ("error_inside", None, True),
        ("reset", "connection_error", True),
        ("cut", "connection_error", True),
        ("malformed", "invalid_response", True),
        ("html", "invalid_response", True),
    ],
)
async def test_every_failure_is_understood(dialect, kind, category, retried):
    with SimulatedProvider(faults=[Fault(kind, on=[1, 2], retry_after=0.01 if kind == 429 else None)]) as provider:
        strategy = strategies(provider)[dialect]
        with pytest.raises(ProviderError) as caught:
            await strategy.execute("x", 1, 5.0)
        assert category is None or caught.value.category == category
        assert caught.value.is_retryable is retried
        batch, _ = await run(strategy, ["x"], quick(retry=RetryConfig(3, 0.001)))
        assert batch.succeeded == (1 if retried else 0), batch.results[0].error


async def test_gateways_blank_lines_and_slow_replies_are_no_failures():
    with SimulatedProvider(faults=[Fault("keep_alive", on=[1]), Fault("drip", on=[2])]) as provider:
        strategy = strategies(provider)["chat"]
        batch, _ = await run(strategy, ["x"])
        assert batch.results[0].attempts == 1
        slow = OpenAIStrategy("m", base_url=provider.base_url, transport=Transport(total_timeout=0.1))
        batch, _ = await run(slow, ["x"], quick(retry=RetryConfig(2, 0.001)))
        assert batch.results[0].attempts == 2


async def test_a_hanging_server_is_left_by_the_first_byte_limit():
    with SimulatedProvider(faults=[Fault("hang", every=1)]) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, transport=Transport(first_byte_timeout=0.05))
        batch, _ = await run(strategy, ["x"], quick(timeout_per_item=1000.0, retry=RetryConfig(1)))
        assert "ProviderTimeoutError: timed out: the reply's first byte did not arrive within 0.05 s" in batch.summary()


@pytest.mark.parametrize("http2", ["never", "always"])
async def test_either_http_is_spoken(http2):
    # Slow enough that a busy machine sends a hundred requests before the first is answered.
    with SimulatedProvider(latency=0.5, faults=[Fault("500", every=7)]) as provider:
        strategy = OpenAIStrategy("m", base_url=provider.base_url, transport=Transport(http2=http2))
        config = quick(max_workers=250, retry=RetryConfig(max_attempts=20, initial_wait=0.01, max_wait=0.02))
        batch, _ = await run(strategy, [f"{n}" for n in range(300)], config=config)
        assert batch.succeeded == 300
        # One connection of HTTP/2 carries 90.
        assert provider.stats.peak_concurrency > 90


async def test_a_billing_refusal_stops_nothing_else():
    with SimulatedProvider(faults=[Fault("billing", on=[3]), Fault("daily_quota", on=[5])]) as provider:
        batch, processor = await run(strategies(provider)["gemini"], ["x"] * 20, quick(max_workers=1))
        assert (batch.succeeded, batch.failed) == (18, 2)
        assert (await processor.get_stats())["rate_limit_count"] == 0


async def test_a_quota_is_obeyed_from_what_the_server_says():
    with SimulatedProvider(requests_per_minute=1200, burst_seconds=1) as provider:
        for dialect in DIALECTS:
            provider.set_limits(requests_per_minute=1200, burst_seconds=1)
            batch, _ = await run(strategies(provider)[dialect], ["x"] * 30, quick(max_workers=30))
            assert batch.succeeded == 30, (dialect, batch.results[0].error)
        assert {violation.limit for violation in provider.stats.violations} == {"requests"}


async def test_keys_take_turns_or_are_fetched_and_show_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    with SimulatedProvider(api_key="sk-good") as provider:
        turns = OpenAIStrategy("m", ["sk-good", "sk-bad"], provider.base_url)
        batch, _ = await run(turns, ["x"] * 4, quick(max_workers=1))
        assert [result.success for result in batch.results] == [True, False, True, False]
        fetched = []

        def fetch():
            fetched.append(1)
            return "sk-good"

        for url, kind in ((provider.url, AnthropicStrategy), (provider.gemini_url, GoogleStrategy)):
            batch, _ = await run(kind("m", fetch, url), ["x"] * 3)
            assert batch.succeeded == 3
        assert len(fetched) == 6

        def broken():
            raise RuntimeError("the vault is shut")

        batch, _ = await run(OpenAIStrategy("m", broken, provider.base_url), ["x"], quick(retry=RetryConfig(2, 0.001)))
        assert batch.results[0].error == "RuntimeError: the vault is shut"
        shown = caplog.text + repr(turns) + repr(vars(turns)) + repr(batch)
        assert "sk-" not in shown


def test_the_factory_knows_every_provider(monkeypatch):
    for row in table().values():
        for variable in row.key_variables:
            monkeypatch.setenv(variable, "key")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    for name in table():
        base_url = "http://localhost:1234/v1" if name == "openai-compatible" else None
        strategy = llm(f"{name}:some-model", base_url=base_url)
        assert strategy.model == "some-model"
        assert strategy.provider == name
    assert isinstance(llm("anthropic:m"), AnthropicStrategy)
    assert isinstance(llm("gemini:m"), GoogleStrategy)
    assert llm("azure:m").base_url == "https://mine.openai.azure.com/openai/v1"
    assert llm("ollama:m:7b").model == "m:7b"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("opnai:gpt", {}, "unknown provider 'opnai'; did you mean 'openai'"),
        ("gpt-5-mini", {}, "has the form 'provider:model'"),
        ("openai:", {}, "names no model"),
        ("groq:m", {}, "no API key for groq: .* GROQ_API_KEY"),
        ("gemini:m", {}, "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("azure:m", {"api_key": "k"}, "AZURE_OPENAI_ENDPOINT"),
        ("openai-compatible:m", {}, "needs base_url"),
        ("ollama:m", {"tempereture": 0}, "did you mean 'temperature'"),
        ("anthropic:m", {"api_key": "k", "n": 2}, "does not support n"),
        ("ollama:m", {"tools": [5]}, "a tool must be"),
        ("ollama:m", {"transport": Transport(ca_bundle="/nowhere.pem")}, "ca_bundle"),
    ],
)
def test_wrong_names_and_options_give_the_nearest_or_the_remedy(monkeypatch, name, options, says):
    for row in table().values():
        for variable in row.key_variables:
            monkeypatch.delenv(variable, raising=False)
    with pytest.raises((ValueError, TypeError), match=says):
        llm(name, **options)


async def test_embeddings_are_packed_and_each_item_has_its_own(provider):
    for name, url in (("openai:e", provider.base_url), ("gemini:e", provider.gemini_url)):
        strategy = EmbeddingStrategy(name, "key", url, dimensions=16)
        before = provider.stats.requests
        batch, _ = await run(strategy, [f"text {n}" for n in range(1000)], quick(max_workers=1000))
        assert batch.succeeded == 1000, batch.results[0].error
        assert all(len(result.output) == 16 and result.output.typecode == "f" for result in batch.results)
        assert len({result.output.tobytes() for result in batch.results}) == 1000
        assert provider.stats.requests - before <= 60
        again, _ = await run(strategy, ["text 7"])
        same = next(result for result in batch.results if result.context == 7)
        assert again.results[0].output == same.output
    batch, _ = await run(EmbeddingStrategy("openai:e", "key", provider.base_url), ["one two three four"] * 10)
    assert batch.total_input_tokens == 10 * 5


async def test_one_bad_text_fails_alone(provider):
    strategy = EmbeddingStrategy("openai:e", "key", provider.base_url)
    prompts = ["fine"] * 20 + ["much too long " * 5000] + ["fine"] * 20
    batch, _ = await run(strategy, prompts, quick(max_workers=50))
    failed = [result.context for result in batch.results if not result.success]
    assert failed == [20]
    with pytest.raises(TypeError, match="must be a string"):
        await run(strategy, [["a", "b"]])
    with pytest.raises(ValueError, match="has no embeddings"):
        EmbeddingStrategy("anthropic:x", "key")


async def test_cancelling_embeddings_leaves_nothing():
    with SimulatedProvider(latency=1000) as provider:
        strategy = EmbeddingStrategy("openai:e", "key", provider.base_url)
        config = quick(timeout_per_item=0.1, retry=RetryConfig(1), max_workers=100)
        batch, _ = await run(strategy, ["x"] * 100, config)
        assert batch.failed == 100
        before = provider.stats.requests
        direct = asyncio.create_task(strategy.execute("x", 1, 1000.0))
        await until(lambda: provider.stats.requests > before)
        direct.cancel()
        with pytest.raises(asyncio.CancelledError):
            await direct


async def test_certificates_of_ones_own(tmp_path: Path):
    """The simulated provider behind TLS with a private authority: refused without it, accepted with it."""
    trustme = pytest.importorskip("trustme")
    import ssl

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with SimulatedProvider() as provider:
        port = int(provider.url.rsplit(":", 1)[1])

        async def pipe(reader, writer):
            there, back = await asyncio.open_connection("127.0.0.1", port)

            async def copy(source, target):
                try:
                    while data := await source.read(65536):
                        target.write(data)
                        await target.drain()
                except OSError:
                    pass
                finally:
                    target.close()

            await asyncio.gather(copy(reader, back), copy(there, writer))

        async with await asyncio.start_server(pipe, "localhost", 0, ssl=context) as server:
            url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
            config = quick(retry=RetryConfig(1))
            batch, _ = await run(OpenAIStrategy("m", base_url=url), ["x"], config)
            assert "ProviderConnectionError" in batch.results[0].error
            trusting = OpenAIStrategy("m", base_url=url, transport=Transport(ca_bundle=tmp_path / "ca.pem"))
            batch, _ = await run(trusting, ["x"] * 5, config)
            assert batch.succeeded == 5, batch.results[0].error
            del trusting
