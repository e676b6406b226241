"""Why each attempt of an item failed: the beginning of its error's message."""

from __future__ import annotations

import json

from batch_llm import ProcessorConfig, RetryConfig, SqliteArtifactStore, run
from batch_llm.results import BatchResult

KEY = "sk-" + "a1b2c3d4" * 6


class Fails:
    """Fails twice, in different ways, then answers."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompt):
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError("reset " * 1000)
        if self.calls == 2:
            raise TimeoutError(f"with {KEY}")
        if self.calls == 3:
            raise ConnectionError
        return "yes"


def messages(result):
    return [attempt.error_message for attempt in result.timing.attempts]


def test_each_attempt_has_the_beginning_of_its_message_without_secrets(tmp_path):
    config = ProcessorConfig(retry=RetryConfig(max_attempts=4, initial_wait=0.001, jitter=False))
    path = tmp_path / "run.db"
    batch = run(Fails(), ["a"], config=config, store=path, progress=False)
    (result,) = batch.results
    first, second, third, last = messages(result)
    assert first == ("reset " * 1000)[:300]
    assert second.startswith("with ")
    assert KEY not in second
    assert (third, last) == (None, None)
    (stored,) = SqliteArtifactStore(path).iter_results()
    assert messages(stored) == messages(result)
    again = BatchResult.from_dict(json.loads(json.dumps(batch.to_dict())))
    assert messages(again.results[0]) == messages(result)


def test_stores_of_earlier_versions_have_none(tmp_path):
    from batch_llm._store.codec import StoredTiming, _is_attempt
    from batch_llm.timing import WorkItemTiming

    times = [0.0] * 7
    old, new = [times, "E", "c"], [times, "E", "c", "m"]
    assert _is_attempt(old)
    assert _is_attempt(new)
    assert not _is_attempt([times, "E", "c", 5])
    assert not _is_attempt([*new, "more"])
    timing = WorkItemTiming.of(StoredTiming([old, new]), False)
    assert [attempt.error_message for attempt in timing.attempts] == [None, "m"]
