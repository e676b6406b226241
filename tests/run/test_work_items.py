"""What is said about an item before anything is sent: no strategy, a context that refers to itself."""

from __future__ import annotations

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest

from batch_llm import (
    LLMWorkItem,
    ParallelBatchProcessor,
    ResultSerializationError,
    SqliteArtifactStore,
    process_prompts,
    process_stream,
)
from batch_llm._contexts import PARTS_OF_A_RUN, circular_place

from ..helpers import Echo, quick, run


def test_an_item_without_a_strategy_is_rejected_when_it_is_made():
    with pytest.raises(TypeError, match="item 'a': strategy is None; give it an LLMCallStrategy"):
        LLMWorkItem("a", None, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="item 'b': strategy is None"):
        dataclasses.replace(LLMWorkItem("b", Echo(), "x"), strategy=None)


async def test_a_strategy_that_was_taken_away_is_rejected_when_the_item_is_added():
    item = LLMWorkItem("a", Echo(), "x")
    item.strategy = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="item 'a': strategy is None"):
        await ParallelBatchProcessor().add_work(item)
    # As one out of a pickle, it gets that of a run which has one.
    assert (await process_prompts(Echo(), [item])).succeeded == 1


class Node:
    def __init__(self, parent=None):
        self.parent, self.children = parent, []
        if parent is not None:
            parent.children.append(self)


@dataclasses.dataclass
class Row:
    name: str
    table: object = None


@dataclasses.dataclass
class Slim:
    __slots__ = ("other",)
    other: object


def itself():
    context: dict = {"a": 1}
    context["self"] = context
    return context


def family():
    parent = Node()
    Node(parent)
    return parent


def table():
    rows = [Row("a"), Row("b")]
    rows[1].table = {"rows": rows}
    return rows


def slim():
    one = Slim(None)
    one.other = (one,)
    return one


def around_an_item():
    item = LLMWorkItem("inner", Echo(), "x")
    item.context = {"item": item}
    return item.context


CIRCULAR = {
    "a dict in itself": (itself, "context['self'] is context"),
    "parent and child": (family, "context.children[0].parent is context"),
    "a row and its table": (table, "context[1].table['rows'] is context"),
    "slots": (slim, "context.other[0] is context"),
    "an item": (around_an_item, "context['item'].context is context"),
    "a namespace": (
        lambda: (lambda one: (setattr(one, "me", one), one)[1])(SimpleNamespace()),
        "context.me is context",
    ),
}
twice = {"k": [1]}
FINE = {
    "shared, not circular": {"a": twice, "b": twice, "c": [twice, (twice,)]},
    "deep": json.loads("[" * 500 + "]" * 500),
    "plain": "text",
    "a class": Node,
    "a function": itself,
    "a logger, which is no data": logging.getLogger("batch_llm.test"),
    "equal, not the same": {"a": {"a": {"a": {}}}},
}


@pytest.mark.parametrize("kind", CIRCULAR)
def test_where_a_context_refers_to_itself(kind):
    make, place = CIRCULAR[kind]
    assert circular_place(make(), "context") == place


@pytest.mark.parametrize("kind", FINE)
def test_contexts_that_are_fine(kind):
    assert circular_place(FINE[kind], "context") is None


def test_a_context_that_changes_or_fails_while_it_is_looked_at_is_passed_over():
    class Odd(dict):
        def items(self):
            raise RuntimeError("no")

    class Unreadable:
        @property
        def __dict__(self):
            raise RuntimeError("no")

    assert circular_place({"a": Odd(b=1), "c": Unreadable()}, "context") is None


def said(caplog):
    return [record for record in caplog.records if getattr(record, "event", None) == "circular_context"]


async def ask_with(contexts, surface, **options):
    strategy = Echo()
    if surface == "stream":
        prompts = [(f"item-{number}", "x", context) for number, context in enumerate(contexts)]
        return [result async for result in process_stream(strategy, prompts, **options)]
    processor = ParallelBatchProcessor(config=quick(max_workers=1), **options)
    items = [LLMWorkItem(f"item-{number}", strategy, "x", context) for number, context in enumerate(contexts)]
    if surface == "joining":

        async def add_the_rest(result):
            while items:
                await processor.add_work(items.pop(0))

        processor.post_processor = add_the_rest
        await processor.add_work(items.pop(0))
    else:
        for item in items:
            await processor.add_work(item)
    return (await processor.process_all()).results


@pytest.mark.parametrize("surface", ["process_all", "joining", "stream"])
async def test_a_circular_context_is_one_warning_a_run_that_names_the_item(surface, caplog):
    contexts = [{"fine": 1}, None, itself(), family(), itself()]
    for _ in range(2):
        caplog.clear()
        results = await ask_with(contexts, surface)
        assert all(result.success for result in results)
        assert {id(result.context) for result in results} == {id(context) for context in contexts}
        (record,) = said(caplog)
        assert record.levelno == logging.WARNING
        assert record.item_id == "item-2"
        assert (
            "Item item-2: the context contains a circular reference (context['self'] is context)" in record.getMessage()
        )


async def test_only_so_much_of_a_run_is_looked_at(caplog):
    large = list(range(PARTS_OF_A_RUN))
    await ask_with([large] * 20 + [itself()], "process_all")
    assert said(caplog) == []


async def test_a_circular_context_that_cannot_be_stored_fails_its_item_alone_and_says_where(tmp_path, caplog):
    store = SqliteArtifactStore(tmp_path / "run.db")
    results = await ask_with([{"fine": 1}, family()], "process_all", artifact_store=store)
    failed = {result.item_id: result.error for result in results if not result.success}
    assert list(failed) == ["item-1"]
    assert "context.children[0].parent is context: a circular reference cannot identify" in failed["item-1"]
    assert len(said(caplog)) == 1
    store = SqliteArtifactStore(tmp_path / "other.db", context_in_identity=False)
    results = await ask_with([{"fine": 1}, family()], "process_all", artifact_store=store)
    assert all(result.success for result in results)


async def test_a_circular_context_cannot_be_written_as_json_and_says_where():
    batch, _ = await run(Echo())
    batch.results[0].context = itself()
    with pytest.raises(
        ResultSerializationError,
        match=r"^\$\.results\[0\]\.context\.self.* nested too deeply: it contains a circular reference",
    ):
        batch.to_json()
    batch.results[0].context = FINE["deep"]
    with pytest.raises(ResultSerializationError, match="is nested too deeply$"):
        batch.to_json()


async def test_a_model_that_refers_to_itself_is_named_too(tmp_path):
    import pydantic

    class Person(pydantic.BaseModel):
        friend: object = None

    person = Person()
    person.friend = {"friends": [person]}
    assert circular_place(person, "context") == "context.friend['friends'][0] is context"
    batch, _ = await run(Echo())
    batch.results[0].context = person
    with pytest.raises(
        ResultSerializationError, match=r"^\$\.results\[0\]\.context is Person, which cannot be written as JSON: Circ"
    ):
        batch.to_json()
