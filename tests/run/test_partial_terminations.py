"""Partial results say why their run ended."""

from __future__ import annotations

import asyncio
import sys

import pytest

from batch_llm import (
    CallableStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    process_prompts,
    process_stream,
    run,
    stream,
)


async def quick(prompt):
    if prompt == "bad":
        sys.exit("no more")
    return prompt


def raising(error):
    yield "a"
    yield "b"
    raise error


ENDINGS = [
    (SystemExit(2), "failed", "the run ended with SystemExit: 2"),
    (ValueError("no such line"), "failed", "the run ended with ValueError: no such line"),
    (KeyboardInterrupt(), "interrupted", "the run ended with KeyboardInterrupt"),
]


@pytest.mark.parametrize(("error", "kind", "reason"), ENDINGS)
def test_exceptions_of_sources(error, kind, reason):
    with pytest.raises(type(error)) as raised:
        run(quick, raising(error))
    batch = raised.value.partial_result
    assert (batch.termination.kind, batch.termination.reason) == (kind, reason)
    assert kind in repr(batch)


@pytest.mark.parametrize(("error", "kind", "reason"), ENDINGS)
def test_streams(error, kind, reason):
    results = stream(quick, raising(error))
    with pytest.raises(type(error)):
        list(results)
    assert (results.termination.kind, results.termination.reason) == (kind, reason)


def test_exceptions_of_functions():
    with pytest.raises(SystemExit) as raised:
        run(quick, ["a", "bad"])
    assert raised.value.partial_result.termination.reason == "the run ended with SystemExit: no more"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
def test_rows_say_what_ended_the_run(kind):
    pandas = pytest.importorskip("pandas")
    from batch_llm import run_frame

    def prompt_of(row):
        if row["text"] == "c":
            raise kind
        return row["text"]

    with pytest.raises(kind) as raised:
        run_frame(pandas.DataFrame({"text": list("abcd")}), prompt_of, quick)
    assert raised.value.partial_result["output_error"].iloc[-1] == f"not sent: the run ended with {kind.__name__}"


async def test_processors():
    async with ParallelBatchProcessor() as processor:
        await processor.add_work(LLMWorkItem("a", CallableStrategy(quick), "bad"))
        with pytest.raises(SystemExit) as raised:
            await processor.process_all()
        assert raised.value.partial_result.termination.kind == processor.termination.kind == "failed"
        await processor.add_work(LLMWorkItem("b", CallableStrategy(quick), "good"))
        assert (await processor.process_all()).termination.kind == "completed"


async def test_cancellation():
    begun = asyncio.Event()

    async def slow(prompt):
        begun.set()
        await asyncio.sleep(1000)

    task = asyncio.ensure_future(process_prompts(slow, ["a"]))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    batch = getattr(raised.value, "partial_result", None)
    assert batch is None or batch.termination.kind == "cancelled"  # Python 3.10 raises another one
    results = process_stream(slow, ["a"])
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(results), 0.05)
    assert results.termination.kind == "cancelled"
