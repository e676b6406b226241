"""The environment's key goes to the provider, or to the environment's address, never in clear text off this machine.

However an address is spelled: it is rejected when the strategy is made, or nothing that it holds gets the key.
"""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import batch_llm
from batch_llm import EmbeddingStrategy, ProcessorConfig, RetryConfig, Transport, llm
from batch_llm._llm.providers import endpoint, row_of, table

ONCE = ProcessorConfig(max_workers=1, retry=RetryConfig(max_attempts=1))
KEY = "sk-of-the-environment"


def ask(strategy):
    return batch_llm.run(strategy, ["x"], config=ONCE, progress=False).results[0]


class Recorder(BaseHTTPRequestHandler):
    """Writes down whatever comes, as a server and as a proxy."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers = self.server.says
        body = json.dumps({"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_CONNECT = do_POST  # noqa: N815 - the library's name

    def log_message(self, *arguments):
        pass


@pytest.fixture
def start():
    servers = []

    def make(says=(200, {})):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
        server.seen, server.says, server.url = [], says, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for row in table().values():
        for variable in row.address_variables:
            monkeypatch.delenv(variable, raising=False)
        for variable in (*row.key_variables, *row.token_variables):
            monkeypatch.setenv(variable, KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


HOST = "127.0.0.1:{port}"
SPELLINGS = [
    # Of userinfo, queries, fragments and backslashes.
    f"http://{HOST}?@api.openai.com/v1", f"http://{HOST}/?@api.openai.com/v1", f"http://{HOST}#@api.openai.com/v1",
    f"http://{HOST}/#@api.openai.com", f"http://{HOST}\\@api.openai.com/v1", f"http:\\\\{HOST}\\@api.openai.com/v1",
    f"http://{HOST}/\\api.openai.com", f"https://api.openai.com\\@{HOST}/v1", f"https://api.openai.com@{HOST}/v1",
    f"http://api.openai.com@{HOST}/v1", f"http://api.openai.com:443@{HOST}/v1", f"http://a@b@{HOST}/v1",
    f"http://api.openai.com%2f@{HOST}/v1", f"http://api.openai.com%40{HOST}/v1", f"http://{HOST}%2eapi.openai.com/v1",
    f"http://{HOST};@api.openai.com/v1", f"http://{HOST}&@api.openai.com/v1", f"http://{HOST}/@api.openai.com/v1",
    f"http://{HOST}//api.openai.com/v1", f"http://{HOST}/https://api.openai.com/v1", f"http://{HOST}:@api.openai.com/",
    # Of missing, doubled and other slashes and schemes.
    f"http:{HOST}/v1", f"http:/{HOST}/v1", f"http:///{HOST}/v1", f"http:////{HOST}/v1", f"//{HOST}/v1", f"{HOST}/v1",
    "https:api.openai.com/v1", "https:/api.openai.com/v1", "https:///api.openai.com/v1", "https:\\\\api.openai.com/v1",
    "//api.openai.com/v1", "api.openai.com/v1", "ws://api.openai.com/v1", "file:///etc/passwd", "javascript:alert(1)",
    "http+unix://api.openai.com/v1", "https//api.openai.com", "https://", "https://?@api.openai.com", "/v1",
    # Of blanks and control characters.
    f"http://{HOST}\t@api.openai.com/v1", f"http://{HOST}\n@api.openai.com/v1", f"http://{HOST}\r\n/v1",
    "https://api.\topenai.com",
    f"http://{HOST} @api.openai.com/v1", f"http://{HOST}\x00@api.openai.com", f"http://{HOST}\u2028@api.openai.com",
    f"http://{HOST}\u3000/v1", "ht\ntps://api.openai.com", "https://api.openai.com\x7f",
    # Of letters and numbers that stand for others.
    "https://\uff41pi.openai.com/v1", "https://api\u3002openai.com/v1", "https://api.openai.c\u043em/v1",
    "https://api.openai.com\u2044@127.0.0.1/v1", "https://api%2eopenai.com/v1", "https://api.openai.com%00.example/v1",
    "http://2130706433:{port}/v1", "http://0x7f000001:{port}/v1", "http://0177.0.0.1:{port}/v1", "http://127.1:{port}/v1",
    "http://127.0.0.1.:{port}/v1", "http://[::ffff:127.0.0.1]:{port}/v1", "http://[::ffff:7f00:1]:{port}/v1",
    "http://[::1%25eth0]:{port}/v1", "http://LOCALHOST:{port}/v1", "http://localhost.:{port}/v1",
    # Of hosts that look like the provider's.
    "https://api.openai.com.example/v1", "https://api-openai.com/v1", "https://xapi.openai.com/v1",
    "https://openai.com/v1", "https://api.openai.com.:8443/v1", "https://api.openai.com:444/v1",
    "http://api.openai.com/v1", "http://api.openai.com:443/v1", "https://api.openai.com:80/v1",
    "https://api.openai.com..", "https://.api.openai.com",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(SPELLINGS)))
def test_no_spelling_gets_the_key(start, number):
    server = start()
    text = SPELLINGS[number].replace("{port}", str(server.server_port))
    for name in ("openai", "anthropic", "gemini", "azure", "groq"):
        try:
            found = endpoint(row_of(name), text, None, "m")
        except ValueError as error:
            problem = str(error)
            assert "base_url" in problem or "API key" in problem
            continue
        assert found.keys == [], (name, text)
        if found.address.problem is not None or found.address.is_loopback:
            result = ask(llm(f"{name}:m", base_url=text))
            assert found.address.problem is None or (not server.seen and result.error_category == "client_error")
    assert KEY not in str(server.seen)


@pytest.mark.parametrize("number", range(len(SPELLINGS)))
def test_no_spelling_of_the_environment_gets_the_key_off_this_machine(monkeypatch, number):
    text = SPELLINGS[number].replace("{port}", "9")
    monkeypatch.setenv("OPENAI_BASE_URL", text.replace("\x00", ""))
    try:
        found = endpoint(row_of("openai"), None, None, "m")
    except ValueError as error:
        problem = str(error)
        assert "OPENAI_BASE_URL cannot be used" in problem
        return
    if found.keys:
        assert found.address.problem is None
        assert found.address.is_encrypted or found.address.is_loopback


@pytest.mark.parametrize(
    ("address", "is_sent"),
    [
        ("https://gateway/v1", True), ("http://localhost:4000", True), ("http://127.0.0.2/v1", True),
        ("http://[::1]:4000", True), ("http://gateway:4000/v1", False), ("http://10.0.0.1/v1", False),
        ("http://api.example.com/v1", False), ("http://localhost.example/v1", False), ("http://0.0.0.0:80/v1", False),
    ],
)  # fmt: skip
def test_clear_text_stays_on_this_machine(monkeypatch, caplog, address, is_sent):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setattr("batch_llm._llm.providers._warned", set())
    with caplog.at_level(logging.WARNING):
        for base_url in (None, address):
            found = endpoint(row_of("openai"), base_url, None, "m")
            assert found.keys == ([KEY] if is_sent else [])
    assert ("the connection is not encrypted" in caplog.text) is not is_sent
    assert len(caplog.records) <= 1, "it is said once"
    assert endpoint(row_of("openai"), address, "given", "m").keys == ["given"]
    # A proxy elsewhere would read it too.
    away = Transport(proxy="http://proxy.example:3128")
    assert bool(endpoint(row_of("openai"), None, None, "m", away).keys) is address.startswith("https")


@pytest.mark.parametrize("embeds", [False, True])
def test_no_proxy_reads_the_environments_key(monkeypatch, start, embeds):
    server, proxy = start(), start()
    for name in ("http_proxy", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.upper(), proxy.url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    strategy = EmbeddingStrategy("openai:m") if embeds else llm("openai:m", api="chat")
    ask(strategy)
    assert server.seen[0][1]["authorization"] == f"Bearer {KEY}"
    assert not proxy.seen


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_carry_no_key(start, status):
    other = start()
    server = start((status, {"location": f"{other.url}/v1/chat/completions"}))
    strategy = llm("openai:m", api_key="sk-given-1234567890", base_url=f"{server.url}/v1", api="chat",
                   extra_headers={"X-Tenant-Key": "tenant"})  # fmt: skip
    result = ask(strategy)
    assert not result.success
    assert str(status) in result.error
    assert server.seen
    assert not other.seen


def test_what_is_connected_to_is_what_was_checked(start):
    """The transport reads addresses with the parser that decides about keys."""
    server = start()
    strategy = llm("openai:m", api_key="k", base_url=f"http://user:word@127.0.0.1:{server.server_port}/v1", api="chat")
    ask(strategy)
    (path, headers) = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["host"] == f"127.0.0.1:{server.server_port}"
    assert strategy.base_url.startswith("http://user:word@127.0.0.1")
    assert "word" not in repr(strategy)
