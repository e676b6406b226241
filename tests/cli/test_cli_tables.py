"""Tables of the command line: CSV is copied to the letter, Parquet in Arrow, and types hold every value."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import random

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from batch_llm.cli import kinds, parquet, spool, tables, texts

from ..cli_helpers import answering, ask, call, lines, write_lines


def read(path):
    return pyarrow.parquet.read_table(path)


def cells(path, **options):
    return list(csv.reader(io.StringIO(path.read_text("utf-8"), newline=""), **options))


# CSV


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("is_ended", [True, False])
def test_csv_in_place_is_copied_to_the_letter(at, provider, bom, end, is_ended):
    header = 'id,text,"no,te",n'
    rows = ['01,"quoted needlessly",,1.50', f'2,"two{end}lines ""said""", spaced ,+1', '3,caf\u00e9,"",1e5']
    content = end.join([header, *rows]) + (end if is_ended else "")
    (at / "in.csv").write_bytes(bom + content.encode())
    ask("in.csv", "-i", "-p", "{text}")
    after = (at / "in.csv").read_bytes()
    assert after.startswith(bom + (header + ",output,output_error" + end).encode())
    for row in rows:
        assert (row + ",Simulated").encode() in after
    assert after.endswith(b"\n") == is_ended
    assert after.count(b"\r\n") == (0 if end == "\n" else after.count(b"\n"))
    ask("in.csv", "-i", "-p", "{text}")
    assert (at / "in.csv").read_bytes() == after


def test_blank_lines_of_csv_stay_where_they_are(at, provider):
    (at / "in.csv").write_bytes(b'\r\n"id","text"\r\n\r\n\r\n1,a\r\n\r\n2,b\r\n\r\n')
    ask("in.csv", "-i", "-p", "{text}")
    after = (at / "in.csv").read_bytes()
    assert after.startswith(b'\r\n"id","text","output","output_error"\r\n\r\n\r\n1,a,"Simulated')
    assert b'\r\n\r\n2,b,"Simulated' in after
    assert after.endswith(b"\r\n\r\n")
    ask("in.csv", "-i", "-p", "{text}")
    assert (at / "in.csv").read_bytes() == after
    assert len(cells(at / "in.csv")) == 3 + 5


