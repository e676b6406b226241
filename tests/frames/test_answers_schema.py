"""The schema of answers, before there are any; and tables of several workers, which have it in common."""

from __future__ import annotations

import enum
from typing import Literal

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import BaseModel

import batch_llm
from batch_llm import CallableStrategy, LLMCallStrategy, run_frame
from batch_llm.frames import answers_schema

from ..helpers import USAGE


class Topic(str, enum.Enum):
    PRICE = "price"
    QUALITY = "quality"


class Rating(BaseModel):
    friendly: bool
    stars: int | None = None
    topic: Topic = Topic.PRICE
    language: Literal["en", "de"] = "en"
    tags: list[Literal["a", "b"]] = []


ARROW = [
    ("output.friendly", pyarrow.bool_()),
    ("output.stars", pyarrow.int64()),
    ("output.topic", pyarrow.string()),
    ("output.language", pyarrow.string()),
    ("output.tags", pyarrow.list_(pyarrow.string())),
    ("output_error", pyarrow.string()),
]


class Rates(LLMCallStrategy[Rating]):
    """Answers with a rating by the prompt."""

    response_model = Rating

    async def execute(self, prompt, attempt, timeout, state=None):
        rating = Rating(friendly=True, stars=3, topic="price" if "a" in prompt else "quality", tags=["a"])
        return rating, dict(USAGE)


async def echo(prompt: str) -> str:
    return prompt


def table(**more):
    return pyarrow.table({"text": ["a", "b", None], "more": [1, 2, 3], **more})


def asked(of, *arguments, **options):
    """The schema of a table and of a reader with answers."""
    reader = pyarrow.RecordBatchReader.from_batches(of.schema, of.to_batches())
    answered = run_frame(of, *arguments, **options).schema, run_frame(reader, *arguments, **options).schema
    assert answered[0].equals(answered[1], check_metadata=True)
    return answered[0]


def test_the_new_columns_alone():
    assert list(zip(answers_schema().names, answers_schema().types, strict=True)) == [
        ("output", pyarrow.string()),
        ("output_error", pyarrow.string()),
    ]
    made = answers_schema(response_model=Rating)
    assert list(zip(made.names, made.types, strict=True)) == ARROW
    assert answers_schema(None, Rating, None).names == ["friendly", "stars", "topic", "language", "tags", "error"]
    assert answers_schema(strategy=Rates()) == made
    assert answers_schema(None, {"type": "object", "properties": {"n": {"type": "number"}}}, "a").names == [
        "a.n",
        "a_error",
    ]


@pytest.mark.parametrize("output", ["output", "answer", None])
@pytest.mark.parametrize("model", [Rating, None])
def test_it_is_the_schema_of_what_is_returned(output, model):
    strategy = Rates() if model else CallableStrategy(echo)
    of = table()
    expected = asked(of, "{text}", strategy, response_model=model, output=output)
    assert answers_schema(of.schema, model, output).equals(expected, check_metadata=True)
    assert answers_schema(of.schema, output=output, strategy=strategy, template="{text}").equals(expected)


def test_it_keeps_metadata_and_replaces_the_answers_of_an_earlier_call():
    of = pyarrow.Table.from_pandas(pandas.DataFrame({"text": ["a"]}, index=pandas.Index([5], name="number")))
    once = run_frame(of, "{text}", CallableStrategy(echo))
    twice = run_frame(once, "{text}", Rates(), response_model=Rating)
    assert answers_schema(once.schema, Rating).equals(twice.schema, check_metadata=True)


def test_a_models_name_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert answers_schema(strategy="openai:gpt-5-mini") == answers_schema()


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((pyarrow.schema([("output", pyarrow.string())]),), {}, ValueError, "there is already a column 'output'"),
        ((table().schema,), {"template": "{txt}"}, ValueError, "did you mean 'text'"),
        ((table().schema,), {"output": 5}, TypeError, "output must be"),
        ((["text"],), {}, TypeError, "must be a pyarrow.Schema"),
        ((None, object()), {}, TypeError, "response_model"),
    ],
)
def test_wrong_arguments_are_errors(arguments, options, kind, message):
    with pytest.raises(kind, match=message):
        batch_llm.answers_schema(*arguments, **options)


def test_tables_of_several_workers_can_be_grouped_concatenated_and_written(tmp_path):
    parts = [run_frame(pyarrow.table({"text": [text]}), "{text}", Rates()) for text in ("a", "b", "ab")]
    parts.append(run_frame(pyarrow.table({"text": pyarrow.array([None], pyarrow.string())}), "{text}", Rates()))
    assert not any(pyarrow.types.is_dictionary(kind) for part in parts for kind in part.schema.types)
    whole = pyarrow.concat_tables(parts)
    counts = whole.group_by("output.topic").aggregate([("output.stars", "sum"), ("text", "count")])
    assert {row["output.topic"]: row["output.stars_sum"] for row in counts.to_pylist()} == {
        "price": 6,
        "quality": 3,
        None: None,
    }
    with pyarrow.parquet.ParquetWriter(tmp_path / "all.parquet", answers_schema(parts[0].schema, Rating)) as writer:
        for part in parts:
            writer.write_table(part)
    assert pyarrow.parquet.read_table(tmp_path / "all.parquet").equals(whole)
