"""Gemini and pydantic-ai through their SDKs, with mock clients."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import pytest

from batch_llm import GeminiCachedStrategy, GeminiResponse, GeminiStrategy, PydanticAIStrategy
from batch_llm.testing import MockAgent, mock_strategy

from ..helpers import quick, run

genai = pytest.importorskip("google.genai")


def usage(prompt=10, output=5, total=15, cached=None):
    return SimpleNamespace(
        prompt_token_count=prompt,
        candidates_token_count=output,
        total_token_count=total,
        cached_content_token_count=cached,
    )


def client(response=None, caches=()):
    mock = MagicMock()
    reply = response or SimpleNamespace(text="hello", usage_metadata=usage(), candidates=[])
    mock.aio.models.generate_content = AsyncMock(return_value=reply)
    mock.aio.caches.list = AsyncMock(return_value=list(caches))
    numbers = iter(range(1, 1000))
    mock.aio.caches.create = AsyncMock(side_effect=lambda **_: MagicMock(name_=next(numbers)))

    async def create(**kwargs):
        created = MagicMock()
        created.name = f"cache-{next(numbers)}"
        return created

    mock.aio.caches.create = AsyncMock(side_effect=create)
    mock.aio.caches.delete = AsyncMock()
    return mock


def text(response):
    return response.text


async def test_gemini_called_directly():
    mock = client()
    strategy = GeminiStrategy("gemini-x", mock, text, config={"temperature": 0})
    output, tokens = await strategy.execute("prompt", 1, 10.0)
    assert (output, tokens) == ("hello", {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15})
    mock.aio.models.generate_content.assert_awaited_once_with(
        model="gemini-x", contents="prompt", config={"temperature": 0}
    )


async def test_gemini_metadata_uses_names_and_reaches_the_result():
    types = genai.types
    rating = SimpleNamespace(
        category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, probability=types.HarmProbability.NEGLIGIBLE
    )
    candidate = SimpleNamespace(safety_ratings=[rating], finish_reason=types.FinishReason.STOP)
    reply = SimpleNamespace(text="hi", usage_metadata=None, candidates=[candidate])
    batch, _ = await run(GeminiStrategy("m", client(reply), text, include_metadata=True))
    (result,) = batch.results
    assert isinstance(result.output, GeminiResponse)
    assert result.output.finish_reason == "STOP"
    assert result.output.safety_ratings == {"HARM_CATEGORY_HARASSMENT": "NEGLIGIBLE"}
    assert result.gemini_safety_ratings == {"HARM_CATEGORY_HARASSMENT": "NEGLIGIBLE"}
    assert result.token_usage["total_tokens"] == 0

    candidate.finish_reason, candidate.safety_ratings = None, None
    (output, _) = await GeminiStrategy("m", client(reply), text, include_metadata=True).execute("p", 1, 1.0)
    assert (output.finish_reason, output.safety_ratings) == (None, {})


async def test_tokens_of_an_answer_that_the_parser_rejects_are_counted():
    def rejects(response):
        raise ValueError("not what I wanted")

    batch, _ = await run(GeminiStrategy("m", client(), rejects))
    assert batch.results[0].token_usage["total_tokens"] == 15


def cached(mock, **arguments):
    arguments.setdefault("cached_content", ["a long document"])
    return GeminiCachedStrategy("gemini-x", mock, text, **arguments)


async def test_one_cache_for_a_hundred_items_which_is_not_deleted():
    mock = client()
    strategy = cached(mock)
    batch, _ = await run(strategy, ["x"] * 100, quick(max_workers=20))
    assert batch.succeeded == 100
    assert mock.aio.caches.create.await_count == 1
    assert mock.aio.caches.delete.await_count == 0
    call = mock.aio.models.generate_content.await_args.kwargs
    assert call["config"].cached_content == "cache-1"
    assert "cached_content" not in call
    await strategy.delete_cache()
    mock.aio.caches.delete.assert_awaited_once_with(name="cache-1")
    await strategy.delete_cache()
    assert mock.aio.caches.delete.await_count == 1


async def test_the_users_config_is_copied_not_changed():
    config = genai.types.GenerateContentConfig(temperature=0.5)
    mock = client()
    await cached(mock, config=config).execute("p", 1, 1.0)
    sent = mock.aio.models.generate_content.await_args.kwargs["config"]
    assert (sent.temperature, sent.cached_content, config.cached_content) == (0.5, "cache-1", None)


async def test_a_cache_is_renewed_before_it_ends_and_once_for_all_workers():
    mock = client()
    strategy = cached(mock, cache_ttl_seconds=2, cache_renewal_buffer_seconds=1)
    await strategy.prepare()
    await strategy.execute("p", 1, 1.0)
    assert mock.aio.caches.create.await_count == 1
    await asyncio.sleep(1.2)
    await asyncio.gather(*(strategy.execute("p", 1, 1.0) for _ in range(10)))
    assert mock.aio.caches.create.await_count == 2


def listed(created_with, *, seconds=3600, name="found", model="models/gemini-x"):
    """A cache as the service would list what `created_with` asked it to create."""
    label = created_with.aio.caches.create.await_args.kwargs["config"].display_name
    end = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return SimpleNamespace(name=name, model=model, display_name=label, expire_time=end)


async def made(**arguments):
    mock = client()
    await cached(mock, **arguments).prepare()
    return mock


@pytest.mark.parametrize(
    ("theirs", "mine", "reused"),
    [
        ({}, {}, True),
        ({"cache_tags": {"a": "1"}}, {"cache_tags": {"a": "1"}}, True),
        ({"cache_tags": {"a": "1", "b": "2"}}, {"cache_tags": {"a": "1"}}, True),
        ({"cache_tags": {"a": "1"}}, {}, True),
        ({"cache_tags": {"a": "1"}}, {"cache_tags": {"a": "2"}}, False),
        ({}, {"cache_tags": {"a": "1"}}, False),
        ({"cache_tags": {"a": "X"}}, {"cache_tags": {"a": "x"}}, False),
        ({"cached_content": ["another document"]}, {}, False),
        ({"cached_content": ["another document"], "cache_tags": {"a": "1"}}, {"cache_tags": {"a": "1"}}, False),
    ],
)
async def test_which_caches_are_used_again(theirs, mine, reused):
    mock = client(caches=[listed(await made(**theirs))])
    strategy = cached(mock, **mine)
    await strategy.prepare()
    assert mock.aio.caches.create.await_count == (0 if reused else 1)
    assert strategy.cache_tags == mine.get("cache_tags", {})


async def test_caches_that_are_not_used_again():
    other = await made()
    for found in (
        listed(other, seconds=100),  # about to end: would be renewed at every call
        listed(other, model="models/another-gemini-x"),
        SimpleNamespace(name="foreign", model="models/gemini-x", display_name="my own cache", expire_time=None),
    ):
        mock = client(caches=[found])
        await cached(mock).prepare()
        assert mock.aio.caches.create.await_count == 1


async def test_a_cache_of_an_older_version_is_found_by_its_tags():
    end = datetime.now(timezone.utc) + timedelta(hours=1)
    old = SimpleNamespace(name="old", model="models/gemini-x", metadata={"a": "1", "b": "2"}, expire_time=end)
    mock = client(caches=[old])
    await cached(mock, cache_tags={"a": "1"}).prepare()
    assert mock.aio.caches.create.await_count == 0


async def test_all_pages_of_caches_are_searched():
    found = listed(await made())

    class Pager:
        def __aiter__(self):
            return self.pages()

        async def pages(self):
            for number in range(50):
                yield SimpleNamespace(name=str(number), model="other", display_name=None)
            yield found

    mock = client()
    mock.aio.caches.list = AsyncMock(return_value=Pager())
    await cached(mock).prepare()
    assert mock.aio.caches.create.await_count == 0


async def test_when_listing_fails_a_cache_is_created_and_when_creating_fails_the_item_does():
    mock = client()
    mock.aio.caches.list = AsyncMock(side_effect=RuntimeError("no list"))
    mock.aio.caches.create = AsyncMock(side_effect=RuntimeError("no cache"))
    batch, _ = await run(cached(mock))
    assert batch.results[0].error == "RuntimeError: no cache"


async def test_without_auto_renew_there_must_be_a_cache():
    with pytest.raises(RuntimeError, match="Cache not initialized"):
        await cached(client(), auto_renew=False).execute("p", 1, 1.0)


async def test_a_dry_run_creates_no_paid_cache():
    mock = client()
    batch, _ = await run(cached(mock), config=quick(dry_run=True))
    assert batch.succeeded == 1
    assert mock.aio.caches.create.await_count == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cache_ttl_seconds": 300}, "must be less than cache_ttl_seconds"),
        ({"cache_ttl_seconds": 10, "cache_renewal_buffer_seconds": 0}, "cache_renewal_buffer_seconds must be > 0"),
        ({"cache_ttl_seconds": -1, "cache_renewal_buffer_seconds": -5}, "cache_ttl_seconds must be > 0"),
        ({"cache_tags": {str(n): "x" for n in range(11)}}, "at most 10 fit"),
    ],
)
def test_cache_settings_that_make_no_sense(arguments, says):
    with pytest.raises(ValueError, match=says):
        cached(client(), **arguments)


def test_a_short_ttl_is_a_warning():
    with pytest.warns(UserWarning, match="is less than 60 seconds"):
        cached(client(), cache_ttl_seconds=30, cache_renewal_buffer_seconds=5)


def test_the_real_client_is_accepted():
    real = genai.Client(api_key="test-key")
    assert GeminiStrategy("m", real, text).client is real
    assert cached(real, cache_tags=None).cache_tags == {}


@pytest.mark.parametrize("name", ["GeminiStrategy", "GeminiCachedStrategy"])
def test_without_the_sdk_the_constructor_says_what_to_install(monkeypatch, name):
    import batch_llm
    from batch_llm import llm_strategies

    monkeypatch.setattr(llm_strategies, "_GENAI_INSTALLED", False)
    arguments = {"cached_content": [], "cache_ttl_seconds": 1} if "Cached" in name else {}
    with pytest.raises(ImportError, match=rf"^google-genai is required for {name}.*batch-llm\[gemini\]"):
        getattr(batch_llm, name)("m", client(), text, **arguments)


def test_without_pydantic_ai_the_constructor_says_what_to_install(monkeypatch):
    from batch_llm import llm_strategies

    monkeypatch.setattr(llm_strategies, "_PYDANTIC_AI_INSTALLED", False)
    with pytest.raises(ImportError, match=r"^pydantic-ai is required.*batch-llm\[pydantic-ai\]"):
        PydanticAIStrategy(MockAgent())
    assert mock_strategy(MockAgent()).agent is not None  # mocks need no package


@pytest.mark.parametrize(
    "result",
    [
        SimpleNamespace(output="o", usage=lambda: SimpleNamespace(request_tokens=3, response_tokens=4, total_tokens=7)),
        SimpleNamespace(output="o", usage=SimpleNamespace(input_tokens=3, output_tokens=4, total_tokens=7)),
        SimpleNamespace(
            output="o",
            usage=lambda: SimpleNamespace(request_tokens=None, input_tokens=3, output_tokens=4, total_tokens=7),
        ),
    ],
)
async def test_pydantic_ai_usage_of_any_version(result):
    agent = SimpleNamespace(run=AsyncMock(return_value=result))
    output, tokens = await PydanticAIStrategy(agent).execute("p", 1, 1.0)
    assert (output, tokens) == ("o", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
    agent.run.assert_awaited_once_with("p")


async def test_a_real_pydantic_ai_agent():
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.test import TestModel

    agent = pydantic_ai.Agent(TestModel(custom_output_text="hello"))
    batch, _ = await run(PydanticAIStrategy(agent), ["a", "b"])
    assert [result.output for result in batch.results] == ["hello", "hello"]
    assert batch.total_output_tokens > 0


async def test_pydantic_ai_dry_run_constructs_the_output_model():
    import pydantic

    class Model(pydantic.BaseModel):
        name: str = "default"

    agent = SimpleNamespace(output_type=Model, run=None)
    output, tokens = await PydanticAIStrategy(agent).dry_run("three small words")
    assert output.name == "default"
    assert tokens == {"input_tokens": 3, "output_tokens": 50, "total_tokens": 53}


async def test_mock_agent_does_as_told():
    agent = MockAgent(latency=0.0)
    result = await agent.run("x" * 80)
    assert result.output == {"response": f"Mock response to: {'x' * 50}"}
    assert (result.usage().request_tokens, result.usage().total_tokens, result.all_messages()) == (100, 150, [])
    limited = MockAgent(latency=0.01, rate_limit_on_call=2)
    outcomes = await asyncio.gather(*(limited.run("x") for _ in range(5)), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes].count("ClientError") == 1
    seeded = [MockAgent(latency=0, failure_rate=0.5, seed=1) for _ in range(2)]
    first, second = [
        [type(outcome) for outcome in await asyncio.gather(*(a.run("x") for _ in range(20)), return_exceptions=True)]
        for a in seeded
    ]
    assert first == second
    with pytest.raises(KeyError):
        await MockAgent(latency=0, errors={1: KeyError("told")}).run("x")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(MockAgent(latency=0, timeout_on_call=1).run("x"), 0.01)
