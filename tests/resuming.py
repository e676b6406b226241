"""A program that is killed, and run again: ``python -m tests.resuming URL STORE DELIVERED ITEMS WORKERS``.

Run by ``test_crashes``. What it delivers it adds to a file, a line per result, unbuffered.
"""

from __future__ import annotations

import os
import sys

from batch_llm import OpenAIStrategy, stream


def main(url: str, store: str, delivered: str, items: int, workers: int) -> None:
    log = os.open(delivered, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    strategy = OpenAIStrategy("a-model", api_key="none", base_url=url)
    prompts = ((f"id-{number}", f"question {number}") for number in range(items))
    os.write(1, b"ready\n")
    for result in stream(strategy, prompts, concurrency=workers, store=store):
        assert result.success, result.error
        os.write(log, f"{result.item_id}\n".encode())
    os.write(1, b"done\n")


if __name__ == "__main__":
    url, store, delivered, items, workers = sys.argv[1:]
    main(url, store, delivered, int(items), int(workers))
