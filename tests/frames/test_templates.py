"""Templates over columns, whose names may be anything."""

from __future__ import annotations

import re

import pandas
import polars
import pyarrow
import pytest

from batch_llm import run_frame
from batch_llm._frames.templates import Template

NAMES = [
    "text", "user.name", "Q1: How old?", "Wow!", "a[0]", '12" pipe', "output.topic", "it's", "", " ", " padded ", "a{b",
    "a}b", "{x}", "}", "two\nlines", "{{", "a}}", "%s", "x!r", "x:>10", "0", "ключ", "日本", "a\\b", "{",
]  # fmt: skip


async def echo(prompt):
    return prompt


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("others", [[], NAMES], ids=["alone", "among all"])
def test_a_column_of_any_name_can_be_named(name, others):
    template = Template("Hi {" + name + "}, {{so}}!", [*others, name])
    assert template.columns == [name]
    assert template.fill(dict.fromkeys(others, "no") | {name: "v"}) == "Hi v, {so}!"


@pytest.mark.parametrize("library", [pandas.DataFrame, polars.DataFrame, pyarrow.table])
def test_in_frames_too(library):
    frame = library({name: [str(place)] for place, name in enumerate(NAMES)})
    made = run_frame(frame, "".join("{" + name + "}," for name in NAMES), echo)
    answer = made["output"].to_pylist() if library is pyarrow.table else list(made["output"])
    assert answer == ["".join(f"{place}," for place in range(len(NAMES)))]


def test_names_in_pandas_need_not_be_texts():
    frame = pandas.DataFrame([["a", "b", "c"]], columns=[0, ("x", 1), None])
    assert run_frame(frame, "{0} {('x', 1)} {None}", echo)["output"][0] == "a b c"


@pytest.mark.parametrize(
    ("text", "columns", "parts"),
    [
        ("{{}}", ["a"], "{}"),
        ("{{{a}}}", ["a"], "{v}"),
        ('{{"q": "{a}"}}', ["a"], '{"q": "v"}'),
        ("{a}{a}", ["a"], "vv"),
        ("{a}b}", ["a", "a}b"], "w"),
        ("no column", ["a"], "no column"),
        ("", ["a"], ""),
    ],
)
def test_braces_that_are_meant(text, columns, parts):
    assert Template(text, columns).fill(dict(zip(columns, "vw", strict=False))) == parts
    if "b" not in columns[-1]:
        assert Template(text).fill({"a": "v"}) == parts


@pytest.mark.parametrize("name", ["text", "user.name", "Q1: How old?", "Wow!", "a[0]", '12" pipe', " padded "])
def test_names_are_taken_as_they_are_before_the_columns_are_known(name):
    template = Template("Hi {" + name + "}")
    assert template.columns == [name]
    assert template.fill({name: "v"}) == "Hi v"


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("{txt}", ["text", "n"], "there is no column 'txt'; did you mean 'text'? The columns are 'text', 'n'"),
        ("{txt}", [], "there is no column 'txt'; there are no columns"),
        ("{q}", [f"c{n}" for n in range(99)], "'c19' and 79 more"),
        ('{"q": "{text}"}', ["text"], "Write {{ and }} for literal braces"),
        ('{"q": "{text}"}', None, "Write {{ and }} for literal braces"),
        ("{\n}", None, "a placeholder names a column"),
        ("{}", ["text"], "a placeholder names a column"),
        ("{}", None, "a placeholder names a column"),
        ("{text", ["text"], "unmatched brace at '{text'"),
        ("text} more", ["text"], "unmatched brace at '} more'"),
        ("text}", None, "unmatched brace at '}'"),
    ],
)
def test_mistakes_are_named(text, columns, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Template(text, columns)
