"""A server whose replies a test writes, byte by byte, and strategies of every dialect that ask it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from batch_llm import NativeStrategy, ProcessorConfig, RateLimitConfig, RetryConfig, WorkItemResult, llm, run

Reply = Callable[[dict[str, Any], int], Any]
DIALECTS = ("chat", "responses", "anthropic", "gemini")


@dataclass
class Served:
    """What a test sees of its server."""

    root: str
    reply: Reply
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    """The bodies, byte by byte."""

    def strategy(self, dialect: str = "chat", **options: Any) -> NativeStrategy[Any]:
        """A strategy that asks this server."""
        options.setdefault("api_key", "test-key")
        if dialect in ("chat", "responses"):
            provider = "openai-compatible" if dialect == "chat" else "openai"
            return llm(f"{provider}:m", base_url=self.root + "/v1", api=dialect, **options)
        base_url = self.root if dialect == "anthropic" else self.root + "/v1beta"
        return llm(f"{dialect}:m", base_url=base_url, **options)

    def ask(self, strategy: Any, *prompts: Any, attempts: int = 3) -> list[WorkItemResult[Any, Any]]:
        """The results of these prompts, in order."""
        config = ProcessorConfig(
            max_workers=4,
            timeout_per_item=20,
            retry=RetryConfig(max_attempts=attempts, initial_wait=0.01, max_wait=0.02, max_rate_limit_retries=1),
            rate_limit=RateLimitConfig(cooldown_seconds=0.02, slow_start_items=0),
        )
        return run(strategy, list(prompts), config=config, preserve_order=True).results

    def one(self, reply: Any, dialect: str = "chat", prompt: Any = "x", **options: Any) -> WorkItemResult[Any, Any]:
        """The result of one prompt that is answered so."""
        self.bodies.clear()
        self.reply = lambda body, number: reply(body, number) if callable(reply) else reply
        return self.ask(self.strategy(dialect, **options), prompt)[0]


class Gate:
    """Holds requests back until so many are in flight, then lets all pass."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.in_flight = self.peak = 0
        self._open = threading.Event()
        self._lock = threading.Lock()

    def passed(self, reply: Any) -> Any:
        """Return the reply, once the gate is open."""
        with self._lock:
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            if self.in_flight >= self.count:
                self._open.set()
        assert self._open.wait(60), f"{self.peak} of {self.count} requests in flight"
        with self._lock:
            self.in_flight -= 1
        return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # or a burst of connections would be tried again a second later


@contextmanager
def serve(reply: Reply = lambda body, number: {}) -> Iterator[Served]:
    """A server on loopback. ``reply`` gets the body and the number of the request, and returns JSON, bytes, or a triple
    of status, either, and headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            served.sent.append(self.rfile.read(int(self.headers["content-length"])))
            body = json.loads(served.sent[-1])
            served.bodies.append(body)
            served.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = served.reply(body, len(served.bodies) - 1)
            status, payload, headers = answer if isinstance(answer, tuple) else (200, answer, {})
            data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            # With its own date, unless the test has another.
            (self.send_response_only if "date" in headers else self.send_response)(status)
            for name, value in {"content-type": "application/json", "content-length": len(data), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)

        def do_DELETE(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}", reply)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def answer(dialect: str, text: str = "hello", calls: list[tuple[str, str, Any]] | None = None, **more: Any) -> Any:
    """A plain reply of a dialect; ``calls`` are triples of id, name and arguments."""
    calls = calls or []
    if dialect == "chat":
        tool_calls = [
            {
                "id": i,
                "type": "function",
                "function": {"name": n, "arguments": a if isinstance(a, str) else json.dumps(a)},
            }
            for i, n, a in calls
        ]
        message = {"role": "assistant", "content": text or None, **({"tool_calls": tool_calls} if calls else {})}
        return {"choices": [{"message": message, "finish_reason": "tool_calls" if calls else "stop"}], **more}
    if dialect == "responses":
        said = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]
        made = [
            {"type": "function_call", "call_id": i, "name": n, "arguments": a if isinstance(a, str) else json.dumps(a)}
            for i, n, a in calls
        ]
        return {"status": "completed", "output": (said if text else []) + made, **more}
    if dialect == "anthropic":
        blocks = [{"type": "text", "text": text}] if text else []
        blocks += [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in calls]
        return {"type": "message", "content": blocks, "stop_reason": "tool_use" if calls else "end_turn", **more}
    parts = [{"text": text}] if text else []
    parts += [{"functionCall": {"name": n, "args": a}} for _, n, a in calls]
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}], **more}


USAGE = {"chat": "usage", "responses": "usage", "anthropic": "usage", "gemini": "usageMetadata"}
COUNTS = {
    "chat": ("prompt_tokens", "completion_tokens"),
    "responses": ("input_tokens", "output_tokens"),
    "anthropic": ("input_tokens", "output_tokens"),
    "gemini": ("promptTokenCount", "candidatesTokenCount"),
}