def test_quotes_delimiters_and_encodings_of_csv_are_kept(at, provider):
    content = '"id";"text"\r\n"1";"a;b"\r\n'.encode("utf-16")
    (at / "in.csv").write_bytes(content)
    ask("in.csv", "-i", "-p", "{text}", "--delimiter", ";")
    after = (at / "in.csv").read_bytes()
    assert after[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = after.decode("utf-16")
    assert text.startswith('"id";"text";"output";"output_error"\r\n"1";"a;b";"Simulated')
    assert text.endswith(';""\r\n')
    (at / "in.csv").write_bytes(content)
    ask("in.csv", "-o", "out.csv", "--delimiter", ";")
    out = (at / "out.csv").read_bytes()
    assert out.startswith(b"\xef\xbb\xbfid;text;output;error;")
    assert out.endswith(b"\r\n")
    assert b'\n1;"a;b";"Simulated' in out


def test_columns_of_ours_in_the_middle_are_written_anew(at, provider):
    (at / "in.csv").write_text('text,b\n"x, y",1\nz,2\n')
    ask("in.csv", "-i")
    rows = cells(at / "in.csv")
    (at / "in.csv").write_text("text,output,b,output_error\n" + 'z,old,2,e\n"x, y",old,1,e\n')
    ask("in.csv", "-i")
    assert cells(at / "in.csv") == [rows[0], rows[2], rows[1]]


def test_late_columns_and_optional_fields_of_csv(at, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 5000)
    write_lines(at / "in.jsonl", *({"text": str(n), **({"late": n} if n == 1199 else {})} for n in range(1200)))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
    (at / "s.json").write_text(json.dumps(schema))
    with answering(lambda prompt: {"a": int(prompt), **({"more": [1, 2.50]} if int(prompt) > 1190 else {})}) as url:
        call(
            "run", "in.jsonl", "-m", "openai-compatible:m", "--base-url", url, "--schema", "s.json", "-o", "out.csv",
            "-q", "-c", "16",
        )  # fmt: skip
    rows = cells(at / "out.csv")
    assert rows[0][:6] == ["id", "text", "late", "output.a", "output.b", "output.more"]
    assert len(rows) == 1201
    assert all(row[1] == row[3] for row in rows[1:])
    assert rows[-1][:6] == ["row-1200", "1199", "1199", "1199", "", "[1, 2.5]"]


def test_cells_of_any_length(at, provider):
    long = "x" * 1_000_000
    (at / "in.csv").write_text(f"text,long\na,{long}\n")
    ask("in.csv", "-i")
    csv.field_size_limit(10**9)
    row = cells(at / "in.csv")[1]
    assert row[:2] == ["a", long]
    assert row[2].startswith("Simulated")


def test_formulas_are_escaped_where_it_is_wished(at):
    rows = ["=1+1", "+cmd|' /C calc'!A0", "@x", "-2", "-2+3", " =x", "1=1", "\t=x"]
    with (at / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([row] for row in rows)])
    before = (at / "in.csv").read_bytes()
    with answering(lambda prompt: "=HYPERLINK(1)") as url:
        common = ("in.csv", "-m", "openai-compatible:m", "--base-url", url, "-q", "--no-store")
        call("run", *common, "-o", "plain.csv")
        call("run", *common, "-o", "safe.csv", "--escape-formulas")
        call("run", *common, "-i", "--escape-formulas")
    assert [row[1] for row in cells(at / "plain.csv")[1:]] == rows
    safe = cells(at / "safe.csv")[1:]
    assert [row[1] for row in safe] == [
        "'=1+1", "'+cmd|' /C calc'!A0", "'@x", "-2", "'-2+3", "' =x", "1=1", "'\t=x"
    ]  # fmt: skip
    assert {row[2] for row in safe} == {"'=HYPERLINK(1)"}
    # In place what is there stays.
    after = (at / "in.csv").read_bytes()
    assert [line.split(b",'=HYPER")[0] for line in after.split(b"\r\n")[1:-1]] == before.split(b"\r\n")[1:-1]


def test_lines_of_csv_are_split_as_the_library_does():
    random.seed(7)
    for _ in range(2000):
        row = ["".join(random.choices('a",;\n\r \u00e9', k=random.randrange(6))) for _ in range(random.randrange(2, 6))]
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            for delimiter in ",;\t|":
                buffer = io.StringIO(newline="")
                csv.writer(buffer, delimiter=delimiter, quoting=quoting).writerow(row)
                found, end = tables.split(buffer.getvalue(), delimiter)
                assert next(csv.reader(io.StringIO(delimiter.join(found), newline=""), delimiter=delimiter)) == row
                assert (len(found), end) == (len(row), "\r\n")


# Parquet


