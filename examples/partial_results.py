"""A smart retry: keep the valid fields of an answer, and request only the invalid ones again.

Long forms are rarely right at once. Requesting everything again costs as much again, and may break fields that were
valid.

export OPENAI_API_KEY=sk-...
python examples/partial_results.py                                     (--simulate: no key, no cost)
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from batch_llm import CallOutcome, ProcessorConfig, RetryConfig, RetryState, llm, run
from batch_llm.testing import SimulatedProvider

LETTERS = {
    "anna": "Dear shop, I am Anna Berg, 34, from Oslo. Write to anna@example.com about order 1177, please.",
    "juan": "This is Juan (52). My two lamps came broken. juan@example.org, order no. 2044.",
    "mei": "Where is order 3001? Mei Lin, 41, mei@example.net",
}


class Contact(BaseModel):
    """The writer of a letter."""

    name: str = Field(min_length=2, description="The writer's full name")
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", description="Where to write to")
    age: int = Field(ge=0, le=130, description="Years")
    order: int = Field(ge=1000, le=9999, description="The number of the order, four digits")


class IncompleteError(Exception):
    """Some fields are missing or invalid; the call is paid for anyway."""

    def __init__(self, problems: dict[str, str], usage: object) -> None:
        super().__init__(", ".join(f"{field}: {problem}" for field, problem in problems.items()))
        self.usage = usage


def main() -> None:
    """Read all letters."""
    strategy = llm("openai:gpt-5-mini", response_parser=json.loads)

    async def read(letter: str, attempt: int, timeout: float, state: RetryState) -> CallOutcome[Contact]:
        known: dict[str, Any] = state.get("known", {})
        problems: dict[str, str] = state.get("problems", {})
        wanted = [
            f"- {name}: {field.description}{f' (before: {problems[name]})' if name in problems else ''}"
            for name, field in Contact.model_fields.items()
            if name not in known
        ]
        prompt = "Read this letter and answer with a JSON object of these fields only:\n" + "\n".join(wanted)
        found, usage, metadata = await strategy.execute(f"{letter}\n\n{prompt}", attempt, timeout)
        try:
            contact = Contact.model_validate({**found, **known})
        except ValidationError as error:
            problems = {str(one["loc"][0]): one["msg"] for one in error.errors()}
            kept = {name: value for name, value in found.items() if name not in problems}
            state.set("known", {**kept, **known})
            state.set("problems", problems)
            raise IncompleteError(problems, usage) from error
        return CallOutcome(contact, usage, {**metadata, "kept": sorted(known)})

    config = ProcessorConfig(retry=RetryConfig(max_attempts=6, initial_wait=0.05))
    batch = run(read, LETTERS.items(), config=config, preserve_order=True)
    for result in batch:
        print(f"{result.item_id}: {result.output or result.error}")
        print(f"    {result.attempts} attempts; kept from those before the last: {(result.metadata or {}).get('kept')}")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        # The prompt decides which of these is the answer, so some are wrong at first.
        answers = [
            {"name": "Anna Berg", "email": "anna@example.com", "age": 34, "order": 11},
            {"name": "Juan", "email": "juan at example.org", "age": 52, "order": 2044},
            {"name": "Mei Lin", "email": "mei@example.net", "age": 41, "order": 3001},
        ]
        with SimulatedProvider(replies=[json.dumps(answer) for answer in answers]) as provider:
            os.environ.update(provider.environment)
            main()
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main()
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
