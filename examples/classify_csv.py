"""Classify the rows of a CSV, and write a CSV with one column per field of the answers.

export OPENAI_API_KEY=sk-...
python examples/classify_csv.py examples/data/reviews.csv rated.csv     (--simulate: no key, no cost)

After an interruption, run it again: it requests only what is missing, because rated.csv.db stores the answers.
The command line does the same: batch-llm run reviews.csv -p "Rate this review: {text}" --schema ... -o rated.csv
"""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel

from batch_llm import llm, stream
from batch_llm.testing import SimulatedProvider


class Rating(BaseModel):
    """A review, rated."""

    mood: Literal["happy", "neutral", "angry"]
    topic: Literal["product", "price", "delivery", "support", "other"]
    needs_reply: bool


def prompts(source: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield id, prompt and the row itself, lazily."""
    with open(source, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield row["id"], f"Rate this review: {row['text']}", row


def main(source: str, target: str) -> None:
    """Rate every row."""
    strategy = llm("openai:gpt-5-mini", response_model=Rating)
    topics: Counter[str] = Counter()
    with open(target, "w", newline="", encoding="utf-8") as file:
        columns = ["id", "text", *Rating.model_fields, "error"]
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for result in stream(strategy, prompts(source), ordered=True, progress=True, store=f"{target}.db"):
            row = dict(result.context or {})
            if result.output is not None:
                row |= result.output.model_dump()
                topics[result.output.topic] += 1
            else:
                row["error"] = result.error
            writer.writerow(row)
    print(f"{target}: {sum(topics.values())} rated; {', '.join(f'{name} {count}' for name, count in topics.items())}")


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if argument != "--simulate"]
    simulated = "--simulate" in sys.argv
    if not (simulated or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
    if len(files) != 2:
        sys.exit("Give two files: python examples/classify_csv.py reviews.csv rated.csv [--simulate]")
    if simulated:
        with SimulatedProvider(latency=0.05) as provider:
            os.environ.update(provider.environment)
            main(*files)
    else:
        main(*files)