EVERYTHING = {
    "uint64": pyarrow.array([2**64 - 1, None, 1], pyarrow.uint64()),
    "map": pyarrow.array([[("k", 1)], None, []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "time64": pyarrow.array([123456789, None, 1], pyarrow.time64("ns")),
    "when": pyarrow.array([1, None, 2**62], pyarrow.timestamp("ns", "Europe/Berlin")),
    "span": pyarrow.array([1, None, 3], pyarrow.duration("ns")),
    "kind": pyarrow.array(["a", None, "b"]).dictionary_encode(),
    "decimal": pyarrow.array([decimal.Decimal("1.10"), None, decimal.Decimal("0.00")], pyarrow.decimal128(30, 2)),
    "date": pyarrow.array([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)]),
    "bytes": pyarrow.array([b"\xff\x00", None, b""]),
    "half": pyarrow.array([1.5, None, float("nan")], pyarrow.float32()),
    "nested": pyarrow.array(
        [{"a": [{"b": 2**60}]}, None, {"a": None}],
        pyarrow.struct([("a", pyarrow.list_(pyarrow.struct([("b", pyarrow.uint64())])))]),
    ),
    "large": pyarrow.array(["x", None, "y"], pyarrow.large_string()),
    "none": pyarrow.nulls(3),
    "a.b": pyarrow.array([1, 2, 3], pyarrow.int8()),
    # Without a null: some versions of the library cannot read theirs again.
    "fixed": pyarrow.array([[1, 2], [5, 6], [3, 4]], pyarrow.list_(pyarrow.int16(), 2)),
}


def everything():
    fields = [pyarrow.field("text", pyarrow.string(), metadata={"unit": "words"})]
    fields += [pyarrow.field(name, array.type) for name, array in EVERYTHING.items()]
    schema = pyarrow.schema(fields, {"license": "CC-BY"})
    return pyarrow.Table.from_arrays([pyarrow.array(["x", "y", "z"]), *EVERYTHING.values()], schema=schema)


def equal(one, other):
    """Whether two tables are the same; "half" has NaN, which equals nothing."""
    assert one.schema.equals(other.schema, check_metadata=True)
    assert str(one["half"].to_pylist()) == str(other["half"].to_pylist())
    return all(one[name].equals(other[name]) for name in one.column_names if name != "half")


@pytest.mark.parametrize("rows", [3, 600])
def test_columns_of_parquet_are_copied_whatever_they_are(at, provider, rows, monkeypatch):
    if rows > 3:
        monkeypatch.setattr(parquet, "PORTION", 16)
        monkeypatch.setattr(parquet, "GROUP", 200)
    table = pyarrow.concat_tables([everything()] * (rows // 3))
    pyarrow.parquet.write_table(table, at / "t.parquet", compression="zstd")
    before = read(at / "t.parquet")
    ask("t.parquet", "-i", "-p", "{text}", "-c", "100")
    for _ in range(2):
        after = read(at / "t.parquet")
        assert after.column_names == [*before.column_names, "output", "output_error"]
        kept = after.select(before.column_names)
        metadata = {name: value for name, value in after.schema.metadata.items() if name != parquet.NOTE}
        assert equal(kept.replace_schema_metadata(metadata), before)
        assert all(str(one).startswith("Simulated") for one in after["output"].to_pylist())
        column = pyarrow.parquet.ParquetFile(at / "t.parquet").metadata.row_group(0).column(0)
        assert column.compression == "ZSTD"
        ask("t.parquet", "-i", "-p", "{text}")
    assert provider.stats.requests == rows
    ask("t.parquet", "-o", "o.parquet", "-p", "{text}", "--limit", "2", "--unordered")
    out = read(at / "o.parquet")
    assert out.column_names[0] == "id"
    assert out["id"].to_pylist() == ["row-1", "row-2"]
    assert out["when"].equals(before["when"].slice(0, 2))
    assert out["output"].equals(after["output"].slice(0, 2)), "the column of the input stays"


def test_parquet_as_json_and_csv(at, provider):
    pyarrow.parquet.write_table(everything(), at / "t.parquet")
    ask("t.parquet", "-p", "{text} {uint64}", "-o", "out.jsonl", code=3)
    first, second, third = lines(at / "out.jsonl")
    assert (first["uint64"], first["nested"], first["decimal"]) == (2**64 - 1, {"a": [{"b": 2**60}]}, "1.10")
    assert (first["bytes"], third["half"]) == ("/wA=", None)
    assert first["time64"].endswith(".123456789")
    assert second["error"] == "invalid row: 'uint64' is null"
    ask("t.parquet", "-p", "{text} {time64}", "-o", "out.csv", code=3)
    assert cells(at / "out.csv")[1][2] == str(2**64 - 1)


def test_an_index_of_pandas_stays(at, provider):
    frame = pandas.DataFrame({"text": ["a", "b"], "n": [1.5, None]}, index=pandas.Index(["r1", "r2"], name="key"))
    frame.to_parquet(at / "p.parquet")
    ask("p.parquet", "-i", "-p", "{text}")
    after = pandas.read_parquet(at / "p.parquet")
    pandas.testing.assert_frame_equal(after[["text", "n"]], frame)
    assert list(after.columns) == ["text", "n", "output", "output_error"]
    known = json.loads(pyarrow.parquet.read_schema(at / "p.parquet").metadata[b"pandas"])
    assert [column["field_name"] for column in known["columns"]][-2:] == ["output", "output_error"]
    pandas.DataFrame({"text": list("abc")}, index=pandas.RangeIndex(5, 8)).to_parquet(at / "r.parquet")
    ask("r.parquet", "-i", "-p", "{text}")
    assert list(pandas.read_parquet(at / "r.parquet").index) == [5, 6, 7]


def test_a_table_without_rows(at, provider):
    pyarrow.parquet.write_table(everything().slice(0, 0), at / "e.parquet")
    assert "has no rows" in ask("e.parquet", "-i", "-p", "{text}").stderr
    assert read(at / "e.parquet").schema.field("when").type == EVERYTHING["when"].type
    (at / "e.jsonl").write_text("")
    ask("e.jsonl", "-p", "{text}", "-o", "o.parquet")
    assert read(at / "o.parquet").column_names[:2] == ["id", "output"]


def test_types_hold_what_comes_late(at, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 5000)
    monkeypatch.setattr(parquet, "GROUP", 500)
    rows = [{"text": str(n), "id": n, "mixed": n, "big": n, "huge": n, "far": n, "late": None} for n in range(1500)]
    rows[-1].update(mixed="x", big=2**63, huge=10**30, far=10**50, late={"a": [1, None, 2.5]})
    rows[-2].update(late={"b": "\ud83d"})
    write_lines(at / "in.jsonl", *rows, '{"text": "1500", "id": 1500, "exact": 0.1234567890123456789, "wide": 1e400}')
    properties = {
        "score": {"type": "number"}, "why": {"type": "string"}, "n": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    }  # fmt: skip
    (at / "s.json").write_text(json.dumps({"type": "object", "properties": properties, "required": ["score"]}))

    def answer(prompt):
        n = int(prompt)
        return {
            "score": n,
            **({"score": 3.5, "why": "b", "n": 5, "tags": ["t"], "extra": {"x": 1}} if n > 1490 else {}),
        }

    with answering(answer) as url:
        call(
            "run", "in.jsonl", "-m", "openai-compatible:m", "--base-url", url, "--schema", "s.json",
            "-o", "o.parquet", "-q", "-c", "16", "-p", "{text}",
        )  # fmt: skip
    table = read(at / "o.parquet")
    last = table.slice(1499, 1).to_pylist()[0]
    assert table.column_names[:4] == ["text", "id", "mixed", "big"]
    assert table["id"].to_pylist() == list(range(1501))
    assert (last["mixed"], last["big"], last["huge"], last["far"]) == (
        "x", 2**63, decimal.Decimal(10**30), str(10**50)
    )  # fmt: skip
    assert table["mixed"][3].as_py() == "3"
    assert last["late"] == {"b": None, "a": [1.0, None, 2.5]}
    assert table["late"][1498].as_py()["b"] == "\ufffd"
    assert (table["exact"][1500].as_py(), table["wide"][1500].as_py()) == ("0.1234567890123456789", "1e400")
    assert (last["output.score"], last["output.why"], last["output.n"], last["output.tags"]) == (3.5, "b", 5, ["t"])
    assert last["output.extra"] == {"x": 1}
    assert table.schema.field("output.score").type == pyarrow.float64()
    assert table["output.score"][7].as_py() == 7.0
    assert table.schema.field("output_tokens").type == pyarrow.int64()


def test_integers_beside_fractions_lose_no_digits():
    kind = kinds.Kind()
    for text in ("1", "2.5", str(2**53 + 1)):
        kind.add(texts.read(text))
    assert kind.arrow(pyarrow) == pyarrow.string()
    assert [kind.fit(texts.read(text)) for text in ("2.50", str(2**53 + 1))] == ["2.50", str(2**53 + 1)]


def test_every_value_fits_its_column():
    random.seed(3)

    def value(depth):
        simple = [None, True, 1, -1, 2**63, 2**64, -(2**63) - 1, 10**38, 10**60, 1.5, 2.0**70, "x", "\ud83d", ""]
        if depth == 0 or random.random() < 0.5:
            return random.choice(simple)
        if random.random() < 0.5:
            return [value(depth - 1) for _ in range(random.randrange(3))]
        return {random.choice("abc\ud83d"): value(depth - 1) for _ in range(random.randrange(3))}

    for _ in range(3000):
        written = [json.dumps(value(3)) for _ in range(random.randrange(1, 5))]
        kind = kinds.Kind()
        for text in written:
            kind.add(texts.read(text))
        array = pyarrow.array([kind.fit(texts.read(text)) for text in written], kind.arrow(pyarrow))
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"c": array}), sink)
        assert pyarrow.parquet.read_table(sink.getvalue())["c"].to_pylist() == array.to_pylist()


