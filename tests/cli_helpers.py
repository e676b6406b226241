"""Calls of the command line, against the simulated provider or a server that answers what a function says."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading

from click.testing import CliRunner

from batch_llm.cli.main import main


def call(*arguments, code=0, stdin=None):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert done.exit_code == code, (done.output, done.exception)
    return done


def ask(*arguments, **options):
    return call("run", *arguments, "-m", "openai:gpt-5-mini", "-q", **options)


def lines(path):
    return [json.loads(line, parse_constant=_refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def _refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def write_lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")


@contextlib.contextmanager
def answering(function):
    """A server whose answer is what a function makes of the prompt; gives its base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = function(body["messages"][-1]["content"])
            message = {"role": "assistant", "content": answer if isinstance(answer, str) else json.dumps(answer)}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            reply = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
