"""Jobs: what several runs do together, over boards of each kind. See ``test_boards.py`` for the boards alone."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sys
import time

import pytest

from batch_llm import (
    Job,
    LimitBoard,
    LimitServer,
    LLMCallPool,
    OpenAIStrategy,
    ParallelBatchProcessor,
    Price,
    ProcessorConfig,
    process_prompts,
    process_stream,
)
from batch_llm._jobs import member as members
from batch_llm.core import GuardrailConfig
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import Echo, Scripted, quick, script, until

PRICES = {"m": Price(input=0.0, output=1e6)}  # a token of an answer costs 1


def priced(**fields):
    return quick(concurrency=20, guardrails=GuardrailConfig(prices=PRICES), **fields)


def asking(provider, **options):
    """A strategy whose answers cost at most 10, and mostly less."""
    return OpenAIStrategy("m", base_url=provider.base_url, api_key="x", max_tokens=10, **options)


@pytest.fixture
def no_waits(monkeypatch):
    monkeypatch.setattr(members, "REPORT_SECONDS", 0.01)
    monkeypatch.setattr(members, "SHORT_SECONDS", 0.01)


@pytest.fixture(params=["memory", "tcp", "file", "redis"])
def target(request, tmp_path):
    """Where two parts of a job meet."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    with LimitServer() as server:
        yield {"memory": LimitBoard(), "tcp": server.url, "file": tmp_path / "limits.json"}[request.param]


def two_parts(request, target, **options):
    """Two jobs of one name, like those of two processes."""
    name = f"{request.node.name}-{time.monotonic_ns()}"
    return [Job(name, shared_limits=target, **options) for _ in range(2)]


# Counters


async def test_a_job_counts_what_all_its_runs_do(request, target):
    def answer(prompt, attempt):
        return ValueError("bad") if prompt == "bad" else prompt

    jobs = two_parts(request, target)
    for job in jobs:
        await process_prompts(Scripted(answer), ["x", "bad", "y"], config=quick(), job=job)
    await process_prompts(Echo(), ["x"], config=quick(), job=jobs[0])
    for job in jobs:
        stats = job.stats
        assert (stats.total, stats.processed, stats.succeeded, stats.failed, stats.not_sent) == (7, 7, 5, 2, 0)
        assert stats.total_tokens == 5 * 15
        assert job.termination.kind == "completed"
        assert sum(stats.error_counts.values()) == 2
        (category,) = stats.error_counts
        assert job.summary().splitlines() == [
            "items       7: 5 succeeded (71.4%), 2 failed",
            "tokens      50 input, 25 output",
            f"failed      2 x {category}",
        ]


async def test_the_summary_is_there_while_it_runs(no_waits):
    job = Job()
    assert job.summary() == "items       0: 0 succeeded, 0 failed"
    strategy = Echo(30)
    results = process_stream(strategy, ["x"] * 3, config=quick(), job=job)
    reading = asyncio.create_task(anext(results))
    await until(lambda: strategy.active == 3)
    assert "in flight   3" in job.summary()
    results.interrupt()
    results.interrupt()
    await asyncio.wait([reading])


async def test_all_surfaces_take_a_job(tmp_path):
    job = Job()
    await process_prompts(Echo(), ["x"] * 2, job=job, store=tmp_path / "s.db")
    await process_prompts(Echo(), ["x"] * 2, job=job, store=tmp_path / "s.db")
    assert [result.success async for result in process_stream(Echo(), ["x"], job=job)] == [True]
    processor = ParallelBatchProcessor(config=quick(), job=job)
    await processor.process_all()
    assert (job.stats.succeeded, job.stats.replayed, job.stats.total_tokens) == (5, 2, 45)
    with pytest.raises(TypeError, match="job must be a Job, not str"):
        await process_prompts(Echo(), ["x"], job="rating")
    with pytest.raises(TypeError, match="unknown option 'job'"):
        LLMCallPool(Echo(), job=job)


# Caps