def test_an_object_with_very_many_names_is_text():
    kind = kinds.Kind()
    for number in range(1000):
        kind.add({f"n{number}": 1})
    assert kind.arrow(pyarrow) == pyarrow.string()
    assert kind.fit({"n1": 1}) == '{"n1": 1}'
    deep = texts.read("[" * 200 + "]" * 200)
    kind = kinds.Kind()
    kind.add(deep)
    pyarrow.array([kind.fit(deep)], kind.arrow(pyarrow))


def test_a_table_that_changes_meanwhile_is_not_copied(at, provider, monkeypatch):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), at / "t.parquet")
    write = parquet.Copied.write

    def meanwhile(self, row, result):
        write(self, row, result)
        pyarrow.parquet.write_table(pyarrow.table({"text": ["z"]}), at / "t.parquet")

    monkeypatch.setattr(parquet.Copied, "write", meanwhile)
    assert "changed while it was being read" in ask("t.parquet", "-o", "o.parquet", code=1).stderr
    assert not (at / "o.parquet").exists()

    def replaced(self, row, result):
        write(self, row, result)
        pyarrow.parquet.write_table(pyarrow.table({"text": ["another"]}), at / "new.parquet")
        (at / "new.parquet").replace(at / "r.parquet")

    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), at / "r.parquet")
    monkeypatch.setattr(parquet.Copied, "write", replaced)
    ask("r.parquet", "-o", "o.parquet")
    assert read(at / "o.parquet")["text"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("answer", ["two\nlines", "an old\rline", "both\r\nends", "ends\n", 'a "quote", a comma'])
@pytest.mark.parametrize("target", ["in place", "o.csv", "o.tsv"])
def test_answers_of_several_lines_stay_one_cell(at, monkeypatch, target, answer, end):
    (at / "in.csv").write_bytes(f"id,text{end}1,first{end}2,second{end}".encode())
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with answering(lambda prompt: answer) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        where = ("-i",) if target == "in place" else ("-o", target)
        call("run", "in.csv", "-m", "openai-compatible:m", "--base-url", url, "-p", "{text}", "-q", *where)
    written = at / ("in.csv" if target == "in place" else target)
    delimiter = "\t" if target == "o.tsv" else ","
    with written.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=delimiter, strict=True))
    assert [row["output"] for row in rows] == [answer, answer]
