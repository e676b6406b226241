"""Runs that are watched and changed while they are on: by counts of attempts, not by times."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import batch_llm
from batch_llm import (
    BatchTermination,
    ControlError,
    ParallelBatchProcessor,
    ProcessorConfig,
    attach,
    inspect,
    process_prompts,
    process_stream,
)
from batch_llm._control import entries

from ..helpers import Echo, quick
from .programs import Held, running

pytestmark = pytest.mark.usefixtures("state")

PROMPTS = [f"p{number}" for number in range(40)]


async def test_pause_and_resume():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=4) as task:
        await strategy.begun(4)
        handle = attach("a")
        assert (await handle.status())["state"] == "running"
        assert (await handle.pause(dry_run=True))["paused"] == {"before": False, "after": True}
        assert (await handle.status())["state"] == "running"
        await handle.pause(reason="lunch")
        strategy.let(10)
        await strategy.settled()
        assert len(strategy.calls) == 4, "those in flight end, and nothing starts"
        found = await handle.status()
        assert (found["state"], found["progress"]["succeeded"], found["progress"]["in_flight"]) == ("paused", 4, 0)
        assert (await handle.resume())["paused"] == {"before": True, "after": False}
        strategy.let(100)
        assert (await task).succeeded == 40
    changes = (await handle.status())["changes"]
    assert [change["type"] for change in changes[-2:]] == ["pause", "resume"]
    assert changes[-2]["reason"] == "lunch"


async def test_concurrency_can_be_raised_and_lowered():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2):
        await strategy.begun(2)
        handle = attach("a")
        changed = await handle.set(concurrency=6)
        assert changed["values"] == {"concurrency": {"before": 2, "after": 6}}
        await strategy.begun(6)
        await handle.set(concurrency="1")
        strategy.let(6)
        await strategy.settled()
        assert (strategy.waiting, len(strategy.calls)) == (1, 7)


async def test_limits_can_be_changed():
    strategy = Echo()
    config = ProcessorConfig(max_requests_per_minute=1.0, concurrency=10)
    task = asyncio.create_task(process_prompts(strategy, PROMPTS, control="a", config=config))
    while not strategy.calls:
        await asyncio.sleep(0.01)
    handle = attach("a")
    assert len(strategy.calls) == 1
    assert (await handle.set(rpm="none", tpm=10_000_000))["values"]["rpm"] == {"before": 1.0, "after": None}
    assert (await task).succeeded == 40


async def test_a_deadline_ends_a_run():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2) as task:
        await strategy.begun(2)
        handle = attach("a")
        await handle.set(deadline="1h")
        assert 3500 < (await handle.status())["settings"]["deadline"] <= 3600
        await handle.set(deadline=0.001)
        while (await handle.status())["state"] != "ending":
            await asyncio.sleep(0.01)
        strategy.let(2)
        batch = await task
    assert (batch.termination.kind, batch.succeeded) == ("batch_timeout", 2)


async def test_a_budget_ends_a_run_and_counts_what_was_spent_before(provider):
    strategy = batch_llm.llm("openai:gpt-5-mini", max_tokens=1000)
    # So many that the run waits for its results to be taken.
    stream = process_stream(strategy, [f"p{number}" for number in range(1000)], control="a", concurrency=1)
    results = [await anext(stream)]
    handle = attach("a")
    spent = (await handle.cost())["spent"]
    assert spent > 0
    await handle.set(budget=spent / 2)
    results += [result async for result in stream]
    assert stream.termination.kind == "budget_exceeded"
    assert sum(result.success for result in results) < 1000


async def test_a_budget_needs_a_price():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a"):
        await strategy.begun(1)
        with pytest.raises(ControlError, match="the price of a model of this run is unknown"):
            await attach("a").set(budget=1)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"concurrency": 0}, r"concurrency must be a positive integer \(got 0\)"),
        ({"concurrency": "many"}, r"concurrency must be a positive integer \(got 'many'\)"),
        ({"concurrency": "none"}, "concurrency must be a positive integer"),
        ({"concurrency": 10**9}, "at most 1,000,000"),
        ({"rpm": -1}, r"rpm must be a positive number, or 'none' \(got -1\)"),
        ({"tpm": 1.5}, "tpm must be a positive integer, or 'none'"),
        ({"budget": float("nan")}, "budget must be a positive number"),
        ({"budget": True}, "budget must be a positive number"),
        ({"deadline": "soon"}, "deadline must be a"),
        ({"deadline": "-3h"}, "deadline must be a"),
        ({"speed": 3}, "there is no setting 'speed'; known settings: concurrency, rpm"),
        ({}, "nothing to set; give one of concurrency"),
    ],
)
async def test_bad_settings_are_named(values, problem):
    strategy = Held()
    async with running(strategy, PROMPTS, control="a"):
        await strategy.begun(1)
        with pytest.raises(ControlError, match=problem) as caught:
            await attach("a").set(**values)
        assert caught.value.code == "bad_argument"


async def test_drain_lets_attempts_in_flight_end(tmp_path):
    strategy = Held()
    async with running(strategy, PROMPTS, store=tmp_path / "a.db", concurrency=3) as task:
        await strategy.begun(3)
        handle = attach(tmp_path / "a.db")
        assert (await handle.drain(dry_run=True))["in_flight"] == 3
        await handle.drain(reason="enough")
        assert (await handle.status())["state"] == "ending"
        with pytest.raises(ControlError, match="ending already"):
            await handle.pause()
        strategy.let(100)
        batch = await task
    assert (batch.succeeded, batch.not_sent, len(strategy.calls)) == (3, 37, 3)
    assert batch.termination.kind == "interrupted"
    assert "the run was drained by" in batch.termination.reason
    assert "enough" in batch.termination.reason
    assert handle.sync.refresh().exit_code == 130
    again = await process_prompts(Echo(), PROMPTS, store=tmp_path / "a.db")
    assert again.succeeded == 40


async def test_cancel_ends_a_run_at_once(tmp_path):
    strategy = Held()
    async with running(strategy, PROMPTS, store=tmp_path / "a.db", concurrency=3) as task:
        await strategy.begun(3)
        await attach().cancel()
        batch = await task
    assert (batch.succeeded, batch.failed + batch.not_sent, len(strategy.calls)) == (0, 40, 3)
    assert batch.termination.kind == "interrupted"


async def test_an_item_can_be_cancelled():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2) as task:
        await strategy.begun(2)
        handle = attach("a")
        await handle.cancel("item_30")
        await handle.cancel("item_0")
        with pytest.raises(ControlError, match="has its result already, or was not read yet"):
            await handle.cancel("item_30")
        strategy.let(100)
        batch = await task
    assert batch.succeeded == 38
    assert {result.item_id for result in batch.failures} == {"item_30", "item_0"}
    assert "p30" not in strategy.calls


@pytest.mark.parametrize("name", ["a.db", "a.jsonl", "segments/"])
async def test_failures_are_sent_again_by_a_run_that_is_on(tmp_path, name):
    strategy = Held()
    strategy.fails = {"p0", "p1", "p2"}
    store = f"{tmp_path}/{name}"
    async with running(strategy, PROMPTS, store=store, control="a", concurrency=5, config=None) as task:
        await strategy.begun(5)
        handle = attach("a")
        strategy.let(10)
        while (await handle.status())["progress"]["failed"] < 3:
            await asyncio.sleep(0.01)
        tail = await handle.tail()
        assert [failure["id"] for failure in tail["failures"]] == ["item_0", "item_1", "item_2"]
        assert (await handle.tail(1))["failures"][0]["number"] == 3
        assert (await handle.tail(after=2))["failures"][0]["id"] == "item_2"
        strategy.fails.clear()
        assert (await handle.requeue(["item_0"], dry_run=True))["items"] == 1
        with pytest.raises(ControlError, match="none of these items has failed"):
            await handle.requeue(["item_20"])
        assert (await handle.requeue(category="no_such"))["items"] == 0
        assert await handle.requeue(["item_0"]) == {"dry_run": False, "items": 1, "when": "now"}
        assert (await handle.requeue())["items"] == 2
        assert (await handle.requeue())["items"] == 0
        strategy.let(100)
        batch = await task
    assert (batch.total_items, batch.succeeded) == (40, 40)
    assert [result.submission_index for result in batch.in_input_order().results] == list(range(40))
    assert sorted(strategy.calls) == sorted([*PROMPTS, "p0", "p1", "p2"])
    view = inspect(store)
    assert (view.succeeded, view.failed) == (40, 0)
    assert (await handle.status())["progress"]["requeued"] == 3
    assert handle.info["exit_code"] == 0
    again = Echo()
    assert (await process_prompts(again, PROMPTS, store=store, control=False)).succeeded == 40


async def test_secrets_in_errors_are_masked(tmp_path):
    def answer(prompt):
        raise ValueError("api_key=sk-very-secret-0123456789 was refused")

    strategy = Held()
    async with running(strategy, ["a"], control="b"):
        task = asyncio.create_task(process_prompts(answer, ["a", "b"], control="a", store=tmp_path / "a.db"))
        await task
    for found in (await attach("a").tail(), await attach("a").status()):
        assert "very-secret" not in str(found)


async def test_a_stream_yields_a_further_result_of_an_item_that_is_sent_again():
    strategy = Held()
    strategy.fails = {"p1"}
    strategy.let(3)
    found = []
    async for result in process_stream(strategy, PROMPTS, control="a", concurrency=2, ordered=True):
        found.append(result)
        if result.item_id == "item_1" and not result.success:
            strategy.fails.clear()
            assert (await attach("a").requeue())["items"] == 1
            strategy.let(100)
    assert [result.item_id for result in found] == [*(f"item_{number}" for number in range(40)), "item_1"]
    assert [result.success for result in found if result.submission_index == 1] == [False, True]


async def test_process_all_is_controlled_too():
    strategy = Held()
    async with ParallelBatchProcessor(config=quick(max_workers=2), control="a") as processor:
        for number in range(5):
            await processor.add_work(batch_llm.LLMWorkItem(str(number), strategy, f"p{number}"))
        task = asyncio.create_task(processor.process_all())
        await strategy.begun(2)
        handle = attach("a")
        assert (await handle.status())["progress"]["total"] == 5
        with pytest.raises(ControlError, match="adds the items of this run itself"):
            await handle.requeue()
        await handle.drain()
        strategy.let(10)
        batch = await task
    assert batch.succeeded == 2
    assert "drained by" in batch.termination.reason


async def test_a_blocked_loop_still_answers():
    strategy = Held()
    answers = []
    async with running(strategy, PROMPTS, control="a", concurrency=2):
        await strategy.begun(2)
        handle = attach("a").sync
        asked = threading.Thread(target=lambda: answers.append(handle.status()))
        asked.start()
        asked.join(60)  # the loop does nothing meanwhile
        assert handle.pause()["paused"]["after"] is True
        handle.resume()
    assert answers[0]["progress"]["in_flight"] == 2


async def test_what_is_done_on_a_blocked_loop_says_so(monkeypatch):
    from batch_llm._control import run_control

    monkeypatch.setattr(run_control, "LOOP_SECONDS", 0.1)
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2):
        await strategy.begun(2)
        with pytest.raises(ControlError, match="the event loop of the run is blocked"):
            attach("a").sync.cancel("item_0")  # from the very loop
        assert not attach("a").sync.status()["changes"]


async def test_many_watchers():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2) as task:
        await strategy.begun(2)
        handles = [attach("a") for _ in range(20)]
        found = await asyncio.gather(*(handle.status() for handle in handles for _ in range(3)))
        assert {one["progress"]["in_flight"] for one in found} == {2}
        strategy.let(100)
        assert (await task).succeeded == 40
    assert [(await handle.status())["state"] for handle in handles] == ["ended"] * 20


async def test_without_a_store_nothing_is_controlled_unless_it_is_wanted(tmp_path):
    await process_prompts(Echo(), ["a"])
    await process_prompts(Echo(), ["a"], store=tmp_path / "a.db", control=False)
    await batch_llm.call(Echo(), "a", store=tmp_path / "b.db")
    async with batch_llm.LLMCallPool(Echo(), store=tmp_path / "c.db") as pool:
        await pool.submit("a")
    assert entries() == []
    await process_prompts(Echo(), ["a"], store=tmp_path / "a.db")
    await process_prompts(Echo(), ["a"], control=True)
    assert len(entries()) == 2


async def test_a_variable_turns_it_off(monkeypatch, tmp_path):
    monkeypatch.setenv("BATCH_LLM_CONTROL", "0")
    await process_prompts(Echo(), ["a"], store=tmp_path / "a.db")
    assert entries() == []
    await process_prompts(Echo(), ["a"], control="named")
    assert entries()[0].name == "named"


@pytest.mark.parametrize(
    ("given", "kind", "problem"),
    [(3, TypeError, "control must be"), ("", ValueError, "1 to 100"), ("\n", ValueError, "printable")],
)
async def test_a_wrong_argument_is_named(given, kind, problem):
    with pytest.raises(kind, match=problem):
        await process_prompts(Echo(), ["a"], control=given)


async def test_an_error_out_of_a_run_is_kept(tmp_path):
    def source():
        yield "a"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await process_prompts(Echo(), source(), store=tmp_path / "a.db")
    assert (await attach(tmp_path / "a.db").status())["state"] == "ended"

    def bad(prompt):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await process_prompts(bad, ["a"], store=tmp_path / "b.db")
    handle = attach(tmp_path / "b.db")
    assert "SystemExit" in (await handle.status())["error"]
    assert handle.info["exit_code"] == 1
    assert BatchTermination().kind == "completed"


async def test_wait():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2):
        await strategy.begun(2)
        handle = attach("a")
        with pytest.raises(TimeoutError, match="is not over after 0.05 s"):
            await handle.wait(0.05)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(handle.sync.wait, 0.01)
        strategy.let(100)
        assert (await handle.wait())["exit_code"] == 0
    assert time.time() - (handle.info["ended_at"] or 0) < 1000


async def test_status_has_a_forecast():
    strategy = Held()
    async with running(strategy, PROMPTS, control="a", concurrency=2) as task:
        await strategy.begun(2)
        handle = attach("a")
        assert (await handle.status())["forecast"] is None
        for _ in range(20):
            strategy.let(1)
            await asyncio.sleep(0.01)
        await strategy.settled()
        await asyncio.sleep(1.1)  # it is computed once a second
        found = await handle.status()
        left = found["forecast"]["seconds_left"]
        assert 0 <= left["low"] <= left["expected"] <= left["high"]
        assert found["seconds_left"] == left["expected"]
        assert (found["forecast"]["level"], found["forecast"]["cost"]) == (0.9, None)
        assert (await handle.cost())["forecast"] is None
        strategy.let(100)
        await task
    assert (await handle.status())["forecast"] is None
    assert (await handle.explain())["verdict"]["text"] in (await handle.explain())["text"]
