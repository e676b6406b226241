"""Providers that go away and come back, over real connections: see ``away_server``. What the engine decides is tested
in simulated time (``src/engine/outages_tests.rs``)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from batch_llm import (
    DefaultErrorClassifier,
    ErrorInfo,
    LLMCallPool,
    LLMWorkItem,
    OpenAIStrategy,
    ParallelBatchProcessor,
    ProcessorConfig,
    RetryConfig,
    process_prompts,
)
from batch_llm._progress.display import Snapshot
from batch_llm.errors import BatchAbortedError, ProviderConnectionError, ProviderError, ProviderOutageError
from batch_llm.strategies.errors import classify_status
from batch_llm.testing import Fault, SimulatedProvider

from ..away_server import AwayServer
from ..helpers import Scripted

QUICK = RetryConfig(initial_wait=0.02, max_wait=0.05)


@pytest.fixture
def server() -> Iterator[AwayServer]:
    """A server that answers in 20 ms."""
    with AwayServer(0.02) as server:
        yield server


def chat(server: AwayServer, model: str = "m") -> OpenAIStrategy:
    return OpenAIStrategy(model, api_key="k", base_url=server.base_url, api="chat")


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "event", None) == event]


@pytest.mark.parametrize("concurrency", [20, "auto"])
@pytest.mark.parametrize("kind", ["refused", "reset", "500", "503"])
async def test_an_outage_costs_no_item(server, kind, concurrency, caplog):
    count = 600
    tasks = []

    async def outage() -> None:
        await asyncio.to_thread(server.go, kind)
        await asyncio.sleep(1)
        await asyncio.to_thread(server.come_back, kind)

    async def progress(completed: int, total: int, item_id: str) -> None:
        if completed >= 100 and not tasks:
            tasks.append(asyncio.ensure_future(outage()))

    with caplog.at_level(logging.INFO, logger="batch_llm"):
        batch = await process_prompts(
            chat(server),
            [f"prompt {number}" for number in range(count)],
            config=ProcessorConfig(concurrency=concurrency, retry=QUICK, progress_interval=50),
            progress=progress,
        )
    await tasks[0]
    assert [result.error for result in batch.results if not result.success] == []
    assert batch.succeeded == count
    assert batch.termination.kind == "completed"
    assert len(said(caplog, "outage_began")) == len(said(caplog, "outage_ended")) == 1
    assert "127.0.0.1" in said(caplog, "outage_began")[0]
    assert batch.stats.bound_by["outage"] > 0.5
    assert "the provider was down" in batch.stats.explain()


@pytest.mark.parametrize("concurrency", [1, 20])
@pytest.mark.parametrize("what", ["bad", "crash"])
async def test_a_bad_item_among_good_ones_is_no_outage(server, what, concurrency, caplog):
    prompts = ["good"] * 100
    prompts[40] = what
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        batch = await process_prompts(
            chat(server), prompts, config=ProcessorConfig(concurrency=concurrency, retry=QUICK), preserve_order=True
        )
    assert [index for index, result in enumerate(batch.results) if not result.success] == [40]
    failed = batch.results[40]
    assert failed.attempts == 3
    assert failed.error_category == ("server_error" if what == "bad" else "connection_error")
    assert said(caplog, "outage_began") == []


async def test_one_dead_endpoint_of_several_is_no_outage(server, caplog):
    server.say("dead 3")
    retry = RetryConfig(max_attempts=15, initial_wait=0.01, max_wait=0.02)
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        batch = await process_prompts(
            chat(server), ["x"] * 500, config=ProcessorConfig(concurrency=30, retry=retry, progress_interval=1000)
        )
    assert batch.succeeded == 500
    assert said(caplog, "outage_began") == []


async def test_a_long_outage_ends_the_run_which_is_resumed(server, tmp_path, caplog):
    store = tmp_path / "results.db"
    retry = RetryConfig(outage_patience=1.0, initial_wait=0.02, max_wait=0.05)
    config = ProcessorConfig(concurrency=20, retry=retry, progress_interval=50)
    gone = []

    async def progress(completed: int, total: int, item_id: str) -> None:
        if not gone:
            gone.append(asyncio.ensure_future(asyncio.to_thread(server.go, "503")))

    prompts = [f"prompt {number}" for number in range(400)]
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        batch = await process_prompts(chat(server), prompts, config=config, store=store, progress=progress)
    await gone[0]
    assert batch.termination.kind == "provider_outage"
    reason = batch.termination.reason
    assert "HTTP 503: made on purpose" in reason
    assert "run it again with the same store" in reason
    assert "outage_patience" in reason
    left = [result for result in batch.results if not result.success]
    assert left
    assert {result.error_category for result in left} == {"provider_outage"}
    assert all(isinstance(result.exception, ProviderOutageError) for result in left)
    assert any(isinstance(result.exception.__cause__, ProviderError) for result in left)
    assert isinstance(left[0].exception, BatchAbortedError)
    server.come_back("503")
    again = await process_prompts(chat(server), prompts, config=config, store=store)
    assert again.succeeded == 400
    assert again.stats.replayed == batch.succeeded
    assert server.stats()["answers"] == 400


@pytest.mark.parametrize("items", [1, 3])
async def test_a_small_run_against_nothing_fails_as_soon_as_its_attempts_are_used_up(items, caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    strategy = OpenAIStrategy("small", api_key="k", base_url=url)
    batch = await process_prompts(strategy, ["x"] * items, config=ProcessorConfig(concurrency=5, retry=QUICK))
    assert [(result.attempts, result.error_category) for result in batch.results] == [(3, "connection_error")] * items
    error = batch.results[0].exception
    assert isinstance(error, ProviderConnectionError)
    assert error.server_away
    assert not error.was_sent


async def test_a_dead_provider_of_several_stops_no_other(server, caplog):
    with AwayServer() as dead:
        dead.say("mode 500")
        config = ProcessorConfig(concurrency=20, retry=RetryConfig(outage_patience=1.0, initial_wait=0.02))
        async with ParallelBatchProcessor(config=config) as processor:
            strategies = [chat(server, "alive"), chat(dead, "dead")]
            for number in range(200):
                await processor.add_work(LLMWorkItem(f"i{number}", strategies[number % 2], f"prompt {number}"))
            # Work for longer than the patience lasts, whatever the machine.
            server.say("mode ok")
            batch = await processor.process_all()
        alive = [result for result in batch.results if int(result.item_id[1:]) % 2 == 0]
        assert all(result.success for result in alive)
        assert len(alive) == 100
        assert {r.error_category for r in batch.results if not r.success} == {"provider_outage"}


async def test_without_patience_failures_count(server):
    server.say("mode 500")
    retry = RetryConfig(max_attempts=2, initial_wait=0.01, outage_patience=0)
    batch = await process_prompts(chat(server), ["x"] * 60, config=ProcessorConfig(concurrency=10, retry=retry))
    assert {(result.attempts, result.error_category) for result in batch.results} == {(2, "server_error")}


async def test_custom_strategies_count_unless_their_classifier_says_that_the_server_is_away():
    class Away(DefaultErrorClassifier):
        def classify(self, exception: Exception) -> ErrorInfo:
            return ErrorInfo(True, False, False, "away", server_away=True)

    calls = []
    last_lost = 110

    def script(prompt: str, attempt: int) -> object:
        calls.append(prompt)
        # Everybody loses the first attempts, and nobody more than two.
        return ConnectionError("gone") if 50 < len(calls) <= last_lost else "answer"

    for classifier, failed in [(None, True), (Away(), False)]:
        calls.clear()
        # Enough for an outage, but few probes: so many would take a minute.
        last_lost = 110 if failed else 71
        strategy = Scripted(script)
        retry = RetryConfig(max_attempts=1)
        async with ParallelBatchProcessor(
            config=ProcessorConfig(max_workers=10, retry=retry), error_classifier=classifier
        ) as processor:
            for number in range(100):
                await processor.add_work(LLMWorkItem(f"i{number}", strategy, "x"))
            batch = await processor.process_all()
        assert (batch.failed > 0) is failed, batch.failed


async def test_a_cancelled_or_interrupted_run_ends_at_once_in_an_outage(server, caplog):
    async def away() -> None:
        while not said(caplog, "outage_began"):
            await asyncio.sleep(0.01)

    server.say("mode 500")
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        run = asyncio.ensure_future(
            process_prompts(chat(server), ["x"] * 200, config=ProcessorConfig(concurrency=10, retry=QUICK))
        )
        await asyncio.wait_for(away(), 30)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_a_pool_outlives_an_outage(server):
    config = ProcessorConfig(concurrency=20, retry=RetryConfig(outage_patience=0.5, initial_wait=0.02))
    async with LLMCallPool(chat(server), config=config) as pool:
        assert await pool.submit("before") == "ok"
        server.say("mode 503")
        lost = await pool.submit_many([f"x{number}" for number in range(40)])
        assert {result.error_category for result in lost} == {"provider_outage"}
        server.say("mode ok")
        for _ in range(200):
            result = await pool.submit_result("after")
            if result.success:
                break
        assert result.success


async def test_a_longer_wait_than_the_ceiling_fails_the_item_alone(caplog):
    for status, category in [(429, "rate_limit"), (503, "server_overload")]:
        faults = [Fault(status, on=[3], retry_after=7200.0)]
        with SimulatedProvider(faults=faults) as provider:
            strategy = OpenAIStrategy(f"m{status}", api_key="k", base_url=provider.base_url)
            batch = await process_prompts(strategy, ["x"] * 20, config=ProcessorConfig(concurrency=2, retry=QUICK))
        (failed,) = [result for result in batch.results if not result.success]
        assert (failed.error_category, failed.attempts) == (category, 1)
        assert "requested a wait of 7,200 s" in failed.error
        assert "RetryConfig.max_server_wait (3,600 s)" in failed.error
        assert f"HTTP {status}" in failed.error


def test_the_bar_says_why_nothing_goes_on():
    snapshot = Snapshot(1, 2, False, 0, 1, 0, 0.0, 0, None, 60.0, 0.0, outage=12.0)
    assert "the provider has been down for 12 s" in snapshot.words()
    snapshot = replace(snapshot, outage=None, cooldown=90.0, standstill=("cooldown", 90.0))
    (words,) = [word for word in snapshot.words() if word.startswith("waiting until ")]
    assert words.endswith(" (for 90 s): the provider requested a pause")
    assert not any(word.startswith("cooldown") for word in snapshot.words())
    snapshot = replace(snapshot, standstill=("quota:input_tokens", None))
    assert "the provider's limit on input tokens is used up" in snapshot.words()[-1]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"outage_patience": -1}, "outage_patience"),
        ({"outage_patience": "1"}, "outage_patience"),
        ({"max_server_wait": -1}, "max_server_wait"),
        ({"max_server_wait": None}, "max_server_wait"),
    ],
)
def test_settings_are_checked(fields, problem):
    with pytest.raises((ValueError, TypeError), match=problem):
        RetryConfig(**fields).validate()


def test_only_native_errors_say_by_themselves_that_the_server_is_away():
    class Sdk(Exception):
        status_code = 503

    assert not classify_status(Sdk()).server_away
    native = ProviderError("x", category="server_overload", status_code=503, server_away=True)
    assert classify_status(native).server_away
    assert not DefaultErrorClassifier().classify(ConnectionError("x")).server_away
