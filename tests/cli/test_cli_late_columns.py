"""Columns of the input that only late rows of a pipe have, and that are called as ours are."""

from __future__ import annotations

import json

import pytest

from batch_llm.cli import spool
from batch_llm.testing import SimulatedProvider

from ..cli_helpers import ask, lines

LATE = {"prompt": "last", "output": "GOLD", "error": "typo", "output_2": "SILVER"}


@pytest.fixture(autouse=True)
def provider(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with SimulatedProvider() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


def piped(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("in_memory", [spool.IN_MEMORY, 10])
@pytest.mark.parametrize("options", [[], ["--unordered"]])
def test_in_a_file_all_rows_have_one_name(tmp_path, monkeypatch, in_memory, options):
    monkeypatch.setattr(spool, "IN_MEMORY", in_memory)
    rows = [{"prompt": f"q{number}", "x": "é\u2028"} for number in range(30)]
    done = ask("-", "-o", "out.jsonl", *options, stdin=piped(*rows, LATE, {"prompt": ""}), code=3)
    found = lines(tmp_path / "out.jsonl")
    assert len(found) == 32
    assert all(row["output_3"].startswith("Simulated") for row in found if row["prompt"])
    late = next(row for row in found if row["prompt"] == "last")
    assert {name: late[name] for name in LATE} == LATE
    assert late["error_2"] is None
    assert all("error" not in row and "output" not in row for row in found if row is not late)
    assert next(row for row in found if not row["prompt"])["error_2"] == "invalid row: 'prompt' is empty"
    assert "stdin already has a column 'output'; the new column is 'output_3'" in done.stderr


def test_in_a_pipe_the_row_keeps_its_column_and_the_user_is_told(tmp_path):
    done = ask("-", stdin=piped({"prompt": "a"}, LATE, LATE, {"prompt": "b"}))
    found = [json.loads(row) for row in done.stdout.splitlines()]
    for row in (found[0], found[3]):
        assert row["output"].startswith("Simulated")
    assert (found[1]["output"], found[1]["error"]) == ("GOLD", "typo")
    assert found[1]["output_3"].startswith("Simulated")
    assert done.stderr.count("stdin, row 2 already has a column 'output'; the new column is 'output_3' there") == 1
    assert "row 3" not in done.stderr


def test_the_first_row_of_a_pipe_names_for_all(tmp_path):
    done = ask("-", stdin=piped({"prompt": "a", "output": "mine"}, {"prompt": "b"}, {"prompt": "c", "error": "e"}))
    found = [json.loads(row) for row in done.stdout.splitlines()]
    assert all(row["output_2"].startswith("Simulated") for row in found)
    assert "stdin already has a column 'output'; the new column is 'output_2'" in done.stderr
    assert "stdin, row 3 already has a column 'error'; the new column is 'error_2' there" in done.stderr


def test_a_name_that_was_wished_for_is_refused_where_that_is_seen(tmp_path):
    done = ask("-", "--output-column", "mine", stdin=piped({"prompt": "a", "mine": 1}), code=2)
    assert "already has a column 'mine'; choose another name with --output-column" in done.output
