"""A stored success without an output is none, unless outputs were not wanted; None is an output."""

from __future__ import annotations

import sqlite3

import pytest

from batch_llm import CallableStrategy, JsonlArtifactStore, SqliteArtifactStore, inspect, run

from ..llm.test_secrets import FAST


def counted(answer):
    asked = []

    async def named(prompt):
        asked.append(prompt)
        return answer

    return CallableStrategy(named), asked


def ask(strategy, **options):
    return run(strategy, ["x"], config=FAST, progress=False, **options).results[0]


@pytest.mark.parametrize("bad", ["{}", '{"attempts": 1}', '{"attempts": 1, "metadata": {"$float": "nan"}}'])
@pytest.mark.parametrize(("kept", "table"), [("store", "bodies"), ("cache", "answers")])
def test_it_counts_as_absent(tmp_path, caplog, kept, table, bad):
    strategy, asked = counted("fine")
    path = tmp_path / "it.db"
    ask(strategy, **{kept: path})
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {table} SET body = ?", [bad])
    database.close()
    result = ask(strategy, **{kept: path})
    assert (result.success, result.output, result.reused) == (True, "fine", None)
    assert len(asked) == 2
    assert "it is a success without an output" in caplog.text
    assert ask(strategy, **{kept: path}).reused == kept


@pytest.mark.parametrize("kind", [SqliteArtifactStore, JsonlArtifactStore])
def test_none_is_an_output_and_no_output_is_shown_as_none(tmp_path, kind):
    strategy, asked = counted(None)
    for place, included in (("with", True), ("without", False)):
        store = kind(tmp_path / f"{place}.{'db' if kind is SqliteArtifactStore else 'jsonl'}", include_output=included)
        asked.clear()
        ask(strategy, store=store)
        again = ask(strategy, store=store, resume="reuse_all")
        assert again.success
        assert again.output is None
        assert len(asked) == (1 if included else 2)
        assert all(result.success and result.output is None for result in inspect(store.path).results())
