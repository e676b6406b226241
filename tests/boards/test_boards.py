"""Boards of shared limits: a TCP server, an object, Redis; what happens when they are away, or given wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import socket
import sys
import time
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_llm import Demand, LimitBoard, LimitServer, ParallelBatchProcessor, ProcessorConfig, Share
from batch_llm._boards import JobReport, JobVerdict, check_shared_limits, open_board
from batch_llm._core import LimitTable
from batch_llm.testing import SimulatedProvider

from ..helpers import Echo, quick, run, until
from .processes import one_dies, worker


def renew(board, holder="one", scope="scope", **demand):
    return board.renew(scope, holder, Demand(**demand))


# The memory board, and what travels


def test_a_board_parts_the_limits_of_each_scope():
    board = LimitBoard()
    assert renew(board) == Share(part=1.0, is_shared=False, is_new=True)
    assert renew(board, "two") == Share(part=0.0, is_shared=True, is_new=True)
    assert renew(board, "two", "other").part == 1.0
    board.leave("scope", "one")
    assert renew(board, "two").part == 1.0


def test_demands_and_shares_can_be_pickled():
    for value in (Demand(0.5, 3.0, 2, 0.1), Share(0.5, True, False, 3.0, 2)):
        assert pickle.loads(pickle.dumps(value)) == value


# Over TCP


async def test_processes_share_over_tcp_and_a_dead_one_gives_its_part_back():
    with LimitServer() as server, SimulatedProvider(requests_per_minute=3000, burst_seconds=1.5) as provider:
        dying, staying = await worker(provider, server.url, 100_000), await worker(provider, server.url, 300)
        board = open_board(server.url)
        await until(lambda: provider.stats.requests > 50)
        await one_dies(dying, staying, provider)
        # Whoever ends gives its share back.
        scope = f"openai {provider.base_url} shared"
        await until(lambda: renew(board, "new", scope).part == 1.0)


def test_a_server_starts_again_under_its_url():
    with LimitServer() as first:
        board = open_board(first.url)
        assert renew(board).part == 1.0
        port = first._server.port
    with pytest.raises(OSError, match="cannot be reached"):
        renew(board)
    with LimitServer(port=port, token=first._token) as second:
        assert second.url == first.url
        time.sleep(0.3)  # nobody knocks more often
        assert renew(board, held=0.25) == Share(part=0.25, is_shared=False, is_new=False)


def test_a_wrong_token_is_rejected_and_no_token_is_shown():
    with LimitServer(token="sesame-7") as server:
        for token in ("sesame", "sesame-70", "x"):
            with pytest.raises(PermissionError, match="rejected the token") as caught:
                renew(open_board(server.url.replace("sesame-7", token)))
            assert "sesame" not in str(caught.value)
        config = ProcessorConfig(shared_limits=server.url)
        assert "sesame" not in repr(config) + repr(server)
        assert renew(open_board(server.url)).part == 1.0


async def test_a_board_that_cannot_be_reached_is_named_before_anything_starts():
    with LimitServer(token="sesame-7") as server:
        url = server.url
    strategy = Echo()
    with pytest.raises(OSError, match=r"shared_limits='tcp://\*\*\*@127\.0\.0\.1:\d+' cannot be used") as caught:
        await run(strategy, ["x"], quick(shared_limits=url))
    assert "sesame" not in str(caught.value)
    assert strategy.calls == []


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"\xff\n", b'{"token": "t", "call": {"renew": 3}}\n', b"x" * 100_000]
)
def test_lines_that_are_no_requests_close_their_connection_alone(line):
    with LimitServer(token="t") as server:
        board = open_board(server.url)
        assert renew(board).part == 1.0
        with socket.create_connection(("127.0.0.1", server._server.port), timeout=10) as raw:
            raw.sendall(line)
            with contextlib.suppress(ConnectionError):
                reply = raw.recv(1000)
                assert reply in (b"", b'{"error":"invalid request"}\n')
        assert renew(board).part == 1.0


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ("tcp://127.0.0.1:1234", ValueError, "must have a token"),
        ("tcp://secret@host", ValueError, "no host and port"),
        ("tcp://secret@host:1/path", ValueError, "unchanged"),
        ("tcp://secret@host:99999", ValueError, "not a valid URL"),
        ("http://secret@host:1", ValueError, "scheme 'http'"),
        (LimitBoard, TypeError, "not the class LimitBoard"),
        (True, TypeError, "must be a path, a URL"),
    ],
)
def test_what_cannot_be_a_board_is_said_early(wrong, error, says):
    with pytest.raises(error, match=says) as caught:
        ParallelBatchProcessor(config=ProcessorConfig(shared_limits=wrong))
    assert "secret" not in str(caught.value)


def test_a_server_is_not_taken_for_its_url():
    with LimitServer() as server, pytest.raises(TypeError, match=r"server\.url"):
        check_shared_limits(server)


# Jobs


@pytest.fixture(params=["memory", "tcp", "file", "object", "redis"])
def any_board(request, tmp_path):
    if request.param == "redis":
        yield open_board(request.getfixturevalue("redis_url"))
        return
    with LimitServer() as server:
        target = {"memory": LimitBoard(), "tcp": server.url, "file": tmp_path / "limits.json", "object": Recorded()}
        yield open_board(target[request.param])


def test_a_job_has_one_cap_and_sums_what_all_count(any_board):
    def report(holder, counters=None, **fields):
        return any_board.report("job-1", holder, JobReport(counters or {}, **fields))

    assert report("one", {"done": 2}, wanted=4, max_cost=10.0) == JobVerdict(4.0, totals={"done": 2})
    verdict = report("two", {"done": 3, "failed": 1}, spent=1, wanted=20, stop="authentication")
    assert verdict == JobVerdict(6.0, False, "authentication", None, {"done": 5, "failed": 1})
    assert report("two", spent=2, reserved=2, wanted=1).allowance == 5.0
    assert report("two", spent=6, wanted=3, least=2).allowance == 6.0
    any_board.leave("job-1", "one")
    assert report("two", spent=6, wanted=20).allowance == 10.0
    last = report("two", spent=10, wanted=20)
    assert (last.allowance, last.is_final, last.stop) == (10.0, True, "authentication")


def test_the_board_measures_the_time_of_a_job(any_board):
    first = any_board.report("job-2", "one", JobReport(timeout=60))
    assert 59 < first.left <= 60
    assert any_board.report("job-2", "two", JobReport()).left <= first.left
    assert any_board.report("job-2", "one", JobReport(timeout=1e-3)).left < 60
    time.sleep(0.002)
    assert any_board.report("job-2", "two", JobReport()).stop == "batch_deadline_exceeded"


def test_an_object_without_jobs_says_so():
    class Old:
        renew = leave = lambda *_: None

    with pytest.raises(OSError, match="report"):
        open_board(Old()).report("job", "one", JobReport())


# Objects


class Recorded:
    """A board that can fail."""

    def __init__(self):
        self.board, self.calls, self.fails = LimitBoard(), [], False

    def renew(self, scope, holder, demand):
        self.calls.append((scope, holder, demand))
        if self.fails:
            raise RuntimeError("the actor died; token=abcdef123456")
        return self.board.renew(scope, holder, demand)

    def report(self, job, holder, report):
        return self.board.report(job, holder, report)

    def leave(self, scope, holder):
        self.calls.append((scope, holder, None))
        self.board.leave(scope, holder)


async def test_an_object_is_asked_and_left():
    board = Recorded()
    batch, processor = await run(Echo(0.3), ["x"] * 12, quick(max_workers=4, shared_limits=board))
    assert batch.succeeded == 12
    assert processor.config.shared_limits is board
    await until(lambda: board.calls[-1][2] is None)
    assert {scope for scope, _, _ in board.calls} == {"run"}
    assert len({holder for _, holder, _ in board.calls}) == 1
    assert len(board.calls) >= 3


async def test_a_board_that_dies_and_returns_changes_nothing_and_is_logged_once(caplog):
    caplog.set_level(logging.INFO, "batch_llm")
    board = Recorded()
    config = quick(max_workers=2, max_requests_per_minute=600, quota_burst_seconds=0.1, shared_limits=board)
    working = asyncio.create_task(run(Echo(), ["x"] * 40, config))
    await until(lambda: len(board.calls) >= 2)
    board.fails = True
    seen = len(board.calls)
    await until(lambda: len(board.calls) >= seen + 3)
    board.fails = False
    batch, _ = await working
    assert batch.succeeded == 40
    about = [record for record in caplog.records if "shared limits" in record.getMessage()]
    assert [record.levelname for record in about] == ["WARNING", "INFO"]
    assert "each process keeps its last share" in about[0].getMessage()
    assert "abcdef123456" not in caplog.text


async def test_a_run_that_begins_while_its_board_is_away_waits_for_it(caplog):
    caplog.set_level(logging.INFO, "batch_llm")
    board, strategy = Recorded(), Echo()
    config = quick(max_workers=2, max_requests_per_minute=600, quota_burst_seconds=0.1, shared_limits=board)
    await run(Echo(), ["x"], config)
    board.fails = True
    seen = len(board.calls)
    working = asyncio.create_task(run(strategy, ["x"] * 5, config))
    await until(lambda: len(board.calls) >= seen + 5)
    assert len(strategy.calls) <= 1  # as whoever joins
    board.fails = False
    batch, _ = await working
    assert batch.succeeded == 5
    about = [record.levelname for record in caplog.records if "shared limits" in record.getMessage()]
    assert about == ["WARNING", "INFO"]


async def test_a_run_ends_if_its_board_rejects_it_even_if_it_was_used_before(tmp_path):
    shared = tmp_path / "limits.json"
    await run(Echo(), ["x"], quick(shared_limits=shared))
    shared.write_text("my novel")
    with pytest.raises(OSError, match="use another path"):
        await run(Echo(), ["x"], quick(shared_limits=shared))


async def test_an_object_that_answers_nonsense_is_said_before_anything_starts():
    class Wrong:
        def renew(self, scope, holder, demand):
            return 0.5

        def leave(self, scope, holder):
            pass

    strategy = Echo()
    with pytest.raises(OSError, match=r"shared_limits=Wrong cannot be used: .*part"):
        await run(strategy, ["x"], quick(shared_limits=Wrong()))
    assert strategy.calls == []


async def test_two_runs_of_one_process_share_a_board():
    board = LimitBoard()
    config = quick(max_workers=50, max_requests_per_minute=1200, quota_burst_seconds=0.1, shared_limits=board)
    began = time.monotonic()
    batches = await asyncio.gather(*(run(Echo(), ["x"] * 30, config) for _ in range(2)))
    assert all(batch.succeeded == 30 for batch, _ in batches)
    assert time.monotonic() - began >= 60 / 20 * 0.8


# The command line


async def test_the_command_serves_limits():
    command = [sys.executable, "-m", "batch_llm", "serve-limits", "--token", "t"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    assert renew(open_board(url)).part == 1.0
    process.terminate()
    assert await process.wait() == 0


# Redis


def test_those_on_one_redis_share(redis_url):
    one, two = open_board(redis_url), open_board(redis_url)
    assert renew(one).part == 1.0
    assert renew(two, "two") == Share(part=0.0, is_shared=True, is_new=True)
    one.leave("scope", "one")
    assert renew(two, "two").part == 1.0


DEMANDS = st.builds(
    Demand,
    part=st.none() | st.floats(0, 2),
    pace=st.none() | st.floats(0.1, 500),
    refused=st.integers(0, 5),
    held=st.sampled_from([0.0, 0.0, 0.25]),
)
STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | DEMANDS, st.integers(0, 1500)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_the_script_does_what_the_table_does(redis_url, steps):
    from batch_llm._boards.redis import RedisBoard

    board, table, now = RedisBoard(redis_url), LimitTable(), 1_700_000_000_000
    scope = f"scope-{time.monotonic_ns()}"
    for holder, demand, later in steps:
        now += later
        if demand is None:
            table.leave(scope, holder)
            board._call("leave", scope, holder, {}, now)
            continue
        theirs, ours = board._renew_at(scope, holder, demand, now), table.renew(scope, holder, demand, now)
        assert (theirs.pace is None) == (ours.pace is None)
        known = {name: value for name, value in asdict(ours).items() if value is not None}
        assert {name: getattr(theirs, name) for name in known} == pytest.approx(known, abs=1e-6, rel=1e-6)


COSTS = st.floats(0, 4)
REPORTS = st.builds(
    JobReport,
    counters=st.dictionaries(st.sampled_from("xyz"), st.integers(0, 10**9).map(float), max_size=2),
    spent=COSTS,
    reserved=COSTS,
    wanted=COSTS,
    least=st.just(0.0) | COSTS,
    max_cost=st.none() | st.floats(0, 20),
    timeout=st.none() | st.floats(0, 100),
    stop=st.sampled_from([None, None, None, "interrupted", "authentication"]),
)
LATER = st.integers(0, 5000) | st.just(25 * 3_600_000)
JOB_STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | REPORTS, LATER), max_size=40)


@settings(max_examples=150, deadline=None)
@given(steps=JOB_STEPS)
def test_the_script_of_jobs_does_what_the_table_does(redis_url, steps):
    from batch_llm._boards.redis import RedisBoard

    board, table, now = RedisBoard(redis_url), LimitTable(), 1_700_000_000_000
    job = f"job-{time.monotonic_ns()}"
    for holder, report, later in steps:
        now += later
        if report is None:
            table.leave(job, holder)
            board._call_job("leave", job, holder, {}, now)
            continue
        theirs, ours = board._report_at(job, holder, report, now), table.report(job, holder, report, now)
        assert (theirs.stop, theirs.is_final) == (ours.stop, ours.is_final)
        assert (theirs.left, theirs.totals) == (pytest.approx(ours.left), pytest.approx(ours.totals))
        assert theirs.allowance == pytest.approx(ours.allowance, abs=1e-6)


async def test_a_redis_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("redis")
    with pytest.raises(OSError, match=r"shared_limits='redis://\*\*\*@127\.0\.0\.1:1' cannot be used") as caught:
        await run(Echo(), ["x"], quick(shared_limits="redis://:secret@127.0.0.1:1"))
    assert "secret" not in str(caught.value)


async def test_redis_without_its_client_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"batch-llm\[redis\]"):
        await run(Echo(), ["x"], quick(shared_limits="redis://127.0.0.1:1"))
