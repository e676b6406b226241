"""What a run holds of strategies: those of items that are done are let go, however many there were."""

from __future__ import annotations

import gc
import weakref

import pytest

from batch_llm import ArtifactIdentity, LLMCallStrategy, LLMWorkItem, stream
from batch_llm.artifacts import SqliteArtifactStore

COUNT = 400


class Echo(LLMCallStrategy[str]):
    """Answers with its number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.artifact_identity = ArtifactIdentity(application_version=str(number))

    async def execute(self, prompt, attempt, timeout, state=None):
        return f"{self.number}: {prompt}", {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


@pytest.mark.parametrize("kept", ["store", "dedupe"])
def test_strategies_of_items_that_are_done_are_let_go(tmp_path, kept):
    options = {"store": SqliteArtifactStore(tmp_path / "store.db")} if kept == "store" else {"dedupe": True}
    made = []

    def items():
        for number in range(COUNT):
            strategy = Echo(number)
            made.append(weakref.ref(strategy))
            yield LLMWorkItem(f"item-{number}", strategy, "the same")

    outputs = []
    with stream(Echo(-1), items(), ordered=True, concurrency=4, progress=False, **options) as results:
        for result in results:
            # With addresses for names, a strategy would get the answer of one that was there before it.
            assert result.output == f"{result.submission_index}: the same"
            outputs.append(result.output)
            del result
        gc.collect()
        assert len(outputs) == COUNT
        assert sum(one() is not None for one in made) < COUNT / 4
