"""Send prompts to OpenAI, or to a compatible server.

export OPENAI_API_KEY=sk-...
python examples/openai_quickstart.py                                   (--simulate: no key, no cost)
"""

from __future__ import annotations

import asyncio
import os
import sys

from batch_llm import LLMWorkItem, OpenAIStrategy, ParallelBatchProcessor
from batch_llm.testing import SimulatedProvider

CITIES = ["Lima", "Oslo", "Accra", "Hanoi", "Quito"]


async def main() -> None:
    """Ask about five cities."""
    strategy = OpenAIStrategy(os.environ.get("OPENAI_MODEL", "gpt-5-mini"), system_prompt="Answer in one sentence.")
    async with ParallelBatchProcessor[str, str, None](max_workers=5) as processor:
        for city in CITIES:
            await processor.add_work(LLMWorkItem(city, strategy, f"What is {city} known for?"))
        batch = await processor.process_all()
    for result in batch.results:
        print(f"{result.item_id}: {result.output if result.success else result.error}")
    print(f"{batch.total_input_tokens} tokens in, {batch.total_output_tokens} out")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            asyncio.run(main())
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        asyncio.run(main())
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
