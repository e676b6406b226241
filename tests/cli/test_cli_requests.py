"""Files of the Batch API, and pictures: what a file of somebody else's may say, and what it may not."""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from batch_llm import Transport, llm
from batch_llm.cli import requests

from ..cli_helpers import ask, call, lines, write_lines

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def request(number, body=None, **more):
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": f"q{number}"}], **(body or {})}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


def test_bodies_are_read_by_a_list_of_fields(at, provider):
    bad = [
        ({"base_url": "http://evil"}, "a field 'base_url', which is not supported"),
        ({"transport": {}}, "'transport'"),
        ({"extra_headers": {"x": "y"}}, "'extra_headers'"),
        ({"api_key": "k"}, "'api_key'"),
        ({"raw": True}, "'raw'"),
        ({"temprature": 1}, "'temprature', which is not supported; did you mean 'temperature'?"),
        ({"background": True}, "'background'"),
        ({"seed": "x"}, "seed"),
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "x", "content": "y"}]}, "role must be"),
    ]
    rows = [request(number, body) for number, (body, _) in enumerate(bad)]
    rows += [
        request(90, body=None, url="/v1/embeddings"),
        {**request(91), "body": "text"},
        {**request(92), "body": {"messages": [{"role": "user", "content": "a"}]}},
        '{"custom_id": "r93", "body"',
    ]
    said = [
        *(words for _, words in bad),
        "'/v1/embeddings'",
        "must be an object, not str",
        "names no model",
        "not JSON",
    ]
    good = request(99, {"stream": True, "stream_options": {}, "top_p": 0.5, "user": "me", "seed": None})
    write_lines(at / "b.jsonl", good, *rows, request(100))
    done = call("run", "b.jsonl", "-o", "out.jsonl", "-q", code=3)
    assert f"invalid rows: {len(rows)}" in done.stderr
    found = lines(at / "out.jsonl")
    assert [row["custom_id"] for row in found] == [
        "r99", *(f"r{number}" for number in range(len(bad))), "r90", "r91", "r92", None, "r100"
    ]  # fmt: skip
    assert found[0]["response"]["status_code"] == found[-1]["response"]["status_code"] == 200
    for row, words in zip(found[1:-1], said, strict=True):
        assert row["error"]["code"] == "invalid_input"
        assert words in row["error"]["message"]
        assert row["response"] is None
    assert set(provider.stats.questions) == {"q99", "q100"}


def test_requests_of_the_other_endpoint(at, provider):
    body = {"model": "gpt-5-mini", "input": "hello", "instructions": "Be brief.", "max_output_tokens": 50}
    write_lines(at / "b.jsonl", {"custom_id": 7, "url": "/v1/responses", "method": "POST", "body": body})
    call("run", "b.jsonl", "-o", "out.jsonl", "-q")
    row = lines(at / "out.jsonl")[0]
    assert row["custom_id"] == 7
    assert row["response"]["status_code"] == 200
    call("run", "b.jsonl", "-o", "out.parquet", "-q")
    assert pyarrow.parquet.read_schema(at / "out.parquet").names == ["id", "custom_id", "response", "error"]


def test_a_column_named_body_makes_no_request(at, provider):
    write_lines(at / "in.jsonl", {"custom_id": 1, "body": "Dear all", "text": "a"})
    ask("in.jsonl", "-p", "{body}", "-o", "out.jsonl")
    assert set(provider.stats.questions) == {"Dear all"}


def test_a_line_that_is_no_request_among_requests(at, provider):
    write_lines(at / "b.jsonl", request(1), {"text": "hello"})
    call("run", "b.jsonl", "-o", "out.jsonl", "-q", code=3)
    assert "to send other rows, set --model" in lines(at / "out.jsonl")[1]["error"]["message"]


