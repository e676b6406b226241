"""A batch in one line, wherever it is shown."""

from __future__ import annotations

import traceback

from batch_llm import BatchResult, BatchTermination, WorkItemResult, run

from ..helpers import Echo


def test_a_batch_is_one_line():
    batch = run(Echo(), ["a\nb"] * 3000)
    assert repr(batch).startswith("BatchResult(3,000 items: 3,000 succeeded, 0 failed; 45,000 tokens; ")
    assert "\n" not in repr(batch)
    assert len(repr(batch)) < 200
    assert str(batch) == repr(batch)


def test_it_says_what_did_not_go_well():
    results = [WorkItemResult("a", True, "x"), WorkItemResult("b", False, error="E: no")]
    results.append(WorkItemResult("c", False, error="E: no", error_category="interrupted"))
    batch = BatchResult(results, termination=BatchTermination("interrupted", "the run was interrupted"))
    assert repr(batch) == "BatchResult(3 items: 1 succeeded, 1 failed, 1 not sent; interrupted)"
    assert repr(BatchResult([])) == "BatchResult(0 items: 0 succeeded, 0 failed)"


def test_a_traceback_with_locals_stays_short():
    batch = run(Echo(), ["x" * 100] * 2000)
    try:
        _ = batch.results[5000]
    except IndexError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert len("".join(shown.format())) < 2000
