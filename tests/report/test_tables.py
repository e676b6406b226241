"""Batches as tables and as JSON: every answer is there, whatever it is, in input order."""

from __future__ import annotations

import array
import asyncio
import collections
import datetime
import decimal
import enum
import json
import uuid

import numpy
import pandas
import polars
import pyarrow
import pytest

from batch_llm import BatchResult, EmbeddingStrategy, ResultSerializationError, WorkItemResult, run
from batch_llm.serialization import iter_jsonl, to_json_value
from batch_llm.testing import SimulatedProvider

from ..frames.test_frame_values import MIXED, Loose

TABLES = ["to_pandas", "to_polars", "to_arrow"]


@pytest.fixture(params=TABLES)
def table_of(request):
    """A function of a batch that returns its columns as lists."""

    def columns(batch):
        made = getattr(batch, request.param)()
        if isinstance(made, pandas.DataFrame):
            return {
                name: [None if pandas.api.types.is_scalar(one) and pandas.isna(one) else one for one in made[name]]
                for name in made
            }
        return made.to_dict(as_series=False) if isinstance(made, polars.DataFrame) else made.to_pydict()

    columns.name = request.param
    return columns


def batch_of(*outputs, **more):
    return BatchResult(
        [WorkItemResult(f"i{place}", True, output, **more) for place, output in enumerate(outputs)],
    )


def test_answers_of_any_kind_are_in_every_table(table_of):
    given = table_of(batch_of(*MIXED))
    assert len(given["output"]) == len(MIXED)
    if table_of.name != "to_pandas":
        assert given["output"][:7] == ["1", "2.5", "true", None, "text", "bytes", '{"a": 1}']


@pytest.mark.parametrize("value", MIXED, ids=lambda value: type(value).__name__)
def test_one_of_each_kind(table_of, value):
    for outputs in ((value,), (value, None), ({"x": value},), ({"x": [value]}, {"x": 1})):
        assert len(table_of(batch_of(*outputs))["item_id"]) == len(outputs)


