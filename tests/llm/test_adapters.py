"""Other libraries' clients as strategies: the real libraries, over real HTTP, against the simulated provider."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from pydantic import BaseModel

from batch_llm import PydanticAIStrategy, process_prompts
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def provider():
    # The second request meets a rate limit, the fourth a server error: each is tried again, once.
    with SimulatedProvider(faults=[Fault(429, on=[2], retry_after=0.01), Fault(500, on=[4])]) as provider:
        yield provider


async def answers(strategy, provider, prompts=("one", "two", "three")):
    batch = await process_prompts(strategy, prompts, concurrency=1, config=quick(), preserve_order=True)
    assert [result.error for result in batch.failures] == []
    assert batch.succeeded == len(prompts)
    # As many attempts as requests arrived: the library tries nothing again behind our back.
    assert sum(result.attempts for result in batch) == provider.stats.requests
    return batch


def looks_right(batch):
    for result in batch:
        usage = result.token_usage
        assert usage["input_tokens"] > 0
        assert usage["output_tokens"] > 0
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert all(isinstance(result.output, str) and result.output for result in batch)


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai(provider, api):
    openai = pytest.importorskip("openai")
    from batch_llm.adapters import OpenAIClientStrategy

    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
        strategy = OpenAIClientStrategy(client, "gpt-5-mini", api=api, system_prompt="Be brief.", temperature=0)
        batch = await answers(strategy, provider)
    looks_right(batch)
    assert batch.results[0].metadata["model"]
    assert batch.results[0].metadata["finish_reason"] in ("stop", "completed")
    assert sorted(result.attempts for result in batch) == [1, 2, 2]
    with pytest.raises(TypeError, match=r"AsyncOpenAI\(\.\.\.\)"):
        OpenAIClientStrategy(openai.OpenAI(api_key="any"), "gpt-5-mini")
    with pytest.raises(ValueError, match="'chat' or 'responses'"):
        OpenAIClientStrategy(client, "gpt-5-mini", api="completions")


class Person(BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai_with_a_model_for_answers(api):
    openai = pytest.importorskip("openai")
    from batch_llm.adapters import OpenAIClientStrategy

    with SimulatedProvider() as provider:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
            strategy = OpenAIClientStrategy(client, "gpt-5-mini", api=api, response_model=Person)
            batch = await answers(strategy, provider)
    assert all(type(result.output) is Person for result in batch)


async def test_anthropic(provider):
    anthropic = pytest.importorskip("anthropic")
    from batch_llm.adapters import AnthropicClientStrategy

    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="any") as client:
        strategy = AnthropicClientStrategy(client, "claude-sonnet-4-5", system_prompt="Be brief.", max_tokens=100)
        batch = await answers(strategy, provider)
    looks_right(batch)
    assert batch.results[0].metadata["finish_reason"] == "end_turn"
    with pytest.raises(TypeError, match=r"AsyncAnthropic\(\.\.\.\)"):
        AnthropicClientStrategy(anthropic.Anthropic(api_key="any"), "claude-sonnet-4-5")


async def test_google():
    genai = pytest.importorskip("google.genai")
    from batch_llm.adapters import GoogleClientStrategy

    with SimulatedProvider(faults=[Fault(429, on=[2])]) as provider:
        options = {"base_url": provider.gemini_url.removesuffix("/v1beta")}
        client = genai.Client(api_key="any", http_options=options)
        batch = await answers(GoogleClientStrategy(client, "gemini-2.5-flash", config={"temperature": 0}), provider)
    looks_right(batch)
    assert batch.results[0].metadata["finish_reason"] == "STOP"
    with pytest.raises(TypeError, match=r"genai\.Client"):
        GoogleClientStrategy(object(), "gemini")


async def test_langchain():
    core = pytest.importorskip("langchain_core")
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda

    from batch_llm.adapters import LangChainStrategy

    assert core
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "input_token_details": {"cache_read": 2}}

    def model(count=10):
        told = {"model_name": "fake", "finish_reason": "stop"}
        messages = [AIMessage(f"answer {n}", usage_metadata=usage, response_metadata=told) for n in range(count)]
        return GenericFakeChatModel(messages=iter(messages))

    counts = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "cached_input_tokens": 2}
    batch = await process_prompts(LangChainStrategy(model()), ["a", "b"], concurrency=1)
    assert batch.outputs() == ["answer 0", "answer 1"]
    assert [result.token_usage for result in batch] == [counts, counts]
    assert batch.results[0].metadata == {"finish_reason": "stop", "model": "fake"}

    chain = ChatPromptTemplate.from_template("Say {word} in {language}.") | model() | StrOutputParser()
    prompts = [{"prompt": {"word": "yes", "language": "Welsh"}}]
    batch = await process_prompts(LangChainStrategy(chain), prompts, concurrency=1)
    assert batch.outputs() == ["answer 0"]
    assert batch.results[0].token_usage == counts

    plain = RunnableLambda(lambda text: len(text))
    batch = await process_prompts(LangChainStrategy(plain), ["abc"])
    assert (batch.outputs(), batch.results[0].token_usage) == ([3], {})
    with pytest.raises(TypeError, match="LangChain runnable"):
        LangChainStrategy(object())
    with pytest.raises(TypeError, match=r"adapters\.LangChainStrategy"):
        await process_prompts(chain, ["a"])


async def test_pydantic_ai(provider):
    pytest.importorskip("pydantic_ai")
    openai = pytest.importorskip("openai")
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="any", max_retries=0)
    agent = Agent(OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(openai_client=client)))
    batch = await answers(PydanticAIStrategy(agent), provider)
    await client.close()
    looks_right(batch)
    with pytest.raises(TypeError, match=r"PydanticAIStrategy\(agent\)"):
        await process_prompts(agent, ["a"])


LITELLM = """
import asyncio, sys
from batch_llm import process_prompts, ProcessorConfig, RetryConfig
from batch_llm.adapters import LiteLLMStrategy
from batch_llm.testing import Fault, SimulatedProvider

