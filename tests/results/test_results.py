"""What results can be asked, and turned into."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import BaseModel

from batch_llm import (
    BatchResult,
    BatchTermination,
    GuardrailConfig,
    LLMWorkItem,
    ParallelBatchProcessor,
    Price,
    ProcessorConfig,
    ResultSerializationError,
    WorkItemResult,
    process_prompts,
)
from batch_llm._report.summary import rate, seconds
from batch_llm.serialization import iter_jsonl, to_json_value
from batch_llm.testing import FakeRateLimitError, FakeStrategy

from ..helpers import quick


class Colour(enum.Enum):
    RED = "red"


class Invoice(BaseModel):
    number: str
    total: float


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def some_results():
    return [
        WorkItemResult("b", True, "B", None, {"n": 2}, {"input_tokens": 10, "output_tokens": 2}, submission_index=1),
        WorkItemResult("a", True, "A", None, None, {"input_tokens": 20, "cached_input_tokens": 10}, submission_index=0),
        WorkItemResult("c", False, error="ValueError: no", error_category="logic_error", submission_index=2),
    ]


def some_batch():
    return BatchResult(
        some_results(), termination=BatchTermination("fail_fast", "why", "x", "c"), wall_time_seconds=2.0
    )


def test_looking_at_a_batch():
    batch = some_batch()
    assert [result.item_id for result in batch.successes] == ["b", "a"]
    assert [result.item_id for result in batch.failures] == ["c"]
    assert batch.outputs() == ["B", "A"]
    assert batch.outputs(with_ids=True) == [("b", "B"), ("a", "A")]
    assert batch.by_id()["a"].output == "A"
    assert [result.item_id for result in batch] == ["b", "a", "c"]
    ordered = batch.in_input_order()
    assert [result.item_id for result in ordered] == ["a", "b", "c"]
    assert ordered.termination is batch.termination
    assert ordered.wall_time_seconds == 2.0
    with pytest.raises(ValueError, match="'x' has no submission_index"):
        BatchResult([WorkItemResult("x", True)]).in_input_order()


def test_money():
    batch = some_batch()
    assert batch.cache_hit_rate() == pytest.approx(100 / 3)
    assert batch.effective_input_tokens() == 30 - 9
    assert batch.effective_input_tokens(0.5) == 25
    assert batch.estimated_cost(1.0, 10.0) == pytest.approx((30 + 20) / 1e6)
    assert batch.estimated_cost(1.0, 10.0, cached_token_rate=0.5) == pytest.approx((25 + 20) / 1e6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            batch.effective_input_tokens(wrong)
    with pytest.raises(ValueError, match="input_per_mtok must be >= 0"):
        batch.estimated_cost(-1, 1)


async def a_run():
    schedule = [None, ConnectionError("reset"), ValueError("<b>no</b>"), FakeRateLimitError(retry_after=0.01)]
    usage = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13, "reasoning_tokens": 1}

    class Model(FakeStrategy):
        async def execute(self, prompt, attempt, timeout, state=None):
            output, tokens = await super().execute(prompt, attempt, timeout, state)
            return output, tokens, {"model": "gpt-5.5", "finish_reason": "stop"}

    strategy = Model(str.upper, failure_schedule=schedule, token_usage=usage, latency=0.001)
    return await process_prompts(strategy, ["<script>", "b", "c", "d"], config=quick(), concurrency=2)


async def test_your_own_prices_come_first():
    strategy = FakeStrategy("x", token_usage={"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000})

    async def told(prompt):
        output, usage = await strategy.execute(prompt, 1, 1.0)
        return output, usage, {"model": "mine"}

    config = ProcessorConfig(guardrails=GuardrailConfig(prices={"mine": Price(3.0, 4.0)}))
    batch = await process_prompts(told, ["a", "b"], config=config)
    assert "cost        6.0000 by your prices" in batch.summary()
    assert "cost" not in (await process_prompts(told, ["a"])).summary()
    async with ParallelBatchProcessor(config=config) as processor:
        await processor.add_work(LLMWorkItem("a", told, "a"))
        batch = await processor.process_all()
    assert "cost        3.0000 by your prices" in batch.summary()
    assert batch.wall_time_seconds > 0


async def test_summary_is_one_screen_of_everything():
    batch = await a_run()
    text = batch.summary()
    assert len(text.splitlines()) < 15
    for words in (
        "4: 3 succeeded (75.0%), 1 failed",
        "2 further attempts for 2 items",
        "p50",
        "p99",
        "30 input, 9 output, 3 reasoning",
        "by list prices",
        "1 x logic_error: ValueError: <b>no</b> [item_",
        "bound by",
    ):
        assert words in text, words
    assert "without" not in text
    assert "fail_fast: why" in some_batch().summary()
    assert BatchResult([]).summary() == "items       0: 0 succeeded, 0 failed"


def test_times_are_easy_to_read():
    assert [seconds(value) for value in (None, 0.0000123, 0.0123, 1.234, 119, 125, 7265)] == [
        "unknown",
        "12.3 us",
        "12.3 ms",
        "1.23 s",
        "119 s",
        "2 min 05 s",
        "2 h 01 min",
    ]
    assert [rate(value) for value in (None, 1234.5, 3.21, 0.5)] == ["rate unknown", "1,234/s", "3.2/s", "30/min"]


def test_summary_of_many_kinds_of_errors():
    results = [WorkItemResult(str(n), False, error=f"E{n % 20}: x", error_category=f"k{n % 20}") for n in range(100)]
    text = BatchResult(results).summary()
    assert "5 x k0: E0: x [0, 20, 40, ...]" in text
    assert "60 more of 12 other kinds" in text


async def test_a_notebook_s_cell_and_a_page(tmp_path):
    batch = await a_run()
    cell = batch._repr_html_()
    assert cell.count("<svg") == 4
    assert "<script>" not in cell.replace("&lt;script&gt;", "")
    assert "&lt;b&gt;no&lt;/b&gt;" in cell
    batch.report(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "connect-src 'none'" in page  # nothing is fetched
    assert "<b>no</b>" not in page
    assert r"\u003cb\u003eno\u003c/b\u003e" in page
    empty = BatchResult([])
    assert "0: 0 succeeded" in empty._repr_html_()
    empty.report(tmp_path / "empty.html")


def test_a_page_of_very_many_results_stays_readable(tmp_path):
    results = [WorkItemResult(str(n), n % 3 > 0, "x" * 50_000, attempts=1) for n in range(3000)]
    BatchResult(results).report(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    # As docs/reading.md says: so many characters in all, and of each text.
    assert len(page) < 64_000_000
    assert "x" * 20_000 in page
    assert "x" * 20_001 not in page


async def test_html_of_an_output_whose_repr_fails():
    class Shy:
        def __repr__(self):
            raise RuntimeError("no")

    batch = BatchResult([WorkItemResult("a", True, Shy(), attempts=1)])
    assert "its repr failed: RuntimeError" in batch._repr_html_()


# Tables


async def test_tables_have_a_row_per_result():
    batch = (await a_run()).in_input_order()
    frame = batch.to_pandas()
    assert list(frame["item_id"]) == ["item_0", "item_1", "item_2", "item_3"]
    assert frame["success"].sum() == 3
    assert frame["input_tokens"].sum() == 30
    assert str(frame["attempts"].dtype) == "Int64"
    assert set(frame["model"].dropna()) == {"gpt-5.5"}
    assert frame["execution_seconds"].max() > 0
    assert "context" not in frame
    other = batch.to_polars()
    assert other["item_id"].to_list() == list(frame["item_id"])
    table = batch.to_arrow()
    assert table.column("success").to_pylist() == list(frame["success"])
    assert batch.to_records()[0]["output"] == "<SCRIPT>"


@pytest.mark.parametrize("make", [Invoice, lambda **fields: fields], ids=["model", "dict"])
def test_outputs_with_fields_become_columns(make):
    results = [
        WorkItemResult("a", True, make(number="1", total=2.5)),
        WorkItemResult("b", False, error="no"),
    ]
    batch = BatchResult(results)
    frame = batch.to_pandas()
    assert list(frame["output.number"])[:1] == ["1"]
    assert list(frame["output.total"])[:1] == [2.5]
    assert "output" not in frame
    assert batch.to_polars()["output.total"].to_list() == [2.5, None]
    assert batch.to_arrow().column("output.number").to_pylist() == ["1", None]


def test_tables_of_mixed_and_nested_and_no_outputs():
    mixed = BatchResult([WorkItemResult("a", True, "text"), WorkItemResult("b", True, {"x": 1}, context={"k": [1]})])
    assert list(mixed.to_pandas()["output"]) == ["text", {"x": 1}]
    assert mixed.to_arrow().column("output").to_pylist() == ["text", '{"x": 1}']
    assert mixed.to_polars().height == 2
    nested = BatchResult([WorkItemResult("a", True, {"point": Point(1, 2), "tags": ["x"]})])
    assert nested.to_arrow().column("output.point").to_pylist() == [{"x": 1, "y": 2}]
    empty = BatchResult([])
    assert empty.to_pandas().empty
    assert empty.to_polars().height == 0
    assert empty.to_arrow().num_rows == 0
    assert "output" in empty.to_pandas().columns


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars"):
        some_batch().to_polars()


# JSON


async def test_a_batch_survives_the_round_trip(tmp_path):
    batch = await a_run()
    for again in (
        BatchResult.from_json(batch.to_json()),
        BatchResult.from_dict(json.loads(json.dumps(batch.to_dict()))),
        _through_jsonl(batch, tmp_path),
    ):
        assert again == batch
        assert again.summary() == batch.summary()
        assert [result.timing for result in again] == [result.timing for result in batch]
        assert [result.submission_index for result in again] == [result.submission_index for result in batch]
        assert again.results[0].exception is None
    result = WorkItemResult.from_dict(batch.results[0].to_dict())
    assert result == batch.results[0]
    assert next(iter(batch.to_dict())) == "schema"
    assert list(iter_jsonl(tmp_path / "batch.jsonl")) == batch.results


def _through_jsonl(batch, folder):
    batch.to_jsonl(folder / "batch.jsonl")
    assert len((folder / "batch.jsonl").read_text().splitlines()) == 5
    return BatchResult.from_jsonl(folder / "batch.jsonl")


def test_decoders_make_typed_outputs_again():
    batch = BatchResult([WorkItemResult("a", True, Invoice(number="1", total=2), context=Point(1))])
    again = BatchResult.from_json(
        batch.to_json(), output_decoder=Invoice.model_validate, context_decoder=lambda data: Point(**data)
    )
    assert again.results[0].output == Invoice(number="1", total=2)
    assert again.results[0].context == Point(1, 0)
    with pytest.raises(ResultSerializationError, match=r"\$.results\[0\].output: its decoder failed: ValidationError"):
        BatchResult.from_json(
            '{"schema":"batch-llm-result","version":1,"results":[{"item_id":"a","success":true,"output":{}}]}',
            output_decoder=Invoice.model_validate,
        )


def test_what_can_be_encoded():
    value = {
        "plain": [None, True, 1, 1.5, "x"],
        "tuple": (1, 2),
        "set": {3},
        "enum": Colour.RED,
        "model": Invoice(number="1", total=2),
        "point": Point(1),
        "when": datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc),
        "id": uuid.UUID(int=5),
        "path": pathlib.PurePosixPath("/a/b"),
        "money": decimal.Decimal("1.10"),
    }
    assert to_json_value(value) == {
        "plain": [None, True, 1, 1.5, "x"],
        "tuple": [1, 2],
        "set": [3],
        "enum": "red",
        "model": {"number": "1", "total": 2.0},
        "point": {"x": 1, "y": 0},
        "when": "2026-01-02T03:04:00+00:00",
        "id": "00000000-0000-0000-0000-000000000005",
        "path": "/a/b",
        "money": "1.10",
    }


def test_arrays_are_lists():
    import numpy

    assert to_json_value({"v": numpy.array([1.5, 2.5]), "n": numpy.int64(3)}) == {"v": [1.5, 2.5], "n": 3}


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ([b"x"], "$.results[0].output[0] is bytes"),
        ({"x": object()}, "$.results[0].output.x is object"),
    ],
)
def test_what_cannot_be_encoded_is_named(output, place, tmp_path):
    batch = BatchResult([WorkItemResult("a", True, output)])
    target = tmp_path / "batch.jsonl"
    target.write_text("earlier")
    for way in (batch.to_dict, batch.to_json, lambda: batch.to_jsonl(target)):
        with pytest.raises(ResultSerializationError) as caught:
            way()
        assert place in str(caught.value)
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_an_encoder_is_asked_for_the_rest_only():
    asked = []

    def encode(value):
        asked.append(value)
        return {"bytes": value.hex()}

    batch = BatchResult([WorkItemResult("a", True, {"x": b"ab", "y": 1})])
    assert batch.to_dict(encoder=encode)["results"][0]["output"] == {"x": {"bytes": "6162"}, "y": 1}
    assert asked == [b"ab"]
    with pytest.raises(ResultSerializationError, match="after 32 calls the encoder"):
        batch.to_dict(encoder=lambda value: value)


def test_nesting_without_end_is_an_error():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ResultSerializationError, match="nested too deep"):
        to_json_value(loop)


def test_secrets_are_not_written():
    result = WorkItemResult(
        "a",
        False,
        {"api_key": "sk-1", "Authorization": "Bearer sk-2", "max_tokens": 5},
        "ValueError: api_key=sk-3 and Authorization: Bearer sk-4, access token: sk-5",
        {"nested": [{"client-secret": "sk-6", "Access-Token": "sk-7"}]},
        metadata={"X-API-Key": "sk-8"},
    )
    text = BatchResult([result]).to_json()
    assert "sk-" not in text
    assert text.count("[REDACTED]") == 8
    assert '"max_tokens": 5' in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "$ must be an object"),
        ({}, "$.schema is None"),
        ({"schema": "other", "version": 1}, "$.schema is 'other'"),
        ({"schema": "batch-llm-result", "version": 2}, "Upgrade batch-llm"),
        ({"schema": "batch-llm-result", "version": 1}, "$.results must be a list"),
        ({"schema": "batch-llm-result", "version": 1, "kind": "result", "results": []}, "$.kind is 'result'"),
        ({"schema": "batch-llm-result", "version": 1, "results": [5]}, "$.results[0] must be an object"),
        ({"schema": "batch-llm-result", "version": 1, "results": [{}]}, "$.results[0].item_id must be str"),
        (
            {"schema": "batch-llm-result", "version": 1, "results": [{"item_id": "a", "success": 1}]},
            "$.results[0].success must be bool",
        ),
        (
            {"schema": "batch-llm-result", "version": 1, "results": [{"item_id": "a", "success": True, "error": 5}]},
            "$.results[0].error must be str",
        ),
        (
            {"schema": "batch-llm-result", "version": 1, "results": [{"item_id": "a", "success": True, "timing": 5}]},
            "$.results[0].timing must be a list",
        ),
    ],
)
def test_what_is_no_batch_is_refused(data, words):
    with pytest.raises(ResultSerializationError) as caught:
        BatchResult.from_dict(data)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_files_that_are_no_batch(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("")
    with pytest.raises(ResultSerializationError, match="is empty"):
        BatchResult.from_jsonl(path)
    some_batch().to_jsonl(path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ResultSerializationError, match="line 4 is not JSON"):
        BatchResult.from_jsonl(path)
    with pytest.raises(ResultSerializationError, match="is not JSON"):
        BatchResult.from_json("{")


def test_the_envelope_of_async_batch_llm_is_read():
    data = {
        "schema_name": "async-batch-llm-result",
        "schema_version": 1,
        "results": [
            {
                "item_id": "a",
                "success": True,
                "output": "x",
                "token_usage": {"input_tokens": 3},
                "submission_index": 0,
                "admission_wait_seconds": 0.0,
                "timing": {
                    "total_seconds": 1.0,
                    "attempts": [{"attempt": 1, "try_number": 1, "execution_seconds": 0.5}],
                },
            }
        ],
        "termination": {"kind": "completed", "reason": None, "error_category": None, "triggering_item_id": None},
        "wall_time_seconds": 1.0,
    }
    batch = BatchResult.from_dict(data)
    assert batch.total_input_tokens == 3
    assert batch.results[0].timing.execution_seconds == 0.5


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@hypothesis.given(VALUES, VALUES, st.text(min_size=1).filter(lambda text: not text.isspace()))
def test_any_json_value_survives(output, context, item_id):
    from batch_llm._secrets import is_credential

    def without_secrets(value):
        if isinstance(value, dict):
            return {k: "[REDACTED]" if is_credential(k) else without_secrets(v) for k, v in value.items()}
        return [without_secrets(part) for part in value] if isinstance(value, list) else value

    batch = BatchResult([WorkItemResult(item_id, True, output, context=context)])
    again = BatchResult.from_json(batch.to_json())
    assert again.results[0].output == without_secrets(output)
    assert again.results[0].context == without_secrets(context)
