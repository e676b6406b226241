"""A program with prompts in batches, which tests kill: ``python -m tests.lanes.batching URL PROVIDER STORE ITEMS``."""

from __future__ import annotations

import dataclasses
import sys

from batch_llm import run

from .common import FAST, MODELS


def main() -> None:
    """Answer prompts in batches of ten; print how many have an answer."""
    url, name, store, items = sys.argv[1:]
    settings = dataclasses.replace(FAST, size=10)
    prompts = [f"question {number}" for number in range(int(items))]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    maker = "openai" if name == "responses" else name
    batch = run(
        f"{maker}:{MODELS[name]}", prompts, api_key="key", base_url=url, lane="batch", store=store, batches=settings
    )
    sys.stdout.write(f"{batch.succeeded} {len({result.output for result in batch.results})}\n")


if __name__ == "__main__":
    main()
