"""A store may have been written by anybody: it is data, and nothing in it runs or is made because it says so."""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3
import sys
import types
import zlib

import pytest

from batch_llm import (
    ArtifactError,
    CallableStrategy,
    JsonlArtifactStore,
    ProcessorConfig,
    ResponseCache,
    RetryConfig,
    SqliteArtifactStore,
    inspect,
    run,
)
from batch_llm._store.codec import UnreadableRecordError, read

from ..helpers import Echo

QUIET = ProcessorConfig(max_workers=4, retry=RetryConfig(max_attempts=1))
PROMPTS = ["a", "b", "c"]


@dataclasses.dataclass
class Label:
    """What some strategies answer with."""

    text: str


@dataclasses.dataclass
class Bomb:
    """What no strategy answers with."""

    text: str

    def __post_init__(self):
        raise AssertionError("a class was made because a file names it")


def ask(strategy, **options):
    return run(strategy, list(PROMPTS), config=QUIET, progress=False, **options)


def counted(answer):
    """A strategy that answers so, and how often it was asked."""
    asked = []

    async def named(prompt):
        asked.append(prompt)
        return answer(prompt)

    return CallableStrategy(named), asked


def change(path, statement, *arguments):
    with sqlite3.connect(path) as database:
        database.execute(statement, arguments)
    database.close()


@pytest.mark.parametrize("where", ["store", "cache"])
def test_no_class_is_made_that_only_the_file_names(tmp_path, where, monkeypatch):
    module = types.ModuleType("a_module_of_the_program")
    module.Bomb = Bomb
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Bomb, "__module__", module.__name__)
    path = tmp_path / "a.db"
    table = "bodies" if where == "store" else "answers"
    strategy, asked = counted(lambda prompt: f"to {prompt}")
    ask(strategy, **{where: path})
    body = json.dumps({"attempts": 1, "output": {"text": "x"}, "output_type": "a_module_of_the_program:Bomb"})
    change(path, f"UPDATE {table} SET body = ?", body)
    batch = ask(strategy, **{where: path})
    assert len(asked) == 3, "what was paid for is not asked again"
    assert all("types=[Bomb]" in result.error for result in batch.results)
    for kind in (
        "os:environ",
        "subprocess:Popen",
        "batch_llm.base:LLMWorkItem",
        "list list list x:y",
        "list ",
        "\x1b[2J:x",
    ):
        body = json.dumps({"attempts": 1, "output": [[["x"]]], "output_type": kind})
        change(path, f"UPDATE {table} SET body = ?", body)
        for result in ask(strategy, **{where: path}).results:
            assert not result.success
            assert "\x1b" not in result.error
    if where == "store":
        assert [result.output for result in inspect(path).results()] == [[[["x"]]]] * 3


def annotated(prompt) -> list[Label] | Label:
    return Label(prompt)


def naming(prompt):
    return Label(prompt)


async def _answer(prompt):
    return Label(prompt)


@pytest.mark.parametrize("kind", [SqliteArtifactStore, JsonlArtifactStore])
def test_classes_of_the_strategy_and_of_the_user_are_made(tmp_path, kind):
    from batch_llm._store import output_types as _output_types

    def strategies():
        yield "annotated", CallableStrategy(annotated, threads=True), ()
        yield "naming", CallableStrategy(naming, threads=True), ()
        yield "async", CallableStrategy(_answer), ()
        yield "given", CallableStrategy(hidden, threads=True), (Label,)
        yield "nested", CallableStrategy(hidden, threads=True), [list[Label]]

    for name, strategy, given in strategies():
        store = kind(tmp_path / f"{name}.{'db' if kind is SqliteArtifactStore else 'jsonl'}", types=given)
        first = ask(strategy, store=store)
        _output_types._SEEN.clear()  # as in another process
        again = ask(strategy, store=store)
        assert again.stats.replayed == 3, (name, again.results[0].error)
        assert sorted(again.outputs(), key=str) == sorted(first.outputs(), key=str)
    with pytest.raises(TypeError, match="types"):
        kind(tmp_path / "x.db", types=Label)


