"""Against real providers: ``pytest -m integration`` with the keys in the environment. A few cents at most."""

from __future__ import annotations

import os

import pytest

from batch_llm import GeminiErrorClassifier, GeminiStrategy, OpenAIStrategy

from ..helpers import quick, run

pytestmark = pytest.mark.integration


def key(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is not set")
    return value


async def test_openai():
    strategy = OpenAIStrategy(os.environ.get("OPENAI_MODEL", "gpt-5-mini"), key("OPENAI_API_KEY"))
    batch, _ = await run(strategy, ["Say hello."] * 3, quick(timeout_per_item=60))
    assert batch.succeeded == 3
    assert batch.total_output_tokens > 0


async def test_openai_with_a_wrong_key():
    batch, _ = await run(OpenAIStrategy("gpt-5-mini", key("OPENAI_API_KEY")[:8] + "wrong"), ["Say hello."])
    assert batch.results[0].error.startswith("ProviderError: HTTP 401")
    assert batch.results[0].attempts == 1


async def test_gemini():
    genai = pytest.importorskip("google.genai")
    client = genai.Client(api_key=key("GEMINI_API_KEY"))
    strategy = GeminiStrategy("gemini-2.5-flash", client, lambda response: response.text, include_metadata=True)
    batch, _ = await run(strategy, ["Say hello."] * 3, quick(), error_classifier=GeminiErrorClassifier())
    assert batch.succeeded == 3
    assert batch.results[0].output.finish_reason == "STOP"
