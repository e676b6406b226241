"""What several tests of stores use."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from batch_llm import CallOutcome

from ..helpers import USAGE

SUFFIXES = pytest.mark.parametrize("suffix", [".db", ".jsonl"])
PROMPTS = [f"prompt {number}" for number in range(100)]


class Invoice(BaseModel):
    total: float
    lines: list[str] = []


async def _describe(prompt):
    return CallOutcome(prompt * 2, USAGE, {"extra": [1, None]})