def hidden(prompt):
    return globals()["Label"](prompt)


BAD = [
    "", "{", "nonsense", "[]", "null", "1", '"text"', "[" * 100_000, '{"a":' * 50_000, '{"attempts": "x"}',
    '{"attempts": 1, "error": 5}', '{"attempts": -1}', '{"attempts": 1e400}', '{"attempts": 99999999999999999999}',
    '{"attempts": 1, "token_usage": [1]}', '{"attempts": 1, "token_usage": {"input_tokens": "x"}}',
    '{"attempts": 1, "metadata": 1}', '{"attempts": 1, "timing": [[1, 2]]}', '{"attempts": 1, "output_type": 5}',
    '{"attempts": 1, "output": {"typecode": "u", "base64": "AAAA"}, "output_type": "array"}',
    '{"attempts": 1, "output": {"typecode": "f", "base64": "AAA"}, "output_type": "array"}',
    '{"attempts": 1, "output": "x", "output_type": "list array"}',
    '{"attempts": 1, "output": "x", "output_type": "datetime:datetime"}',
    '{"attempts": 1, "metadata": {"tool_calls": [{"x": 1}]}}', '{"attempts": 1, "output": ' + "9" * 5000 + "}",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_unreadable_records_count_as_absent(tmp_path, caplog, bad):
    strategy, asked = counted(str.upper)
    store, cache = tmp_path / "a.db", tmp_path / "c.db"
    ask(strategy, store=store)
    ask(strategy, cache=cache)
    change(store, "UPDATE bodies SET body = ?", bad)
    change(cache, "UPDATE answers SET body = ?", bad)
    for options in ({"store": store}, {"cache": cache}):
        asked.clear()
        caplog.clear()
        batch = ask(strategy, **options)
        assert sorted(batch.outputs()) == ["A", "B", "C"]
        assert len(asked) == 3
        assert [record.event for record in caplog.records if record.levelno == logging.WARNING] == ["record_unreadable"]
        again = ask(strategy, **options)
        assert again.stats.replayed == 3, "the new ones are found"
    if "output_type" not in bad:  # which nothing makes an object of here
        caplog.clear()
        assert len(list(inspect(store).results())) == 3, "the last records are whole"
        change(store, "UPDATE bodies SET body = ?", bad)
        assert list(inspect(store).results()) == []
        assert [record.event for record in caplog.records] == ["record_unreadable"]
        inspect(store).summary()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("request", b"short"), ("request", "text" * 4), ("request", None), ("item_id", b"\xff\xfe"), ("item_id", 7),
        ("item_id", "x" * (2 << 20)), ("run", -1), ("run", "x"), ("submission_index", -5), ("success", "maybe"),
        ("error_category", b"\xff"), ("input_tokens", -1), ("input_tokens", 1.5), ("cost", "free"), ("identity", "x"),
        ("recorded_at", "today"), ("reuse", "x"),
    ],
)  # fmt: skip
def test_columns_of_other_types_cost_their_record_alone(tmp_path, caplog, column, value):
    strategy, asked = counted(str.upper)
    store = tmp_path / "a.db"
    ask(strategy, store=store)
    if value is None:
        change(store, "CREATE TABLE other AS SELECT * FROM records")
        change(store, "DROP TABLE records")
        change(store, "ALTER TABLE other RENAME TO records")
    change(store, f"UPDATE records SET {column} = ? WHERE item_id = 'item_1'", value)
    inspect(store).summary()
    view = inspect(store)
    assert view.succeeded + view.damaged_records == 3
    assert len(list(view.results())) >= 2
    asked.clear()
    if value is not None:
        batch = ask(strategy, store=store)
        assert sorted(batch.outputs()) == ["A", "B", "C"]
        assert len(asked) <= 1


def test_a_column_of_blobs_and_a_missing_body(tmp_path):
    strategy, asked = counted(str.upper)
    store = tmp_path / "a.db"
    ask(strategy, store=store)
    change(store, "UPDATE bodies SET body = x'ff00' WHERE id = 1")
    change(store, "DELETE FROM bodies WHERE id = 2")
    change(store, "UPDATE identities SET identity = '{'")
    change(store, "UPDATE about SET value = x'ff' WHERE name = 'created_at'")
    assert len(list(inspect(store).results())) == 1
    assert inspect(store).identities == []
    asked.clear()
    assert sorted(ask(strategy, store=store).outputs()) == ["A", "B", "C"]
    assert len(asked) == 2


