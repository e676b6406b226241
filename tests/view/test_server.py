"""Who gets what from the server of the page."""

from __future__ import annotations

import http.client
import json
import urllib.parse

import pytest

from batch_llm import BatchResult, WorkItemResult
from batch_llm._view import BatchItems, ViewServer

BATCH = BatchResult([WorkItemResult("1", True, "<b>"), WorkItemResult("2", False, error="E: no")])


@pytest.fixture(scope="module")
def server():
    with ViewServer(BatchItems(BATCH)) as started:
        yield started


def get(server, path=None, method="GET", host=None, **headers):
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.putrequest(method, address.path if path is None else path, skip_host=True)
    for one in [address.netloc] if host is None else host:
        connection.putheader("Host", one)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply, body.decode()


def ask(server, name, code=200):
    reply, body = get(server, urllib.parse.urlsplit(server.url).path + f"api/{name}")
    assert reply.status == code, body
    return json.loads(body) if code == 200 else body


def test_the_page(server):
    reply, body = get(server)
    assert reply.status == 200
    assert "<html" in body
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert server.url.startswith("http://127.0.0.1:")
    assert "http" not in policy
    assert get(server, method="HEAD")[1] == ""


def test_only_who_has_the_token_gets_anything(server):
    for path in (
        "/",
        "/x/",
        "/x/api/overview",
        "/api/overview",
        "//",
        "/%00/",
        "/" + "é".encode().decode("latin1") + "/",
    ):
        reply, body = get(server, path.encode("ascii", "ignore").decode())
        assert (reply.status, body) == (404, "not found")
    assert server.url.split("/")[3] not in repr(server)


@pytest.mark.parametrize("host", [["evil.example"], ["127.0.0.1"], ["127.0.0.1:1"], [], ["a", "b"], [""]])
def test_other_hosts_are_rejected(server, host):
    assert get(server, host=host)[0].status == 403


def test_localhost_is_this_host(server):
    port = urllib.parse.urlsplit(server.url).port
    assert get(server, host=[f"localhost:{port}"])[0].status == 200


def test_other_sites_get_no_data(server):
    path = urllib.parse.urlsplit(server.url).path + "api/overview"
    assert get(server, path, Sec_Fetch_Site="cross-site")[0].status == 404
    assert get(server, path, Sec_Fetch_Site="same-origin")[0].status == 200


def test_nothing_can_be_changed(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(server, method=method)[0].status == 501


def test_data(server):
    rows = ask(server, "rows?search=b&start=0&count=5")
    assert rows["total"] == 1
    assert ask(server, "item?place=1")["answer"]["text"] == "E: no"
    assert ask(server, "position?place=1&only=failed") == {"position": 0}
    assert ask(server, "overview")["figures"]["items"] == 2
    assert "only='x'" in ask(server, "rows?only=x", 400)
    for wrong in ("place=-1", "place=x", "place=1e9", "place=" + "9" * 100, ""):
        assert "place=" in ask(server, f"item?{wrong}", 400)
    assert "count=" in ask(server, "rows?count=1000000", 400)
    for name in ("item?place=9", "comparison", "pairs", "nothing", "", "../page", "item?place=0&side=second"):
        assert ask(server, name, 404) == "not found"


def test_long_addresses_are_rejected(server):
    assert get(server, "/" + "x" * 9000)[0].status == 403


def test_it_ends():
    server = ViewServer(BatchItems(BATCH))
    get(server)
    server.close()
    server.close()
    with pytest.raises(OSError, match="refused"):
        get(server)
    assert "closed" in repr(server)


def test_a_batch_is_shown():
    with BATCH.view(open_browser=False) as server:
        assert ask(server, "rows")["total"] == 2


def test_a_browser_is_opened(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with BATCH.view() as server:
        (address,) = opened
        assert server.url.split("/")[3] not in address
        path = urllib.parse.urlsplit(address).path
        reply, _ = get(server, path)
        assert (reply.status, reply.headers["Location"]) == (303, urllib.parse.urlsplit(server.url).path)
        assert get(server, path)[0].status == 404, "it leads there once"
        assert get(server, "//")[0].status == 404
