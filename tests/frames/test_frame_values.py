"""Frames of odd rows and odd answers: what is odd costs its row, and no value changes without a word."""

from __future__ import annotations

import array
import asyncio
import datetime
import decimal
import enum
import json
import re
import sys
import uuid
from typing import Literal

import numpy
import pandas
import polars
import pyarrow
import pytest
from pydantic import BaseModel, ConfigDict

from batch_llm import EmbeddingStrategy, LLMCallStrategy, ProcessorConfig, RetryConfig, llm, process_frame, run_frame
from batch_llm.testing import SimulatedProvider

from .test_frames import LIBRARIES, columns

ONCE = ProcessorConfig(retry=RetryConfig(max_attempts=1))
UTC = datetime.timezone.utc


@pytest.fixture(params=LIBRARIES)
def frame_of(request):
    return LIBRARIES[request.param]


def answered(frame_of, answers, **options):
    """The columns of a frame whose rows were answered so, and the frame."""
    made = run_frame(frame_of({"n": list(range(len(answers)))}), "{n}", lambda p: answers[int(p)], **options)
    given = columns(made)
    del given["n"]
    return given, made


def kind_of(made, name):
    return made.schema.field(name).type if isinstance(made, pyarrow.Table) else made[name].dtype


class Colour(enum.Enum):
    RED = "red"


class Hidden:
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    label: str


circle: list = []
circle.append(circle)
deep: list = []
for _ in range(5000):
    deep = [deep]

MIXED = [
    1, 2.5, True, None, "text", b"bytes", {"a": 1}, ["x"], {3, 1}, (1, 2), Colour.RED, decimal.Decimal("1.10"),
    datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3), datetime.time(3, 4), datetime.timedelta(1), 2**80,
    float("nan"), float("inf"), "cut \ud83d", uuid.UUID(int=5), Hidden(), circle, deep, Loose(label="x", more=1),
    {1: 2, "1": 3}, {}, [], object, numpy.float32(0.5), numpy.int64(7), numpy.array([[1, 2]]), pandas.NaT, pandas.NA,
    pandas.Timestamp("2026-01-02T03:04:05.123456789"), array.array("f", [0.5]), {("a", "b"): 1}, complex(1, 2),
]  # fmt: skip


def test_answers_of_any_kind_beside_each_other_are_kept(frame_of):
    given, _ = answered(frame_of, MIXED)
    made = given["output"]
    assert given["output_error"] == [None] * len(MIXED)
    assert made[:12] == [
        "1", "2.5", "true", None, "text", "bytes", '{"a": 1}', '["x"]', "[1, 3]", "[1, 2]", "red", "1.10",
    ]  # fmt: skip
    assert made[12:21] == [
        "2026-01-02", "2026-01-02T03:00:00", "03:04:00", "1 day, 0:00:00", str(2**80), "null", "null", "cut \\ud83d",
        str(uuid.UUID(int=5)),
    ]  # fmt: skip
    assert "Hidden" in made[21]
    assert made[24:28] == ['{"label": "x", "more": 1}', '[[1, 2], ["1", 3]]', "{}", "[]"]
    assert made[29:34] == ["0.5", "7", "[[1, 2]]", None, None]
    assert made[34:37] == ["2026-01-02T03:04:05.123456789", "[0.5]", "{\"('a', 'b')\": 1}"]


@pytest.mark.parametrize("answer", MIXED, ids=lambda value: type(value).__name__)
def test_one_of_each_kind_alone(frame_of, answer):
    given, made = answered(frame_of, [answer, None])
    assert set(given["output_error"]) == {None}
    assert len(given["output_error"]) == len(made) == 2


