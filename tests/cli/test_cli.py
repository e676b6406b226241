"""The command line: files in, files out."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from batch_llm import inspect
from batch_llm.testing import Fault, SimulatedProvider

from ..cli_helpers import ask, call, lines

ROWS = [{"id": f"r{number}", "text": f'Text {number}, with "quotes"', "page": str(number)} for number in range(50)]


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path):
    if path.suffix == ".jsonl":
        return lines(path)
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("source", [".jsonl", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("target", [".jsonl", ".csv", ".parquet"])
def test_a_file_in_and_a_file_out(at, provider, source, target):
    write(at / f"in{source}")
    ask(f"in{source}", "-p", "Summarise: {text} ({page})", "-o", f"sub/out{target}")
    found = read(at / "sub" / f"out{target}")
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert [row["text"] for row in found] == [row["text"] for row in ROWS]
    assert all(f"Summarise: Text {row['page']}, with" in row["output"] for row in found)
    assert {str(row["finish_reason"]) for row in found} == {"stop"}
    assert not [name for name in os.listdir(at / "sub") if name.endswith(".part")]


def test_plain_lines_through_a_pipe(at, provider):
    done = ask("-", "--format", "lines", stdin="One?\n\nTwo?\n")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["One?", "Two?"]
    assert not list(at.iterdir()), "nothing is kept for what goes to stdout"
    assert "2 of 2 answered" in done.stderr


def test_messages_and_prompts_are_found(at, provider):
    rows = [{"messages": [{"role": "user", "content": "Hello"}]}, {"prompt": "Hi"}]
    write(at / "in.jsonl", rows)
    ask("in.jsonl", "-o", "out.jsonl", "-s", "Be brief.")
    assert [row["id"] for row in lines(at / "out.jsonl")] == ["row-1", "row-2"]
    assert set(provider.stats.questions) == {"Hello", "Hi"}


def test_answers_with_a_schema_are_columns(at, provider):
    (at / "schema.json").write_text(
        json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    )
    write(at / "in.csv")
    for name in ("out.csv", "out.parquet", "out.jsonl"):
        ask("in.csv", "-p", "{text}", "--schema", "schema.json", "-o", name, "--limit", "5")
    assert all(row["output.n"].lstrip("-").isdigit() for row in read(at / "out.csv"))
    assert all(isinstance(row["output.n"], int) for row in read(at / "out.parquet"))
    assert all(isinstance(row["output"]["n"], int) for row in lines(at / "out.jsonl"))


def test_the_same_command_goes_on(at, provider):
    write(at / "in.jsonl")
    done = ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl", "--limit", "20", "--json")
    assert json.loads(done.stderr)["succeeded"] == 20
    done = ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl", "--json")
    summary = json.loads(done.stderr)
    assert (summary["total"], summary["reused"], summary["termination"]) == (50, 20, "completed")
    assert provider.stats.requests == 50
    assert len(lines(at / "out.jsonl")) == 50
    # A new column is no new question, another temperature is.
    write(at / "in.jsonl", [{**row, "more": 1} for row in ROWS])
    ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl")
    assert provider.stats.requests == 50
    ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl", "--temperature", "0.5", "--limit", "5")
    assert provider.stats.requests == 55
    ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl", "--limit", "5", "--force")
    assert provider.stats.requests == 60
    ask("in.jsonl", "-p", "{text}", "-o", "other.jsonl", "--no-store", "--limit", "5")
    assert provider.stats.requests == 65
    assert not (at / "other.jsonl.store.db").exists()
    for name in ("a", "b"):
        ask("in.jsonl", "-p", "{text}", "-o", f"{name}.jsonl", "--cache", "cache.db", "--limit", "5")
    assert provider.stats.requests == 70


def batch_request(number, **body):
    messages = [{"role": "user", "content": f"Question {number}"}]
    return {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-5-mini", "messages": messages, **body},
    }


def test_files_for_the_batch_api_give_what_it_gives(at, provider, monkeypatch):
    rows = [batch_request(1), batch_request(2, temperature=0.5, max_completion_tokens=3, user="me")]
    write(at / "batch.jsonl", rows)
    call("run", "batch.jsonl", "-o", "out.jsonl", "-q")
    first, second = lines(at / "out.jsonl")
    assert (first["custom_id"], first["error"]) == ("request-1", None)
    assert first["response"]["status_code"] == 200
    body = first["response"]["body"]
    assert body["choices"][0]["message"]["content"].endswith("Question 1")
    assert body["usage"]["prompt_tokens"] > 0
    assert second["response"]["body"]["choices"][0]["finish_reason"] == "length"
    # Again, from the store, and by another provider.
    call("run", "batch.jsonl", "-o", "out.jsonl", "-q")
    assert provider.stats.requests == 2
    assert lines(at / "out.jsonl")[0]["response"]["body"]["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": body["choices"][0]["message"]["content"]},
         "finish_reason": "stop"}
    ]  # fmt: skip
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
    call("run", "batch.jsonl", "-m", "anthropic:claude-x", "--base-url", f"{provider.url}/v1", "-o", "c.jsonl", "-q")
    assert "Question 1" in lines(at / "c.jsonl")[0]["response"]["body"]["choices"][0]["message"]["content"]


def test_failures_are_rows_too_and_an_exit_code(at, monkeypatch):
    with SimulatedProvider(faults=[Fault(400, every=2)]) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        write(at / "in.csv")
        done = ask("in.csv", "-p", "{text}", "-o", "out.csv", "-c", "1", "--limit", "10", code=3)
        assert "5 failed: client_error" in done.stderr
        assert "To resume from" in done.stderr
        found = read(at / "out.csv")
        assert [bool(row["output"]) for row in found] == [True, False] * 5
        assert found[1]["error_category"] == "client_error"
        failed = call("inspect", "out.csv.store.db", "--failed").stdout.splitlines()
        assert len(failed) == 5
        write(at / "batch.jsonl", [batch_request(1), batch_request(2)])
        call("run", "batch.jsonl", "-o", "b.jsonl", "-q", "-c", "1", code=3)
        assert lines(at / "b.jsonl")[1]["response"]["status_code"] == 400


def test_a_budget_ends_a_run_early(at, provider):
    write(at / "in.jsonl")
    done = ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl", "--budget", "0.0005", "--max-tokens", "50", code=4)
    assert "ended early" in done.stderr
    assert "To resume from out.jsonl.store.db, run the same command again\n" in done.stderr + "\n"
    assert "--failed" not in done.stderr


def test_a_dry_run_needs_no_key(at, monkeypatch):
    write(at / "in.jsonl")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "50 requests" in ask("in.jsonl", "-p", "{text}", "--dry-run").stdout


def test_a_dry_run_sends_nothing(at, provider):
    write(at / "in.jsonl")
    done = ask("in.jsonl", "-p", "{text}", "--dry-run", "--max-tokens", "100")
    assert re.search(
        r"50 requests, about [\d,]+ prompt tokens; .*\nat most 5,000 answer tokens\nabout \$0\.01", done.stdout
    )
    done = ask("in.jsonl", "-p", "{text}", "--dry-run")
    assert "--max-tokens" in done.stdout
    assert provider.stats.requests == 0
    assert {path.name for path in at.iterdir()} == {"in.jsonl"}


def test_a_report(at, provider):
    write(at / "in.jsonl")
    ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl", "--report", "run.html", "--unordered")
    assert "<html" in (at / "run.html").read_text()


@pytest.mark.parametrize(
    ("content", "arguments", "code", "words"),
    [
        ('{"a": 1}\n', ["-o", "out.jsonl"], 1, r"row 1 has no prompt.*'a'.*--prompt"),
        ('{"a": 1}\n', ["-p", "{b}", "-o", "out.jsonl"], 1, "no column 'b'"),
        ('{"a": 1\n', ["-o", "out.jsonl"], 1, "line 1 is not JSON"),
        ("[1]\n", ["-o", "out.jsonl"], 1, "line 1 must be a JSON object"),
        ('{"a": 1}\n', ["-p", "{", "-o", "out.jsonl"], 2, "brace"),
        ('{"a": 1}\n', ["-p", "{}", "-o", "out.jsonl"], 2, "placeholder names a column"),
        ('{"prompt": "a"}\n', ["-o", "out.xyz"], 2, "unknown file type"),
        ('{"prompt": "a"}\n', ["-o", "out.jsonl", "-c", "many"], 2, "auto"),
        ('{"prompt": "a"}\n', ["-o", "out.jsonl", "--schema", "no.json"], 2, "no.json"),
        ('{"prompt": "a"}\n', ["-o", "out.jsonl", "--image", "b"], 1, "--image: there is no column"),
        ('{"prompt": "a"}\n', ["-o", "out.jsonl", "--budget", "-1"], 2, "--budget.*not in the range x>0"),
    ],
)
def test_mistakes_are_said(at, provider, content, arguments, code, words):
    (at / "in.jsonl").write_text(content)
    done = ask("in.jsonl", *arguments, code=code)
    assert re.search(words, done.stderr.replace("\n", " ")), done.stderr
    assert provider.stats.requests == 0
    assert not (at / "out.jsonl").exists()


def test_mistakes_in_the_command(at, provider):
    (at / "in.jsonl").write_text('{"prompt": "a"}\n')
    assert "--model" in call("run", "in.jsonl", code=2).stderr
    assert "did you mean 'openai'" in call("run", "in.jsonl", "-m", "opanai:x", code=1).stderr
    assert "no.jsonl" in ask("no.jsonl", code=1).stderr
    assert "--format" in ask("in.what", code=2).stderr
    (at / "x.db").write_text("hello")
    assert "not an SQLite" in call("inspect", "x.db", code=1).stderr
    (at / "in.csv").write_text("a,b\n1,2,3\n")
    assert "line 2" in ask("in.csv", "-p", "{a}", code=3).stderr


def test_what_can_be_looked_up(at, provider):
    write(at / "in.jsonl")
    ask("in.jsonl", "-p", "{text}", "-o", "out.jsonl")
    assert "50 succeeded" in call("inspect", "out.jsonl.store.db").stdout
    assert json.loads(call("inspect", "out.jsonl.store.db", "--json").stdout)["succeeded"] == 50
    assert "gpt-5-mini" in call("models", "gpt", "mini").stdout
    assert set(json.loads(call("models", "gpt-5-nano", "--json").stdout)) == {"gpt-5-nano"}
    assert re.search(r"batch-llm, version \d", call("--version").stdout)
    for command in ([], ["run"], ["inspect"], ["models"]):
        assert "Usage" in call(*command, "--help").stdout
    assert "\n  batch-llm run prompts.jsonl" in call("run", "--help").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_an_interrupt_leaves_what_is_done_and_goes_on(at):
    with SimulatedProvider(latency=0.05, count_questions=True) as provider:
        environment = {**os.environ, "OPENAI_API_KEY": "any", "OPENAI_BASE_URL": provider.base_url}
        write(at / "in.jsonl", [{"prompt": f"Question {number}"} for number in range(2000)])
        command = [sys.executable, "-m", "batch_llm", "run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl"]
        process = subprocess.Popen([*command, "-c", "10"], env=environment, cwd=at, stderr=subprocess.PIPE, text=True)
        for _ in range(1000):
            if provider.stats.requests > 50:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 130, errors
        assert "interrupted" in errors
        assert "out.jsonl was not written" in errors
        assert {path.name for path in at.iterdir()} == {"in.jsonl", "out.jsonl.store.db"}
        assert 40 < inspect(at / "out.jsonl.store.db").succeeded < 2000
        done = subprocess.run([*command, "-q", "-c", "100"], env=environment, cwd=at, capture_output=True, timeout=60)
        assert done.returncode == 0
        assert len(lines(at / "out.jsonl")) == 2000
        assert max(provider.stats.questions.values()) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_answers_in_place_are_new_columns_and_the_rest_stays(at, provider, suffix):
    path = write(at / f"rows{suffix}")
    path.chmod(0o640)
    mode = path.stat().st_mode
    ask(path.name, "--in-place", "-p", "{text} of {page}")
    after = read(path)
    assert [list(row) for row in after] == [["id", "text", "page", "output", "output_error"]] * 50
    assert [{name: row[name] for name in ("id", "text", "page")} for row in after] == ROWS
    assert all("simulated" in row["output"].lower() and not row["output_error"] for row in after)
    assert path.stat().st_mode == mode
    # Again: what is there is put there again, and nothing is asked.
    asked = provider.stats.requests
    ask(path.name, "--in-place", "-p", "{text} of {page}")
    assert read(path) == after
    assert provider.stats.requests == asked


def test_in_place_types_of_a_table_stay(at, provider):
    schema = pyarrow.schema(
        [("n", pyarrow.int8()), ("when", pyarrow.timestamp("ms")), ("kind", pyarrow.dictionary(pyarrow.int32(), "str"))]
    )
    table = pyarrow.table({"n": [1, None], "when": [1000, 2000], "kind": ["a", "b"]}, schema=schema)
    pyarrow.parquet.write_table(table, "t.parquet")
    ask("t.parquet", "-i", "-p", "{n} {when} {kind}", code=3)  # nothing is asked about what is null
    after = pyarrow.parquet.read_table("t.parquet")
    assert after.select(["n", "when", "kind"]) == table
    assert after.schema.field("output").type == after.schema.field("output_error").type == pyarrow.string()


def test_in_place_a_run_that_ends_early_leaves_the_file(at, provider):
    path = write(at / "rows.csv")
    before = path.read_bytes()
    ask("rows.csv", "-i", "-p", "{text}", "--budget", "0.0000001", code=4)
    assert path.read_bytes() == before
    assert [one.name for one in at.iterdir() if one.name.endswith(".part")] == []
    ask("rows.csv", "-i", "-p", "{text}")
    assert all(row["output"] for row in read(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "-i"], "needs a file with columns"),
        (["rows.csv", "-i", "-o", "x.csv"], "--in-place and --output cannot be combined"),
        (["rows.csv", "-i", "--limit", "3"], "--in-place and --limit cannot be combined"),
        (["rows.csv", "-i", "--unordered"], "--in-place and --unordered cannot be combined"),
    ],
)
def test_in_place_goes_with_whole_files_only(at, provider, arguments, words):
    write(at / "rows.csv")
    assert words in ask(*arguments, "-p", "{text}", code=2).output


def test_it_can_be_tried_without_a_key(at, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    before = dict(os.environ)
    write(at / "in.csv")
    call("run", "in.csv", "-m", "anthropic:claude-haiku-4-5", "-p", "{text}", "-o", "out.csv", "-q", "--simulate")
    assert all("Simulated reply" in row["output"] for row in read(at / "out.csv"))
    assert dict(os.environ) == before
    refused = call("run", "in.csv", "-m", "openai:x", "--simulate", "--base-url", "http://127.0.0.1:1", code=2)
    assert "--simulate and --base-url cannot be combined" in refused.output


def test_failures_are_told_with_an_instance_of_each_kind(at, monkeypatch):
    with SimulatedProvider(faults=[Fault(401, every=2)]) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        write(at / "in.csv")
        done = ask("in.csv", "-p", "{text}", "-o", "out.csv", code=3)
    assert "25 failed: authentication, for example: ProviderError: HTTP 401" in done.output
    assert "$0.0000" not in done.output


def test_the_prompt_cache_is_used_as_chosen(at):
    (at / "long.txt").write_text("Answer in the style of a ledger. " * 500)
    write(at / "in.jsonl")
    money = {}
    for how in ("auto", "1h", "off"):
        with SimulatedProvider(prompt_caches=True) as provider, pytest.MonkeyPatch.context() as patch:
            for name, value in provider.environment.items():
                patch.setenv(name, value)
            model = ("-m", "anthropic:claude-sonnet-5", "-s", "@long.txt", "--cache-prompt", how)
            call("run", "in.jsonl", "-p", "{text}", "-o", f"{how}.jsonl", "-q", "-c", "1", *model)
            money[how] = provider.stats.prompt_caches
    assert (money["off"].written_tokens, money["off"].hits) == (0, 0)
    # The first requests may begin before it is known what they have in common.
    assert min(money["auto"].hits, money["1h"].hits) > 40
    assert money["auto"].written_tokens == money["1h"].written_tokens
    # What is kept for an hour costs more to write.
    assert money["auto"].cost < money["1h"].cost < money["off"].cost
