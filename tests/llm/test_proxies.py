"""Long answers arrive through proxies that close silent connections, and cuts never pass for answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading

import pytest

from batch_llm import RetryConfig, Transport, llm, process_prompts
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick

SILENCE = 0.6
"""A hundredth of the minute after which the usual balancers close a connection, seconds."""


class Proxy:
    """A TCP proxy on a thread of its own.

    Args:
        url: The server's.
        idle: After how long without a byte it closes a connection, seconds.
        cuts: After how many bytes of the server each connection ends, in order; those after the last do not.
    """

    def __init__(self, url, idle=60.0, cuts=()):
        self._target, self._idle, self._cuts = int(url.rpartition(":")[2]), idle, iter(cuts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.cut = 0

    def __enter__(self):
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_):
        async def end():
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader, writer):
        left = next(self._cuts, None)
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError, asyncio.CancelledError):
            upstream, sink = await asyncio.open_connection("127.0.0.1", self._target)
            sending = asyncio.create_task(self._pass_on(reader, sink))
            try:
                while data := await asyncio.wait_for(upstream.read(65536), self._idle):
                    if left is not None and len(data) >= left:
                        writer.write(data[:left])
                        self.cut += 1
                        break
                    left = None if left is None else left - len(data)
                    writer.write(data)
                    await writer.drain()
            finally:
                sending.cancel()
                sink.close()
                writer.close()

    async def _pass_on(self, reader, sink):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                sink.write(data)
                await sink.drain()


async def test_a_long_answer_survives_a_proxy_that_cuts_silence():
    once = quick(max_workers=20, retry=RetryConfig(max_attempts=1, outage_patience=0))
    with SimulatedProvider(latency=10 * SILENCE) as provider, Proxy(provider.url, idle=SILENCE) as proxy:

        async def batch(stream):
            thinking = llm("openai:gpt-5-mini", base_url=proxy.url, api_key="k", stream=stream)
            return await process_prompts(thinking, ["why?"] * 20, config=once)

        assert (await batch("auto")).succeeded == 20
        plain = await batch(False)
        assert plain.succeeded == 0
        assert {result.error_category for result in plain} == {"connection_error"}


@pytest.mark.parametrize("stream", [False, True])
async def test_cuts_at_any_byte_lose_nothing_and_are_never_answers(stream):
    random_bytes = random.Random(7)
    cuts = (random_bytes.randrange(1, 12_000 if stream else 2_000) for _ in range(10_000))
    prompts = [f"prompt {number} " + "grüße " * 20 for number in range(150)]
    config = quick(max_workers=30, retry=RetryConfig(max_attempts=40, initial_wait=0.001, max_wait=0.01))
    with SimulatedProvider() as provider, Proxy(provider.url, cuts=cuts) as proxy:
        whole = llm("openai-compatible:m", base_url=provider.base_url, api_key="k")
        expected = (await process_prompts(whole, prompts, config=config, preserve_order=True)).outputs()
        strategy = llm("openai-compatible:m", base_url=proxy.url, api_key="k", stream=stream)
        batch = await process_prompts(strategy, prompts, config=config, preserve_order=True)
        cut = proxy.cut
    assert batch.outputs() == expected
    assert cut > 20


async def test_only_streams_that_stall_are_ended_and_by_the_clock_of_bytes():
    config = quick(max_workers=1000, retry=RetryConfig(max_attempts=9, initial_wait=0.001), timeout_per_item=100.0)
    idle = 6.0
    with SimulatedProvider(latency=1.0, faults=[Fault("stall", on=range(100, 1001, 100))]) as provider:
        strategy = llm(
            "openai-compatible:m",
            base_url=provider.base_url,
            api_key="k",
            stream=True,
            transport=Transport(idle_timeout=idle),
        )
        batch = await process_prompts(strategy, ["x"] * 1000, config=config)
    assert batch.succeeded == 1000
    failed = [attempt for result in batch for attempt in result.timing.attempts if not attempt.success]
    assert len(failed) >= 10
    assert len(failed) < 20
    assert {attempt.error_type for attempt in failed} == {"ProviderTimeoutError"}
    assert all(attempt.execution_seconds > idle for attempt in failed)
