"""Data frames: a question for each row, the answers as columns of the right types."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import random
import re
from typing import Literal

import numpy
import pandas
import polars
import pyarrow
import pytest
from pydantic import BaseModel, Field

from batch_llm import ProcessorConfig, RetryConfig, llm, process_frame, run_frame
from batch_llm.core.guardrails import GuardrailConfig
from batch_llm.testing import SimulatedProvider

LIBRARIES = {
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "arrow": pyarrow.table,
}
QUICK = ProcessorConfig(retry=RetryConfig(max_attempts=1))


@pytest.fixture(params=LIBRARIES)
def frame_of(request):
    return LIBRARIES[request.param]


def columns(frame):
    """The columns as lists of Python's values."""
    if isinstance(frame, pandas.DataFrame):
        return {
            name: [None if pandas.api.types.is_scalar(one) and pandas.isna(one) else one for one in frame[name]]
            for name in frame.columns
        }
    return frame.to_dict(as_series=False) if isinstance(frame, polars.DataFrame) else frame.to_pydict()


def upper(prompt):
    return prompt.upper()


def test_answers_are_a_new_column_in_the_order_of_rows(frame_of):
    async def ask(prompt):
        await asyncio.sleep(random.random() / 100)
        return prompt.upper()

    data = {"text": [f"t{number}" for number in range(200)], "page": list(range(200))}
    frame = frame_of(data)
    made = run_frame(frame, "{text} on {page}, {{so}}", ask, concurrency=50)
    assert type(made) is type(frame)
    assert columns(frame) == data
    expected = [f"T{number} ON {number}, {{SO}}" for number in range(200)]
    assert columns(made) == {**data, "output": expected, "output_error": [None] * 200}


async def test_it_can_be_awaited(frame_of):
    made = await process_frame(frame_of({"text": ["a", "b"]}), "{text}", upper)
    assert columns(made)["output"] == ["A", "B"]


class Topic(enum.Enum):
    PRICE = "price"
    OTHER = "other"


class Place(BaseModel):
    city: str
    floor: int | None = None


class Rating(BaseModel):
    friendly: bool
    stars: int
    score: float | None
    language: Literal["en", "de"]
    topic: Topic
    seen: datetime.datetime
    day: datetime.date
    tags: list[str]
    place: Place
    extra: dict[str, int] = {}
    why: str = Field(alias="reason")


def rate(prompt):
    if "bad" in prompt:
        raise ValueError("no")
    return Rating(
        friendly=True,
        stars=len(prompt),
        score=None if "b" in prompt else 0.5,
        language="en",
        topic=Topic.PRICE,
        seen=datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        day=datetime.date(2026, 1, 2),
        tags=["x", "y"],
        place=Place(city="Lima"),
        extra={"a": 1},
        reason="because",
    )


DATA = {"text": ["a", None, "bb", "bad"]}
UTC = datetime.timezone.utc


def test_fields_of_a_model_are_typed_columns_of_polars():
    made = run_frame(polars.DataFrame(DATA), "{text}", rate, output=None, response_model=Rating, config=QUICK)
    assert dict(made.schema) == {
        "text": polars.String,
        "friendly": polars.Boolean,
        "stars": polars.Int64,
        "score": polars.Float64,
        "language": polars.Enum(["en", "de"]),
        "topic": polars.Enum(["price", "other"]),
        "seen": polars.Datetime("us", "UTC"),
        "day": polars.Date,
        "tags": polars.List(polars.String),
        "place": polars.Struct({"city": polars.String, "floor": polars.Int64}),
        "extra": polars.String,
        "reason": polars.String,
        "error": polars.String,
    }
    assert made["stars"].to_list() == [1, None, 2, None]
    assert made["score"].to_list() == [0.5, None, None, None]
    assert made["seen"][0] == datetime.datetime(2026, 1, 2, 1, tzinfo=UTC)
    assert made["place"][0] == {"city": "Lima", "floor": None}
    assert made["extra"][0] == '{"a": 1}'
    assert made["error"].to_list() == [None, "invalid row: 'text' is null", None, "ValueError: no"]


