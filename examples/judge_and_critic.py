"""A writer, a critic that sends drafts back, and a judge that scores the results.

export OPENAI_API_KEY=sk-...
python examples/judge_and_critic.py                                    (--simulate: no key, no cost)

The critic is a model of its own. It decides after each draft, within the same item, so no draft waits for another.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from pydantic import BaseModel, Field

from batch_llm import Conversation, Reply, call, llm, run
from batch_llm.testing import SimulatedProvider

TOPICS = ["a lost key", "the first snow", "a night train", "an old radio", "a market at noon"]


class Criticism(BaseModel):
    """What a critic says of a draft."""

    accepted: bool
    advice: str


class Score(BaseModel):
    """What a judge says of the last draft."""

    points: int = Field(ge=1, le=10)


def main() -> None:
    """Write, criticize, judge."""
    critic: Any = llm("openai:gpt-5-mini", response_model=Criticism)
    judge: Any = llm("openai:gpt-5", response_model=Score)

    async def criticize(conversation: Conversation, reply: Reply) -> str | None:
        """Send a draft back with advice, or accept it."""
        question = f"Is this a good haiku? If not, say in one sentence how to improve it.\n\n{reply.output}"
        criticism = await call(critic, question)
        return None if criticism.accepted else f"Improve it: {criticism.advice}"

    writer = llm("openai:gpt-5-mini", turn=criticize, rounds=4)
    written = run(writer, [(topic, f"Write a haiku about {topic}.") for topic in TOPICS], preserve_order=True)
    drafts = {result.item_id: result.output for result in written if result.success}
    scores = run(judge, [(topic, f"Score this haiku:\n\n{text}") for topic, text in drafts.items()])
    points = {result.item_id: result.output.points for result in scores if result.success}
    for result in written:
        print(f"{result.item_id}: {result.error or points.get(result.item_id, 'no')} points, {result.rounds} drafts")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main()
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main()
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
