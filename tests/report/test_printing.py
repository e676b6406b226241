"""Texts of servers and files on the way to a terminal."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from batch_llm import BatchResult, WorkItemResult, inspect
from batch_llm._shown import escaped, escaped_json, line
from batch_llm.cli.main import main

from ..served import serve

ODD = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202e\u2066\r\x00"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def test_what_a_terminal_obeys_is_escaped():
    assert line("a\x1b[31mb\x9b\u202e\ud800") == r"a\x1b[31mb\x9b\u202e\ud800"
    assert line("one\ntwo\tthree\r") == r"one\ntwo\tthree\r"
    assert escaped("one\ntwo\tthree\r") == "one\ntwo\tthree\\r"
    every = "".join(map(chr, range(0x3000)))
    assert not OBEYED.search(line(every))
    assert len(line(every).splitlines()) == 1
    plain = "Grüße, 日本語, עברית, 😀 and \\u001b"
    assert line(plain) == plain
    text = json.dumps({"id": every + ODD}, ensure_ascii=False)
    assert json.loads(escaped_json(text)) == json.loads(text)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A run whose provider answers with errors that no terminal should see."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    error = {"error": {"message": f"no {ODD}\nall 3 answered", "code": f"bad{ODD}", "type": "x"}}
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": f"a{ODD}\nforged", "prompt": "a"}) + "\n")
    with serve(lambda body, number: (400, error, {})) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.root}/v1")
        arguments = ["run", "in.jsonl", "-m", "openai:m", "-o", "out.jsonl", "-q", "--retries", "0"]
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 3, done.output
    return tmp_path / "out.jsonl.store.db", done.stderr


def test_the_command_line_prints_nothing_that_a_terminal_obeys(store):
    path, summary = store
    assert "[2J" in summary
    assert not OBEYED.search(summary)
    failed = CliRunner().invoke(main, ["inspect", str(path), "--failed"]).output
    assert not OBEYED.search(failed)
    assert len(failed.splitlines()) == 1
    assert json.loads(failed)["id"] == f"a{ODD}\nforged"
    for arguments in (["inspect", str(path)], ["inspect", str(path), "--json"], ["models", ODD]):
        assert not OBEYED.search(CliRunner().invoke(main, arguments).output)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", f"none{ODD[:-1]}.jsonl", "-m", "openai:m"],
        ["run", "in.jsonl", "-m", f"openai{ODD}:m"],
        ["run", "in.jsonl", "-m", "openai:m", "-o", f"out{ODD[:-1]}.xyz"],
        ["run", "in.jsonl", "-m", "openai:m", "-p", f"{{a{ODD}}}"],
        ["run", "in.jsonl", "-m", "openai:m", f"--no{ODD}"],
        ["run", "odd.jsonl", "-m", "openai:m"],
        ["inspect", f"none{ODD[:-1]}.db"],
        ["inspect", "odd.jsonl"],
        [f"no{ODD}"],
    ],
)
def test_errors_quote_nothing_that_a_terminal_obeys(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "odd.jsonl").write_text(f'["{ODD}"\n')
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (1, 2)
    assert done.output
    assert not OBEYED.search(done.output)


def test_summaries_have_a_line_for_what_is_a_line(store):
    batch = BatchResult(
        [WorkItemResult(f"a{ODD}\nforged", False, error=f"Error: {ODD}", error_category=f"x{ODD}\nforged")]
    )
    found = inspect(store[0])
    object.__setattr__(found, "errors", {f"x{ODD}\nforged": 1})
    for text in (batch.summary(), found.summary()):
        assert not OBEYED.search(text)
        assert not re.search("^forged", text, re.MULTILINE)