def test_bodies_that_differ_share_one_client(at, provider):
    write_lines(at / "b.jsonl", *(request(number, {"seed": number}) for number in range(1500)))
    environment = {**os.environ, "OPENAI_API_KEY": "any", "OPENAI_BASE_URL": provider.base_url}
    command = [sys.executable, "-m", "batch_llm", "run", "b.jsonl", "-o", "out.jsonl", "-q", "-c", "20"]
    process = subprocess.Popen(command, cwd=at, env=environment, stderr=subprocess.PIPE)
    descriptors = 0
    while process.poll() is None:
        if sys.platform == "linux":
            try:
                descriptors = max(descriptors, len(os.listdir(f"/proc/{process.pid}/fd")))
            except OSError:
                break
        time.sleep(0.01)
    assert process.wait(60) == 0, process.communicate()
    process.stderr.close()
    assert descriptors < 60
    assert len(lines(at / "out.jsonl")) == 1500


def test_who_has_the_same_transport_shares_connections():
    transport = Transport()
    assert transport == Transport(), "which one it is, is no part of what it says"
    assert transport._spec["shared"] != Transport()._spec["shared"]
    assert copy.copy(transport)._spec == transport._spec
    made = requests.Strategies(llm, has_model=False)
    assert made._transport._spec["shared"] != transport._spec["shared"]


@pytest.fixture
def pictures(at):
    (at / "sub").mkdir()
    (at / "sub" / "in").mkdir()
    (at / "sub" / "a.png").write_bytes(PNG)
    (at / "secret.png").write_bytes(PNG)
    (at / "sub" / "link.png").symlink_to(at / "secret.png")
    (at / "sub" / "in" / "inner.png").symlink_to(at / "sub" / "a.png")
    return at


def test_pictures_are_below_the_folder_of_the_file(pictures, provider):
    good = ["a.png", "./in/../a.png", str(pictures / "sub" / "a.png"), "in/inner.png", "https://example.com/x.png",
            "data:image/png;base64," + base64.b64encode(PNG).decode()]  # fmt: skip
    bad = ["../secret.png", "link.png", str(pictures / "secret.png"), "/etc/passwd", "file:///etc/passwd", "no.png",
           "http://127.0.0.1/x.png", "gs://bucket/x.png", "in", "", None, 5, "a\u0000b.png"]  # fmt: skip
    write_lines(pictures / "sub" / "in.jsonl", *({"text": "what?", "picture": one} for one in [*good, *bad]))
    ask("sub/in.jsonl", "--image", "picture", "-o", "out.jsonl", code=3)
    found = lines(pictures / "out.jsonl")
    assert [bool(row["output"]) for row in found] == [True] * len(good) + [False] * len(bad)
    for row in found[len(good) :]:
        assert row["error_category"] == "invalid_input"
        assert "'picture'" in row["error"]
    assert "--image-root" in found[len(good)]["error"]
    assert "No such file" in found[len(good) + 5]["error"]
    ask("sub/in.jsonl", "--image", "picture", "--image-root", ".", "-o", "root.jsonl", "--limit", "3", code=3)
    assert [bool(row["output"]) for row in lines(pictures / "root.jsonl")] == [False, False, True]


def test_pictures_of_a_pipe_are_below_the_working_directory(pictures, provider):
    rows = [{"text": "what?", "picture": one} for one in ("sub/a.png", "/etc/passwd")]
    done = ask("-", "--image", "picture", stdin="\n".join(map(json.dumps, rows)), code=3)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [bool(row["output"]) for row in found] == [True, False]


def test_pictures_in_parquet(at, provider):
    table = pyarrow.table({"text": ["a", "b"], "picture": pyarrow.array([PNG, b"no picture"])})
    pyarrow.parquet.write_table(table, at / "t.parquet")
    ask("t.parquet", "--image", "picture", "-i", code=3)
    after = pyarrow.parquet.read_table(at / "t.parquet").to_pylist()
    assert [bool(row["output"]) for row in after] == [True, False]
    assert after[1]["picture"] == b"no picture"
