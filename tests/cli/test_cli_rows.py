"""Rows of the command line: what is in them stays, and a bad one costs only itself."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from batch_llm.cli import invalid_rows, spool
from batch_llm.cli.reading import Row

from ..cli_helpers import ask, call, lines, write_lines

BAD = [
    ('{"id": 2, "text": null}', "invalid row: 'text' is null"),
    ('{"id": 3, "text": " \\n"}', "invalid row: 'text' is empty"),
    ('{"id": 4}', "invalid row: it has no column 'text'"),
    ('{"id": 5, "text": "cut', "line 5 is not JSON"),
    ("[6]", "line 6 must be a JSON object or string, not list"),
    ('{"id": 7, "id": 8, "text": "a"}', "line 7 has the key 'id' more than once"),
    (
        '{"id": 8, "text": "half \\ud83d"}',
        "invalid row: the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it",
    ),
    ('{"id": 9, "text": NaN}', "invalid row: 'text' is null"),
]


@pytest.mark.parametrize("options", [[], ["--unordered"], ["--no-store"]])
def test_a_bad_row_costs_that_row(at, provider, options):
    good = ['{"id": 1, "text": "one"}', *(row for row, _ in BAD), '{"id": 10, "text": "ten", "more": 1.50}']
    write_lines(at / "in.jsonl", *good, '{"id": 11, "te')
    done = ask("in.jsonl", "-p", "Rate: {text}", "-o", "out.jsonl", *options, "--json", code=3)
    summary = json.loads(done.stderr)
    assert (summary["total"], summary["succeeded"], summary["failed"], summary["invalid"]) == (11, 2, 0, 9)
    assert set(provider.stats.questions) == {"Rate: one", "Rate: ten"}
    found = lines(at / "out.jsonl")
    if "--unordered" in options:
        assert len(found) == 11
        return
    assert [row["id"] for row in found] == [1, 2, 3, 4, "row-5", "row-6", "row-7", 8, 9, 10, "row-11"]
    for row, (_, problem) in zip(found[1:9], BAD, strict=True):
        assert problem in row["error"]
        assert (row["output"], row["error_category"]) == (None, "invalid_input")
    assert found[9]["output"]
    assert "line 11 is not JSON" in found[10]["error"]
    assert '"more": 1.50' in (at / "out.jsonl").read_text()


@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_bad_rows_are_in_tables_too(at, provider, target):
    write_lines(at / "in.jsonl", {"text": "a"}, {"text": None}, '{"te', {"text": "b \ud83d", "n": 1}, {"text": "c"})
    ask("in.jsonl", "-o", target, code=3)
    if target.endswith("csv"):
        rows = list(csv.DictReader(io.StringIO((at / target).read_text("utf-8"))))
        rows = [{name: value or None for name, value in row.items()} for row in rows]
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(at / target).to_pylist()
    assert [bool(row["output"]) for row in rows] == [True, False, False, False, True]
    assert [row["error_category"] for row in rows] == [None, *["invalid_input"] * 3, None]
    assert [row["text"] for row in rows] == ["a", None, None, "b \ufffd", "c"]


def test_wrong_types_are_said_in_their_rows(at, provider):
    rows = [{"prompt": 5}, {"prompt": {"a": 1}}, {"messages": [{"role": "nobody"}]}, {"messages": []}, {"prompt": "ok"}]
    write_lines(at / "in.jsonl", *rows)
    ask("in.jsonl", "-o", "out.jsonl", code=3)
    found = lines(at / "out.jsonl")
    assert [bool(row["output"]) for row in found] == [False] * 4 + [True]
    assert "not int" in found[0]["error"]
    assert "role must be" in found[2]["error"]
    assert "'messages' is empty" in found[3]["error"]


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl", "in.parquet"])
def test_messages_in_a_cell_are_a_conversation(at, provider, source):
    said = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "[zebra]"}]
    cells = [
        json.dumps(said),
        " " + json.dumps([{"role": "user", "content": "ok"}], indent=1),
        "[zebra]",
        '["zebra"]',
        json.dumps([{"content": "zebra"}]),
        json.dumps([{"role": "nobody", "content": "zebra"}]),
        "[]",
        "[" * 200_000,
        "A text",
    ]
    if source.endswith("csv"):
        with (at / source).open("w", newline="") as file:
            csv.writer(file).writerows([["messages"], *([cell] for cell in cells)])
    elif source.endswith("jsonl"):
        write_lines(at / source, *({"messages": cell} for cell in cells))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"messages": cells}), at / source)
    ask(source, "-o", "out.jsonl", code=3)
    found = lines(at / "out.jsonl")
    problems = [None, None, "is not a JSON list of messages", *["is not a message"] * 2, "role must be", "is empty"]
    for row, problem in zip(found, [*problems, "nested too deeply", None], strict=True):
        assert (row["error"] is None) == (problem is None), row["error"]
        assert problem is None or (problem in row["error"] and row["error_category"] == "invalid_input")
    assert sorted(provider.stats.questions) == ["A text", "[zebra]", "ok"]
    assert [row["messages"] for row in found] == cells


def test_the_first_column_that_has_something_is_the_prompt(at, provider):
    write_lines(
        at / "in.jsonl", {"prompt": None, "text": "a"}, {"prompt": "  ", "text": "b"}, {"prompt": "c", "text": ""}
    )
    ask("in.jsonl", "-o", "out.jsonl")
    assert set(provider.stats.questions) == {"a", "b", "c"}


def test_blank_cells_and_ragged_lines_of_csv(at, provider):
    (at / "in.csv").write_text("id,text\n1,good\n2,\n3\n4,a,b\n\n5,bad\n")
    done = ask("in.csv", "-o", "out.jsonl", code=3)
    assert "invalid rows: 3, for example row 2: 'text' is empty" in done.stderr
    found = lines(at / "out.jsonl")
    assert [(row["id"], bool(row["output"])) for row in found] == [
        ("1", True), ("2", False), ("3", False), ("4", False), ("5", True)
    ]  # fmt: skip
    assert "line 4 has one cell, the first line has 2" in found[2]["error"]
    assert "line 5 has 3 cells" in found[3]["error"]
    assert "line 5 has 3 cells" in ask("in.csv", "-i", code=1).stderr


def test_bad_rows_in_place_keep_what_they_had(at, provider):
    write_lines(at / "in.jsonl", {"text": "a"}, {"text": None, "n": 1}, '{"text": "cut', {"text": "b"})
    ask("in.jsonl", "-i", code=3)
    found = lines(at / "in.jsonl")
    assert found[1] == {"text": None, "n": 1, "output": None, "output_error": "invalid row: 'text' is null"}
    assert found[2]["line"] == '{"text": "cut'
    assert "not JSON" in found[2]["output_error"]
    ask("in.jsonl", "-i", code=3)
    again = lines(at / "in.jsonl")
    assert again[:2] == found[:2]
    assert again[2]["line"] == '{"text": "cut'
    assert sum(provider.stats.questions.values()) == 2


def test_bad_rows_through_a_pipe(at, provider):
    done = call(
        "run", "-", "--format", "lines", "-m", "openai:gpt-5-mini", "-q", stdin=b"one\r\ncaf\xe9\n\ntwo\n", code=3
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in found if row["output"]] == ["one", "two"]
    assert "line 2 is not UTF-8" in found[1]["error"]
    done = ask("-", stdin='{"text": "a"}\n{"text": "b"\n{"no": 1}\n{"text": "c", "output": 1}\n', code=3)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["error_category"] for row in found] == [None, "invalid_input", "invalid_input", None]
    assert found[3]["output"] == 1
    assert "c" in found[3]["output_2"]


def test_many_bad_rows_take_no_memory(at, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    rows = invalid_rows.InvalidRows(at)
    for number in range(1, 5001):
        row = Row([("text", "x" * 20), ("half", "\ud83d")], number, problem="none")
        row.item_id = f"r{number}"
        rows.add(row)
        if number == 2000:
            assert [one.number for one in rows.before(1500)] == list(range(1, 1500))
    assert len(rows._spool._first) < 50
    left = list(rows.before(None))
    assert [row.number for row in left] == list(range(1500, 5001))
    assert left[0].texts()["text"] == '"' + "x" * 20 + '"'
    assert left[-1].item_id == "r5000"
    assert list(rows.before(None)) == []
    rows.close()


def test_numbers_of_json_stay_as_they_are_written(at, provider):
    written = '"a": 1.0, "b": 123456789012345678901234567890, "c": 1e400, "d": 0.10, "e": [1.50, {"f": 2E5}], "g": -0.0'
    (at / "in.jsonl").write_text(f'{{"id": 7, {written}, "text": "x"}}\n')
    ask("in.jsonl", "-p", "{a} {b} {c} {d}", "-o", "out.jsonl")
    assert written in (at / "out.jsonl").read_text()
    assert set(provider.stats.questions) == {"1.0 123456789012345678901234567890 1e400 0.10"}
    ask("in.jsonl", "-p", "{a} {b} {c} {d}", "-i")
    assert written in (at / "in.jsonl").read_text()
    ask("in.jsonl", "-p", "{a}", "-o", "out.csv")
    assert "1.0,123456789012345678901234567890,1e400,0.10," in (at / "out.csv").read_text()
    long = "9" * 6000
    write_lines(at / "long.jsonl", f'{{"text": "x", "n": {long}}}')
    ask("long.jsonl", "-o", "long.out.jsonl")
    assert long in (at / "long.out.jsonl").read_text()


def test_what_json_does_not_have_is_null(at, provider):
    write_lines(at / "in.jsonl", '{"prompt": "a", "n": [NaN, -Infinity, "NaN \\" Infinity"], "NaN": Infinity}')
    ask("in.jsonl", "-o", "out.jsonl")
    row = lines(at / "out.jsonl")[0]
    assert (row["n"], row["NaN"]) == ([None, None, 'NaN " Infinity'], None)


def test_halves_of_surrogate_pairs_stay_in_json(at, provider):
    write_lines(at / "in.jsonl", {"id": "i \ud83d", "prompt": "a", "n\ud83d": "cut \ud83d", "pair": "\ud83d\ude00"})
    ask("in.jsonl", "-o", "out.jsonl")
    row = lines(at / "out.jsonl")[0]
    assert (row["id"], row["n\ud83d"]) == ("i \ud83d", "cut \ud83d")
    ask("in.jsonl", "-o", "out.csv")
    assert "cut \ufffd,\U0001f600" in (at / "out.csv").read_text("utf-8")


def test_ids_of_any_kind_stay(at, provider):
    ids = [1, "1", None, 2.50, True, {"a": 1}, "", 10**30]
    write_lines(at / "in.jsonl", *({"n": 0, "id": one, "prompt": f"p{place}"} for place, one in enumerate(ids)))
    ask("in.jsonl", "-o", "out.jsonl")
    found = lines(at / "out.jsonl")
    assert [row["id"] for row in found] == ids
    assert list(found[0])[:3] == ["n", "id", "prompt"]
    assert [row["output"][-2:] for row in found] == [f"p{place}" for place in range(len(ids))]
    ask("in.jsonl", "-o", "out.jsonl")
    assert sum(provider.stats.questions.values()) == len(ids)


def test_columns_of_the_input_are_never_overwritten(at, provider):
    row = {"id": 1, "instruction": "x", "output": "GOLD", "error": "typo", "model": "gpt-3.5", "finish_reason": [1]}
    write_lines(at / "in.jsonl", {"instruction": "first"}, row)
    done = ask("in.jsonl", "-p", "{instruction}", "-o", "out.jsonl")
    assert "in.jsonl already has a column 'output'; the new column is 'output_2'" in done.stderr
    first, second = lines(at / "out.jsonl")
    assert {name: second[name] for name in row} == row
    assert second["output_2"].endswith("x")
    assert (second["error_2"], second["model_2"][:5], second["finish_reason_2"]) == (None, "gpt-5", "stop")
    assert "output" not in first
    assert "output_2" in first
    # Once more: a chain of steps.
    ask("out.jsonl", "-p", "{output_2}", "-o", "third.jsonl")
    assert lines(at / "third.jsonl")[1]["output_3"]
    ask("in.jsonl", "-p", "{instruction}", "-o", "named.jsonl", "--output-column", "answer", "--column-prefix", "our_")
    named = lines(at / "named.jsonl")[1]
    assert {name: named[name] for name in row} == row
    assert list(named)[len(row) :] == [
        "answer", "our_error", "our_error_category", "our_input_tokens", "our_output_tokens", "our_model",
        "our_finish_reason",
    ]  # fmt: skip
    taken = ask("in.jsonl", "-p", "{instruction}", "-o", "n.jsonl", "--output-column", "model", code=2)
    assert "already has a column 'model'; choose another name with --output-column" in taken.output
    assert not (at / "n.jsonl").exists()


def test_in_place_only_our_own_columns_are_written_anew(at, provider):
    (at / "t.csv").write_text("text,output,output_error\na,MINE,OURS\n")
    ask("t.csv", "-i")
    after = (at / "t.csv").read_text()
    assert after.startswith("text,output,output_error,output_2,output_2_error\na,MINE,OURS,Sim")
    # A step of its own has a column of its own; both can be gone on with.
    ask("t.csv", "-i", "-p", "Title of {text}", "--output-column", "title")
    both = (at / "t.csv").read_text()
    assert "output_2,output_2_error,title,title_error\n" in both
    ask("t.csv", "-i")
    ask("t.csv", "-i", "-p", "Title of {text}", "--output-column", "title")
    assert (at / "t.csv").read_text() == both
    assert sum(provider.stats.questions.values()) == 2
    refused = ask("t.csv", "-i", "--output-column", "text", code=2)
    assert "already has a column 'text'" in refused.output


def test_a_resumed_run_adds_what_is_new(at, provider):
    write_lines(at / "in.jsonl", {"text": "a"}, {"text": "b"})
    ask("in.jsonl", "-i")
    with (at / "in.jsonl").open("a") as file:
        file.write('{"text": "c"}\n')
    ask("in.jsonl", "-i")
    assert [list(row) for row in lines(at / "in.jsonl")] == [["text", "output", "output_error"]] * 3
    assert sum(provider.stats.questions.values()) == 3


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.txt"])
def test_empty_files(at, provider, name):
    (at / name).write_bytes(b"")
    assert "has no rows" in ask(name, "-p", "{text}", "-o", "out.jsonl").stderr
    assert (at / "out.jsonl").read_bytes() == b""
    if not name.endswith("txt"):
        ask(name, "-p", "{text}", "-i")
        assert (at / name).read_bytes() == b""
    if name.endswith("csv"):
        (at / name).write_bytes(b"id,text\n")
        ask(name, "-p", "{text}", "-i")
        assert (at / name).read_bytes() == b"id,text,output,output_error\n"
    ask(name, "-p", "{text}", "-o", "out.csv")
    assert ",error,error_category," in (at / "out.csv").read_text()


def test_what_is_wrong_with_a_file_is_found_before_anything_is_sent(at, provider):
    good = b"".join(b"%d,plain\n" % number for number in range(500))
    for content, said in (
        (b"id,text\n" + good + b"9,caf\xe9\n", "f.csv, line 502 is not UTF-8: byte 0xe9 at character 6.*--encoding"),
        (b'id,text\n1,"two\nlines"\n2,"abc" said he\n', "f.csv, line 4: "),
        (b'id,text\n1,a\n2,"never closed\n3,b\n', "f.csv, line 3: .*quote"),
        (b"id,text,id\n1,a,2\n", "f.csv has 2 columns 'id'"),
        (b"id,text,,\n1,a,2,3\n", "f.csv has 2 columns without a name"),
        (b"id,body\n1,a\n", "there is no column 'text'; the columns are 'id', 'body'"),
    ):
        (at / "f.csv").write_bytes(content)
        done = ask("f.csv", "-p", "{text}", "-o", "out.csv", code=1)
        assert re.search(said, done.stderr), done.stderr
        assert not (at / "out.csv").exists()
    write_lines(at / "f.jsonl", "[", "{", "  1")
    assert "line 1 is not JSON" in ask("f.jsonl", "-o", "out.jsonl", code=1).stderr
    assert provider.stats.requests == 0


def test_encodings(at, provider):
    (at / "in.csv").write_bytes("text\ncaf\u00e9 \u20ac\n".encode("cp1252"))
    ask("in.csv", "-o", "out.csv", "--encoding", "cp1252")
    assert "caf\u00e9 \u20ac," in (at / "out.csv").read_text("utf-8")
    assert "give -o FILE" in ask("in.csv", "-i", "--encoding", "cp1252", code=2).output
    assert "unknown encoding 'utf-9'" in ask("in.csv", "-o", "o.csv", "--encoding", "utf-9", code=2).output
    (at / "u.jsonl").write_bytes('{"text": "caf\u00e9"}\r\n'.encode("utf-16"))
    ask("u.jsonl", "-i")
    text = (at / "u.jsonl").read_bytes().decode("utf-16")
    assert text.startswith('{"text": "caf\u00e9", "output": "')
    assert text.endswith("\r\n")


def test_plain_lines_of_windows(at, provider):
    (at / "in.txt").write_bytes(b"One?\r\nTwo?\r\n")
    ask("in.txt", "-o", "out.jsonl")
    assert set(provider.stats.questions) == {"One?", "Two?"}


def test_halves_within_messages_are_said_too(at, provider):
    messages = [{"role": "user", "content": "half \ud83d"}]
    write_lines(at / "in.jsonl", {"messages": messages}, {"messages": [{"role": "user", "content": "ok"}]})
    ask("in.jsonl", "-o", "out.jsonl", code=3)
    first, second = lines(at / "out.jsonl")
    assert (first["error"], first["error_category"]) == (
        "invalid row: the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it",
        "invalid_input",
    )
    assert first["messages"] == messages
    assert second["output"]


def test_an_encoding_that_writes_marks_writes_one(at, provider):
    (at / "in.csv").write_bytes("text\na\nb\n".encode("utf-16-le"))
    ask("in.csv", "-i", "--encoding", "utf-16")
    text = (at / "in.csv").read_bytes().decode("utf-16-le")
    assert "\ufeff" not in text
    assert text.count("\n") == 3
    done = ask("in.csv", "-o", "out.csv", "--encoding", "utf-16")
    assert "already has a column 'output'; the new column is 'output_2'" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output-column", "id"], "already has a column 'id'"),
        (["--output-column", "error"], "two new columns would be called 'error'"),
        (["--column-prefix", "my_"], "already has a column 'my_model'; choose another name with --column-prefix"),
        (["--output-column", "x", "-i"], "already has a column 'x_error'; choose another name with --output-column"),
    ],
)
def test_names_that_are_taken_are_refused(at, provider, options, said):
    write_lines(at / "in.jsonl", {"text": "a", "my_model": 1, "x_error": 2})
    output = [] if "-i" in options else ["-o", "out.jsonl"]
    assert said in ask("in.jsonl", *output, *options, code=2).output
    assert provider.stats.requests == 0


def test_the_column_in_the_way_is_named(at, provider):
    (at / "in.csv").write_text("text,output_error\na,theirs\n")
    done = ask("in.csv", "-i")
    assert done.stderr.count("already") == 1
    assert "already has a column 'output_error'; the new column is 'output_2'" in done.stderr


def test_a_picture_that_is_a_link_to_itself_costs_its_row(at, provider):
    (at / "loop.png").symlink_to("loop.png")
    write_lines(
        at / "in.jsonl", {"text": "a", "photo": "loop.png"}, {"text": "b", "photo": "data:image/png;base64,AA=="}
    )
    ask("in.jsonl", "-p", "{text}", "--image", "photo", "-o", "o.jsonl", code=3)
    first, second = lines(at / "o.jsonl")
    assert "photo" in first["error"]
    assert second["error"] is None
