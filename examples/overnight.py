"""Classify overnight: in batches for half the price, and done by the morning in any case.

export OPENAI_API_KEY=sk-...
python examples/overnight.py examples/data/reviews.csv rated.csv        (--simulate: no key, no cost)

Whatever batches would not answer in time is sent one by one. Ctrl-C and crashes lose nothing: run it again, and it goes
on, because rated.csv.db stores answers and batches. The plan is printed before anything is sent.
"""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

from batch_llm import BatchSettings, plan, run
from batch_llm.testing import SimulatedBatches, SimulatedProvider

MODEL = "openai:gpt-4.1-mini"
NIGHT = timedelta(hours=8)
RATE = 10.0
"""How many requests per second the account may send one by one. If it is not said, eight requests are sent to see."""


class Rating(BaseModel):
    """A review, rated."""

    mood: Literal["happy", "neutral", "angry"]
    topic: Literal["product", "price", "delivery", "support", "other"]


def main(source: str, target: str) -> None:
    """Rate every row."""
    with open(source, newline="", encoding="utf-8") as file:
        prompts = [(row["id"], f"Rate this review: {row['text']}") for row in csv.DictReader(file)]
    print(plan(MODEL, prompts, deadline=NIGHT, rate=RATE))
    batch = run(
        MODEL,
        prompts,
        response_model=Rating,
        lane="auto",
        deadline=NIGHT,
        batches=BatchSettings(linger=1.0, live_rate=RATE),  # no row comes later, as all were read
        store=f"{target}.db",
        preserve_order=True,
    )
    with open(target, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *Rating.model_fields, "error"])
        for result in batch:
            rating = result.output
            writer.writerow([result.item_id, *((rating.mood, rating.topic, "") if rating else ("", "", result.error))])
    lanes = Counter((result.metadata or {}).get("lane", "live") for result in batch)
    print(f"{target}: {batch.succeeded} of {batch.total_items} rated; {dict(lanes)}")


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if argument != "--simulate"]
    simulated = "--simulate" in sys.argv
    if not (simulated or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
    if len(files) != 2:
        sys.exit("Give two files: python examples/overnight.py reviews.csv rated.csv [--simulate]")
    if simulated:
        with SimulatedProvider(batches=SimulatedBatches(delay=1.0)) as provider:
            os.environ.update(provider.environment)
            main(*files)
    else:
        main(*files)
