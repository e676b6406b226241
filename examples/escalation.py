"""Model escalation: try the small model first, and a larger one if the answer fails a check.

export OPENAI_API_KEY=sk-...
python examples/escalation.py                                          (--simulate: no key, no cost)
"""

from __future__ import annotations

import os
import sys
from collections import Counter

from pydantic import BaseModel, Field

from batch_llm import CallOutcome, ProcessorConfig, RetryConfig, RetryState, llm, run
from batch_llm.testing import SimulatedProvider

EQUATIONS = [f"{a} * {b} + {c}" for a in (17, 23, 31) for b in (12, 45) for c in (6, 99)]


class Solution(BaseModel):
    """The solution of an arithmetic problem."""

    steps: list[str]
    result: int
    confidence: float = Field(ge=0, le=1)


class UnsureError(Exception):
    """The model reports low confidence; the call is paid for anyway."""

    def __init__(self, confidence: float, usage: object) -> None:
        super().__init__(f"a confidence of {confidence:.2f} is too low")
        self.usage = usage


def main() -> None:
    """Solve all equations, and print how many each model solved."""
    ladder = [llm(f"openai:{model}", response_model=Solution) for model in ("gpt-5-nano", "gpt-5-mini", "gpt-5")]

    async def solve(prompt: str, attempt: int, timeout: float, state: RetryState) -> CallOutcome[Solution]:
        # Escalate only after a low-confidence answer. After a connection error, retry the same model.
        step = state.get("step", 0)
        solution, usage, metadata = await ladder[step].execute(prompt, attempt, timeout, state)
        if solution.confidence < 0.5 and step + 1 < len(ladder):
            state.set("step", step + 1)
            raise UnsureError(solution.confidence, usage)
        return CallOutcome(solution, usage, {**metadata, "asked": ladder[step].model})

    config = ProcessorConfig(retry=RetryConfig(max_attempts=4, initial_wait=0.1))
    batch = run(solve, EQUATIONS, config=config, preserve_order=True)
    asked = Counter((result.metadata or {}).get("asked", "nobody") for result in batch)
    print(f"{batch.succeeded} of {batch.total_items} solved: {dict(asked)}")
    print(f"{sum(result.attempts > 1 for result in batch)} went up the ladder")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main()
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main()
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