async def test_the_cap_of_a_job_holds_for_all_its_runs(request, target, no_waits):
    with SimulatedProvider(replies=["one two three four five"]) as provider:
        jobs = two_parts(request, target, max_total_cost=300.0)
        runs = [process_prompts(asking(provider), ["x"] * 100, config=priced(), job=job) for job in (jobs[0], *jobs)]
        batches = await asyncio.gather(*runs)
        cost = sum(result.token_usage["output_tokens"] for batch in batches for result in batch if result.success)
    assert 290 < cost <= 300
    assert jobs[0].stats.budget_cost_used == cost
    assert [job.termination.kind for job in jobs] == ["budget_exceeded"] * 2
    ended = [batch.termination for batch in batches if batch.termination.kind != "completed"]
    assert ended
    assert all(one.reason == "no further attempt fits within the job's max_total_cost=300.0" for one in ended)
    assert all(result.success or result.not_sent for batch in batches for result in batch)


async def test_what_one_does_not_use_is_there_for_another(request, target, no_waits):
    with SimulatedProvider(replies=["one two three four five"]) as provider:
        jobs = two_parts(request, target, max_total_cost=1000.0)
        for job, prompts in ((jobs[0], 20), (jobs[1], 60)):
            batch = await process_prompts(asking(provider), ["x"] * prompts, config=priced(), job=job)
            assert batch.succeeded == prompts


async def test_a_cost_function_counts_for_the_cap(no_waits):
    config = quick(max_workers=2, guardrails=GuardrailConfig(cost_function=lambda usage: 1.0))
    job = Job(max_total_cost=10.0)
    batch = await process_prompts(Echo(0.01), ["x"] * 40, config=config, job=job)
    # The cap is soft then: what is in flight is not counted, nor what has not been reported.
    assert 10 <= batch.succeeded < 40
    assert (batch.termination.kind, job.stats.budget_cost_used) == ("budget_exceeded", batch.succeeded)


async def test_a_cap_needs_prices():
    with pytest.raises(ValueError, match="max_total_cost is set, but the price of 'unheard-of' is unknown"):
        await process_prompts("openai:unheard-of", ["x"], api_key="x", job=Job(max_total_cost=1.0))


# Ends


async def test_a_job_ends_by_the_clock_of_its_board(request, target, no_waits):
    jobs = two_parts(request, target, batch_timeout=0.2)
    batches = await asyncio.gather(
        *(process_prompts(Echo(0.01), ["x"] * 3_000, config=quick(), job=job) for job in jobs)
    )
    for batch, job in zip(batches, jobs, strict=True):
        assert batch.not_sent > 0
        assert batch.termination.kind == job.termination.kind == "batch_timeout"
        assert batch.termination.reason == "the job's batch_timeout (0.2 s) expired"
        unsent = batch.unsent[0]
        assert unsent.error.startswith("BatchDeadlineExceeded: the job's batch_timeout (0.2 s) expired before")
    late = await process_prompts(Echo(), ["x"], config=quick(), job=jobs[0])
    assert late.not_sent == 1


async def test_an_error_category_ends_the_runs_of_all(request, target, no_waits):
    class Broke(Exception):
        pass

    class Classifier:
        def classify(self, error):
            from batch_llm import ErrorInfo

            return ErrorInfo(False, False, False, "insufficient_balance")

    jobs = two_parts(request, target, abort_on_error_categories={"insufficient_balance"})
    other = Echo(0.01)
    running = asyncio.create_task(process_prompts(other, ["x"] * 3_000, config=quick(), job=jobs[0]))
    await until(lambda: other.calls)
    failing = Scripted(lambda prompt, attempt: Broke("no money"))
    first = await process_prompts(
        failing, ["a"] * 50, config=quick(max_workers=1), error_classifier=Classifier(), job=jobs[1]
    )
    assert (first.failed, first.not_sent) == (1, 49)
    batch = await running
    assert batch.failed == 0
    assert batch.not_sent > 0
    assert batch.termination.kind == "fail_fast"
    assert batch.termination.error_category == "insufficient_balance"
    assert "an item in another run of the job failed with 'insufficient_balance'" in batch.termination.reason
    assert jobs[0].termination.reason == (
        "an item failed with 'insufficient_balance', which is in abort_on_error_categories"
    )
    assert jobs[0].stats.error_counts == {"insufficient_balance": 1}


