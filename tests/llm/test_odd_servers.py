"""What stands between us and a model: proxies that do not answer or speak SOCKS, servers that pack replies in their own
way, that redirect, or whose clock is wrong."""

from __future__ import annotations

import email.utils
import gzip
import json
import socket
import socketserver
import struct
import threading
import time
import zlib

import pytest

from batch_llm import Transport, llm

from ..served import serve

HELLO = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}


@pytest.fixture
def served():
    with serve() as server:
        yield server


def _unframed(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _unframed),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("utf-8", bytes),
    ],
)
def test_every_encoding_is_unpacked(served, name, pack):
    packed = pack(json.dumps(HELLO).encode())
    assert served.one(lambda *_: (200, packed, {"content-encoding": name})).output == "hello"
    error = pack(json.dumps({"error": {"message": "no such model"}}).encode())
    assert "no such model" in served.one(lambda *_: (404, error, {"content-encoding": name})).error


@pytest.mark.parametrize(("name", "pack"), [("GZIP", gzip.compress), ("deflate", zlib.compress)])
def test_a_stream_is_unpacked_too(served, name, pack):
    parts = [{"delta": {"content": "hel"}}, {"delta": {"content": "lo"}, "finish_reason": "stop"}]
    events = [f"data: {json.dumps({'choices': [{'index': 0, **part}]})}\n\n" for part in parts]
    kind = {"content-type": "text/event-stream", "content-encoding": name}
    whole = pack("".join([*events, "data: [DONE]\n\n"]).encode())
    assert served.one(lambda *_: (200, whole, kind), stream=True).output == "hello"
    # What would hold the answer back until it is complete is not asked for.
    assert served.headers[-1]["accept-encoding"] == "gzip, br"
    cut = pack(events[0].encode())
    result = served.one(lambda *_: (200, cut, kind), stream=True)
    assert "the stream ended before the reply was complete" in result.error


def test_a_body_that_is_not_packed_as_its_header_says(served):
    result = served.one(lambda *_: (200, json.dumps(HELLO).encode(), {"content-encoding": "deflate"}))
    assert "the body is not valid deflate: " in result.error


@pytest.mark.parametrize("apart", [86_400, -86_400], ids=["ahead", "behind"])
def test_a_date_to_retry_at_is_of_the_servers_clock(served, apart):
    now = time.time() + apart
    date, later = (email.utils.formatdate(moment, usegmt=True) for moment in (now, now + 5000))
    result = served.one((429, {"error": {"message": "slow down"}}, {"date": date, "retry-after": later}))
    assert "the server requested a wait of 5,000 s" in result.error


def test_a_redirect_says_where_it_leads(served):
    result = served.one(lambda *_: (308, b"", {"location": "https://api.example.com/v1/chat?token=secret"}))
    assert "https://api.example.com/v1/chat, where its key is not sent" in result.error
    assert "secret" not in result.error
    assert len(served.bodies) == 1


def test_a_proxy_that_does_not_answer_is_named(served, monkeypatch):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
        strategy = llm("openai-compatible:m", base_url="http://model.example:8000/v1", api_key="any")
        (result,) = served.ask(strategy, "x", attempts=1)
    assert f"http://model.example:8000 through the proxy http://127.0.0.1:{port}: " in result.error
    assert "secret" not in result.error


class Socks(socketserver.BaseRequestHandler):
    """Passes one connection on (RFC 1928), without authentication, to the server's target."""

    def handle(self):
        version, methods = self._read(2)
        self._read(methods)
        self.request.sendall(b"\x05\x00")
        version, command, _, kind = self._read(4)
        assert (version, command) == (5, 1)
        host = self._read(self._read(1)[0]) if kind == 3 else socket.inet_ntoa(self._read(4)).encode()
        self.server.asked.append((host.decode(), struct.unpack(">H", self._read(2))[0]))
        self.request.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection(self.server.target) as upstream:
            threading.Thread(target=self._pass_on, args=(self.request, upstream), daemon=True).start()
            self._pass_on(upstream, self.request)

    def _read(self, count):
        data = b""
        while len(data) < count:
            data += self.request.recv(count - len(data))
        return data

    @staticmethod
    def _pass_on(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.parametrize("by", ["environment", "option"])
def test_a_proxy_may_speak_socks(served, monkeypatch, by):
    served.reply, port = lambda *_: HELLO, int(served.root.rpartition(":")[2])
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Socks) as proxy:
        proxy.daemon_threads, proxy.asked, proxy.target = True, [], ("127.0.0.1", port)
        threading.Thread(target=proxy.serve_forever, args=(0.01,)).start()
        address = f"socks5h://127.0.0.1:{proxy.server_address[1]}"
        transport = Transport(proxy=address) if by == "option" else None
        if by == "environment":
            monkeypatch.setenv("ALL_PROXY", address)
        base_url = f"http://model.example:{port}/v1"
        strategy = llm("openai-compatible:m", base_url=base_url, api_key="any", transport=transport)
        (result,) = served.ask(strategy, "x", attempts=1)
        proxy.shutdown()
    assert result.output == "hello", result.error
    assert proxy.asked == [("model.example", port)]