def test_triggers_do_not_run(tmp_path):
    store, cache = tmp_path / "a.db", tmp_path / "c.db"
    strategy, _ = counted(str.upper)
    ask(strategy, store=store)
    ask(strategy, cache=cache)
    for path, table in ((store, "records"), (store, "bodies"), (store, "runs"), (cache, "answers")):
        change(
            path,
            f"CREATE TRIGGER t_{table} AFTER INSERT ON {table} BEGIN "
            "UPDATE about SET value = 'hacked' WHERE name = 'package_version'; END",
        )
    change(store, "CREATE TRIGGER deleting BEFORE INSERT ON records BEGIN SELECT RAISE(FAIL, 'no'); END")
    other, asked = counted(str.lower)
    batch = run(other, ["X", "Y"], config=QUIET, progress=False, store=store, cache=cache)
    assert sorted(batch.outputs()) == ["x", "y"]
    for path in (store, cache):
        with sqlite3.connect(path) as database:
            (version,) = database.execute("SELECT value FROM about WHERE name = 'package_version'").fetchone()
        database.close()
        assert version != "hacked"


def test_views_and_functions_in_a_schema_do_not_run(tmp_path):
    strategy, _ = counted(str.upper)
    for number, statements in enumerate((
        # A view in the place of a table, whose query never ends.
        ["ALTER TABLE records RENAME TO old",
         "CREATE VIEW records AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
         "SELECT x AS id, 1 AS is_item, x AS request, x AS item_id, 2 AS reuse FROM n"],
        # A column that is made of something large.
        ["ALTER TABLE records RENAME TO old",
         "CREATE TABLE records (id INTEGER PRIMARY KEY, is_item, run, request, identity, item_id AS "
         "(hex(zeroblob(200000000))), submission_index, recorded_at, success, error_category, reuse, input_tokens, "
         "output_tokens, cached_input_tokens, cost)",
         "INSERT INTO records (id, is_item, reuse, request) SELECT id, is_item, reuse, request FROM old"],
    )):  # fmt: skip
        store = tmp_path / f"{number}.db"
        ask(strategy, store=store)
        for statement in statements:
            change(store, statement)
        for look in (lambda store=store: inspect(store), lambda store=store: ask(strategy, store=store)):
            with pytest.raises(ArtifactError):
                look()


def test_lines_of_other_types(tmp_path, caplog):
    strategy, asked = counted(str.upper)
    store = tmp_path / "a.jsonl"
    ask(strategy, store=store)
    lines = store.read_bytes().splitlines()
    for at, line in enumerate(lines):
        if b'"result":' in line and b"item_1" in line:
            content = line[: line.rindex(b',"crc32"')].replace(b'"output":"B"', b'"output":[')
            lines[at] = content + b',"crc32":"%08x"}' % zlib.crc32(content)
    store.write_bytes(b"\n".join(lines) + b"\n")
    asked.clear()
    assert len(list(inspect(store).results())) == 2
    batch = ask(strategy, store=store)
    assert sorted(batch.outputs()) == ["A", "B", "C"]
    assert asked == ["b"]


def test_what_is_read_is_what_was_written():
    for good in ("{}", '{"attempts": 2, "output": [1], "timing": [[[0,0,0,0,0,0,0.5],null,null]]}'):
        assert read(good) == json.loads(good)
    with pytest.raises(UnreadableRecordError):
        read("[]")


def test_a_store_of_an_older_version_is_found(tmp_path):
    """The first version wrote classes by name too; a strategy's own are made as before."""
    store = tmp_path / "a.db"
    ask(Echo(), store=store)
    assert ask(Echo(), store=store).stats.replayed == 3
    cache = ResponseCache(tmp_path / "c.db", types=[Label])
    assert cache.types == (Label,)
