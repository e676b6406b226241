"""Schemas on their way to a model, and answers on their way back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import AnyUrl, BaseModel, Field

from batch_llm import Tool, llm

from ..served import DIALECTS, answer, serve

BIG = 98765432109876543210


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def schema_of(body):
    if "response_format" in body:
        return body["response_format"]["json_schema"]["schema"]
    if "text" in body:
        return body["text"]["format"]["schema"]
    if "output_config" in body:
        return body["output_config"]["format"]["schema"]
    return body["generationConfig"]["responseJsonSchema"]


def sent(server, dialect, model, **options):
    server.one(answer(dialect), dialect, response_model=model, **options)
    return server.bodies[0]


class Step(BaseModel):
    reasoning: str
    answer: int
    Zeta: list[int]
    alpha: str


def tool(zeta: int, alpha: str, mid: float = 1.0):
    """d"""


ORDERED = {
    "type": "object",
    "properties": {"z": {"type": "string"}, "a": {"type": "integer", "maximum": BIG}},
    "required": ["z", "a"],
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_everything_keeps_its_order(server, dialect):
    body = sent(
        server,
        dialect,
        Step,
        tools=[tool, Tool("g", "d", ORDERED)],
        extra_body={"z_field": {"b": 1, "a": BIG}, "a_field": 1},
    )
    assert list(schema_of(body)["properties"]) == ["reasoning", "answer", "Zeta", "alpha"]
    assert '["zeta", "alpha", "mid"]' in json.dumps([list(value) for value in _properties(body["tools"])])
    assert '["z", "a"]' in json.dumps([list(value) for value in _properties(body["tools"])])
    assert list(body["z_field"]) == ["b", "a"]
    assert body["z_field"]["a"] == BIG
    assert list(body).index("z_field") < list(body).index("a_field")
    assert list(schema_of(sent(server, dialect, ORDERED))["properties"]) == ["z", "a"]


def _properties(value: Any):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "properties":
                yield inner
            yield from _properties(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _properties(inner)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_checked_answers_keep_order_and_digits(server, dialect):
    text = f'{{"z": "x", "a": {BIG}, "f": 0.1}}'
    result = server.one(
        answer(dialect, text), dialect, response_model={"type": "object", "properties": {"a": {"type": "integer"}}}
    )
    assert list(result.output.items()) == [("z", "x"), ("a", BIG), ("f", 0.1)]


def test_long_integers_keep_their_digits_in_schemas(server):
    body = sent(server, "chat", ORDERED)
    assert schema_of(body)["properties"]["a"]["maximum"] == BIG
    assert sent(server, "chat", {"type": "object", "properties": {"a": {"const": BIG}}})["response_format"][
        "json_schema"
    ]["strict"]


class Address(BaseModel):
    street: str


class Person(BaseModel):
    home: Address = Field(description="where they LIVE")
    work: Address = Field(description="where they WORK")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_descriptions_of_nested_models_reach_the_model(server, dialect):
    text = json.dumps(sent(server, dialect, Person))
    assert "where they LIVE" in text
    assert "where they WORK" in text
    assert '"$ref"' not in text


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


class Pair(BaseModel):
    t: tuple[int, str]


class Unique(BaseModel):
    s: set[str]


class Anything(BaseModel):
    x: Any


class Link(BaseModel):
    u: AnyUrl


class Price(BaseModel):
    p: Decimal


class Scores(BaseModel):
    scores: dict[str, int]


class Node(BaseModel):
    next: Node | None = None


UNKNOWN_TO_STRICT = [
    '"oneOf"',
    '"allOf"',
    '"prefixItems"',
    '"uniqueItems"',
    '"uri"',
    '"minLength"',
    "(?!",
    '"default"',
    '"discriminator"',
    '"definitions"',
]


@pytest.mark.parametrize("model", [Pet, Pair, Unique, Anything, Link, Price, Scores, Node, Person, Step])
@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_what_is_sent_as_strict_is_in_the_strict_dialect(server, dialect, model):
    body = sent(server, dialect, model)
    form = body["response_format"]["json_schema"] if dialect == "chat" else body["text"]["format"]
    if not form["strict"]:
        assert model in (Pair, Anything, Scores)
        return
    text = json.dumps(form["schema"])
    assert not [word for word in UNKNOWN_TO_STRICT if word in text], text
    for properties in _properties(form["schema"]):
        assert all("type" in one or "anyOf" in one or "$ref" in one for one in properties.values()), text


@pytest.mark.parametrize(("model", "says"), [(Scores, "$.scores"), (Node, "contains itself")])
def test_what_anthropic_cannot_express_is_rejected_when_the_strategy_is_made(model, says):
    with pytest.raises(ValueError, match="response_model") as raised:
        llm("anthropic:m", api_key="k", response_model=model)
    assert says in str(raised.value)


def test_options_that_are_no_json_are_named():
    for body, says in [
        ({"a": {"b": [1, float("nan")]}}, "extra_body.a.b[1]"),
        ({"a": object()}, "extra_body.a"),
        ({1: 2}, "the key 1"),
        ({"a": "\udc97"}, "extra_body.a"),
    ]:
        with pytest.raises((TypeError, ValueError)) as raised:
            llm("openai:m", api_key="k", extra_body=body)
        assert says in str(raised.value)


class A(BaseModel):
    a: int


@pytest.mark.parametrize("model", [A, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}])
@pytest.mark.parametrize(
    "text",
    [
        '<think>maybe {x: 1}</think>{"a": 1}',
        'so {"a": 0}?</think>\n{"a": 1}',
        '2 candidates were found. {"a": 1}',
        '- Here: {"a": 1}',
        'See [note]: {"a": 1}',
        'See [1]: {"a": 1}',
        'Like {"b": 2}, but: {"a": 1}',
        '```json\n{"a": 1}\n```\nDone [ok]',
        'Answer: **{"a": 1}**',
    ],
)
def test_what_stands_around_the_json_is_skipped(server, model, text):
    result = server.one(answer("chat", text), response_model=model)
    assert result.output in (A(a=1), {"a": 1})
    assert len(server.bodies) == 1


def test_no_part_of_broken_json_is_taken_for_the_answer(server):
    result = server.one(answer("chat", '{"list": [{"a": 1}, {"a": '), response_model=A)
    assert not result.success
    assert len(server.bodies) == 3


class Page(BaseModel):
    a: int
    html: str


@pytest.mark.parametrize(
    "text",
    [
        'Here: {"a": 1, "html": "write </think> last"}',
        '```json\n{"html": "<think>x</think> [1]", "a": 1}\n```',
        '<think>hm</think>{"a": 1, "html": "</think>"} done',
        '<|channel|>analysis<|message|>{"a": 0, "html": ""}<|channel|>final<|message|>{"a": 1, "html": ""}',
        '◁think▷{"a": 0, "html": ""}◁/think▷{"a": 1, "html": ""}',
        '<analysis>{"a": 0, "html": ""}</ Analysis >{"a": 1, "html": ""}',
        "see [x] " * 200 + '{"a": 1, "html": ""}',
        'On [0, 1): {"a": 1, "html": ""} as (2, 3]',
        '```json\n{"a": 1, "html": "", "x": NaN}\n```',
    ],
)
def test_thoughts_end_where_they_end(server, text):
    result = server.one(answer("chat", text), response_model=Page)
    assert (result.error, len(server.bodies)) == (None, 1)
    assert result.output.a == 1


@pytest.mark.parametrize(
    ("model", "text", "expected"),
    [
        (list[int], "Here: [1, 2]", [1, 2]),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (bool, "true", True),
        (Literal["yes", "no"], '"yes"', "yes"),
    ],
)
def test_bare_answers_are_taken(server, model, text, expected):
    result = server.one(answer("chat", text), response_model=model)
    assert (result.output, len(server.bodies)) == (expected, 1)


def test_a_bare_answer_that_does_not_fit_is_told_what_was_asked_for(server):
    server.one(answer("chat", '["x"]'), response_model=list[int])
    assert "value" in json.dumps(server.bodies[1]["messages"][-1])


@pytest.mark.parametrize("number", ["9" * 400, "1e400", '1, "c": "caf\\ud83d"', '1, "c": NaN'])
def test_what_pythons_json_reads_is_checked(server, number):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}
    result = server.one(answer("chat", f'{{"a": 1, "b": {number}}}'), response_model=schema)
    assert (result.error, result.output["a"], len(server.bodies)) == (None, 1, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens must be >= 1"),
        ({"seed": 1.5}, "seed.*an integer"),
        ({"logprobs": -1}, "logprobs"),
        (
            {"response_model": {"properties": {"a": {"minimum": float("nan")}}}},
            r"^response_model\.properties\.a\.minimum",
        ),
        ({"response_model": {"type": 5}}, "^response_model"),
        ({"tools": [Tool("f", "d", {"properties": {"a": {"minimum": float("nan")}}})]}, "^tool 'f': parameters"),
        ({"tools": [Tool("f", "d", {"type": "str"})]}, "^tool 'f': parameters"),
    ],
)
def test_errors_name_the_argument(server, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        server.strategy("chat", **options)


@pytest.mark.parametrize("seed", [-1, 2**63, BIG])
def test_a_seed_is_any_integer(server, seed):
    server.one(answer("chat"), seed=seed)
    assert server.bodies[0]["seed"] == seed


class Inner(BaseModel):
    """The words of the model."""

    s: str


class Outer(BaseModel):
    first: Inner = Field(description="The words of the field.")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_model_keeps_its_words_beside_those_of_the_field(server, dialect):
    first = schema_of(sent(server, dialect, Outer))["properties"]["first"]
    assert first["description"] == "The words of the field.\nThe words of the model."


@pytest.mark.parametrize("dialect", DIALECTS)
def test_patterns_with_look_around_are_said(server, dialect):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=x).*"}}, "required": ["a"]}
    a = schema_of(sent(server, dialect, schema))["properties"]["a"]
    assert a == {"type": "string", "description": "(matching ^(?=x).*)"}


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"enum": [{"x": 1}]}, r"\$\.a"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, r"\$\.a"),
        ({"type": "array", "items": {"$ref": "#"}}, "contains itself"),
    ],
)
def test_more_that_anthropic_cannot_express_is_rejected_with_its_place(server, field, says):
    with pytest.raises(ValueError, match=says):
        server.strategy("anthropic", response_model={"type": "object", "properties": {"a": field}})
