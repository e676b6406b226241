"""``explain()`` names the true limit of staged runs, in one sentence with one thing to do."""

from __future__ import annotations

import pytest

from . import staged_others  # noqa: F401 - adds its stages
from .staged_runs import STAGES


@pytest.mark.parametrize("name", STAGES)
async def test_the_true_limit_is_named(name, tmp_path):
    limit, run = STAGES[name]
    stats = await run(tmp_path)
    found = stats.verdict()
    assert found.limit == limit, stats.explain()
    sentence = stats.explain().splitlines()[0]
    assert sentence == str(found)
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert found.remedy or limit == "reused"
    assert ";" not in found.remedy
    assert "\n" not in sentence
    assert len(sentence) < 600


def test_there_are_enough():
    assert len(STAGES) >= 40
