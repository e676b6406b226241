"""``inspect``, ``export`` and ``diff``."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from batch_llm import run

from ..cli_helpers import ask, call, lines, write_lines
from ..view.stores import HOSTILE, small


@pytest.fixture
def store(tmp_path):
    small(tmp_path / "run.db")
    return tmp_path / "run.db"


def test_one_item(store):
    text = call("inspect", store, "id-4").output
    assert text.startswith("id-4: succeeded, 2 attempts\n")
    assert f"prompt:\n  4 {HOSTILE[4]}" in text
    assert f"answer:\n  answer 4 {HOSTILE[4]}" in text
    assert re.search(r"attempts:\n  1 .*ConnectionError \(\w+\)\n  2 .*ok; waited for backoff", text)
    failed = call("inspect", store, "id-3").output
    assert "id-3: failed (logic_error), 1 attempt\n" in failed
    assert "error:\n  ValueError: row 3 is wrong" in failed


def test_control_characters_are_escaped(store):
    for number in range(5, 40, 12):
        assert not set("\x1b\x07\u202e") & set(call("inspect", store, f"id-{number + 1}").output)
    text = call("inspect", store, "id-18").output
    assert "\\x1b[31m red" in text or "\\x1b" not in HOSTILE[18 % len(HOSTILE)]


def test_one_item_as_json(store):
    found = json.loads(call("inspect", store, "id-7", "--json").output)
    assert found["prompt"]["text"] == f"7 {HOSTILE[7]}"
    assert json.loads(found["answer"]["text"]) == {"label": "yes", "score": 0.7}
    assert found["tokens"]["input_tokens"] == 107


def test_an_item_that_is_not_there(store):
    assert "no item 'id-99'" in call("inspect", store, "id-99", code=1).output
    assert "not both" in call("inspect", store, "id-9", "--failed", code=2).output


def test_a_conversation(tmp_path):
    from batch_llm import llm
    from batch_llm.testing import SimulatedProvider

    def weather(city: str) -> str:
        "Tell the weather."
        return f"fine in {city}"

    with SimulatedProvider() as provider:
        strategy = llm("openai:gpt-5-mini", base_url=provider.base_url, api_key="none", tools=[weather], rounds=3)
        run(strategy, [("1", "How is the weather?")], store=tmp_path / "run.db", progress=False)
    text = call("inspect", tmp_path / "run.db", "1").output
    assert "\nassistant:\n" in text


def test_export_as_csv(store, tmp_path):
    call("export", store, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 40
    assert rows["id-4"]["attempts"] == "2"
    assert rows["id-3"]["state"] == "failed"
    assert rows["id-3"]["error"].startswith("ValueError")
    assert rows["id-8"]["prompt"] == f"8 {HOSTILE[8]}"
    assert float(rows["id-8"]["cost"]) > 0


def test_formulas_in_csv(tmp_path):
    answers = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "plain", "\uff1d1"]

    def answer(prompt):
        return answers[int(prompt)]

    run(answer, list("01234567"), store=tmp_path / "run.db", progress=False)

    def outputs(*more):
        call("export", tmp_path / "run.db", tmp_path / "out.csv", *more)
        with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
            return [row["output"] for row in csv.DictReader(file)]

    assert sorted(outputs()) == sorted(one if one == "plain" else f"'{one}" for one in answers)
    assert sorted(outputs("--no-escape-formulas")) == sorted(answers)


def test_export_as_parquet(store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    call("export", store, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 40
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["id-4"]["retries"] == 1
    assert rows["id-3"]["output"] is None
    assert rows["id-6"]["prompt"] == f"6 {HOSTILE[6]}"


def test_export_as_json_lines(store, tmp_path):
    call("export", store, tmp_path / "out.jsonl", "--failed")
    rows = lines(tmp_path / "out.jsonl")
    assert sorted(row["id"] for row in rows) == ["id-13", "id-23", "id-3", "id-33"]
    assert [json.loads(line) for line in call("export", store, "-", "--failed").stdout.splitlines()] == rows


def test_targets_that_cannot_be(store, tmp_path):
    assert ".parquet, .csv or .jsonl" in call("export", store, tmp_path / "out.xlsx", code=2).output
    assert "does not exist" in call("export", tmp_path / "no.db", tmp_path / "out.csv", code=2).output
    (tmp_path / "x.db").write_text("hello")
    assert "not an SQLite" in call("export", tmp_path / "x.db", tmp_path / "out.csv", code=1).output
    assert not (tmp_path / "out.csv").exists()


def test_prompts_of_the_input(tmp_path, monkeypatch):
    from batch_llm.testing import SimulatedProvider

    write_lines(tmp_path / "in.jsonl", *({"text": f"number {number}"} for number in range(3)))
    with SimulatedProvider() as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        ask(tmp_path / "in.jsonl", "-p", "Say {text}", "-o", tmp_path / "out.jsonl")
    store = tmp_path / "out.jsonl.store.db"
    assert (
        "prompt: not in the store; --prompts FILE reads it from the input of the run"
        in call("inspect", store, "row-2").output
    )
    given = ("--prompts", tmp_path / "in.jsonl", "-p", "Say {text}")
    assert "prompt:\n  Say number 1\n" in call("inspect", store, "row-2", *given).output
    call("export", store, tmp_path / "all.jsonl", *given)
    assert [row["prompt"] for row in lines(tmp_path / "all.jsonl")] == [f"Say number {number}" for number in range(3)]
    assert "needs --prompts" in call("inspect", store, "row-2", "-p", "x", code=2).output
    assert "no column 'none'" in call("inspect", store, "row-2", *given[:2], "-p", "{none}", code=1).output


def test_prompts_that_are_stored(tmp_path, monkeypatch):
    from batch_llm.testing import SimulatedProvider

    write_lines(tmp_path / "in.jsonl", *({"text": f"number {number}"} for number in range(3)))
    with SimulatedProvider() as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        ask(tmp_path / "in.jsonl", "-p", "Say {text}", "-o", tmp_path / "out.jsonl", "--store-prompts")
    assert "prompt:\n  Say number 1\n" in call("inspect", tmp_path / "out.jsonl.store.db", "row-2").output


def test_diff(tmp_path):
    first, second = tmp_path / "a.db", tmp_path / "b.db"

    def label(prompt):
        return {"label": prompt, "score": 1}

    run(label, [("1", "x"), ("2", "y"), ("3", "z")], store=first, progress=False)

    def other(prompt):
        if prompt == "z":
            raise ValueError("no")
        return {"label": "x", "score": 1}

    run(other, [("1", "x"), ("2", "y"), ("3", "z"), ("4", "z")], store=second, progress=False)
    text = call("diff", first, second).output
    assert "answers agree in 1 of 2 items (50.0%)" in text
    assert "  label: 1 of 2 (50.0%)\n  score: 2 of 2 (100.0%)" in text
    assert "1 same, 1 different, 1 failed in one, 1 only in second" in text
    found = json.loads(call("diff", first, second, "--json").output)
    assert (found["version"], found["command"]) == (1, "diff")
    assert found["data"]["agreement"]["fields"]["label"] == {"compared": 2, "same": 1, "share": 0.5}
    assert found["data"]["second"]["errors"] == {"logic_error": 2}


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt is sent as a signal")
def test_view_serves_the_page_until_it_is_interrupted(store):
    command = [sys.executable, "-m", "batch_llm", "view", str(store), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}api/item?place=1", timeout=30) as reply:
            assert json.load(reply)["state"] == 1
        with urllib.request.urlopen(f"{address}api/overview", timeout=30) as reply:
            assert json.load(reply)["about"]["name"] == "run.db"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_view_as_a_file(store, tmp_path):
    call("view", store, "-o", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "id-39" in text
    assert (tmp_path / "page.html").stat().st_mode & 0o077 == 0
    assert "leave it out to compare two" in call("view", store, store, "-o", tmp_path / "page.html", code=2).output
    assert "cannot be written" in call("view", store, "-o", tmp_path / "no" / "page.html", code=1).output
