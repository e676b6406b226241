"""What mypy alone reads: the truth of ``success`` says whether there is an output."""

# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_llm import run

if TYPE_CHECKING:
    from typing import Any

    from batch_llm import BatchResult


def lengths(batch: BatchResult[str, Any]) -> list[int]:
    found = [len(result.output) for result in batch if result.success]
    for result in batch.results:
        if not result.success:
            result.error.upper()
            continue
        found.append(len(result.output))
    return found


lengths(run("openai:gpt-5-mini", ["a"], temperature=0))
