"""``explain()`` names the true limit of staged runs, in one sentence with one thing to do."""

from __future__ import annotations

import pytest

from batch_llm import ProcessingStats
from batch_llm._results import cache_misses

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


def test_the_verdict_and_its_line_say_the_same_while_auto_is_rising():
    stats = ProcessingStats(total=9, processed=9, succeeded=9, bound_by={"concurrency": 2.0}, concurrency=38.4)
    verdict, line = stats.explain().splitlines()
    assert "'auto' was still raising the concurrency (38 at the end)" in verdict
    assert "'auto' was still raising the concurrency (38 at the end)" in line
    assert "higher limit" not in line
    stats.bound_by = {"concurrency": 60.0}
    assert all("limit that 'auto' had found (38 at the end)" in line for line in stats.explain().splitlines())


@pytest.mark.parametrize(("measure", "has_advice"), [("requests", False), ("tokens", True), ("output_tokens", True)])
def test_only_limits_on_tokens_come_with_advice_about_tokens(measure, has_advice):
    limit = {"measure": measure, "amount": 500.0, "per": 60.0, "learned": True, "left": 0.0}
    stats = ProcessingStats(total=9, processed=9, succeeded=9, bound_by={f"quota:{measure}": 9.0}, limits=[limit])
    assert ("lower max_tokens" in stats.explain()) is has_advice


def test_a_run_without_items_was_limited_by_nothing():
    stats = ProcessingStats(bound_by={"source": 0.1})
    assert stats.verdict().limit == "nothing"
    assert stats.explain() == "There were no items."


def test_one_request_is_the_first_with_its_prefix():
    text = ProcessingStats(prompt_cache={"first": 1, "hit": 299}, total=300, bound_by={"workers": 1.0})
    assert cache_misses(text) == "299 of 300 requests read it; 1 was the first with its prefix"