def test_fields_of_a_model_are_typed_columns_of_arrow():
    made = run_frame(pyarrow.table(DATA), "{text}", rate, response_model=Rating, config=QUICK)
    text = pyarrow.string()
    assert {field.name.removeprefix("output."): field.type for field in made.schema} == {
        "text": text,
        "friendly": pyarrow.bool_(),
        "stars": pyarrow.int64(),
        "score": pyarrow.float64(),
        "language": text,
        "topic": text,
        "seen": pyarrow.timestamp("us", "UTC"),
        "day": pyarrow.date32(),
        "tags": pyarrow.list_(text),
        "place": pyarrow.struct([("city", text), ("floor", pyarrow.int64())]),
        "extra": text,
        "reason": text,
        "output_error": text,
    }
    assert made["output.topic"].to_pylist() == ["price", None, "price", None]
    assert made["output.seen"].to_pylist()[0] == datetime.datetime(2026, 1, 2, 1, tzinfo=UTC)


def test_fields_of_a_model_are_typed_columns_of_pandas_and_its_index_stays():
    frame = pandas.DataFrame(DATA, index=["w", "x", "y", "z"])
    made = run_frame(frame, "{text}", rate, response_model=Rating, config=QUICK)
    assert list(made.index) == ["w", "x", "y", "z"]
    kinds = {name.removeprefix("output."): str(kind) for name, kind in made.dtypes.items()}
    assert kinds["friendly"] == "boolean"
    assert kinds["stars"] == "Int64"
    assert kinds["score"] == "Float64"
    assert kinds["language"] == kinds["topic"] == "category"
    assert list(made["output.topic"].cat.categories) == ["price", "other"]
    assert kinds["seen"].startswith("datetime64")
    assert "UTC" in kinds["seen"]
    assert kinds["day"].startswith("datetime64")
    assert kinds["tags"] == kinds["place"] == "object"
    assert kinds["reason"] == kinds["extra"] == "string"
    assert made["output.tags"]["w"] == ["x", "y"]
    assert made["output_error"]["z"] == "ValueError: no"


def test_the_type_of_answers_is_taken_from_a_native_strategy(frame_of):
    class Answer(BaseModel):
        kind: Literal["a", "b"]
        count: int

    with SimulatedProvider(replies=['{"kind": "a", "count": 3}']) as provider:
        strategy = llm("openai:any", base_url=provider.base_url, response_model=Answer)
        made = run_frame(frame_of({"text": ["x", "y"]}), "{text}", strategy)
    assert columns(made)["output.kind"] == ["a", "a"]
    assert columns(made)["output.count"] == [3, 3]


def test_a_models_name_is_asked_for_the_response_model(frame_of, monkeypatch):
    schema = {"type": "object", "properties": {"count": {"type": "integer"}, "at": {"type": ["string", "null"]}}}
    with SimulatedProvider(replies=['{"count": 3, "at": null}']) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        made = run_frame(frame_of({"text": ["x", "y"]}), "{text}", "openai:any", response_model=schema)
    assert columns(made)["output.count"] == [3, 3]
    assert columns(made)["output.at"] == [None, None]


@dataclasses.dataclass
class Point:
    x: int
    y: float


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([1, 2], {"output": [1, 2]}),
        ([1, 2.5], {"output": [1.0, 2.5]}),
        ([True, False], {"output": [True, False]}),
        ([1, "a"], {"output": ["1", "a"]}),
        ([{"x": 1}, {"y": "b"}], {"output.x": [1, None], "output.y": [None, "b"]}),
        ([Point(1, 2.0), Point(3, 4.0)], {"output.x": [1, 3], "output.y": [2.0, 4.0]}),
        ([2**80, 1], {"output": [str(2**80), "1"]}),
        ([{1, 2}, object], None),
    ],
)
def test_types_of_answers_that_nobody_described_are_found(frame_of, answers, expected):
    made = run_frame(frame_of({"n": [0, 1]}), "{n}", lambda prompt: answers[int(prompt)])
    given = columns(made)
    assert given.pop("output_error") == [None, None]
    given.pop("n")
    if expected is None:
        assert all(isinstance(one, str) for one in given["output"])
    else:
        assert given == expected


