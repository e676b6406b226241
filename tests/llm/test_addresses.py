"""Where requests go, which key goes there, what goes through a proxy, and that no error shows a key."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_llm import AnthropicStrategy, EmbeddingStrategy, GoogleStrategy, OpenAIStrategy, Transport, llm
from batch_llm._llm.providers import endpoint, row_of

from ..helpers import quick, run

REPLIES = {
    "chat/completions": b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}',
    "messages": b'{"type": "message", "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn"}',
    ":generateContent": b'{"candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}]}',
    "embeddings": b'{"data": [{"embedding": [1, 2]}]}',
}


class Recorder(BaseHTTPRequestHandler):
    """Answers everything in the language of its path, unless the server has something else to say."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # a reply in one piece, or the client's system waits for the rest

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = self.path.partition("?")[0]
        body = next((reply for end, reply in REPLIES.items() if path.endswith(end)), b"{}")
        status = 200
        if self.server.says is not None:
            status, body = self.server.says(self.headers)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def recorder():
    """Make servers that write down what comes."""
    servers = []

    def start():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
        server.seen, server.says = [], None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(recorder):
    return recorder()


def ask(strategy):
    batch, _ = asyncio.run(run(strategy, ["x"], quick()))
    return batch.results[0]


def credentials(provider, base_url=None, api_key=None):
    found = endpoint(row_of(provider), base_url, api_key, "m")
    return found.keys


OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
GEMINI, AZURE = "/v1beta/models/m:generateContent", "/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("name", "address", "suffix", "key", "path", "header"),
    [
        ("openai:m", "OPENAI_BASE_URL", "/v1", "OPENAI_API_KEY", OPENAI, "authorization: Bearer k-1"),
        ("openai:m", "OPENAI_API_BASE", "/v1", "OPENAI_API_KEY", OPENAI, "authorization: Bearer k-1"),
        ("anthropic:m", "ANTHROPIC_BASE_URL", "", "ANTHROPIC_API_KEY", ANTHROPIC, "x-api-key: k-1"),
        ("anthropic:m", "ANTHROPIC_BASE_URL", "/v1/", "ANTHROPIC_AUTH_TOKEN", ANTHROPIC, "authorization: Bearer k-1"),
        ("gemini:m", "GOOGLE_GEMINI_BASE_URL", "", "GEMINI_API_KEY", GEMINI, "x-goog-api-key: k-1"),
        ("gemini:m", "GOOGLE_GEMINI_BASE_URL", "/v1beta", "GOOGLE_API_KEY", GEMINI, "x-goog-api-key: k-1"),
        ("azure:m", "AZURE_OPENAI_ENDPOINT", "", "AZURE_OPENAI_API_KEY", AZURE, "api-key: k-1"),
        (
            "azure:m",
            "AZURE_OPENAI_ENDPOINT",
            "/openai/v1/",
            "AZURE_OPENAI_AD_TOKEN",
            AZURE,
            "authorization: Bearer k-1",
        ),
    ],
)
def test_a_key_and_an_address_of_the_environment_belong_together(
    monkeypatch, server, name, address, suffix, key, path, header
):
    header, _, value = header.partition(": ")
    monkeypatch.setenv(address, f' "{server.url}{suffix}" ')
    monkeypatch.setenv(key, "k-1\n")
    assert ask(llm(name)).output == "hello"
    ((seen, headers),) = server.seen
    assert seen == path
    assert headers[header] == value
    # The same address, given, is the same server; another one is not.
    server.seen.clear()
    ask(llm(name, base_url=f"{server.url}{suffix}"))
    assert server.seen[0][1][header] == value


def test_the_environments_key_goes_nowhere_else(monkeypatch, server, recorder):
    other = recorder()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    tails = ("/v1", "?@api.openai.com/v1", "\\@api.openai.com/v1", "#@api.openai.com/v1", "/https://api.openai.com/v1")
    for address in (None, other.url):
        if address:
            monkeypatch.setenv("OPENAI_BASE_URL", address)
        for tail in tails:
            ask(OpenAIStrategy("m", base_url=server.url + tail))
        ask(OpenAIStrategy("m", base_url=server.url.replace("//", "//api.openai.com@")))
    assert server.seen
    assert not other.seen
    for _, headers in server.seen:
        assert "sk-environment" not in str(headers)
        assert "openai-organization" not in headers


@pytest.mark.parametrize(
    ("provider", "base_url", "expected"),
    [
        ("openai", None, True),
        ("openai", "https://api.openai.com/v1", True),
        ("openai", "https://API.OPENAI.COM:443/v1/", True),
        ("openai", "https://api.openai.com./v1", True),
        ("openai", "https://api.openai.com/v1/chat/completions", True),
        ("openai", "http://api.openai.com/v1", False),
        ("openai", "https://api.openai.com:8443/v1", False),
        ("openai", "https://api.openai.com.example/v1", False),
        ("azure", "https://mine.openai.azure.com/openai/v1/", True),
        ("azure", "https://mine.example/openai/v1/", False),
        ("groq", "https://api.groq.com", True),
        ("groq", "https://proxy.example", False),
    ],
)
def test_origins_decide(monkeypatch, provider, base_url, expected):
    for variable in row_of(provider).key_variables:
        monkeypatch.setenv(variable, "k-1")
    assert credentials(provider, base_url) == (["k-1"] if expected else [])
    assert credentials(provider, base_url, " given\n") == ["given"]