@pytest.mark.parametrize(
    ("outputs", "pandas_has", "others_have"),
    [
        ([{"x": 1}, "text"], [{"x": 1}, "text"], ['{"x": 1}', "text"]),
        ([1, "text"], [1, "text"], ["1", "text"]),
        ([2**53 + 1, None], [2**53 + 1, None], [2**53 + 1, None]),
        ([2**53 + 1, 0.5], [2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([2**70, 1], [2**70, 1], [str(2**70), "1"]),
        ([True, None], [True, None], [True, None]),
        ([True, 1], [True, 1], ["true", "1"]),
        ([[1, 2], ["a"]], [[1, 2], ["a"]], [["1", "2"], ["a"]]),
        ([{"a": 1}, [1], None], [{"a": 1}, [1], None], ['{"a": 1}', "[1]", None]),
        (["cut \ud83d", "ok"], ["cut \ud83d", "ok"], ["cut \\ud83d", "ok"]),
    ],
)
def test_mixed_answers_keep_every_value(table_of, outputs, pandas_has, others_have):
    given = table_of(batch_of(*outputs))["output"]
    assert given == (pandas_has if table_of.name == "to_pandas" else others_have)


def test_fields_of_different_answers_are_columns_of_their_own(table_of):
    given = table_of(
        batch_of({"a": 1}, {"b": "x", "item_id": "theirs", "error": "also"}, Loose(label="l", more=2), None)
    )
    assert given["output.a"] == [1, None, None, None]
    assert given["output.b"] == [None, "x", None, None]
    assert (given["output.label"][2], given["output.more"][2]) == ("l", 2)
    assert (given["item_id"][1], given["output.item_id"][1], given["output.error"][1]) == ("i1", "theirs", "also")
    assert given["error"] == [None] * 4


def test_keys_with_one_text_do_not_take_each_others_values(table_of):
    given = table_of(batch_of({1: "a", "1": "b"}))
    assert "a" in str(given["output"][0])
    assert "b" in str(given["output"][0])


def test_names_of_fields_with_half_of_a_surrogate_pair(table_of):
    given = table_of(batch_of({"half \ud83d": {"\udc00": 1}}))
    assert str(given["output.half \\ud83d"]).endswith("1}]")


def test_contexts_with_fields_are_spread(table_of):
    results = [
        WorkItemResult("a", True, "x", context={"row": 1, "name": "n"}),
        WorkItemResult("b", False, error="no", context={"row": 2**53 + 1, "late": True}),
        WorkItemResult("c", True, "y"),
    ]
    given = table_of(BatchResult(results))
    assert given["context.row"] == [1, 2**53 + 1, None]
    assert given["context.name"] == ["n", None, None]
    assert given["context.late"] == [None, True, None]
    assert "context" not in given
    results[2].context = "text"
    given = table_of(BatchResult(results))
    assert given["context"][2] == "text"
    assert "context.row" not in given


async def test_tables_are_in_input_order(table_of):
    async def ask(prompt):
        await asyncio.sleep(0.02 if prompt == "0" else 0)
        return prompt

    batch = await asyncio.to_thread(run, ask, [str(number) for number in range(20)])
    assert batch.results[0].output != "0"
    assert table_of(batch)["output"] == [str(number) for number in range(20)]
    assert [row["output"] for row in batch.to_records()] == [str(number) for number in range(20)]


def test_embeddings_are_lists_of_numbers(table_of, tmp_path):
    with SimulatedProvider() as provider:
        strategy = EmbeddingStrategy("openai:any", base_url=provider.base_url, api_key="any", dimensions=4)
        batch = run(strategy, ["a", "b"])
    given = table_of(batch)["output"]
    assert [[type(number) for number in one] for one in given] == [[float] * 4] * 2
    assert [type(row["output"]) for row in batch.to_records()] == [list, list]
    batch.to_jsonl(tmp_path / "x.jsonl")
    assert BatchResult.from_jsonl(tmp_path / "x.jsonl").in_input_order().outputs() == given
    for made in (numpy.array([0.5, 1.0]), array.array("d", [0.5, 1.0])):
        assert table_of(batch_of(made, None))["output"] == [[0.5, 1.0], None]
        assert table_of(batch_of({"v": made}))["output.v"] == [[0.5, 1.0]]


def test_types_of_columns(table_of):
    batch = batch_of([0.5], token_usage={"input_tokens": 1, "output_tokens": None})
    batch.results[0].token_usage["total_tokens"] = 1
    if table_of.name == "to_polars":
        assert dict(batch.to_polars().schema)["error"] == polars.String
        assert dict(batch.to_polars().schema)["output"] == polars.List(polars.Float64)
    elif table_of.name == "to_arrow":
        assert batch.to_arrow().schema.field("error").type == pyarrow.string()
    given = table_of(batch)
    assert (given["input_tokens"], given["output_tokens"]) == ([1], [None])
    batch.results[0].token_usage["input_tokens"] = "many"
    assert table_of(batch)["input_tokens"] == ["many"]


# JSON


class Key(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        ({"x": [float("inf"), -0.0]}, {"x": [None, -0.0]}),
        ({1: "a", None: "b", 0.5: "d", Key.RED: "e", ("t",): "f"}, None),
        (numpy.float64("nan"), None),
        (numpy.array([[1, 2]]), [[1, 2]]),
        (array.array("f", [0.5]), [0.5]),
        ({3, 1}, [1, 3]),
        (pandas.NaT, None),
        (collections.deque([1, 2]), [1, 2]),
        (range(2), [0, 1]),
        (numpy.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
        (pandas.NA, None),
        (datetime.timedelta(minutes=1), 60.0),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        ("cut \ud83d", "cut \ud83d"),
        ({"half \ud83d": "\udc00"}, {"half \ud83d": "\udc00"}),
        ("\u2028 line\nbreaks \x00", "\u2028 line\nbreaks \x00"),
        (2**70, 2**70),
    ],
    ids=repr,
)
def test_what_json_does_not_quite_have(value, expected, tmp_path):
    batch = batch_of(value, "caf\u00e9")
    batch.to_jsonl(tmp_path / "x.jsonl")
    again = BatchResult.from_jsonl(tmp_path / "x.jsonl")
    if isinstance(value, dict) and 1 in value:
        expected = {"1": "a", "null": "b", "0.5": "d", "red": "e", "('t',)": "f"}
    assert again.results[0].output == expected
    assert again.results[1].output == "caf\u00e9"
    assert [one.output for one in iter_jsonl(tmp_path / "x.jsonl")] == [expected, "caf\u00e9"]
    assert BatchResult.from_json(batch.to_json()).results[0].output == expected
    batch.to_json().encode()
    for line in (tmp_path / "x.jsonl").read_bytes().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_an_encoder_is_asked_for_the_rest_alone():
    asked = []

    def encoder(value):
        asked.append(value)
        return "made"

    assert to_json_value({"a": float("nan"), "b": b"x", "c": {"d": {1}}}, encoder) == {
        "a": None,
        "b": "made",
        "c": {"d": [1]},
    }
    assert asked == [b"x"]


def test_an_encoder_that_raises_is_named():
    with pytest.raises(
        ResultSerializationError, match=r"\$\.results\[0\]\.output\.x: its encoder failed: KeyError: 'no'"
    ):
        batch_of({"x": b"y"}).to_dict(encoder=lambda value: {}["no"])


def test_two_keys_with_one_text_are_named():
    with pytest.raises(
        ResultSerializationError, match=r"\$\.results\[0\]\.output has two keys that both become '1' in JSON"
    ):
        batch_of({1: "a", "1": "b"}).to_dict()


def test_a_line_that_is_no_utf8_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    batch_of("a").to_jsonl(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b'"a"', b'"\xff"'))
    with pytest.raises(ResultSerializationError, match=r"x\.jsonl', line 2 is not JSON"):
        BatchResult.from_jsonl(path)


def test_a_report_of_half_a_surrogate_pair(tmp_path):
    batch = batch_of("cut \ud83d", {"x": "\ud83d"})
    batch.results.append(WorkItemResult("\ud83d", False, error="no \ud83d"))
    batch.report(tmp_path / "x.html")
    assert "cut \\\\ud83d" in (tmp_path / "x.html").read_text(encoding="utf-8")
