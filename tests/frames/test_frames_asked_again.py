"""A data frame that has the answers of an earlier call: none of them stands beside the new ones."""

from __future__ import annotations

import json

import pandas
import polars
import pyarrow
import pytest
from pydantic import BaseModel

from batch_llm import run_frame

LIBRARIES = {"pandas": pandas.DataFrame, "polars": polars.DataFrame, "arrow": pyarrow.table}


class Label(BaseModel):
    label: str


async def two_fields(prompt):
    return {"label": "old", "score": 0.9}


async def one_field(prompt):
    return {"label": "new"}


async def a_text(prompt):
    return "new"


async def nothing(prompt):
    raise ValueError("no")


def columns(frame):
    """The columns as lists of Python's values."""
    if isinstance(frame, pandas.DataFrame):
        frame = frame.astype(object).where(frame.notna(), None)
        return {name: list(frame[name]) for name in frame.columns}
    return frame.to_pydict() if isinstance(frame, pyarrow.Table) else frame.to_dict(as_series=False)


@pytest.fixture(params=LIBRARIES)
def frame_of(request):
    return LIBRARIES[request.param]


class TestAskedAgain:
    """The columns of the earlier call are gone, whatever the new answers are."""

    @pytest.mark.parametrize(
        ("answer", "options", "expected"),
        [
            (one_field, {}, {"output.label": ["new"], "output_error": [None]}),
            (one_field, {"response_model": Label}, {"output.label": ["new"], "output_error": [None]}),
            (a_text, {}, {"output": ["new"], "output_error": [None]}),
            (nothing, {}, {"output": [None], "output_error": ["ValueError: no"]}),
        ],
    )
    def test_no_answer_of_the_earlier_call_is_left(self, frame_of, answer, options, expected):
        first = run_frame(frame_of({"text": ["a"], "after": [1]}), "{text}", two_fields)
        made = columns(run_frame(first, "{text}", answer, **options))
        assert made == {"text": ["a"], "after": [1], **expected}
        assert list(made) == ["text", "after", *expected]

    def test_more_fields_than_before(self, frame_of):
        first = run_frame(frame_of({"text": ["a"]}), "{text}", a_text)
        assert list(columns(run_frame(first, "{text}", two_fields))) == [
            "text", "output.label", "output.score", "output_error"
        ]  # fmt: skip

    def test_columns_of_the_same_names_keep_their_places(self, frame_of):
        first = columns(run_frame(frame_of({"text": ["a"]}), "{text}", one_field))
        frame = frame_of({**first, "after": [1]})
        assert list(columns(run_frame(frame, "{text}", one_field))) == list(columns(frame))

    def test_a_template_may_not_read_what_goes(self, frame_of):
        first = run_frame(frame_of({"text": ["a"]}), "{text}", two_fields)
        with pytest.raises(ValueError, match=r"reads 'output.score', a column of answers that this call would replace"):
            run_frame(first, "{output.score}", pytest.fail, response_model=Label)

    def test_columns_that_are_numbers(self):
        frame = pandas.DataFrame([["a", 1]])
        first = run_frame(frame, "{0}", two_fields)
        assert list(run_frame(first, "{0}", a_text).columns) == [0, 1, "output", "output_error"]

    def test_a_reader(self):
        first = run_frame(pyarrow.table({"text": ["a"]}), "{text}", two_fields)
        made = run_frame(first.to_reader(), "{text}", a_text).read_all()
        assert made.to_pydict() == {"text": ["a"], "output": ["new"], "output_error": [None]}


def test_a_column_of_ones_own_that_is_named_like_a_field_is_never_replaced():
    frame = pandas.DataFrame({"text": ["a", "b"], "output.topic": ["mine", "too"]})
    for answer in ("words", {"topic": "new", "score": 1}, "again"):
        frame = run_frame(frame, "{text}", lambda prompt, answer=answer: answer)
        assert list(frame["output.topic"]) == ["mine", "too"]
        assert list(frame.columns) == ["text", "output.topic", "output", "output_error"]
        told = [json.loads(value) if isinstance(answer, dict) else value for value in frame["output"]]
        assert told == [answer, answer]
