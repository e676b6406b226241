"""The index of a run: what is found, in which order, and that it follows a store."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading

import pytest

from batch_llm import BatchResult, ResumePolicy, SqliteArtifactStore, WorkItemResult, run
from batch_llm._stored_rows import StoredItems
from batch_llm._view import BatchItems, Index, Query
from batch_llm._view.timeline import MOST, Timeline
from batch_llm.timing import AttemptTiming

from .stores import HOSTILE, large, small


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "run.db"
    small(path)
    return str(path)


@pytest.fixture(scope="module")
def index(store):
    made = Index(StoredItems(store))
    made.read()
    yield made
    made.close()


def ids(index, **query):
    found = index.rows(Query(**query), 0, 1000)
    assert found["total"] == len(found["rows"])
    return [row[1] for row in found["rows"]]


def numbers(index, **query):
    return [int(one.removeprefix("id-")) for one in ids(index, **query)]


class Fickle:
    """Answers, but "b" only once it does not fail any more."""

    fails = True

    def __call__(self, prompt):
        if prompt == "b" and self.fails:
            raise ValueError("no")
        return prompt.upper()


def test_everything_is_listed(index):
    assert sorted(numbers(index)) == list(range(40))
    assert index.is_complete


def test_filters(index):
    assert sorted(numbers(index, only="failed")) == [3, 13, 23, 33]
    assert sorted(numbers(index, only="retried")) == [4, 14, 24, 34]
    assert sorted(numbers(index, only="truncated")) == [5, 15, 25, 35]
    assert len(ids(index, only="slow")) >= 1
    # The dearest twentieth: those with the most tokens.
    assert set(numbers(index, only="expensive")) <= {37, 38, 39}
    assert sorted(numbers(index, category="logic_error")) == [3, 13, 23, 33]
    assert numbers(index, category="rate_limit") == []
    assert ids(index, only="not_sent") == ids(index, only="reused") == []


def test_orders(index):
    assert numbers(index, order="output", descending=True)[0] == 39
    by_cost = numbers(index, order="cost")
    assert [one for one in by_cost if one % 10 != 3] == [one for one in range(40) if one % 10 != 3]
    assert set(by_cost[-4:]) == {3, 13, 23, 33}, "what has no cost comes last"
    assert set(numbers(index, order="cost", descending=True)[-4:]) == {3, 13, 23, 33}


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("id-7", {7}),
        ("REGENDER", set()),
        ("DROP TABLE", {6, 18, 30}),
        ("drop tab", {6, 18, 30}),
        ('"table drop"', set()),
        ('"DROP TABLE"', {6, 18, 30}),
        ("漢字", {11, 23, 35}),
        ("検索", {11, 23, 35}),
        ("字検", set()),
        ("ещё", {11, 23, 35}),
        ("ЕЩЁ", {11, 23, 35}),
        ("row wrong", {3, 13, 23, 33}),
        ("", set(range(40))),
        ("<>*()^:", set(range(40))),
        ('"', set(range(40))),
        ("a\0b OR NEAR(", set()),
    ],
)
def test_searches(index, search, found):
    assert set(numbers(index, search=search)) == found
    assert numbers(index, search=search, descending=True) == numbers(index, search=search)[::-1]


def test_a_search_within_a_filter(index):
    assert numbers(index, search="漢字", only="failed") == [23]


def test_pages_of_a_list(index):
    whole = index.rows(Query(), 0, 100)["rows"]
    parts = [row for start in range(0, 60, 7) for row in index.rows(Query(), start, 7)["rows"]]
    assert parts == whole
    assert index.position(Query(), whole[12][0]) == 12
    assert index.position(Query(), 10**9) is None


def test_an_item(index):
    (place,) = index.find("id-4")
    found = index.details(place)
    assert found["prompt"]["text"] == f"4 {HOSTILE[4]}"
    assert [attempt["ok"] for attempt in found["attempts"]] == [False, True]
    assert found["attempts"][0]["category"]
    assert [attempt["message"] for attempt in found["attempts"]] == ["connection reset", None]
    assert index.details(10**9) is None
    json.dumps(found)


def test_sums_and_errors(index):
    overview = index.overview()
    figures = overview["figures"]
    assert (figures["items"], figures["succeeded"], figures["failed"], figures["retried"]) == (40, 36, 4, 4)
    assert figures["truncated"] == 4
    assert figures["cached"] == 36 * 50
    assert figures["with_prompt"] == 40
    (kind,) = overview["errors"]
    assert (kind["count"], kind["category"], len(kind["items"])) == (4, "logic_error", 4)
    assert ids(index, kind=kind["kind"]) == ids(index, only="failed")
    (chart,) = overview["charts"]
    assert chart["attempts"] == 44
    assert sum(chart["done"]) * chart["width"] == pytest.approx(36, rel=0.01)
    json.dumps(overview)


def test_bad_queries_are_named():
    with pytest.raises(ValueError, match="only='nothing': it is one of all, succeeded"):
        Query.of({"only": "nothing"})
    with pytest.raises(ValueError, match="order='id; DROP"):
        Query.of({"order": "id; DROP"})
    for run_number in ("x", "-1", "1e3", "9" * 19):
        with pytest.raises(ValueError, match="it is the number of a run"):
            Query.of({"run": run_number})
    assert Query.of({"run": "2"}).run == 2
    assert Query.of({"run": ""}).run is None
    with pytest.raises(ValueError, match="at most 500"):
        Query.of({"search": "x" * 501})


def test_prompts_that_the_store_does_not_have(tmp_path):
    small(tmp_path / "run.db", prompts=False, items=10)
    plain = Index(StoredItems(str(tmp_path / "run.db")))
    plain.read()
    assert plain.overview()["figures"]["with_prompt"] == 1
    given = Index(StoredItems(str(tmp_path / "run.db"), {"id-1": "from the file"}.get))
    given.read()
    assert numbers(given, search="from the file") == [1]
    assert given.details(given.find("id-1")[0])["prompt"]["text"] == "from the file"


def test_it_follows_a_store(tmp_path):
    """A later run adds items, and answers what had failed."""
    path, ask = str(tmp_path / "run.db"), Fickle()
    run(ask, [("1", "a"), ("2", "b")], store=path, progress=False)
    index = Index(StoredItems(path))
    index.read()
    assert ids(index, only="failed") == ["2"]
    version = index.version
    index.read()
    assert index.version == version, "nothing has changed"
    ask.fails = False
    run(ask, [("1", "a"), ("2", "b"), ("3", "c")], store=path, progress=False)
    index.read()
    assert sorted(ids(index)) == ["1", "2", "3"]
    assert ids(index, only="failed") == []
    assert ids(index, search="b") == ["2"], "the failure is not found any more"
    assert [chart["run"] for chart in index.overview()["charts"]] == [2, 1]
    assert index.overview()["runs"] == [(2, 2), (1, 1)]
    assert (ids(index, run=1), sorted(ids(index, run=2)), ids(index, run=3)) == (["1"], ["2", "3"], [])
    assert ids(index, run=2, search="b") == ["2"]
    assert ids(index, run=1, search="b") == []


@pytest.mark.parametrize("name", ["run.jsonl", "segments/"])
def test_it_follows_other_kinds_of_stores(tmp_path, name):
    path = f"{tmp_path}/{name}"
    run(str.upper, ["a", "b"], store=path, progress=False)
    index = Index(StoredItems(path))
    index.read()
    assert index.count == 2
    run(str.upper, ["a", "b", "c"], store=path, progress=False)
    index.read()
    assert index.count == 3
    assert ids(index, search="c") == ["item_2"]
    (place,) = index.find("item_2")
    assert index.details(place)["run"] == 2, "who made it is known"
    assert index.details(place)["recorded_at"] > 1e9


@pytest.mark.filterwarnings("ignore:item id")
def test_ids_that_occur_twice(tmp_path):
    path, ask = str(tmp_path / "run.db"), Fickle()
    run(ask, [("1", "a"), ("1", "b")], store=path, progress=False)
    index = Index(StoredItems(path))
    index.read()
    assert ids(index) == ["1", "1"]
    ask.fails = False
    run(ask, [("1", "a"), ("1", "b")], store=path, progress=False)
    index.read()
    index.read()
    assert ids(index, only="succeeded") == ids(index) == ["1", "1"]


def test_requested_again_by_force(tmp_path):
    path = str(tmp_path / "run.db")
    run(str.upper, ["a", "b"], store=path, progress=False)
    index = Index(StoredItems(path))
    index.read()
    run(str.upper, ["a", "b"], store=path, resume=ResumePolicy.NONE, progress=False)
    index.read()
    index.read()
    assert index.count == 2


def test_damaged_records_are_left_out(tmp_path):
    path = tmp_path / "run.db"
    small(path, items=10)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE bodies SET body = '{' WHERE id = 2")
        database.execute("UPDATE records SET cost = 'much', recorded_at = 'now' WHERE id = 3")
    database.close()
    items = StoredItems(str(path))
    index = Index(items)
    index.read()
    index.read()
    assert index.count == 8
    assert items.about()["unreadable"] == 1


def test_reading_ends_when_it_is_told(tmp_path):
    path = large(tmp_path / "run.db", 3000, text=3)
    index = Index(StoredItems(str(path)))
    stop = threading.Event()
    stop.set()
    index.read(stop)
    assert index.count == 250
    assert not index.is_complete
    stop.clear()
    index.read(stop)
    assert (index.count, index.is_complete) == (3000, True)


def test_a_batch_in_memory():
    batch = run(str.upper, ["a", "b"], progress=False)
    odd = [
        WorkItemResult("x", True, {"deep": [1, None]}, metadata={"finish_reason": ["length"], "model": 7, "lane": []}),
        WorkItemResult("\ud83d", False, error="no \ud83d", token_usage={"input_tokens": float("nan"), "x": "y"}),
        WorkItemResult("y", False, error="E: ...", error_category="interrupted"),
    ]
    index = Index(BatchItems(BatchResult([*batch.results, *odd])))
    index.read()
    assert index.count == 5
    assert ids(index, only="truncated") == ["x"]
    assert ids(index, only="not_sent") == ["y"]
    assert ids(index, only="failed") == ["\\ud83d"]
    for place in range(5):
        json.dumps(index.details(place)).encode()
    assert index.overview()["about"]["summary"][0][0] == "items"
    assert index.details(5) is None


def attempt(start, seconds, **waits):
    return AttemptTiming(1, start, execution_seconds=seconds, **waits)


def test_a_timeline_keeps_sums_while_it_becomes_coarser():
    timeline = Timeline()
    for number in range(5000):
        timeline.add([attempt(number, 2.0, queue_seconds=1.0)], success=True, tokens=(10, 1), cost=0.5)
    series = timeline.series()
    width = series["width"]
    assert len(series["done"]) <= MOST
    assert width * MOST >= 5001
    assert sum(series["done"]) * width == pytest.approx(5000, rel=0.01)
    assert sum(series["running"]) * width == pytest.approx(10_000, rel=0.01)
    assert sum(series["worker"]) * width == pytest.approx(4999, rel=0.01)
    assert series["spent"][-1] == pytest.approx(2500, rel=0.01)
    assert series["p50"][3] == pytest.approx(2.0, rel=0.08)


def test_a_timeline_does_not_believe_everything():
    timeline = Timeline()
    for start, seconds in ((-1.0, 1.0), (1e300, 1.0), (0.0, float("inf")), (float("nan"), 1.0)):
        timeline.add([attempt(start, seconds, queue_seconds=1e300)], success=True, tokens=(0, 0), cost=None)
    timeline.add([attempt(1.0, 1.0, queue_seconds=float("nan"))], success=True, tokens=(0, 0), cost=None)
    assert timeline.series()["attempts"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_store_that_cannot_be_written(tmp_path):
    small(tmp_path / "run.db", items=5)
    store = SqliteArtifactStore(tmp_path / "run.db")
    assert len(list(store.iter_results())) == 5
    (tmp_path / "run.db").chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        index = Index(StoredItems(str(tmp_path / "run.db")))
        index.read()
        assert index.count == 5
    finally:
        tmp_path.chmod(0o700)