def test_the_environments_address_does_not_get_the_key_in_clear_for_the_provider(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k-1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://api.openai.com/v1")
    assert credentials("openai") == []
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway/v1")
    assert credentials("openai") == ["k-1"]


def test_the_environment_is_read_as_the_vendors_sdks_do(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        OpenAIStrategy("m")
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert credentials("gemini") == ["first"]
    monkeypatch.setenv("OPENAI_API_KEY", "k-1")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    ask(OpenAIStrategy("m", extra_headers={"OpenAI-Project": "mine"}))
    headers = server.seen[0][1]
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "mine")
    monkeypatch.setenv("OPENAI_BASE_URL", "gateway")
    with pytest.raises(ValueError, match="OPENAI_BASE_URL cannot be used: base_url must begin with"):
        OpenAIStrategy("m")


@pytest.mark.parametrize("tail", ["?@api.openai.com/v1", "\\@api.openai.com/v1", "#@api.openai.com/v1"])
def test_where_parsers_disagree_nothing_is_sent(server, caplog, tail):
    text = server.url.replace("//", "//me:hunter22@") + tail
    result = ask(OpenAIStrategy("m", "sk-given-key", text))
    assert result.error_category == "client_error"
    assert "base_url has" in result.error
    assert not server.seen
    assert "base_url has" in caplog.text
    assert "hunter22" not in caplog.text + result.error


def test_whole_addresses_of_endpoints_are_taken(server):
    ask(OpenAIStrategy("m", "k", server.url + "/v1/chat/completions"))
    ask(AnthropicStrategy("m", "k", server.url + "/v1/messages"))
    ask(GoogleStrategy("m", "k", server.url + "/v1beta/models/other:generateContent"))
    ask(EmbeddingStrategy("openai:m", "k", server.url + "/v1/embeddings"))
    ask(
        llm(
            "azure:m",
            api_key="k",
            base_url=server.url + "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        )
    )
    ask(OpenAIStrategy("m", "k", server.url + "/v1/responses"))
    assert [path for path, _ in server.seen][:6] == [
        "/v1/chat/completions",
        "/v1/messages",
        "/v1beta/models/m:generateContent",
        "/v1/embeddings",
        "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        "/v1/responses",
    ]


def test_scopes_and_names_hold_no_password():
    first = OpenAIStrategy("m", "k", "http://me:hunter22@host/v1?key=secretkey")
    second = OpenAIStrategy("m", "k", "http://HOST:80/v1/?key=other")
    assert "hunter22" not in repr((first, first.quota_scope))
    assert "secretkey" not in repr((first, first.quota_scope))
    assert first.quota_scope[:3] == second.quota_scope[:3] == ("provider", "openai", "http://host/v1")
    assert first.quota_scope != second.quota_scope


@pytest.mark.parametrize("embeds", [False, True])
def test_a_key_that_the_server_repeats_is_masked(server, caplog, embeds):
    key = "sk-SECRET-1234567890"

    def says(headers):
        return 401, b'{"error": {"message": "bad: %s, %s***7890, %s", "code": "%s"}}' % (
            headers["authorization"].encode(),
            key[:9].encode(),
            headers["x-tenant-token"].encode(),
            key.encode(),
        )

    server.says = says
    options = {"extra_headers": {"X-Tenant-Token": "tenant-hidden"}}
    name = "openai:m"
    for given in (key, [key, key + "-other"], lambda: key):
        if embeds:
            strategy = EmbeddingStrategy(name, given, server.url + "/v1", **options)
        else:
            strategy = llm(name, api_key=given, base_url=server.url + "/v1", **options)
        result = ask(strategy)
        assert result.error_category == "authentication"
        shown = f"{result!r} {result.error} {vars(result.exception)} {caplog.text}"
        assert "SECRE" not in shown
        assert "hidden" not in shown
        assert "bad: Bearer sk-..." in result.error


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("direct", ["*", "127.0.0.1", "127.0.0.0/8", "host, 127.0.0.1:{port}"])
def test_no_proxy_is_obeyed(monkeypatch, server, recorder, variable, direct):
    proxy = recorder()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv(variable, direct.format(port=server.server_port))
    ask(OpenAIStrategy("m", "k", server.url + "/v1"))
    assert (len(server.seen), len(proxy.seen)) == (1, 0)
    monkeypatch.setenv(variable, f"127.0.0.1:{server.server_port + 1},example.com")
    ask(OpenAIStrategy("m", "k", server.url + "/v1"))
    assert (len(server.seen), len(proxy.seen)) == (1, 1)


def test_a_proxys_password_is_not_shown(recorder):
    server = recorder()
    port = server.server_port
    server.shutdown()
    server.server_close()
    transport = Transport(proxy=f"http://me:hunter22@127.0.0.1:{port}")
    result = ask(OpenAIStrategy("m", "k", "https://host.invalid/v1", transport=transport))
    assert result.error_category == "connection_error"
    assert "hunter22" not in f"{result!r} {transport!r}"
