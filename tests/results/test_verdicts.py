"""``explain()`` names the true limit of staged runs, in one sentence with one thing to do."""

from __future__ import annotations

import pytest

from batch_llm import ProcessingStats

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


@pytest.mark.parametrize(
    ("failed", "not_sent", "which"),
    [
        (8, 592, "All 8 items that were sent failed with E"),
        (8, 0, "All 8 items failed with E"),
        (1, 9, "The only item that was sent failed with E"),
        (1, 0, "The only item failed with E"),
    ],
)
def test_items_that_were_not_sent_have_not_failed(failed, not_sent, which):
    stats = ProcessingStats(failed=failed, not_sent=not_sent, error_counts={"E": failed}, failure="E: no")
    assert str(stats.verdict()).startswith(which)