async def main():
    with SimulatedProvider(faults=[Fault(429, on=[2], retry_after=0.01), Fault(500, on=[4])]) as provider:
        strategy = LiteLLMStrategy("openai/gpt-5-mini", api_base=provider.base_url, api_key="any")
        config = ProcessorConfig(retry=RetryConfig(initial_wait=0.01))
        batch = await process_prompts(strategy, ["one", "two", "three"], concurrency=1, config=config)
        print(batch.succeeded, sum(result.attempts for result in batch) == provider.stats.requests)
        result = batch.results[0]
        print(type(result.output).__name__, result.token_usage["total_tokens"] > 0, result.metadata["finish_reason"])

asyncio.run(main())
"""


def test_litellm():
    # In a process of its own, for it changes a good deal when it is imported.
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, "-c", LITELLM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.split()[-5:] == ["3", "True", "str", "True", "stop"], done.stderr[-3000:]


async def test_litellm_gets_the_timeout_and_does_not_retry(monkeypatch):
    from types import SimpleNamespace as Made

    seen = []

    async def acompletion(**given):
        seen.append(given)
        message = Made(content="pong", tool_calls=None)
        usage = Made(prompt_tokens=3, completion_tokens=2, total_tokens=5)
        return Made(choices=[Made(message=message, finish_reason="stop")], usage=usage, model="m", id="1")

    monkeypatch.setitem(sys.modules, "litellm", Made(acompletion=acompletion))
    from batch_llm.adapters import LiteLLMStrategy

    output, usage = (await LiteLLMStrategy("openai/m", temperature=0).execute("ping", 1, 7.0))[:2]
    assert (output, usage["total_tokens"]) == ("pong", 5)
    wanted = {"model": "openai/m", "temperature": 0, "timeout": 7.0, "num_retries": 0, "max_retries": 0}
    assert seen[0] == {**wanted, "messages": [{"role": "user", "content": "ping"}]}


def test_litellm_that_is_missing_is_named(monkeypatch):
    from batch_llm.adapters import LiteLLMStrategy

    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ImportError, match=r"batch-llm\[litellm\]"):
        LiteLLMStrategy("openai/gpt-5-mini")


async def test_prompts_are_checked():
    openai = pytest.importorskip("openai")
    from batch_llm.adapters import OpenAIClientStrategy

    strategy = OpenAIClientStrategy(openai.AsyncOpenAI(api_key="any"), "gpt-5-mini")
    with pytest.raises(TypeError, match="prompt must be a string or a list, not int"):
        await process_prompts(strategy, [("a", 5)])
