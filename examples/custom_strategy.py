"""A custom strategy, for any model or client. Here a local function stands in for the model.

python examples/custom_strategy.py                                     (needs no key)
"""

from __future__ import annotations

import asyncio
import random

from batch_llm import (
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    RetryConfig,
    RetryState,
    TokenUsage,
)


class Model(LLMCallStrategy[str]):
    """Answers with the prompt in upper case; fails occasionally, as models do."""

    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[str, TokenUsage]:
        """Answer one prompt."""
        await asyncio.sleep(random.uniform(0.01, 0.05))
        if random.random() < 0.2:
            raise ConnectionError("the model is not there")
        return prompt.upper(), {"input_tokens": len(prompt) // 4, "output_tokens": len(prompt) // 4}


async def main() -> None:
    """Run fifty prompts."""
    config = ProcessorConfig(max_workers=10, retry=RetryConfig(max_attempts=5, initial_wait=0.05))
    strategy = Model()
    async with ParallelBatchProcessor[str, str, None](config=config, progress_bar=True) as processor:
        for number in range(50):
            await processor.add_work(LLMWorkItem(f"item-{number}", strategy, f"prompt number {number}"))
        batch = await processor.process_all()
    print(f"{batch.succeeded} succeeded, {batch.failed} failed")
    print("most attempts:", max(result.attempts for result in batch.results))


if __name__ == "__main__":
    asyncio.run(main())
