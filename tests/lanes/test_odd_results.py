"""Results of batches in odd forms: what is paid for is read, however a server writes it and wherever it keeps it."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_llm import run

from .common import FAST

PROMPTS = ["a", "b", "c"]
BODY = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}


class Files:
    """What a batch API has, and what a test changes of it."""

    def __init__(self):
        self.uploads, self.batches, self.looks = [], [], 0
        self.batch = lambda look: {}
        self.contents = []  # what is answered before the results: (status, bytes, headers)
        self.seen = []  # (path, key) of each download
        self.body = json.dumps(BODY)

    def results(self):
        lines = [json.loads(line) for line in self.uploads[-1].splitlines()]
        made = [
            f'{{"custom_id": "{line["custom_id"]}", "response": {{"status_code": 200, "body": {self.body}}}}}'
            for line in lines
        ]
        return 200, "\n".join(made).encode(), {}

    def answer(self, method, path, body, key):
        if (method, path) == ("POST", "/v1/files"):
            self.uploads.append(re.search(rb"\r\n\r\n(\{.*\})\s*\r\n--", body, re.DOTALL)[1].decode())
            return 200, json.dumps({"id": f"file-{len(self.uploads)}"}).encode(), {}
        if (method, path) == ("POST", "/v1/batches"):
            self.batches.append({**json.loads(body), "id": f"batch-{len(self.batches)}", "status": "validating"})
            self.looks = 0
            return 200, json.dumps(self.batches[-1]).encode(), {}
        if method == "GET" and path.startswith("/v1/batches/"):
            self.looks += 1
            ended = {"status": "completed", "output_file_id": "out", "error_file_id": None}
            return 200, json.dumps({**self.batches[-1], **ended, **self.batch(self.looks)}).encode(), {}
        if method == "GET" and (path.startswith("/signed") or path.endswith("/content")):
            self.seen.append((path, key))
            return self.contents.pop(0) if self.contents else self.results()
        return 200, b"{}", {}


@contextmanager
def served(files):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, data, headers = files.answer(self.command, self.path, body, self.headers.get("authorization"))
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.reply()

        def do_POST(self):
            self.reply()

        def do_DELETE(self):
            self.reply()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def outputs(files, tmp_path):
    """What the items are answered with, all in one batch."""
    with served(files) as root:
        batch = run(
            "openai:gpt-4.1-mini",
            PROMPTS,
            api="chat",
            api_key="key",
            base_url=f"{root}/v1",
            lane="batch",
            store=tmp_path / "run.db",
            batches=FAST,
            preserve_order=True,
        )
    assert len(files.batches) == 1, "paid for twice"
    return [result.output for result in batch.results]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('"hello"}, "logprobs": {"content": [{"logprob": NaN}]}', "hello"),
        ('"a\tb"}', "a\tb"),
        ('"caf\\ud83d"}', "caf\N{REPLACEMENT CHARACTER}"),
        ('"hello"}, "x": -Infinity', "hello"),
    ],
)
def test_lines_that_are_not_strict_json_are_read(tmp_path, content, expected):
    files = Files()
    files.body = f'{{"choices": [{{"finish_reason": "stop", "message": {{"content": {content}}}]}}'
    assert outputs(files, tmp_path) == [expected] * 3


@pytest.mark.parametrize(
    "instead",
    [b"<html>Back soon</html>", b'{"error": {"message": "try again", "code": 503}}', b""],
    ids=["page", "error", "empty"],
)
def test_something_else_in_place_of_results_is_not_the_end_of_them(tmp_path, instead):
    files = Files()
    files.contents = [(200, instead, {})]
    assert outputs(files, tmp_path) == ["hello"] * 3
    assert len(files.seen) == 2


def test_results_may_be_named_after_the_end(tmp_path):
    files = Files()
    files.batch = lambda look: {"output_file_id": None} if look < 3 else {}
    assert outputs(files, tmp_path) == ["hello"] * 3
    assert files.looks == 3


def test_results_may_be_elsewhere_and_the_key_stays(tmp_path):
    here, elsewhere = Files(), Files()
    elsewhere.uploads = here.uploads
    with served(elsewhere) as root:
        here.contents = [(302, b"", {"location": "/signed/a"}), (307, b"", {"location": f"{root}/signed/b?sig=1"})]
        assert outputs(here, tmp_path) == ["hello"] * 3
    assert [path for path, _ in here.seen] == ["/v1/files/out/content", "/signed/a"]
    assert all(key == "Bearer key" for _, key in here.seen)
    assert elsewhere.seen == [("/signed/b?sig=1", None)]
