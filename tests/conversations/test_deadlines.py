"""Time limits of tools, which share timers."""

from __future__ import annotations

import asyncio
import sys

import pytest

from batch_llm._timeouts import Deadlines


async def forever(deadlines, limit):
    with deadlines.within(limit):
        await asyncio.Event().wait()


async def test_each_block_ends_at_its_own_time():
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    ends = []

    async def block(number, limit):
        begun = loop.time()
        with pytest.raises(TimeoutError):
            await forever(deadlines, limit)
        assert loop.time() - begun >= limit - 0.01
        ends.append(number)

    # The second limit is shorter, and has a timer of its own; the third begins while the timer of the first runs.
    blocks = [asyncio.ensure_future(block(1, 0.08)), asyncio.ensure_future(block(2, 0.02))]
    await blocks[1]
    await asyncio.gather(*blocks, block(3, 0.08))
    assert ends == [2, 1, 3]
    assert not deadlines._timers


async def test_what_ends_in_time_is_not_cancelled():
    deadlines = Deadlines()
    with deadlines.within(0.01):
        pass
    with deadlines.within(60.0):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await forever(deadlines, 0.01)
    await asyncio.sleep(0.02)
    deadlines.close()


async def test_a_limit_within_a_limit():
    deadlines = Deadlines()

    async def block(outer, inner):
        with deadlines.within(outer):
            try:
                await forever(deadlines, inner)
            except TimeoutError:
                return "the inner one"

    assert await block(60.0, 0.01) == "the inner one"
    with pytest.raises(TimeoutError):
        await block(0.01, 60.0)
    deadlines.close()


async def test_whoever_cancels_the_task_is_not_told_of_a_time_limit():
    deadlines = Deadlines()
    task = asyncio.ensure_future(forever(deadlines, 60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadlines.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks do not know how often they were cancelled")
async def test_a_task_that_is_cancelled_when_its_time_is_over_is_cancelled():
    deadlines = Deadlines()
    deadline = deadlines.within(60.0)

    async def block():
        with deadline:
            await asyncio.Event().wait()

    task = asyncio.ensure_future(block())
    await asyncio.sleep(0)
    deadline._expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    deadlines.close()


async def test_a_block_that_ends_well_although_its_time_is_over():
    deadlines = Deadlines()
    with deadlines.within(0.01):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            answer = 7
    assert answer == 7
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_nothing_is_cancelled_once_they_are_closed():
    deadlines = Deadlines()
    with deadlines.within(0.01):
        await asyncio.sleep(0)
        deadlines.close()
        await asyncio.sleep(0.03)
