"""Tool calls: the model looks things up, for many conversations at once. Each is one item.

export OPENAI_API_KEY=sk-...
python examples/tools.py                                               (--simulate: no key, no cost)
"""

from __future__ import annotations

import os
import sys

from batch_llm import llm, run
from batch_llm.testing import SimulatedProvider

CITIES = ["Lima", "Oslo", "Accra", "Hanoi", "Quito"]


def get_weather(city: str) -> str:
    """Return the current weather in a city."""
    return f"{15 + len(city)} degrees and clear in {city}"


def main() -> None:
    """Ask about all cities."""
    strategy = llm("openai:gpt-5-mini", tools=[get_weather], rounds=4)
    prompts = {city: f"Do I need a coat in {city}? Look it up with get_weather first." for city in CITIES}
    for result in run(strategy, prompts.items(), preserve_order=True):
        answer = result.output if result.success else result.error
        print(f"{result.item_id}, {result.rounds} rounds: {answer}")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main()
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main()
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
