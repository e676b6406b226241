"""Stores of any size, made quickly: a run of some items, whose file then gets more records of the same form."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path

from batch_llm import ArtifactStore, CallOutcome, ProviderError, RetryConfig, SqliteArtifactStore, run
from batch_llm.core import ProcessorConfig

HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "javascript:document.title='owned'",
    "\u202egnp.exe \u2028 \u0007 \x1b[31m red",
    "'; DROP TABLE items; --",
    "{{constructor.constructor('document.title=1')()}}",
    "<svg/onload=document.title='owned'>",
    "&lt;b&gt; &amp;amp; &#x3c;",
    '=HYPERLINK("http://127.0.0.1/","x")',
    "漢字の検索 и ещё текст",
]
WORDS = (
    "invoice refund delivery complaint colour number account summary customer order late broken friendly answer "
    "question please payment address return exchange warranty discount manual weather city river"
).split()


def small(path: Path | str, *, prompts: bool = True, items: int = 40) -> ArtifactStore:
    """A store of a real run, with failures, retries and hostile text."""
    seen: dict[str, int] = {}

    async def ask(prompt: str) -> CallOutcome[object]:
        seen[prompt] = seen.get(prompt, 0) + 1
        number = int(prompt.split()[0])
        if number % 10 == 3:
            raise ValueError(f"row {number} is wrong: {HOSTILE[0]}")
        if number % 10 == 4 and seen[prompt] == 1:
            raise ConnectionError("connection reset")
        usage = {"input_tokens": 100 + number, "output_tokens": number, "cached_input_tokens": 50}
        finish = "length" if number % 10 == 5 else "stop"
        output = (
            {"label": "yes" if number % 2 else "no", "score": number / 10} if number % 10 == 7 else f"answer {prompt}"
        )
        return CallOutcome(output, usage, {"model": "gpt-5-mini", "finish_reason": finish})

    store = SqliteArtifactStore(path, include_prompt=prompts or "failures")
    texts = [f"{number} {HOSTILE[number % len(HOSTILE)]}" for number in range(items)]
    config = ProcessorConfig(retry=RetryConfig(max_attempts=2, initial_wait=0.01))
    run(ask, [(f"id-{number}", text) for number, text in enumerate(texts)], store=store, config=config, progress=False)
    return store


def large(path: Path, items: int, *, seed: int = 1, change: float = 0.0, text: int = 60) -> Path:
    """A store with so many items, of one run that met rate limits. ``change``: the share with another answer."""
    if not os.path.exists(path):
        small(path, items=1)
    source, other = random.Random(seed), random.Random(seed + 1000)
    began, at = 1_790_000_000.0, 0.0
    records, bodies = [], []
    for number in range(items):
        at += 0.003
        words = " ".join(source.choice(WORDS) for _ in range(text))
        label, score = source.choice(("billing", "delivery", "other")), source.randrange(100)
        if other.random() < change:
            label = "changed"
        seconds = source.lognormvariate(0, 0.5)
        is_slow = 100 < at % 200 < 130
        fails = source.random() < 0.01
        retried = source.random() < 0.05
        start = at + (source.random() if is_slow else 0)
        attempts = []
        if retried:
            attempts.append([[start, 0.2, 0, 0, 0, 0, 0.3], "RateLimitError", "rate_limit"])
            start += 1.5
        waits = [0.4, 0.8 if is_slow else 0.01, 0.0, 0.0, 0.9 if retried else 0.0]
        error = ["ProviderError", "server_error"] if fails else [None, None]
        attempts.append([[start, *waits, seconds], *error])
        usage = {"input_tokens": 300 + number % 50, "output_tokens": 20 + score, "cached_input_tokens": 200}
        body: dict[str, object] = {"attempts": len(attempts), "token_usage": usage, "timing": attempts}
        body["prompt"] = f"Classify the message {number}: {words}"
        finish = "length" if number % 97 == 5 else "stop"
        body["metadata"] = {
            "model": "gpt-5-mini",
            "finish_reason": finish,
            "lane": "flex" if number % 9 == 0 else "live",
        }
        if fails:
            body["error"] = f"ProviderError: 500: the request {number} failed, try again"
        else:
            body["output"] = {"label": label, "score": score, "reason": " ".join(source.sample(WORDS, 6))}
        place = number + 1000
        key = number.to_bytes(16, "big")
        when = began + start + seconds
        cost = usage["input_tokens"] * 0.25e-6 + usage["output_tokens"] * 2e-6
        records.append((
            place, 1, 2, key, 1, f"row-{number + 1}", number, when, not fails, "server_error" if fails else None,
            1 if fails else 2, usage["input_tokens"], usage["output_tokens"], 200, cost,
        ))  # fmt: skip
        bodies.append((place, json.dumps(body)))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM records")
        database.execute("DELETE FROM bodies")
        database.execute("INSERT INTO runs VALUES (2, ?, '0')", [began])
        database.executemany(f"INSERT INTO records VALUES ({', '.join('?' * 15)})", records)
        database.executemany("INSERT INTO bodies VALUES (?, ?)", bodies)
    database.close()
    return path


__all__ = ["HOSTILE", "ProviderError", "large", "small"]
