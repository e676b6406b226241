"""Conversations with tools: ``python conversations.py KIND URL``. Prints seconds, and CPU us per round, all threads.

1,024 conversations of 10 rounds, all open at once, against a provider that answers after 100 ms, with an async tool of
50 ms. KIND: ``ours``; ``http2``, the same over HTTP/2, as real providers speak it; ``stored``, with an SQLite store;
``openai``, a loop over that SDK with ``gather``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONVERSATIONS, ROUNDS = 1024, 10
ANSWER_SECONDS, TOOL_SECONDS = 0.1, 0.05
CHAIN = ROUNDS * ANSWER_SECONDS + (ROUNDS - 1) * TOOL_SECONDS
PROMPT = "{number}: read the file. Call advance until it says that all is read."
DESCRIPTION = "Read the next part of the file."


def next_part(done: int) -> str:
    """What the tool returns after so many calls."""
    part = f"part {done} of the file, " + "with some words of its text, " * 8
    return part + ("call advance" if done < ROUNDS - 1 else "and that was all")


def strategy_at(url: str, http2: Any = "auto") -> Any:
    from batch_llm import ToolContext, Transport, llm

    async def advance(call: ToolContext) -> str:
        await asyncio.sleep(TOOL_SECONDS)
        return next_part(call.round)

    advance.__doc__ = DESCRIPTION
    transport = Transport(http2=http2)
    return llm("openai:gpt-4.1-mini", base_url=url, api="chat", tools=[advance], rounds=ROUNDS + 1, transport=transport)


async def ours(strategy: Any, store: Path | None) -> None:
    from batch_llm import process_prompts

    prompts = [PROMPT.format(number=number) for number in range(CONVERSATIONS)]
    batch = await process_prompts(strategy, prompts, concurrency=CONVERSATIONS, store=store)
    assert batch.succeeded == CONVERSATIONS, batch.summary()
    assert all(result.rounds == ROUNDS for result in batch.results)


async def openai(url: str) -> None:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key="any")  # it opens up to 1,000 connections
    parameters = {"type": "object", "properties": {}}
    tool: Any = {
        "type": "function",
        "function": {"name": "advance", "description": DESCRIPTION, "parameters": parameters},
    }

    async def converse(number: int) -> None:
        messages: list[Any] = [{"role": "user", "content": PROMPT.format(number=number)}]
        for done in range(1, ROUNDS + 2):
            reply = await client.chat.completions.create(model="gpt-4.1-mini", messages=messages, tools=[tool])
            message = reply.choices[0].message
            if not message.tool_calls:
                assert done == ROUNDS
                return
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                json.loads(call.function.arguments)
                await asyncio.sleep(TOOL_SECONDS)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": next_part(done)})

    await asyncio.gather(*(converse(number) for number in range(CONVERSATIONS)))


def main(kind: str, url: str) -> None:
    if kind == "openai":
        importlib.import_module("openai")  # what is imported once
    else:
        import batch_llm

        http2 = "always" if kind == "http2" else "auto"
        batch_llm.run(strategy_at(url, http2), ["hello"])
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        if kind == "openai":
            asyncio.run(openai(url))
        else:
            asyncio.run(ours(strategy_at(url, http2), Path(folder, "run.db") if kind == "stored" else None))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(seconds, cpu / (CONVERSATIONS * ROUNDS) * 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