async def test_stop_lets_what_is_in_flight_end(request, target, no_waits):
    jobs = two_parts(request, target)
    strategy = Echo(0.05)
    running = asyncio.create_task(process_prompts(strategy, ["x"] * 3_000, config=quick(), job=jobs[0]))
    await until(lambda: strategy.calls)
    jobs[1].stop()
    batch = await running
    assert batch.succeeded == len(strategy.calls)
    assert batch.succeeded + batch.not_sent == 3_000
    assert batch.termination.kind == jobs[0].termination.kind == "interrupted"
    assert batch.termination.reason == "the job was stopped"


async def test_what_ignores_the_end_is_cancelled_after_the_grace_period(no_waits):
    job = Job()
    strategy = Echo(1000)
    config = quick(max_workers=4, interrupt_grace_seconds=0.05)
    running = asyncio.create_task(process_prompts(strategy, ["x"] * 10, config=config, job=job))
    await until(lambda: strategy.active == 4)
    job.stop()
    batch = await running
    assert (batch.failed, batch.not_sent) == (4, 6)


# Boards that are away


class Away:
    """A board that can be away."""

    def __init__(self):
        self.board, self.is_away, self.reports = LimitBoard(), False, 0

    def renew(self, scope, holder, demand):
        return self.board.renew(scope, holder, demand)

    def report(self, job, holder, report):
        self.reports += 1
        if self.is_away:
            raise ConnectionError("gone; token=abcdef123456")
        return self.board.report(job, holder, report)

    def leave(self, scope, holder):
        self.board.leave(scope, holder)


async def test_a_board_that_cannot_be_reached_is_named_before_anything_is_sent():
    with LimitServer(token="sesame-7") as server:
        url = server.url
    strategy = Echo()
    job = Job("rating", shared_limits=url)
    with pytest.raises(OSError, match=r"the job 'rating' cannot use shared_limits='tcp://\*\*\*@127\.0\.0\.1:\d+'"):
        await process_prompts(strategy, ["x"], job=job)
    with pytest.raises(OSError, match="the job 'rating' cannot use"):
        job.summary()
    assert strategy.calls == []


async def test_without_its_board_a_process_spends_its_last_allowance_and_waits(no_waits, caplog):
    caplog.set_level(logging.INFO, "batch_llm")
    board = Away()
    job = Job(shared_limits=board, max_total_cost=10_000.0)
    with SimulatedProvider(replies=["one two three four five"]) as provider:
        results = process_stream(asking(provider), ["x"] * 900, config=priced(), job=job)
        for _ in range(20):
            await anext(results)
        board.is_away = True
        seen = board.reports
        reading = asyncio.create_task(collected(results))
        await until(lambda: board.reports >= seen + 10)
        before = job.stats  # the last ones
        assert before.succeeded >= 0
        assert provider.stats.requests < 900
        board.is_away = False
        assert len(await reading) == 880
    assert job.stats.succeeded == 900
    about = [record.levelname for record in caplog.records if "The board of the job" in record.getMessage()]
    assert about == ["WARNING", "INFO"]
    assert "abcdef123456" not in caplog.text


async def collected(results):
    return [result async for result in results]


async def test_the_time_of_a_job_passes_without_its_board(no_waits):
    board = Away()
    job = Job(shared_limits=board, batch_timeout=0.3)
    strategy = Echo(0.01)
    prompts = ["x"] * 3_000  # of more than the job's time, even if each takes no longer than its sleep
    running = asyncio.create_task(process_prompts(strategy, prompts, config=quick(concurrency=5), job=job))
    await until(lambda: strategy.calls)
    board.is_away = True
    assert (await running).termination.kind == "batch_timeout"


# Where it is


async def test_copies_in_one_process_are_one_part():
    job = Job(max_total_cost=5.0)
    copy = pickle.loads(pickle.dumps(job))
    assert copy.member() is job.member()
    assert (copy.name, copy.max_total_cost) == (job.name, 5.0)
    assert pickle.loads(pickle.dumps(Job(shared_limits=LimitBoard()))).stats.total == 0


def test_a_job_in_the_memory_of_another_process_says_so():
    job = Job("rating")
    job._home = ("elsewhere", 1)
    with pytest.raises(
        ValueError,
        match="the job 'rating' is kept in the memory of another process, which this one cannot reach: create it",
    ):
        job.member()


