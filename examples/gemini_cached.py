"""Ask many questions about one long document, with a Gemini context cache.

pip install 'batch-llm[gemini]'
export GEMINI_API_KEY=...
python examples/gemini_cached.py document.txt                          (--simulate: no key, no cost)
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from batch_llm import GeminiCachedStrategy, GeminiErrorClassifier, LLMWorkItem, ParallelBatchProcessor
from batch_llm.testing import SimulatedProvider

QUESTIONS = ["Who is it for?", "What does it claim?", "What does it leave out?", "Which numbers does it give?"]


def text(response: Any) -> str:
    """Return the text of a response."""
    return response.text or ""


async def main(document: str) -> None:
    """Ask all questions about one document."""
    from google import genai
    from google.genai import types

    client = genai.Client(api_key=os.environ.get("GOOGLE_API_KEY") or os.environ["GEMINI_API_KEY"])
    content = types.Content(role="user", parts=[types.Part(text=document)])
    # Share one strategy, so that there is one cache, paid for once.
    strategy = GeminiCachedStrategy("gemini-2.5-flash", client, text, [content], cache_tags={"example": "questions"})
    async with ParallelBatchProcessor[str, str, None](
        max_workers=4, error_classifier=GeminiErrorClassifier()
    ) as processor:
        for question in QUESTIONS:
            await processor.add_work(LLMWorkItem(question, strategy, question))
        batch = await processor.process_all()
    for result in batch.results:
        print(f"{result.item_id}\n    {result.output if result.success else result.error}")
    print(f"{batch.cache_hit_rate():.0f}% of the input tokens came from the cache")
    await strategy.delete_cache()


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if argument != "--simulate"]
    simulated = "--simulate" in sys.argv
    if not (simulated or os.environ.get("GOOGLE_API_KEY") or os.environ.get("GEMINI_API_KEY")):
        sys.exit("GEMINI_API_KEY is not set. Get a key from Google: export GEMINI_API_KEY=... (or --simulate)")
    if len(files) != 1:
        sys.exit("Give a text file: python examples/gemini_cached.py document.txt [--simulate]")
    given = Path(files[0]).read_text(encoding="utf-8")
    if simulated:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            asyncio.run(main(given))
    else:
        asyncio.run(main(given))