@pytest.mark.parametrize(
    "model",
    [
        {"type": "object", "properties": {"score": {"type": "number"}, "tags": {"items": {"type": "string"}}}},
        {"type": "integer"},
        {"type": "array", "items": {"type": "number"}},
        {"enum": ["a", "b"]},
        datetime.datetime,
        Loose,
        Literal["a"],
    ],
    ids=lambda model: str(model)[:20],
)
def test_whatever_a_model_says_a_frame_is_returned(frame_of, model):
    answers = [*MIXED, *({"score": answer, "tags": answer, "label": answer} for answer in MIXED)]
    given, made = answered(frame_of, answers, response_model=model)
    assert len(made) == len(answers)
    assert all(error is None or "output" in error or "answer" in error for error in given["output_error"])


def test_the_odd_answer_costs_its_row_and_the_column_keeps_its_type(frame_of):
    schema = {"type": "object", "properties": {"score": {"type": "number"}, "count": {"type": "integer"}}}
    answers = [{"score": 0.5, "count": 1}, {"score": "n/a", "count": 2**70}, {"score": 2**60 + 1, "count": 3.0}, "none"]
    given, made = answered(frame_of, answers, response_model=schema)
    assert given["output.score"] == [0.5, None, None, None]
    assert given["output.count"] == [1, None, 3, None]
    assert "float" in str(kind_of(made, "output.score")).lower() or "double" in str(kind_of(made, "output.score"))
    assert given["output_error"] == [
        None,
        f"output.score: n/a is not a valid number; output.count: {2**70} is not a valid 64-bit integer",
        f"output.score: {2**60 + 1} is not a valid number (a column of floats cannot store it exactly)",
        "the answer has no fields: none",
    ]


def test_fields_that_nobody_told_of_have_columns(frame_of):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "object", "properties": {"x": {}}}},
    }
    answers = [{"a": 1, "b": {"x": 1}}, {"a": 2, "late": "l", "b": {"x": 2, "y": 3}}]
    given, _ = answered(frame_of, answers, response_model=schema)
    assert given["output.a"] == [1, 2]
    assert given["output.late"] == [None, "l"]
    assert given["output.b"][1] == {"x": "2", "y": 3}
    given, _ = answered(frame_of, [Loose(label="a", more=1), Loose(label="b", late=2)], response_model=Loose)
    assert (given["output.label"], given["output.more"], given["output.late"]) == (["a", "b"], [1, None], [None, 2])
    rows = [{"id": n} for n in range(3000)] + [{"id": 3000, "late": True}]
    given, _ = answered(frame_of, rows)
    assert (given["output.late"][-2:], given["output.id"][-1]) == ([None, True], 3000)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([2**63, 1], [str(2**63), "1"]),
        ([2**62 + 1, None], [2**62 + 1, None]),
        ([-(2**63)], [-(2**63)]),
        ([True, 1], ["true", "1"]),
        ([1, 2.5], [1.0, 2.5]),
        ([datetime.date(2026, 1, 2), None], None),
        (["\ud83d", "ok"], ["\\ud83d", "ok"]),
        ([b"\xff\x00", None], None),
        ([[1, 2], [0.5]], [[1.0, 2.0], [0.5]]),
        ([[1], ["a"]], [["1"], ["a"]]),
        ([[], [None]], [[], [None]]),
        ([{"a": {"b": 2**70}}], None),
        (
            [datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 2, tzinfo=UTC)],
            ["2026-01-02T00:00:00", "2026-01-02T00:00:00+00:00"],
        ),
    ],
)
def test_values_do_not_change(frame_of, answers, expected):
    given, _ = answered(frame_of, answers)
    assert given["output_error"] == [None] * len(answers)
    if expected is not None:
        assert given["output"] == expected


