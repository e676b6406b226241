"""Put requests into batches and leave; collect the answers when you come back.

export OPENAI_API_KEY=sk-...
python examples/leave_and_collect.py submit examples/data/reviews.csv answers.db
python examples/leave_and_collect.py collect examples/data/reviews.csv answers.db   (--simulate: both; no key, no cost)

"submit" ends within seconds. "collect" waits for what is not there yet; Ctrl-C ends it, and it may be started again. No
row is sent twice, whatever is started how often: answers.db knows what is in a batch, also on another machine. Without
this program, `batch-llm batches answers.db` says how far it is, and `batch-llm collect answers.db` fetches the answers.
"""

from __future__ import annotations

import csv
import os
import sys

from batch_llm import BatchSettings, run
from batch_llm.testing import SimulatedBatches, SimulatedProvider

# The file is read at once, so a batch need not wait for more rows.
BATCHES = BatchSettings(linger=1.0)


def main(step: str, source: str, store: str) -> None:
    """Send the rows that were not sent; with "collect", wait for all answers and print them."""
    with open(source, newline="", encoding="utf-8") as file:
        prompts = [(row["id"], f"Answer this review in one sentence: {row['text']}") for row in csv.DictReader(file)]
    collects = step == "collect"
    batch = run("openai:gpt-4.1-mini", prompts, lane="batch", wait=collects, batches=BATCHES, store=store)
    if batch.pending:
        print(f"{len(batch.pending)} of {len(prompts)} rows wait in batches")
    for item_id, answer in batch.outputs(with_ids=True):
        print(f"{item_id}: {answer}")
    for result in batch.failures:
        print(f"{result.item_id}: {result.error}")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--simulate"]
    simulated = "--simulate" in sys.argv
    if not (simulated or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
    if len(arguments) != 3 or arguments[0] not in ("submit", "collect"):
        sys.exit(
            "Give what to do, a file and a store: python examples/leave_and_collect.py submit reviews.csv answers.db"
        )
    if simulated:
        # Its batches end with the simulated provider, so it is left and come back to while that is there.
        with SimulatedProvider(batches=SimulatedBatches(delay=1.0)) as provider:
            os.environ.update(provider.environment)
            for step in ("submit", "collect"):
                main(step, *arguments[1:])
    else:
        main(*arguments)
