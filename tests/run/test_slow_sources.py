"""Streams whose source makes one wait: what is done, or will soon be done, is given out before it is asked again."""

from __future__ import annotations

import queue
import threading

import pytest

from batch_llm import run_frame, stream


async def quick(prompt):
    return prompt


class Silence:
    """Five prompts at once, and the sixth when it is allowed."""

    def __init__(self):
        self.goes_on = threading.Event()

    def __iter__(self):
        yield from "abcde"
        assert self.goes_on.wait(30)
        yield "f"


@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"concurrency": 1}, {"dedupe": True}])
def test_results_come_before_the_silence(options):
    source = Silence()
    got = []
    for result in stream(quick, source, **options):
        got.append(result.output)
        if len(got) == 5:
            assert not source.goes_on.is_set()
            source.goes_on.set()
    assert sorted(got) == list("abcdef")


def test_a_prompt_that_is_made_of_the_last_answer():
    prompts = queue.Queue()
    prompts.put("a")
    got = []
    for result in stream(quick, iter(lambda: prompts.get(timeout=30), None)):
        got.append(result.output)
        prompts.put(f"{result.output}a" if len(got) < 5 else None)
    assert got == ["a", "aa", "aaa", "aaaa", "aaaaa"]


def test_batches_of_a_reader_come_when_they_are_whole():
    pyarrow = pytest.importorskip("pyarrow")
    goes_on = threading.Event()

    def batches():
        yield pyarrow.record_batch({"text": ["a", "b"]})
        yield pyarrow.record_batch({"text": [None, None]}, schema=schema)
        assert goes_on.wait(30)
        yield pyarrow.record_batch({"text": [None, "c"]})

    schema = pyarrow.schema([("text", pyarrow.string())])
    reader = run_frame(pyarrow.RecordBatchReader.from_batches(schema, batches()), "{text}", quick)
    assert reader.read_next_batch()["output"].to_pylist() == ["a", "b"]
    goes_on.set()
    assert reader.read_all()["output"].to_pylist() == [None, None, None, "c"]
