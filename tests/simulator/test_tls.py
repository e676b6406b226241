"""The simulated provider over TLS: strategies and the vendors' SDKs read it as they read it in clear text, whoever does
not trust it is told what to do, and clients that do not shake hands harm nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from batch_llm import (
    EmbeddingStrategy,
    OpenAIStrategy,
    ProviderConnectionError,
    ProviderError,
    RetryConfig,
    Transport,
    llm,
)
from batch_llm.testing import Fault, SimulatedProvider

from ..helpers import quick, run
from ..proxy import Proxy

DIALECTS = ["chat", "responses", "anthropic", "gemini"]
TEXT = "say grüße to everybody \U0001f600"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
ONCE = quick(retry=RetryConfig(1, outage_patience=0))


@pytest.fixture(scope="module")
def provider():
    with SimulatedProvider(tls=True) as simulated:
        yield simulated


@pytest.fixture(scope="module")
def trusting(provider):
    """What the SDKs and urllib take."""
    return ssl.create_default_context(cadata=provider.ca)


def strategy(provider, dialect, **options):
    options.setdefault("transport", Transport(ca_bundle=provider.ca))
    if dialect in ("chat", "responses"):
        return llm("openai:gpt-4o", api_key="key", base_url=provider.base_url, api=dialect, **options)
    base_url = provider.url if dialect == "anthropic" else provider.gemini_url
    return llm(f"{dialect}:m", api_key="key", base_url=base_url, **options)


def hosts(provider):
    """The addresses of all names of its certificate that this machine reaches."""
    return [provider.base_url, provider.base_url.replace("127.0.0.1", "localhost")]


@pytest.mark.parametrize("http2", ["never", "auto", "always"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_plain_and_streamed(provider, dialect, http2):
    transport = Transport(ca_bundle=provider.ca, http2=http2)
    with SimulatedProvider() as in_clear_text:
        outputs = []
        for asking in (
            strategy(in_clear_text, dialect, stream=False, transport=None),
            strategy(provider, dialect, stream=False, transport=transport),
            strategy(provider, dialect, stream=True, transport=transport),
        ):
            batch, _ = await run(asking, [f"{TEXT} {number}" for number in range(20)], ONCE)
            assert batch.succeeded == 20, batch.results[0].error
            outputs.append({result.context: result.output for result in batch.results})
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.parametrize("name", ["openai", "gemini"])
async def test_embeddings(provider, name):
    url = provider.base_url if name == "openai" else provider.gemini_url
    transport = Transport(ca_bundle=provider.ca)
    batch, _ = await run(EmbeddingStrategy(f"{name}:e", "key", url, dimensions=16, transport=transport), ["a", "b"])
    assert [len(result.output) for result in batch.results] == [16, 16]


async def test_both_names_and_a_file(provider, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text(provider.ca)
    for url in hosts(provider):
        for ca_bundle in (provider.ca, file, str(file)):
            batch, _ = await run(OpenAIStrategy("m", base_url=url, transport=Transport(ca_bundle=ca_bundle)), ["x"])
            assert batch.succeeded == 1, batch.results[0].error


async def test_a_child_process_takes_the_environment_and_the_certificate(provider, monkeypatch):
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    assert os.environ["OPENAI_BASE_URL"].startswith("https://127.0.0.1:")
    again = pickle.loads(pickle.dumps(Transport(ca_bundle=provider.ca)))
    assert again.ca_bundle == provider.ca
    batch, _ = await run(llm("openai:gpt-5-mini", transport=again), ["x"])
    assert batch.succeeded == 1, batch.results[0].error


async def test_http2_carries_many_requests_on_few_connections():
    """By ALPN: without TLS, ``"auto"`` means HTTP/1.1."""
    counts = {}
    with SimulatedProvider(tls=True, latency=0.3) as provider:
        for http2 in ("auto", "never"):
            with Proxy(provider.url) as proxy:
                transport = Transport(ca_bundle=provider.ca, http2=http2)
                asking = OpenAIStrategy("m", base_url=proxy.url, transport=transport)
                # Whoever has not asked before does not know yet.
                await run(asking, ["first"])
                batch, _ = await run(asking, [f"{number}" for number in range(60)], quick(max_workers=60))
                assert batch.succeeded == 60
                counts[http2] = proxy.connections
    assert counts["auto"] == 1
    assert counts["never"] > 30


@pytest.mark.parametrize("http2", ["never", "auto"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_is_retried_and_no_part_is_an_answer(http2, stream):
    # Two replies in a row that cannot be read end their item: those are far apart.
    kinds = ["malformed", 500, 503, 429, "reset", "cut", "error_inside", "stream_error", "keep_alive", "html"]
    faults = [Fault(kind, on=[5 * place + 3]) for place, kind in enumerate(kinds)]
    prompts = [f"{TEXT} {number}" for number in range(100)]
    config = quick(max_workers=5, retry=RetryConfig(9, 0.001, max_wait=0.01))
    with SimulatedProvider() as sound:
        whole, _ = await run(strategy(sound, "chat", transport=None), prompts, config)
    with SimulatedProvider(tls=True, faults=faults) as provider:
        transport = Transport(ca_bundle=provider.ca, http2=http2)
        batch, _ = await run(strategy(provider, "chat", stream=stream, transport=transport), prompts, config)
        # One fault is none.
        assert provider.stats.requests >= 100 + len(kinds) - 1
    outputs = [{result.context: result.output for result in each.results} for each in (whole, batch)]
    assert outputs[0] == outputs[1]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize("http2", ["never", "auto"])
async def test_whoever_does_not_trust_it_is_told_the_remedy(provider, tmp_path, http2):
    other = tmp_path / "other.pem"
    with simulate("--tls", "--write-ca", str(other)) as (_, lines):
        assert f"CA         {other}" in lines
    assert other.read_text() != provider.ca
    for ca_bundle in (None, other):
        asking = OpenAIStrategy("m", base_url=provider.base_url, transport=Transport(ca_bundle=ca_bundle, http2=http2))
        with pytest.raises(ProviderConnectionError, match=r"certificate.*transport=Transport\(ca_bundle=\.\.\.\)"):
            await asking.execute("x", 1, 5.0)
        batch, _ = await run(asking, ["x"], ONCE)
        assert "ca_bundle" in batch.results[0].error
        assert batch.results[0].error_category == "connection_error"


async def test_the_wrong_scheme_is_told(provider):
    with SimulatedProvider() as in_clear_text:
        asking = OpenAIStrategy("m", base_url=in_clear_text.base_url.replace("http:", "https:"))
        with pytest.raises(ProviderConnectionError, match="does not speak TLS on this port"):
            await asking.execute("x", 1, 5.0)
        assert in_clear_text.stats.requests == 0
    before = provider.stats.requests
    asking = OpenAIStrategy("m", base_url=provider.base_url.replace("https:", "http:"))
    with pytest.raises(ProviderError, match="use https://"):
        await asking.execute("x", 1, 5.0)
    assert provider.stats.requests == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-----BEGIN X-----\nAA==\n-----END X-----\n", "ca_bundle contains no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "ca_bundle is not a PEM file"),
        ("nowhere.pem", "'?\"nowhere.pem\"'? cannot be read"),
    ],
)
def test_what_is_no_certificate_is_told(text, says):
    with pytest.raises(ValueError, match=says):
        OpenAIStrategy("m", base_url="https://127.0.0.1:1/v1", transport=Transport(ca_bundle=text))


def test_a_transport_shows_little_of_a_certificate(provider):
    assert repr(Transport(ca_bundle=provider.ca)).count("\n") == 0
    assert "ca_bundle='-----BEGIN ...'" in repr(Transport(ca_bundle=provider.ca))
    assert "ca_bundle='/etc/ca.pem'" in repr(Transport(ca_bundle="/etc/ca.pem"))


def test_one_authority_for_a_process(provider):
    with SimulatedProvider(tls=True) as second, SimulatedProvider() as in_clear_text:
        assert second.ca == provider.ca
        assert provider.ca.startswith("-----BEGIN CERTIFICATE-----")
        assert in_clear_text.ca is None
    assert second.ca == provider.ca, "also after it has stopped"


def test_older_versions_of_tls_are_rejected(provider, trusting):
    context = ssl.create_default_context(cadata=provider.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    address = ("127.0.0.1", int(provider.url.rpartition(":")[2]))
    with socket.create_connection(address) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="localhost")
    with socket.create_connection(address) as raw, trusting.wrap_socket(raw, server_hostname="localhost") as wrapped:
        assert wrapped.version() == "TLSv1.3"


async def test_stalled_and_broken_handshakes_harm_nobody(provider):
    address = ("127.0.0.1", int(provider.url.rpartition(":")[2]))
    with contextlib.ExitStack() as open_sockets:
        for number in range(100):
            stalled = open_sockets.enter_context(socket.create_connection(address))
            stalled.sendall((b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"POST / HTTP/1.1\r\n", b"\xff")[number % 5])
            broken = socket.create_connection(address)
            broken.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(number))
            broken.close()
        batch, _ = await run(strategy(provider, "chat"), ["x"] * 50, ONCE)
        assert batch.succeeded == 50, batch.results[0].error


def test_openais_sdk(provider, trusting, opened):
    openai = pytest.importorskip("openai")
    http_client = openai.DefaultHttpxClient(verify=trusting)
    client = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0, http_client=http_client))
    messages = [{"role": "user", "content": TEXT}]
    plain = client.chat.completions.create(model="m", messages=messages).choices[0].message.content
    assert plain.endswith(TEXT)
    with client.chat.completions.stream(model="m", messages=messages) as stream:
        assert stream.get_final_completion().choices[0].message.content == plain
    assert client.responses.create(model="m", input=TEXT).output_text.endswith(TEXT)
    assert len(client.embeddings.create(model="e", input="a", dimensions=8).data[0].embedding) == 8
    untrusting = opened(openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
    with pytest.raises(openai.APIConnectionError):
        untrusting.chat.completions.create(model="m", messages=messages)


def test_anthropics_sdk(provider, trusting, opened):
    anthropic = pytest.importorskip("anthropic")
    http_client = anthropic.DefaultHttpxClient(verify=trusting)
    client = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0, http_client=http_client))
    options = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": TEXT}]}
    plain = client.messages.create(**options).content[0].text
    assert plain.endswith(TEXT)
    with client.messages.stream(**options) as stream:
        assert stream.get_final_text() == plain


def test_googles_sdk(provider, trusting, opened):
    genai = pytest.importorskip("google.genai")
    options = genai.types.HttpOptions(base_url=provider.url, client_args={"verify": trusting})
    client = opened(genai.Client(api_key="k", http_options=options))
    plain = client.models.generate_content(model="m", contents=TEXT).text
    assert plain.endswith(TEXT)
    chunks = client.models.generate_content_stream(model="m", contents=TEXT)
    assert "".join(chunk.text or "" for chunk in chunks) == plain


def test_pythons_own_client_verifies_strictly(provider):
    """As Python does by default from version 3.13 on."""
    context = ssl.create_default_context(cadata=provider.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for url in hosts(provider):
        with urllib.request.urlopen(f"{url}/chat/completions", BODY, context=context) as reply:
            assert b"Simulated reply" in reply.read()


@contextlib.contextmanager
def simulate(*arguments):
    """The command, and the lines that it has written."""
    command = [sys.executable, "-m", "batch_llm.testing.simulate", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            line = process.stdout.readline()
            assert line, "it has ended"
            lines.append(line.rstrip("\n"))
        yield process, lines
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_from_the_shell(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("of the last time")
    with simulate("--tls", "--write-ca", str(file)) as (_, lines):
        url = lines[0].split()[1]
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=file)
        with urllib.request.urlopen(f"{url}/chat/completions", BODY, context=context) as reply:
            assert b"Simulated reply" in reply.read()
    with simulate("--tls") as (_, lines):
        assert not [line for line in lines if line.startswith("CA")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--write-ca", "ca.pem"], "--write-ca requires --tls"),
        (["--tls", "--write-ca", "nowhere/ca.pem"], "nowhere"),
    ],
)
def test_what_cannot_be_written_is_told(arguments, says, at):
    command = [sys.executable, "-m", "batch_llm.testing.simulate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(Path(at).iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.skipif(sys.platform != "linux", reason="only there variables name the system's authorities")
def test_the_systems_authorities_can_be_replaced_by_the_file(tmp_path):
    file = tmp_path / "ca.pem"
    with simulate("--tls", "--write-ca", str(file)) as (_, lines):
        url = lines[0].split()[1]
        program = f"import batch_llm; print(batch_llm.run('openai-compatible:m', ['x'], base_url={url!r}).outputs())"
        environment = {**os.environ, "SSL_CERT_FILE": str(file)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "Simulated reply" in done.stdout, done.stderr