def test_what_no_schema_describes_is_seen_when_it_is_there(frame_of):
    class Own(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        label: str
        thing: Hidden | None = None

    given, _ = answered(frame_of, [Own(label="x")], response_model=Own)
    assert given["output.label"] == ["x"]
    with pytest.raises(TypeError, match="response_model cannot be <object"):
        answered(frame_of, [1], response_model=object())

    class Typed(LLMCallStrategy):
        output_type = Hidden

        async def execute(self, prompt, attempt, timeout, state=None):
            return prompt, {}

    assert columns(run_frame(frame_of({"text": ["a"]}), "{text}", Typed()))["output"] == ["a"]


def test_series_and_times_of_numpy_and_polars(frame_of):
    at = "2026-01-02T03:04:05.123456789"
    assert answered(frame_of, [polars.Series([1.5])])[0]["output"] == [[1.5]]
    assert answered(frame_of, [pandas.Series([1.5])])[0]["output"] == [[1.5]]
    assert answered(frame_of, [numpy.datetime64(at)])[0]["output"] == [at]
    assert answered(frame_of, [numpy.array([at], dtype="datetime64[ns]")])[0]["output"] == [[at]]


def test_instants_without_a_zone_stay_without(frame_of):
    times = [datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999)]
    given, made = answered(frame_of, times)
    assert [str(one)[:26].replace("T", " ") for one in given["output"]] == [str(one) for one in times]
    assert "UTC" not in str(kind_of(made, "output"))


def test_nan_is_no_missing_answer(frame_of):
    _, made = answered(frame_of, [float("nan"), 0.5, None])
    if isinstance(made, pandas.DataFrame):
        assert made["output"].isna().tolist()[1:] == [False, True]
        assert str(made["output"].array[0]) == "nan"
    elif isinstance(made, polars.DataFrame):
        assert made["output"].is_nan().to_list() == [True, False, None]
    else:
        assert made["output"].null_count == 1


