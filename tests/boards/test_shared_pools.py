"""Pools whose limits are shared between processes: each member has its part under its own name."""

from __future__ import annotations

import asyncio
import sys

from batch_llm import CallableStrategy, Demand, LimitBoard, LimitServer, ProcessorConfig, llm, pool, run
from batch_llm.testing import SimulatedProvider


class Recorded:
    """A board that knows whom it was asked for, and who has left."""

    def __init__(self):
        self.board, self.asked, self.left = LimitBoard(), [], []

    def renew(self, scope, holder, demand):
        self.asked.append(scope)
        return self.board.renew(scope, holder, demand)

    def leave(self, scope, holder):
        self.left.append(scope)
        self.board.leave(scope, holder)


def _config(board, **more):
    return ProcessorConfig(concurrency=10, shared_limits=board, **more)


async def _left(board):
    while set(board.left) != set(board.asked):
        await asyncio.sleep(0.01)


def test_each_member_takes_part_under_the_name_that_it_has_alone():
    board = Recorded()
    with SimulatedProvider() as one, SimulatedProvider() as two:
        urls = [one.base_url, two.base_url]
        strategy = pool("openai-compatible:m", base_url=urls, api_key="k")
        assert run(strategy, ["a"] * 20, config=_config(board)).succeeded == 20
        members = {f"openai-compatible {url} m" for url in urls}
        assert set(board.asked) == {"run", strategy.shared_name(), *members}
        asyncio.run(asyncio.wait_for(_left(board), 10))
        board.asked.clear()
        assert run(llm("openai-compatible:m", base_url=urls[0], api_key="k"), ["b"], config=_config(board)).succeeded
        assert set(board.asked) & members == {f"openai-compatible {urls[0]} m"}
        assert pool("openai-compatible:m", base_url=urls[::-1], api_key="k").shared_name() == strategy.shared_name()
        assert pool("openai-compatible:m", base_url=urls[:1], api_key="k").shared_name() != strategy.shared_name()


def test_keys_are_numbered_and_not_named():
    board = Recorded()
    with SimulatedProvider() as server:
        strategy = pool("openai-compatible:m", base_url=server.base_url, api_key=["first-key-123", "second-key-456"])
        assert run(strategy, ["a"] * 10, config=_config(board)).succeeded == 10
        name = f"openai-compatible {server.base_url} m"
    assert {name, f"{name} #2"} < set(board.asked)
    assert "key" not in " ".join(board.asked).replace("openai-compatible", "")


def test_members_in_python_take_part_too():
    async def shout(prompt):
        return prompt.upper()

    board = Recorded()
    strategy = pool([CallableStrategy(shout), CallableStrategy(shout, scope="gateway")])
    assert run(strategy, ["a"] * 10, config=_config(board)).succeeded == 10
    assert set(board.asked) == {"run", strategy.shared_name(), f"member {strategy.labels[0]}", "'gateway'"}


def test_a_member_has_only_the_part_that_others_leave():
    """Another process has all of a member's limit, and nothing of the other's."""
    board = LimitBoard()
    with SimulatedProvider(requests_per_minute=6000) as one, SimulatedProvider(requests_per_minute=6000) as two:
        strategy = pool("openai-compatible:m", base_url=[one.base_url, two.base_url], api_key="k")
        # All of it, which it gives back only when it renews its part.
        board.renew(f"openai-compatible {one.base_url} m", "another process", Demand(None))
        assert run(strategy, ["a"] * 100, config=_config(board)).succeeded == 100
        assert one.stats.requests <= 2
        assert two.stats.requests >= 98


_WORKER = """
import sys
from batch_llm import ProcessorConfig, pool, run

board, count, *urls = sys.argv[1:]
strategy = pool("openai-compatible:m", base_url=urls, api_key="k")
config = ProcessorConfig(concurrency="auto", quota_burst_seconds=0.2, shared_limits=board)
print(run(strategy, ["hello"] * int(count), config=config).succeeded, flush=True)
"""


async def _worker(url, servers):
    arguments = (url, "250", *[server.base_url for server in servers])
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, *arguments, stdout=asyncio.subprocess.PIPE
    )


async def test_two_processes_with_one_pool_keep_to_the_limits_of_each_member():
    limits = {"requests_per_minute": 2400, "burst_seconds": 1.5}
    with LimitServer() as board, SimulatedProvider(**limits) as one, SimulatedProvider(**limits) as two:
        workers = [await _worker(board.url, (one, two)) for _ in range(2)]
        for worker in workers:
            output, _ = await worker.communicate()
            assert output.strip() == b"250"
        for server in (one, two):
            assert server.stats.requests > 100, "both are used"
            # Each process by itself would send all that a member takes.
            assert len(server.stats.violations) <= 0.1 * server.stats.requests
