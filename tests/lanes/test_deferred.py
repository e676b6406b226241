"""Items that are kept out of memory while their requests wait."""

from __future__ import annotations

import pytest

from batch_llm import LLMCallStrategy, LLMWorkItem
from batch_llm._run.deferred import MOST, Deferred
from batch_llm.cli.reading import Row, _JsonRow


class Echo(LLMCallStrategy[str]):
    async def execute(self, prompt, attempt, timeout, state=None):
        return prompt, {}


class Mine:
    """Of the user's own."""


@pytest.fixture
def deferred(tmp_path):
    return Deferred(str(tmp_path / "run.db"))


STRATEGY = Echo()


@pytest.mark.parametrize("prompt", ["", "text \ud83d \u2028", [{"role": "user", "content": "x"}], ["a", "b"]])
@pytest.mark.parametrize("context", [None, "a", 7, 2.5, True, b"x"])
def test_what_is_read_again_is_equal(deferred, prompt, context):
    item = LLMWorkItem("id", STRATEGY, prompt, context, priority=3, sample=2)
    deferred.put(7, item)
    assert not deferred._kept
    again = deferred.take(7)
    assert again == item
    assert again.strategy is STRATEGY
    assert (again.priority, again.sample) == (3, 2)
    assert deferred.take(7) is None


@pytest.mark.parametrize("context", [{"a": 1}, ["a"], ("a", []), Mine()])
def test_contexts_of_the_users_own_are_the_same_objects(deferred, context):
    deferred.put(0, LLMWorkItem("id", STRATEGY, "x", context))
    assert deferred.take(0).context is context


def test_prompts_that_are_more_than_text_stay(deferred):
    picture = Mine()
    deferred.put(0, LLMWorkItem("id", STRATEGY, ["x", picture]))
    assert deferred.take(0).prompt[1] is picture


@pytest.mark.parametrize("kind", [Row, _JsonRow])
def test_rows_come_back_with_all_that_is_known_of_them(deferred, kind):
    row = kind([("prompt", "x"), ("n", 1)], 12, '{"prompt": "x", "n": 1}')
    row.item_id = "mine"
    deferred.put(0, LLMWorkItem("mine", STRATEGY, "x", row))
    assert not deferred._kept
    again = deferred.take(0).context
    assert type(again) is kind
    assert (again, again.number, again.raw, again.item_id) == (row, 12, row.raw, "mine")
    assert again.texts() == row.texts()


def test_items_with_a_strategy_each_do_not_pile_up(deferred):
    for number in range(3 * MOST):
        deferred.put(number, LLMWorkItem("id", Echo(), "x"))
    assert len(deferred._strategies) == MOST
    assert len(deferred._kept) == 2 * MOST


def test_all_are_taken_in_order(deferred):
    for number in (5, 3, 9, 4):
        deferred.put(number, LLMWorkItem(str(number), STRATEGY, "x", {} if number == 4 else None))
    deferred.take(3)
    assert [index for index, _ in deferred.take_all()] == [4, 5, 9]
    assert list(deferred.take_all()) == []


def test_a_disk_that_cannot_be_written_costs_memory_alone(tmp_path):
    deferred = Deferred(str(tmp_path / "absent" / "run.db"))
    item = LLMWorkItem("id", STRATEGY, "x")
    deferred.put(0, item)
    assert deferred.take(0) is item
