"""Rows that are not what the rest of their file is: nothing of them is lost, and their errors are like all others."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet
import pytest

from batch_llm.testing import SimulatedProvider

from ..cli_helpers import ask, call, lines, write_lines

RAGGED = "id,text,note\n1,good,x\n2,too, many,y,\n3,short\n"
TOO_MANY = "in.csv, line 3 has 5 cells, the first line has 3"


@pytest.fixture(autouse=True)
def provider(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with SimulatedProvider(count_questions=True) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestCellsTooMany:
    """Cells for which there is no column."""

    def test_they_are_a_column_of_tables_and_of_json(self, tmp_path):
        (tmp_path / "in.csv").write_text(RAGGED)
        for name in ("out.csv", "out.jsonl", "out.parquet"):
            ask("in.csv", "-p", "{text}", "-o", name, code=3)
        rows = table(tmp_path / "out.csv")
        assert list(rows[0])[:5] == ["id", "text", "note", "extra_cells", "output"]
        assert [row["extra_cells"] for row in rows] == ["", '["y", ""]', ""]
        assert rows[1]["error"] == f"invalid row: {TOO_MANY}"
        assert lines(tmp_path / "out.jsonl")[1]["extra_cells"] == ["y", ""]
        found = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
        assert [row["extra_cells"] for row in found] == [None, ["y", ""], None]

    def test_a_column_of_the_file_may_be_called_so(self, tmp_path):
        (tmp_path / "in.csv").write_text("extra_cells,text\nmine,a\nmine,b,c\n")
        ask("in.csv", "-o", "out.csv", code=3)
        rows = table(tmp_path / "out.csv")
        assert [(row["extra_cells"], row["extra_cells_2"]) for row in rows] == [("mine", ""), ("mine", '["c"]')]

    def test_they_stay_in_the_output_of_a_pipe(self, tmp_path):
        csv_in = ("-", "--format", "csv", "-p", "{text}")
        ask(*csv_in, "-o", "out.csv", stdin=RAGGED, code=3)
        assert [row["extra_cells"] for row in table(tmp_path / "out.csv")] == ["", '["y", ""]', ""]
        written = ask(*csv_in, "--output-format", "csv", stdin=RAGGED, code=3).stdout
        rows = list(csv.DictReader(written.splitlines()))
        assert rows[1]["error"].endswith('line 3 has 5 cells, the first line has 3; further cells: ["y", ""]')
        assert None not in rows[1]

    def test_in_place_such_a_file_is_refused(self, tmp_path, provider):
        (tmp_path / "in.csv").write_text(RAGGED)
        done = ask("in.csv", "-p", "{text}", "-i", code=1)
        assert f"{TOO_MANY}: --in-place cannot add columns to it" in done.output
        assert (tmp_path / "in.csv").read_text() == RAGGED
        assert not provider.stats.questions


class TestTornLines:
    """Lines that are no rows."""

    LINES = ('{"text": "a"}', '{"text": "cut', '{"text": 1, "text": 2}', "[1]", '{"text": "b"} x')

    def test_their_text_is_kept(self, tmp_path):
        write_lines(tmp_path / "in.jsonl", *self.LINES)
        for name in ("out.jsonl", "out.csv", "out.parquet"):
            ask("in.jsonl", "-o", name, code=3)
        ask("-", "-o", "piped.jsonl", stdin=(tmp_path / "in.jsonl").read_text(), code=3)
        expected = [None, *self.LINES[1:]]
        assert [row.get("line") for row in lines(tmp_path / "out.jsonl")] == expected
        assert [row.get("line") for row in lines(tmp_path / "piped.jsonl")] == expected
        assert [row["line"] or None for row in table(tmp_path / "out.csv")] == expected
        assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["line"].to_pylist() == expected
        ask("in.jsonl", "-i", code=3)
        assert [row.get("line") for row in lines(tmp_path / "in.jsonl")] == expected

    def test_one_line_is_named_and_the_place_in_it(self, tmp_path):
        write_lines(tmp_path / "in.jsonl", *self.LINES, "nonsense", '{"text": 1 2}')
        ask("in.jsonl", "-o", "out.jsonl", code=3)
        errors = [row["error"] for row in lines(tmp_path / "out.jsonl")]
        assert errors[1] == "invalid row: in.jsonl, line 2 is not JSON: Invalid control character at character 14"
        assert errors[4] == "invalid row: in.jsonl, line 5 is not JSON: Extra data at character 15"
        assert errors[5] == "invalid row: in.jsonl, line 6 is not JSON: Expecting value at character 1"
        assert errors[6] == "invalid row: in.jsonl, line 7 is not JSON: Expecting ',' delimiter at character 12"
        assert all(error.startswith("invalid row: in.jsonl, line ") for error in errors[1:])

    def test_the_summary_does_not_say_it_twice(self, tmp_path):
        write_lines(tmp_path / "in.jsonl", *self.LINES[:2])
        done = call("run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl", code=3)
        assert "invalid rows: 1, for example row 2: in.jsonl, line 2 is not JSON" in done.stderr


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_made_of_csv_keeps_the_ends_of_its_lines(tmp_path, end):
    (tmp_path / "in.csv").write_bytes(f"id,text{end}1,a{end}2,b{end}".encode())
    ask("in.csv", "-o", "out.csv")
    written = (tmp_path / "out.csv").read_bytes().decode()
    assert [len(row.split(",")) for row in written.split(end)] == [9, 9, 9, 1]
    assert len(written.replace(end, "").splitlines()) == 1


def test_batch_lines_of_a_pipe(tmp_path):
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "a"}]}
    write_lines(tmp_path / "in.jsonl", {"custom_id": "x", "body": body}, '{"custom_id": "y')
    ask("in.jsonl", "-o", "out.jsonl", code=3)
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["error"]["message"].startswith(
        "invalid row: "
    )
