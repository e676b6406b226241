"""Tool calls: run the tools that the model requests, and continue the conversation, for many conversations at once.

export OPENAI_API_KEY=sk-...
python examples/tools.py                                               (--simulate: no key, no cost)
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from batch_llm import LLMWorkItem, NativeStrategy, llm, run
from batch_llm.testing import SimulatedProvider

CITIES = ["Lima", "Oslo", "Accra", "Hanoi", "Quito"]
ROUNDS = 4


def get_weather(city: str) -> str:
    """Return the current weather in a city."""
    return f"{15 + len(city)} degrees and clear in {city}"


def go_on(item: LLMWorkItem[Any, Any, Any], calls: list[Any], strategy: NativeStrategy[str]) -> Any:
    """Return the item with the tool calls and their results added to the conversation."""
    said: list[dict[str, Any]] = [{"role": "assistant", "tool_calls": calls}]
    said += [
        {"role": "tool", "tool_call_id": call.id, "content": get_weather(**json.loads(call.arguments))}
        for call in calls
    ]
    return LLMWorkItem(item.item_id, strategy, [*item.prompt, *said])


def main() -> None:
    """Ask about all cities. Those with tool calls go into another round."""
    strategy = llm("openai:gpt-5-mini", tools=[get_weather])
    items: dict[str, Any] = {
        city: LLMWorkItem(
            city,
            strategy,
            [{"role": "user", "content": f"Do I need a coat in {city}? Look it up with get_weather first."}],
        )
        for city in CITIES
    }
    for number in range(1, ROUNDS + 1):
        batch = run(strategy, items.values(), preserve_order=True)
        waiting = {result.item_id: result.tool_calls for result in batch if result.tool_calls}
        print(f"round {number}: {len(items)} asked, {len(waiting)} want something called")
        for result in batch:
            if not result.tool_calls:
                print(f"    {result.item_id}: {result.output if result.success else result.error}")
        items = {city: go_on(items[city], calls, strategy) for city, calls in waiting.items()}
        if not items:
            return
    print(f"{', '.join(items)}: no answer after {ROUNDS} rounds")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main()
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main()
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
