"""In the place of real providers: every one of the table is answered on this machine or rejected, whatever is set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_llm import EmbeddingStrategy, Transport, llm, run
from batch_llm._llm.providers import simulated_url, table
from batch_llm.testing import SimulatedProvider

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
ROWS = sorted(table())


class Refusing(BaseHTTPRequestHandler):
    """Writes down what comes, be it for a proxy or for a server, and answers nothing of use."""

    def _refuse(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        self.send_error(502)

    do_POST = do_GET = do_CONNECT = _refuse  # noqa: N815 - the library's names

    def log_message(self, *arguments):
        pass


@pytest.fixture
def elsewhere(monkeypatch):
    """What stands for the world: a server and proxy in one, to which all variables point."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.seen, server.url = [], f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    for name in PROXIES:
        monkeypatch.setenv(name, server.url)
        monkeypatch.setenv(name.upper(), server.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.com")
    for row in table().values():
        for variable in row.address_variables:
            monkeypatch.setenv(variable, server.url)
        for variable in (*row.key_variables, *row.token_variables):
            monkeypatch.setenv(variable, "sk-of-the-world")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def provider(monkeypatch, elsewhere):
    with SimulatedProvider() as simulated:
        for name, value in simulated.environment.items():
            monkeypatch.setenv(name, value)
        yield simulated


@pytest.mark.parametrize("name", ROWS)
def test_every_provider_is_answered_here(elsewhere, provider, name):
    strategies = [llm(f"{name}:some-model"), llm(f"{name}:some-model", transport=Transport(proxy=elsewhere.url))]
    if table()[name].embeddings:
        strategies.append(EmbeddingStrategy(f"{name}:some-model"))
    for strategy in strategies:
        result = run(strategy, ["hello"], progress=False).results[0]
        assert result.success, result.error
    assert provider.stats.requests == len(strategies)
    assert not elsewhere.seen


@pytest.mark.parametrize("name", ROWS)
def test_another_address_is_rejected(monkeypatch, elsewhere, provider, name):
    for address in ("https://api.openai.com/v1", elsewhere.url, "http://127.0.0.1?@api.openai.com"):
        with pytest.raises(ValueError, match="simulated provider replaces all providers"):
            llm(f"{name}:m", base_url=address)
    # Variables that are set later change nothing, and another simulated provider may be asked.
    for variable in table()[name].address_variables:
        monkeypatch.setenv(variable, elsewhere.url)
    with SimulatedProvider() as other:
        for base_url, asked in ((None, provider), (simulated_url(table()[name], other.url), other)):
            before = asked.stats.requests
            assert run(llm(f"{name}:m", base_url=base_url), ["hello"], progress=False).results[0].success
            assert asked.stats.requests == before + 1
    assert not elsewhere.seen


def test_a_stand_in_is_on_this_machine(monkeypatch):
    for address in ("https://api.openai.com", "http://10.0.0.1:80", "nonsense"):
        monkeypatch.setenv("BATCH_LLM_SIMULATED", address)
        with pytest.raises(ValueError, match="BATCH_LLM_SIMULATED"):
            llm("openai:m", api_key="k")


def test_the_environment_covers_every_variable_of_the_table(provider):
    for row in table().values():
        for variable in (*row.address_variables, *row.key_variables, *row.token_variables):
            assert variable in provider.environment
    assert provider.environment["NO_PROXY"] == "example.com,127.0.0.1,localhost"


@pytest.mark.parametrize("name", [*ROWS, "bodies"])
def test_the_command_simulates_every_provider(tmp_path, elsewhere, name):
    file, model = tmp_path / "in.jsonl", ["-m", f"{name}:m"]
    if name == "bodies":
        rows = [{"custom_id": one, "body": {"model": f"{one}:m", "messages": MESSAGES}} for one in ROWS]
        rows += [{"custom_id": "plain", "body": {"model": "gpt-5-mini", "messages": MESSAGES}}]
        model = []
    else:
        rows = [{"prompt": "hello"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "batch_llm", "run", str(file), *model, "--simulate", "-q", "-o", "-"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(rows)
    assert not elsewhere.seen


MESSAGES = [{"role": "user", "content": "hello"}]