@pytest.mark.parametrize("value", [float("nan"), 2**80, {"token": "kept"}, {1, 2}])
def test_answers_that_json_does_not_quite_have_are_kept(frame_of, value):
    answers = [{"x": {"a": [value]}}, {"x": 1}]
    made = columns(run_frame(frame_of({"n": [0, 1]}), "{n}", lambda prompt: answers[int(prompt)]))
    assert made["output_error"] == [None, None]
    assert made["output.x"][1] == "1"
    assert {"nan": "null"}.get(str(value), "kept" if isinstance(value, dict) else "2") in made["output.x"][0]


def test_the_answers_of_an_earlier_call_are_replaced_in_their_place(frame_of):
    first = run_frame(frame_of({"text": ["a"], "page": [1]}), "{text}", upper)
    made = columns(run_frame(first, "{text}{page}", upper))
    assert made == {"text": ["a"], "page": [1], "output": ["A1"], "output_error": [None]}
    assert columns(first)["output"] == ["A"]


def test_a_function_of_a_row_makes_prompts(frame_of):
    made = run_frame(frame_of({"a": ["x", None], "b": [1, 2]}), lambda row: f"{row['a']}-{row['b']}", upper)
    assert columns(made)["output"] == ["X-1", "NONE-2"]


def test_nested_values_stand_in_prompts_as_json(frame_of):
    made = run_frame(frame_of({"tags": [["a", "b"], ["c"]], "at": [1.5, float("nan")]}), "{tags}", upper)
    assert columns(made)["output"] == ['["A", "B"]', '["C"]']


def test_numpys_arrays_in_cells_are_lists():
    frame = pandas.DataFrame({"tags": [numpy.array(["a", "b"]), numpy.array([1.5])], "n": numpy.array([1, 2])})
    assert columns(run_frame(frame, "{tags} {n}", upper))["output"] == ['["A", "B"] 1', "[1.5] 2"]


def test_no_rows(frame_of):
    made = run_frame(frame_of({"text": []}), "{text}", upper)
    assert columns(made) == {"text": [], "output": [], "output_error": []}


def test_rows_that_were_not_reached_say_why(frame_of):
    config = ProcessorConfig(guardrails=GuardrailConfig(max_total_tokens=5000), concurrency=1)

    async def ask(prompt):
        await asyncio.sleep(0)
        return prompt, {"input_tokens": 500, "output_tokens": 100}

    made = columns(run_frame(frame_of({"n": list(range(500))}), "{n}", ask, config=config))
    assert made["output"][:2] == ["0", "1"]
    assert made["output"][-1] is None
    assert made["output_error"][-1].startswith("not sent: no further attempt fits within max_total_tokens")
    assert len([one for one in made["output"] if one]) < 20


def test_what_a_template_raises_comes_with_the_answers_so_far(frame_of):
    def template(row):
        return 1 / (70 - row["n"]) and str(row["n"])

    with pytest.raises(ZeroDivisionError) as caught:
        run_frame(frame_of({"n": list(range(100))}), template, upper)
    partial = columns(caught.value.partial_result)
    assert partial["output"][:70] == [str(number) for number in range(70)]
    assert partial["output_error"][99] == "not sent: the run ended with ZeroDivisionError: division by zero"


def test_a_store_is_gone_on_from(frame_of, tmp_path):
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return prompt.upper()

    for _ in range(2):
        made = run_frame(frame_of({"text": ["a", "b"]}), "{text}", ask, store=tmp_path / "run.db")
        assert columns(made)["output"] == ["A", "B"]
    assert sorted(asked) == ["a", "b"]


@pytest.mark.parametrize(
    ("template", "error", "words"),
    [
        ("hello", ValueError, "the template names no column: 'hello'. Write a column in braces, such as {text}"),
        ("{txt}", ValueError, "there is no column 'txt'; did you mean 'text'? The columns are 'text'"),
        ("{other}", ValueError, "there is no column 'other'; the columns are 'text'"),
        ("{text", ValueError, "Write {{ and }} for literal braces"),
        ("{text.upper}", ValueError, "there is no column 'text.upper'; did you mean 'text'?"),
        ("{text!r}", ValueError, "there is no column 'text!r'; did you mean 'text'?"),
        (3, TypeError, "template must be a string with columns in braces, or a function of a row, not 3"),
    ],
)
def test_mistakes_in_a_template_are_said_before_anything_is_sent(frame_of, template, error, words):
    with pytest.raises(error, match=re.escape(words)):
        run_frame(frame_of({"text": ["a"]}), template, pytest.fail)


