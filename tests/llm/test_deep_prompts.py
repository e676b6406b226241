"""A prompt that is nested beyond all measure costs its item, and no other."""

from __future__ import annotations

import pytest

from batch_llm import llm, run
from batch_llm.testing import SimulatedProvider

from ..helpers import Echo

LEVELS = 100_000


def nested(kind):
    value = "a"
    for _ in range(LEVELS):
        value = [value] if kind is list else {"a": value}
    return value


def circular():
    value = []
    value.append(value)
    return value


PROMPTS = {
    "list": lambda: nested(list),
    "dict": lambda: {"prompt": nested(dict)},
    "content": lambda: [{"role": "user", "content": nested(list)}],
    "field": lambda: [{"role": "user", "content": [{"type": "text", "text": "hi", "more": nested(dict)}]}],
    "message": lambda: [{"role": "user", "content": "hi", "metadata": nested(dict)}],
    "circular": circular,
}


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("kept", [None, "store", "cache", "dedupe"])
def test_a_prompt_without_end_costs_its_item(tmp_path, kind, kept):
    given = {} if kept is None else {kept: True if kept == "dedupe" else tmp_path / "it.db"}
    with SimulatedProvider() as provider:
        strategy = llm("openai-compatible:m", base_url=provider.base_url)
        batch = run(strategy, ["before", PROMPTS[kind](), "after"], preserve_order=True, progress=False, **given)
        assert provider.stats.requests == 2
    assert [result.success for result in batch.results] == [True, False, True]
    assert not isinstance(batch.results[1].exception, RecursionError)
    assert batch.results[1].error
    # What shows a batch shows this one.
    batch.report(tmp_path / "it.html")
    assert batch.summary()
    assert repr(batch)
    assert repr(batch.results[1])


def test_what_is_wrong_and_not_deep_is_named():
    with SimulatedProvider() as provider:
        strategy = llm("openai-compatible:m", base_url=provider.base_url)
        for prompt in ({"prompt": {"a": "b"}}, [{"role": "user", "content": [["x"]]}]):
            with pytest.raises(TypeError, match=r"prompts\[1\]"):
                run(strategy, ["x", prompt], progress=False)
    with pytest.raises(TypeError, match="a part must be"):
        strategy.check_prompt([{"role": "user", "content": [("x", 1)]}])


def test_a_strategy_of_ones_own_refuses_it_as_any_other_type():
    class Strict(Echo):
        pass

    with pytest.raises(TypeError, match="prompt must be a string, not dict"):
        run(Strict(), ["x", {"prompt": nested(dict)}], progress=False)