class TestEmbeddings:
    """Lists of numbers in every table."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda one: array.array("f", one),
            lambda one: array.array("d", one),
            numpy.array,
            lambda one: numpy.array(one, dtype="float32"),
            list,
        ],
    )
    def test_of_any_making(self, frame_of, make):
        given, made = answered(frame_of, [make([0.5, 0.25]), None, make([1.0, 2.0])])
        assert given["output"] == [[0.5, 0.25], None, [1.0, 2.0]]
        kind = str(kind_of(made, "output"))
        assert kind == {"pandas": "object", "polars": "List(Float64)"}.get(
            type(made).__module__.split(".")[0], "list<item: double>"
        )

    def test_beside_other_fields(self, frame_of):
        given, _ = answered(frame_of, [{"v": array.array("f", [0.5]), "n": 1}, {"v": [1], "n": 2}])
        assert given["output.v"] == [[0.5], [1.0]]

    def test_those_of_the_strategy(self, frame_of):
        with SimulatedProvider() as provider:
            strategy = EmbeddingStrategy("openai:any", base_url=provider.base_url, api_key="any", dimensions=4)
            made = columns(run_frame(frame_of({"text": ["a", "b"]}), "{text}", strategy))
        assert [len(one) for one in made["output"]] == [4, 4]
        assert all(type(number) is float for one in made["output"] for number in one)


class TestRows:
    """A bad row costs that row."""

    def test_null_and_blank_cells(self, frame_of):
        frame = frame_of({"text": ["a", None, "", "  \n", "b"], "n": [1.0, 2.0, None, 4.0, float("nan")]})
        given = columns(run_frame(frame, "{text}", str.upper))
        assert given["output"] == ["A", None, None, None, "B"]
        says = ["invalid row: 'text' is null", "invalid row: 'text' is empty", "invalid row: 'text' is empty"]
        assert given["output_error"] == [None, *says, None]
        given = columns(run_frame(frame, "{text} {n}", str.upper))
        assert given["output"][3:] == ["  \n 4.0", None]
        assert given["output_error"][4] == "invalid row: 'n' is null"

    @pytest.mark.parametrize(
        "cell",
        [None, float("nan"), pandas.NA, pandas.NaT, numpy.float64("nan"), numpy.float32("nan"), decimal.Decimal("NaN")],
    )
    def test_all_that_is_missing_in_pandas(self, cell):
        frame = pandas.DataFrame({"text": pandas.Series(["a", cell], dtype=object)})
        assert list(run_frame(frame, "{text}", str.upper)["output_error"])[1] == "invalid row: 'text' is null"

    def test_bytes(self, frame_of):
        given = columns(run_frame(frame_of({"text": [b"caf\xc3\xa9", b"\xff"]}), "{text}", str.upper))
        assert given["output"] == ["CAF\u00c9", None]
        assert given["output_error"] == [None, "invalid row: 'text' has bytes that are not UTF-8"]

    @pytest.mark.parametrize(
        ("prompt", "says"),
        [
            (None, "invalid row: the template returned no prompt"),
            (float("nan"), "invalid row: the template returned no prompt"),
            (" ", "invalid row: the prompt is empty"),
            (5, "invalid row: "),
            ({"a": 1}, "invalid row: "),
            ("x" * 101, "invalid row: the prompt has 101 characters, max_prompt_length is 100"),
        ],
    )
    def test_odd_prompts_of_a_function(self, frame_of, prompt, says):
        config = ProcessorConfig(retry=RetryConfig(max_attempts=1), max_prompt_length=100)
        with SimulatedProvider() as provider:
            strategy = llm("openai:any", base_url=provider.base_url, api_key="any")
            frame = frame_of({"n": [0, 1, 2]})
            made = run_frame(frame, lambda row: prompt if row["n"] == 1 else "fine", strategy, config=config)
        given = columns(made)
        assert [error is None for error in given["output_error"]] == [True, False, True]
        assert given["output_error"][1].startswith(says)

    @pytest.mark.parametrize("native", [True, False])
    def test_half_of_a_surrogate_pair_in_a_cell(self, native):
        frame = pandas.DataFrame({"text": pandas.Series(["a", "cut \ud83d", "b"], dtype=object)})
        if native:
            with SimulatedProvider() as provider:
                strategy = llm("openai:any", base_url=provider.base_url, api_key="any")
                made = run_frame(frame, "Say {text}", strategy, config=ONCE)
            assert list(made["output_error"].isna()) == [True, False, True]
        else:
            made = run_frame(frame, "{text}", lambda prompt: prompt, config=ONCE)
            assert list(made["output"]) == ["a", "cut \\ud83d", "b"]
        assert list(made["text"]) == list(frame["text"])

    def test_a_field_with_half_of_a_surrogate_pair(self, frame_of):
        made = columns(run_frame(frame_of({"n": [1]}), "{n}", lambda prompt: {"half \ud83d": 1}))
        assert made["output.half \\ud83d"] == [1]

    def test_an_error_with_half_of_a_surrogate_pair(self, frame_of):
        def fail(prompt):
            raise ValueError("cut \ud83d")

        made = columns(run_frame(frame_of({"n": [1]}), "{n}", fail, config=ONCE))
        assert made["output_error"] == ["ValueError: cut \\ud83d"]


class TestNames:
    """A column of the frame is never lost."""

    @pytest.mark.parametrize(
        ("names", "options", "says"),
        [
            (
                ["text", "output"],
                {},
                "there is already a column 'output', and a new column would have this name; give output='answer'",
            ),
            (["text", "output_error"], {}, "there is already a column 'output_error'"),
            (["text", "label"], {"output": None, "response_model": Loose}, "there is already a column 'label'"),
            (["text", "error"], {"output": None}, "there is already a column 'error'"),
            (["text", "label", "error"], {"output": None, "response_model": Loose}, "already"),
            (["text", "output.label"], {"response_model": Loose}, "there is already a column 'output.label'"),
            (["text"], {"output": "text"}, "there is already a column 'text'"),
            (["text", "answer", "output"], {}, "give output='output_2'"),
        ],
    )
    def test_a_name_that_is_taken_is_refused_before_anything_is_sent(self, frame_of, names, options, says):
        with pytest.raises(ValueError, match=re.escape(says)):
            run_frame(frame_of({name: ["a"] for name in names}), "{text}", pytest.fail, **options)

    def test_the_template_may_not_read_what_is_replaced(self, frame_of):
        first = run_frame(frame_of({"text": ["a"]}), "{text}", str.upper)
        with pytest.raises(
            ValueError, match="the template reads 'output', a column of answers that this call would replace"
        ):
            run_frame(first, "{output}!", pytest.fail)
        second = columns(run_frame(first, "{output}!", str.lower, output="second"))
        assert (second["output"], second["second"]) == (["A"], ["a!"])

    def test_a_cell_of_a_notebook_may_run_again(self, frame_of):
        frame = frame_of({"text": ["a", "b"]})
        for tag in ("x", "y"):
            frame = run_frame(frame, "{text}", lambda prompt, tag=tag: {"tag": tag, "n": 1})
        made = columns(frame)
        assert made == {"text": ["a", "b"], "output.tag": ["y", "y"], "output.n": [1, 1], "output_error": [None, None]}

    def test_fields_of_answers_that_nobody_described_do_not_take_names(self, frame_of):
        def answer(prompt):
            return {"label": "new", "error": "none found", "text": "t"}

        made = columns(run_frame(frame_of({"text": ["a"], "label": ["old"]}), "{text}", answer, output=None))
        assert made == {
            "text": ["a"], "label": ["old"], "output.label": ["new"], "output.error": ["none found"],
            "output.text": ["t"], "error": [None],
        }  # fmt: skip
        frame = frame_of({"text": ["a"], "label": ["old"], "output.label": ["older"]})
        made = columns(run_frame(frame, "{text}", answer, output=None))
        assert (made["label"], made["output.label"], made["output.label_2"]) == (["old"], ["older"], ["new"])

    def test_a_field_called_as_the_column_of_errors(self, frame_of):
        class Report(BaseModel):
            error: str

        with pytest.raises(ValueError, match="the answers have a field 'error', which is the name of the error column"):
            run_frame(frame_of({"text": ["a"]}), "{text}", pytest.fail, output=None, response_model=Report)


class TestPandas:
    """What pandas has beside values."""

    def test_indexes_labels_types_and_attributes_stay(self):
        index = pandas.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["x", "y"])
        frame = pandas.DataFrame(
            {
                "text": pandas.array(["a", "b", None], dtype="string"),
                "whole": pandas.array([1, None, 2**62 + 1], dtype="Int64"),
                "kind": pandas.Categorical(["u", "v", "u"]),
                "at": pandas.to_datetime(["2026-01-02T03:04:05.123456789"] * 3),
                "zone": pandas.to_datetime(["2026-01-02"] * 3).tz_localize("Europe/Berlin"),
                "part": numpy.array([1, 2, 3], dtype="uint8"),
                "list": [[1], [2], [3]],
            },
            index=index,
        )
        frame.attrs["source"] = {"a": 1}
        made = run_frame(frame, "{text} {whole} {kind} {at}", lambda prompt: prompt)
        pandas.testing.assert_frame_equal(made[list(frame.columns)], frame)
        assert made.attrs == frame.attrs
        assert made["output"].iloc[0] == "a 1 u 2026-01-02 03:04:05.123456789"
        assert made["output_error"].isna().tolist() == [True, False, False]

    @pytest.mark.parametrize(
        "names",
        [
            [0, 1],
            [("a", 1), "b"],
            pandas.MultiIndex.from_tuples([("a", "x"), ("b", "")], names=["l", "m"]),
            pandas.to_datetime(["2026-01-01", "2026-01-02"]),
            pandas.CategoricalIndex(["a", "b"]),
            [None, 1.5],
            ["twice", "twice"],
            pandas.Index(["a", "b"], name="called"),
        ],
        ids=lambda names: type(names).__name__,
    )
    def test_columns_of_any_name_stay(self, names):
        frame = pandas.DataFrame([["v", "w"]], columns=names)
        last = str(frame.columns[-1]) if not isinstance(names, pandas.MultiIndex) else "b"
        if list(frame.columns) == ["twice", "twice"]:
            frame.insert(0, "b", "w")
            last = "b"
        made = run_frame(frame, "{" + last + "}", str.upper)
        assert list(made.iloc[0])[:-1] == [*frame.iloc[0], "W"]
        assert repr(list(made.columns[: len(frame.columns)])) == repr(list(frame.columns))
        assert made.columns.names == frame.columns.names
        assert made["output"].iloc[0] == "W" if not isinstance(names, pandas.MultiIndex) else True
        if isinstance(names, pandas.MultiIndex):
            assert list(made.columns[2:]) == [("output", ""), ("output_error", "")]
        again = run_frame(made, "{" + last + "}", str.lower)
        assert repr(list(again.columns)) == repr(list(made.columns))
        assert list(again.iloc[0])[:-1] == [*frame.iloc[0], "w"]

    def test_a_function_gets_the_labels_as_they_are(self):
        frame = pandas.DataFrame([["v", "w"]], columns=[0, ("a", 1)])
        assert run_frame(frame, lambda row: row[0] + row[("a", 1)], str.upper)["output"][0] == "VW"
        with pytest.raises(ValueError, match="more than one column 'a'"):
            run_frame(pandas.DataFrame([["v", "w"]], columns=["a", "a"]), lambda row: "x", pytest.fail)

    def test_frames_without_rows_or_columns(self):
        made = run_frame(pandas.DataFrame({"text": []}), "{text}", str.upper, response_model=Loose)
        assert list(made.columns) == ["text", "output.label", "output_error"]
        made = run_frame(pandas.DataFrame(index=["a", "b"]), lambda row: "x", str.upper)
        assert list(made["output"]) == ["X", "X"]


class TestPolarsAndArrow:
    """What they have beside values."""

    def test_types_of_polars_stay(self):
        frame = polars.DataFrame(
            {
                "text": ["a", "b"],
                "ns": polars.Series([1, 2], dtype=polars.Datetime("ns", "Europe/Berlin")),
                "money": polars.Series(["1.10", "2.20"]).cast(polars.Decimal(10, 2)),
                "kind": polars.Series(["u", "v"], dtype=polars.Categorical),
                "enum": polars.Series(["u", "v"], dtype=polars.Enum(["u", "v"])),
                "u64": polars.Series([2**64 - 1, 1], dtype=polars.UInt64),
                "list": [[1], None],
                "span": [datetime.timedelta(1), None],
                "raw": [b"\xff", None],
                "f32": polars.Series([0.1, None], dtype=polars.Float32),
            }
        )
        made = run_frame(frame, "{text} {money} {u64}", lambda prompt: prompt)
        assert made.select(frame.columns).equals(frame)
        assert dict(made.select(frame.columns).schema) == dict(frame.schema)
        assert made["output"].to_list() == [f"a 1.10 {2**64 - 1}", "b 2.20 1"]

    def test_types_metadata_and_chunks_of_arrow_stay(self):
        schema = pyarrow.schema(
            [
                pyarrow.field("text", pyarrow.string(), nullable=False, metadata={"about": "it"}),
                pyarrow.field("ns", pyarrow.timestamp("ns")),
                pyarrow.field("dict", pyarrow.dictionary(pyarrow.int8(), pyarrow.string())),
                pyarrow.field("big", pyarrow.large_string()),
                pyarrow.field("money", pyarrow.decimal128(10, 2)),
            ],
            metadata={"source": "here"},
        )
        row = {"text": "a", "ns": 1, "dict": "u", "big": "b", "money": decimal.Decimal("1.10")}
        batches = [pyarrow.RecordBatch.from_pylist([row] * 3, schema=schema) for _ in range(2)]
        frame = pyarrow.Table.from_batches(batches)
        for made in (
            run_frame(frame, "{text} {ns} {dict} {money}", lambda prompt: prompt),
            run_frame(frame.to_reader(), "{text} {ns} {dict} {money}", lambda prompt: prompt).read_all(),
        ):
            assert made.select(frame.column_names).equals(frame)
            assert made.schema.metadata == schema.metadata
            for field in schema:
                assert made.schema.field(field.name).equals(field, check_metadata=True)
            assert made["output"].to_pylist()[0].startswith("a 1970-01-01 00:00:00.000000001 u 1.10")

    def test_columns_of_arrow_that_are_twice_there_stay(self):
        frame = pyarrow.table([["a"], ["b"], ["c"]], names=["text", "x", "x"])
        made = run_frame(frame, "{text}", str.upper)
        assert made.column_names == ["text", "x", "x", "output", "output_error"]
        assert made.column(2).to_pylist() == ["c"]
        with pytest.raises(ValueError, match="more than one column 'x'"):
            run_frame(frame, "{x}", pytest.fail)


class TestReaders:
    """Answers whose columns were told before they were there."""

    def reader(self, rows, size=2):
        table = pyarrow.table({"n": list(range(rows))})
        return pyarrow.RecordBatchReader.from_batches(table.schema, table.to_batches(size))

    def test_an_odd_answer_costs_its_row(self):
        answers = [{"score": 1}, {"score": "n/a"}, "none", {"score": 0.5, "late": 1}]
        schema = {"type": "object", "properties": {"score": {"type": "number"}}}
        made = run_frame(self.reader(4), "{n}", lambda p: answers[int(p)], response_model=schema).read_all()
        assert made["output.score"].to_pylist() == [1.0, None, None, 0.5]
        assert made["output_error"].to_pylist() == [
            None,
            "output.score: n/a is not a valid number",
            "the answer has no fields: none",
            'the answer has extra fields: {"late": 1}',
        ]

    def test_answers_of_any_kind_are_text(self):
        made = run_frame(self.reader(len(MIXED)), "{n}", lambda p: MIXED[int(p)]).read_all()
        assert made["output"].to_pylist()[:3] == ["1", "2.5", "true"]
        assert made["output_error"].null_count == len(MIXED)

    def test_categories_and_nested_fields_of_a_model(self):
        class Answer(BaseModel):
            kind: Literal["a", "b"]
            parts: list[dict[str, int]]
            at: datetime.datetime | None = None

        answers = [Answer(kind="a", parts=[{"x": 1}]), None, {"kind": "c", "parts": 5}]
        made = run_frame(self.reader(3), "{n}", lambda p: answers[int(p)], response_model=Answer).read_all()
        assert made["output.kind"].to_pylist() == ["a", None, None]
        assert made["output.parts"].to_pylist()[0] == ['{"x": 1}']
        assert made["output_error"].to_pylist()[2].startswith("output.kind: c is not a valid category")

    def test_names_that_are_taken_are_refused_at_once(self):
        table = pyarrow.table({"text": ["a"], "output": ["old"]})
        with pytest.raises(ValueError, match="there is already a column 'output'"):
            run_frame(table.to_reader(), "{text}", pytest.fail)

    def test_what_a_function_raises_comes_with_the_answers_so_far(self):
        made = run_frame(self.reader(9), lambda row: str(1 / (5 - row["n"])), str.upper)
        with pytest.raises(ZeroDivisionError) as caught:
            made.read_all()
        assert caught.value.partial_result.schema.names == ["n", "output", "output_error"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task's cancellation is another exception for who awaits it")
async def test_an_interrupt_comes_with_the_answers_so_far(frame_of):
    started = asyncio.Event()

    async def ask(prompt):
        if prompt == "2":
            started.set()
            await asyncio.sleep(60)
        return prompt

    task = asyncio.create_task(process_frame(frame_of({"n": [0, 1, 2]}), "{n}", ask, concurrency=1))
    await started.wait()
    for _ in range(50):  # turns of the loop, in which the first answers are taken
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert columns(caught.value.partial_result)["output"] == ["0", "1", None]


def test_texts_of_answers_are_json_that_strict_readers_take(frame_of):
    given, _ = answered(frame_of, [{"a": float("nan"), "b": [float("inf")]}, "x"])
    assert json.loads(given["output"][0]) == {"a": None, "b": [None]}
