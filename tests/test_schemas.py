"""Schemas on their way to a model, and answers on their way back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import AnyUrl, BaseModel, Field

from batch_llm import Tool, llm

from .served import DIALECTS, answer, serve

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
