"""Values that JSON or UTF-8 do not have, in prompts, contexts, ids and answers: fingerprinted, stored, found again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from batch_llm import BatchResult, inspect, run

HALF = "cut \ud83d"
"""Half of a surrogate pair, as texts that were cut in the middle of an emoji end."""

STORES = pytest.mark.parametrize("name", ["run.db", "run.jsonl"])


async def echo(prompt: str) -> str:
    return prompt


def again(batch: BatchResult[Any, Any]) -> list[Any]:
    return [result.reused for result in batch.in_input_order().results]


@STORES
def test_contexts_with_numbers_that_json_does_not_have(tmp_path: Path, name: str) -> None:
    entries = [(f"id{at}", "q", {"age": age}) for at, age in enumerate([math.nan, math.inf, -math.inf, None, 30.0])]
    assert run(echo, entries, store=tmp_path / name).failed == 0
    assert again(run(echo, entries, store=tmp_path / name)) == ["store"] * 5


@STORES
def test_numbers_that_json_does_not_have_are_told_apart(tmp_path: Path, name: str) -> None:
    for age in (math.nan, math.inf, -math.inf, None, "NaN"):
        assert again(run(echo, [("id", "q", {"age": age})], store=tmp_path / name)) == [None]


@STORES
def test_half_of_a_surrogate_pair_in_every_place(tmp_path: Path, name: str) -> None:
    entries = [(f"id {HALF}", f"ask {HALF}", {HALF: HALF}), ("plain", "ask cut ?", {"cut ?": "cut ?"})]
    assert run(echo, entries, store=tmp_path / name).failed == 0
    batch = run(echo, entries, store=tmp_path / name)
    assert again(batch) == ["store", "store"]
    assert batch.in_input_order().results[0].output == f"ask {HALF}"
    assert sorted(result.output for result in inspect(tmp_path / name).results()) == ["ask cut ?", f"ask {HALF}"]


class Score(BaseModel):
    value: float
    parts: list[float] = []


NUMBERS: dict[str, Any] = {
    "model": Score(value=math.inf, parts=[-math.inf, 1.0]),
    "models": [Score(value=math.inf)],
    "dict": {"score": -math.inf, "parts": [math.inf, 2]},
    "number": math.inf,
}


async def number(prompt: str) -> Score | list[Score] | dict[str, Any] | float:
    return math.nan if prompt == "nan" else NUMBERS[prompt]


@pytest.mark.parametrize("kept", [{"store": "run.db"}, {"store": "run.jsonl"}, {"cache": "answers.db"}])
def test_numbers_that_json_does_not_have_come_back(tmp_path: Path, kept: dict[str, str]) -> None:
    kept = {name: str(tmp_path / file) for name, file in kept.items()}
    for reused in (None, *kept):
        batch = run(number, ["nan", *NUMBERS], **kept)
        assert again(batch) == [reused] * 5
        first, *others = [result.output for result in batch.in_input_order().results]
        assert math.isnan(first)
        assert others == list(NUMBERS.values())
    for path in kept.values():
        assert "Infinity" not in Path(path).read_bytes().decode("utf-8", "replace")


def test_half_of_a_surrogate_pair_in_the_cache(tmp_path: Path) -> None:
    for reused in (None, "cache"):
        assert again(run(echo, [HALF, "other"], cache=tmp_path / "answers.db")) == [reused, reused]