async def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match=r"not polars\.LazyFrame\. Collect a lazy frame first"):
        run_frame(polars.LazyFrame({"text": ["a"]}), "{text}", upper)
    with pytest.raises(TypeError, match=r"takes a pandas or Polars DataFrame, or an Arrow Table, not builtins\.list"):
        await process_frame(["a"], "{text}", upper)
    with pytest.raises(TypeError, match="not pyarrow"):
        await process_frame(pyarrow.table({"text": ["a"]}).to_reader(), "{text}", upper)
    with pytest.raises(TypeError, match="template must be a plain function of a row, not an async one"):
        run_frame(pyarrow.table({"text": ["a"]}), process_frame, upper)
    with pytest.raises(TypeError, match="output must be the name of a column, or None, not 3"):
        run_frame(pyarrow.table({"text": ["a"]}), "{text}", upper, output=3)
    with pytest.raises(ValueError, match="more than one column 'text'"):
        run_frame(pandas.DataFrame([["a", "b"]], columns=["text", "text"]), "{text}", upper)


class TestReaders:
    """Tables that are larger than memory."""

    def reader(self, rows, size, read=None):
        schema = pyarrow.schema([("n", pyarrow.int64())])

        def batches():
            for start in range(0, rows, size):
                if read is not None:
                    read.append(start)
                numbers = [None if number % 10 == 9 else number for number in range(start, min(start + size, rows))]
                yield pyarrow.record_batch([pyarrow.array(numbers, pyarrow.int64())], schema=schema)

        return pyarrow.RecordBatchReader.from_batches(schema, batches())

    def test_batches_come_in_order_with_their_answers(self):
        async def ask(prompt):
            await asyncio.sleep(random.random() / 100)
            return f"<{prompt}>"

        table = run_frame(self.reader(1000, 64), "{n}", ask, concurrency=50).read_all()
        assert table.schema.names == ["n", "output", "output_error"]
        expected = [None if number % 10 == 9 else f"<{number}>" for number in range(1000)]
        assert table["output"].to_pylist() == expected
        assert table["output_error"].to_pylist()[9] == "invalid row: 'n' is null"

    def test_it_reads_only_as_far_ahead_as_needed(self):
        read = []
        made = run_frame(self.reader(100_000, 100, read), "{n}", upper, concurrency=4)
        assert read == []
        first = made.read_next_batch()
        assert first["output"].to_pylist()[:3] == ["0", "1", "2"]
        assert len(read) < 50
        made.close()

    def test_types_are_those_of_the_model(self):
        table = run_frame(
            self.reader(30, 7), "{n}", lambda prompt: Point(int(prompt), 0.5), response_model=Point
        ).read_all()
        assert table.schema.field("output.x").type == pyarrow.int64()
        assert table["output.x"].to_pylist()[:3] == [0, 1, 2]

    def test_all_rows_come_out_of_a_run_that_ends_early(self):
        config = ProcessorConfig(guardrails=GuardrailConfig(max_total_tokens=5000), concurrency=1)

        async def ask(prompt):
            return prompt, {"input_tokens": 500, "output_tokens": 100}

        table = run_frame(self.reader(20_000, 100), "{n}", ask, config=config).read_all()
        assert table["n"].to_pylist() == [None if number % 10 == 9 else number for number in range(20_000)]
        assert table["output"].to_pylist()[:2] == ["0", "1"]
        assert table["output"].null_count > 19_900
        assert "no further attempt fits within" in table["output_error"].to_pylist()[-2]

    def test_an_empty_one(self):
        assert run_frame(self.reader(0, 7), "{n}", upper).read_all().num_rows == 0

    def test_all_null(self):
        schema = pyarrow.schema([("n", pyarrow.int64())])
        nulls = pyarrow.record_batch([pyarrow.array([None] * 5, pyarrow.int64())], schema=schema)
        reader = pyarrow.RecordBatchReader.from_batches(schema, iter([nulls, nulls]))
        assert run_frame(reader, "{n}", upper).read_all()["output"].to_pylist() == [None] * 10
