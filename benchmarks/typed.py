"""Real requests: ``python typed.py PEER URL CONCURRENCY REQUESTS [CA]``; prints requests/s and CPU us each.

Prompts of 4 KB, answers of 2 KB of JSON, which are read into a pydantic model: see ``shapes.py``. Each peer is used at
its best: one client for all requests, as many connections as there are requests in flight, no retries, no logs. CA is
a PEM file with the authority of an ``https://`` URL, or ``-``.

Peers: ``batch-llm``, ``batch-llm-http2`` (also without TLS), ``batch-llm-text`` (the answer stays a text), ``aiohttp``
(a hand-written loop), ``openai`` (with aiohttp, ``.parse()``), ``instructor`` (around the same client), ``litellm``
(the Router), ``flexllm``. Of Anthropic's Messages: ``batch-llm-messages``, ``litellm-messages``,
``litellm-messages-rust``. (``polar_llama`` calls the vendors' own addresses alone, and cannot be measured.)
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from shapes import MODEL, Invoice, prompt

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it looks for prices on the network when it is imported


async def workers(concurrency: int, requests: int, ask: Callable[[int], Awaitable[Any]]) -> int:
    """So many workers that call ``ask`` until there is nothing left; returns how many answers were typed."""
    done = 0
    numbers = iter(range(requests))

    async def worker() -> None:
        nonlocal done
        for number in numbers:
            answer = await ask(number)
            assert isinstance(answer, Invoice), answer
            done += 1

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return done


async def batch_llm(
    url: str, concurrency: int, requests: int, ca: str | None, http2: Any = "auto", typed: bool = True
) -> int:
    from batch_llm import OpenAIStrategy, process_stream
    from batch_llm.transport import Transport

    transport = Transport(http2=http2, ca_bundle=ca)
    model: Any = Invoice if typed else None
    strategy: Any = OpenAIStrategy(MODEL, base_url=url, response_model=model, transport=transport)
    done = 0
    async for result in process_stream(strategy, map(prompt, range(requests)), concurrency=concurrency):
        assert isinstance(result.output, Invoice if typed else str), result.error
        done += 1
    return done


async def aiohttp_loop(url: str, concurrency: int, requests: int, ca: str | None) -> int:
    import json

    import aiohttp

    schema = {"name": "Invoice", "schema": Invoice.model_json_schema(), "strict": False}
    format_ = {"type": "json_schema", "json_schema": schema}
    context = ssl.create_default_context(cafile=ca) if ca else True
    connector = aiohttp.TCPConnector(limit=concurrency, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(number: int) -> Invoice:
            message = {"role": "user", "content": prompt(number)}
            body = {"model": MODEL, "messages": [message], "response_format": format_}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                reply = json.loads(await response.read())
                return Invoice.model_validate_json(reply["choices"][0]["message"]["content"])

        return await workers(concurrency, requests, ask)


def _openai(url: str, concurrency: int, ca: str | None) -> Any:
    import openai

    try:
        import httpx2 as httpx  # what newer versions of the SDK are built on
    except ImportError:
        import httpx

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    verify: Any = ssl.create_default_context(cafile=ca) if ca else True
    http = openai.DefaultAioHttpClient(limits=limits, verify=verify)
    return openai.AsyncOpenAI(base_url=url, api_key="none", http_client=http, max_retries=0)


async def openai_sdk(url: str, concurrency: int, requests: int, ca: str | None) -> int:
    async with _openai(url, concurrency, ca) as client:

        async def ask(number: int) -> Any:
            messages: Any = [{"role": "user", "content": prompt(number)}]
            reply = await client.chat.completions.parse(model=MODEL, messages=messages, response_format=Invoice)
            return reply.choices[0].message.parsed

        return await workers(concurrency, requests, ask)


async def instructor_sdk(url: str, concurrency: int, requests: int, ca: str | None) -> int:
    import instructor

    async with _openai(url, concurrency, ca) as client:
        patched = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)

        async def ask(number: int) -> Any:
            messages: Any = [{"role": "user", "content": prompt(number)}]
            return await patched.chat.completions.create(
                model=MODEL, messages=messages, response_model=Invoice, max_retries=0
            )

        return await workers(concurrency, requests, ask)


async def litellm_router(url: str, concurrency: int, requests: int, ca: str | None) -> int:
    import litellm

    if ca:
        litellm.ssl_verify = ca
    litellm.suppress_debug_info = True
    parameters = {"model": f"openai/{MODEL}", "api_base": url, "api_key": "none"}
    router = litellm.Router(model_list=[{"model_name": "m", "litellm_params": parameters}], num_retries=0)

    async def ask(number: int) -> Invoice:
        messages: Any = [{"role": "user", "content": prompt(number)}]
        reply: Any = await router.acompletion("m", messages=messages, response_format=Invoice)
        return Invoice.model_validate_json(reply.choices[0].message.content)

    return await workers(concurrency, requests, ask)


async def litellm_messages(url: str, concurrency: int, requests: int, ca: str | None, native: bool) -> int:
    import litellm

    if ca:
        litellm.ssl_verify = ca
    litellm.suppress_debug_info = True
    litellm.rust(native)
    root = url.removesuffix("/v1")

    async def ask(number: int) -> Invoice:
        messages: Any = [{"role": "user", "content": prompt(number)}]
        reply: Any = await litellm.anthropic.messages.acreate(
            model=f"anthropic/{MODEL}", messages=messages, max_tokens=4096, api_base=root, api_key="none"
        )
        return Invoice.model_validate_json(reply["content"][0]["text"])

    return await workers(concurrency, requests, ask)


async def batch_llm_messages(url: str, concurrency: int, requests: int, ca: str | None) -> int:
    from batch_llm import AnthropicStrategy, process_stream
    from batch_llm.transport import Transport

    transport = Transport(ca_bundle=ca)
    root = url.removesuffix("/v1")
    strategy = AnthropicStrategy(
        MODEL, "none", root, max_tokens=4096, response_parser=Invoice.model_validate_json, transport=transport
    )
    done = 0
    async for result in process_stream(strategy, map(prompt, range(requests)), concurrency=concurrency):
        assert isinstance(result.output, Invoice), result.error
        done += 1
    return done


async def flexllm_client(url: str, concurrency: int, requests: int, ca: str | None) -> int:
    import flexllm

    schema = {"name": "Invoice", "schema": Invoice.model_json_schema(), "strict": False}
    client = flexllm.OpenAIClient(url, "none", MODEL, concurrency_limit=concurrency, max_qps=10**9, retry_times=0)
    messages = [[{"role": "user", "content": prompt(number)}] for number in range(requests)]
    answers: Any = await client.chat_completions_batch(
        messages, show_progress=False, response_format={"type": "json_schema", "json_schema": schema}
    )
    return sum(isinstance(Invoice.model_validate_json(answer), Invoice) for answer in answers)


PEERS: dict[str, Callable[[str, int, int, str | None], Awaitable[int]]] = {
    "batch-llm": batch_llm,
    "batch-llm-http2": functools.partial(batch_llm, http2="always"),
    "batch-llm-http1": functools.partial(batch_llm, http2="never"),
    "batch-llm-text": functools.partial(batch_llm, typed=False),
    "batch-llm-text-http2": functools.partial(batch_llm, http2="always", typed=False),
    "aiohttp": aiohttp_loop,
    "openai": openai_sdk,
    "instructor": instructor_sdk,
    "litellm": litellm_router,
    "litellm-messages": functools.partial(litellm_messages, native=False),
    "litellm-messages-rust": functools.partial(litellm_messages, native=True),
    "batch-llm-messages": batch_llm_messages,
    "flexllm": flexllm_client,
}


async def main(peer: str, url: str, concurrency: int, requests: int, ca: str | None) -> None:
    await PEERS[peer](url, 10, 100, ca)  # imports, connections, caches
    start, cpu = time.perf_counter(), time.process_time()
    assert await PEERS[peer](url, concurrency, requests, ca) == requests
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(requests / seconds, cpu / requests * 1e6)


if __name__ == "__main__":
    given = sys.argv[5] if len(sys.argv) > 5 else "-"
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), None if given == "-" else given))