def test_a_run_without_a_board_of_the_job_uses_that_of_its_limits(no_waits):
    board = Away()
    job = Job()
    config = ProcessorConfig(shared_limits=board)
    asyncio.run(process_prompts(Echo(), ["x"], config=config, job=job))
    assert board.reports > 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"max_total_cost": 0}, ValueError, "max_total_cost must be > 0"),
        ({"batch_timeout": -1}, ValueError, "batch_timeout must be > 0"),
        ({"abort_on_error_categories": "authentication"}, ValueError, "must be a set"),
        ({"shared_limits": "tcp://host:1"}, ValueError, "must have a token"),
        ({"name": 5}, TypeError, "must be a string, not int"),
        ({"name": ""}, ValueError, "must not be empty"),
    ],
)
def test_a_bad_argument_is_named(arguments, error, says):
    with pytest.raises(error, match=says):
        Job(**arguments)


async def test_a_run_that_is_cancelled_is_forgotten(no_waits):
    job = Job()
    strategy = Echo(1000)
    running = asyncio.create_task(process_prompts(strategy, ["x"] * 3, config=quick(), job=job))
    await until(lambda: strategy.active == 3)
    running.cancel()
    await asyncio.wait([running])
    assert job.member()._runs == []
    assert (job.stats.processed, job.member().report()["in_flight"]) == (3, 0)


# The program that started it


def test_a_block_that_raises_stops_the_job():
    job = Job()

    def work():
        with job:
            asyncio.run(process_prompts(Echo(), ["x"], job=job))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
    assert job.termination.kind == "fail_fast"
    assert asyncio.run(process_prompts(Echo(), ["x"], job=job)).not_sent == 1


def test_the_progress_of_all_workers_is_shown(capsys, monkeypatch):
    from batch_llm._progress import display

    monkeypatch.setattr(display.Lines, "interval", 0.01)
    with Job(progress=True) as job:
        asyncio.run(process_prompts(Echo(0.3), ["x"] * 12, config=quick(), job=job))
    last = capsys.readouterr().err.splitlines()[-1]
    assert "batch-llm: 12 so far" in last
    assert "180 tokens" in last


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_an_interrupt_ends_workers_gently_and_then_the_program():
    done = script(
        """
        # A worker in a thread stands for one in another process: no signal reaches it.
        import batch_llm, threading
        strategy, found = Echo(0.3), []
        with LimitServer() as server:
            def work(job):
                found.append(batch_llm.run(strategy, ["x"] * 1000, config=quick(max_workers=2), job=job))
            try:
                with Job("j", shared_limits=server.url) as job:
                    working = threading.Thread(target=work, args=(Job("j", shared_limits=server.url),))
                    working.start()
                    while len(strategy.calls) < 2:
                        time.sleep(0.01)
                    print("ready", flush=True)
                    time.sleep(60)
            except KeyboardInterrupt:
                print("interrupted", job.termination.kind, job.member().report()["in_flight"])
            working.join()
            print(found[0].succeeded == len(strategy.calls), found[0].termination.kind)
        """,
        interrupt=0.1,
    )
    assert done.stdout.splitlines() == ["interrupted interrupted 0.0", "True interrupted"], done.stderr
    assert "waiting up to 6 s for the requests of all workers" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_an_interrupt_is_for_the_run_in_the_block_first():
    done = script(
        """
        import batch_llm
        strategy = Echo(0.2)
        with Job() as job:
            print("ready", flush=True)
            try:
                batch_llm.run(strategy, ["x"] * 1000, config=quick(max_workers=2), job=job)
            except KeyboardInterrupt as error:
                print(error.partial_result.succeeded == len(strategy.calls))
                raise
        """,
        interrupt=0.5,
    )
    assert done.stdout.splitlines() == ["True"], done.stderr
    assert done.returncode != 0


def test_the_counters_of_a_job_are_numbers():
    job = Job()
    with SimulatedProvider(faults=[Fault(400, every=2)]) as provider:
        asyncio.run(process_prompts(asking(provider), ["x"] * 4, config=priced(), job=job))
    totals = job.member().report()
    assert json.loads(json.dumps(dict(totals))) == totals
    assert totals["cost"] > 0
