"""Two runs side by side."""

from __future__ import annotations

import pytest

from batch_llm import BatchResult, WorkItemResult
from batch_llm._view import BatchItems, Comparison


def item(item_id, output=None, **more):
    return WorkItemResult(item_id, output is not None, output, **more)


def compared(first, second):
    return Comparison(BatchItems(BatchResult(first), "one"), BatchItems(BatchResult(second), "two"))


def test_agreement_by_field():
    one = [item("1", {"a": 1, "b": 2}), item("2", '{"a": 1}'), item("3", "x "), item("4", [1, 2])]
    two = [item("4", [1, 2]), item("1", {"a": 1, "b": 3, "c": 0}), item("2", {"a": 1}), item("3", "x")]
    found = compared(one, two)
    agreement = found.figures["agreement"]
    assert (agreement["compared"], agreement["same"]) == (4, 3)
    shares = {name: (field["same"], field["compared"]) for name, field in agreement["fields"].items()}
    assert shares == {"a": (2, 2), "b": (0, 1), "c": (0, 1)}
    assert list(agreement["fields"]) == ["b", "c", "a"], "those that agree least come first"
    rows = found.rows("different", 0, 10)
    assert rows["total"] == 1
    assert dict(zip(rows["columns"], rows["rows"][0], strict=True))["fields"] == "b, c"


def test_outcomes():
    one = [item("same", "x"), item("failed", error="E: x", error_category="a"), item("gone", "x"), item("twice", "1")]
    one += [item("twice", "2"), item("never", error="E: x")]
    two = [item("same", "x"), item("failed", "x"), item("new", "x"), item("twice", "1"), item("twice", "3")]
    two += [item("never", error="E: x")]
    found = compared(one, two)
    assert found.figures["outcomes"] == {
        "same": 2, "different": 1, "failed_in_one": 1, "failed_in_both": 1, "only_in_first": 1, "only_in_second": 1,
    }  # fmt: skip
    assert found.figures["first"]["errors"] == {"a": 1, "unknown": 1}
    assert found.figures["matched"] == 5
    assert found.rows(None, 0, 100)["total"] == 7
    assert [row[0] for row in found.rows(None, 2, 2)["rows"]] == ["new", "twice"]
    with pytest.raises(ValueError, match="outcome='x': it is one of same"):
        found.rows("x", 0, 1)


def test_sums():
    usage = {"input_tokens": 1000, "output_tokens": 10}
    priced = {"model": "gpt-5-mini"}
    one = [item("1", "x", token_usage=usage, metadata=priced), item("2", "x", token_usage=usage, metadata=priced)]
    two = [item("1", "x", token_usage=usage)]
    figures = compared(one, two).figures
    assert figures["first"]["cost"] == pytest.approx(2 * (1000 * 0.25 + 10 * 2) / 1e6)
    assert figures["second"]["cost"] is None
    assert figures["first"]["tokens"]["input_tokens"] == 2000


def test_nothing_in_common():
    figures = compared([], [item("1", "x")]).figures
    assert figures["agreement"] == {"compared": 0, "same": 0, "share": None, "fields": {}}
    assert figures["first"]["latency"]["p50"] is None


def test_answers_with_very_many_fields():
    many = {f"field {number}": number for number in range(500)}
    found = compared([item("1", many)], [item("1", many)])
    assert len(found.figures["agreement"]["fields"]) == 101
