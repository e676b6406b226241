"""No secret in anything that is shown or stored: secrets of many shapes are planted, and every artefact is searched."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pydantic
import pytest

import batch_llm
from batch_llm import (
    EmbeddingStrategy,
    LLMCallStrategy,
    ProcessorConfig,
    RetryConfig,
    SqliteArtifactStore,
    Transport,
    inspect,
    llm,
    run,
)
from batch_llm._secrets import mask, public
from batch_llm._store.identity import identity_of
from batch_llm.testing import SimulatedProvider

from ..served import DIALECTS, answer, serve

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
SHAPES = {
    "openai": "sk-proj-Zx9Yq8Wp7Vo6Un5Tm4Sl3Rk2",
    "anthropic": "sk-ant-api03-Aa1Bb2Cc3Dd4Ee5Ff6Gg7",
    "aws id": "AKIAIOSFODNN7EXAMPLE",
    "aws secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1",
    "google": "AIzaSyA1bC2dE3fG4hI5jK6lM7nO8pQ9rS0tU1v",
    "jwt": JWT,
    "hugging face": "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ123456",
    "github": "ghp_0123456789abcdefABCDEF0123456789abcd",
    "azure": "0123456789abcdef0123456789abcdef",
    "odd": "p@ss/w+rd=1234567890&x",
}
"""Secrets by their shape."""


class Nested(pydantic.BaseModel):
    """A model with a secret."""

    region: str
    api_key: str
    token: pydantic.SecretStr


@dataclasses.dataclass
class Login:
    """A dataclass with a secret."""

    user: str
    password: str


class Custom(LLMCallStrategy[str]):
    """Keeps what its constructor was given, and fails with what ``says`` makes of it, if anything."""

    def __init__(self, model="m", settings=None, client=None, keys=(), says=None):
        self.model, self.settings, self.client, self._keys, self.says = model, settings, client, keys, says

    async def execute(self, prompt, attempt, timeout, state=None):
        if self.says is not None:
            raise RuntimeError(self.says)
        return "fine", {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


def fields(secret):
    """Where a custom strategy may have a secret that is called so, or has the shape of one."""
    return [
        {"api_key": secret, "region": "eu"},
        {"nested": [{"credentials": {"a": secret}}, {"aws_secret_access_key": secret}]},
        Login("me", secret),
        Nested(region="eu", api_key=secret, token=pydantic.SecretStr(secret)),
        [Login("me", secret), {"Authorization": f"Bearer {secret}"}],
        {"secret": pydantic.SecretStr(secret), "cookies": ["session=" + secret]},
        {"dsn": f"postgres://me:{urllib.parse.quote(secret, safe='')}@host/db"},
        {"url": f"https://host/v1?api-key={urllib.parse.quote(secret, safe='')}&v=1"},
    ]


def variants(secret):
    """Ways in which a secret is written."""
    encoded = [urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("/", "\\/")]
    return {secret, *encoded, base64.b64encode(f"me:{secret}".encode()).decode()}


def assert_absent(secret, text):
    for written in variants(secret):
        # No eight characters of it in a row, beyond what tells which one it was.
        for at in range(4, len(written) - 8):
            assert written[at : at + 8] not in text, f"{written[at : at + 8]!r} in {text[:2000]}"


def read_all(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


FAST = ProcessorConfig(max_workers=2, timeout_per_item=20, retry=RetryConfig(max_attempts=1))


def artefacts(strategy, folder, caplog, prompts=("x", "y"), kinds=("db", "jsonl")):
    """Everything that a run shows and stores, as one text."""
    caplog.set_level(logging.DEBUG)
    lines = []
    texts = []
    for kind in kinds:
        store = folder / f"store.{kind}"
        batch = run(
            strategy, list(prompts), config=FAST, store=store, cache=folder / "cache.db",
            progress=lambda *told: lines.append(repr(told)),
        )  # fmt: skip
        look = inspect(store)
        texts += [repr(look), look.summary(), repr(look.identities), repr(list(look.results()))]
        texts += [json.dumps(look.identities)]
        batch.to_jsonl(folder / f"{kind}.out.jsonl")
        batch.report(folder / f"{kind}.html")
        for result in batch.results:
            texts += [repr(result), str(result.error), str(result.to_dict() if hasattr(result, "to_dict") else "")]
            error = result.exception
            if isinstance(error, batch_llm.ProviderError):
                texts += [repr(error), str(error), repr(vars(error)), repr(error.__cause__)]
        texts += [repr(batch), batch.summary(), batch.to_json(), batch.stats.explain(), repr(batch.stats)]
        texts += [repr(strategy), repr(strategy.__dict__.get("_scope")), repr(FAST)]
    return "\n".join([*texts, *lines, caplog.text, *(repr(one.__dict__) for one in caplog.records), read_all(folder)])


@pytest.mark.parametrize("shape", SHAPES)
def test_fields_of_strategies_of_ones_own(tmp_path, caplog, shape):
    secret = SHAPES[shape]
    for number, settings in enumerate(fields(secret)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert_absent(secret, artefacts(Custom(settings=settings, keys=[secret]), folder, caplog))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rotated_key_finds_what_is_stored(shape):
    def digests(secret, model="m", region="eu"):
        settings = [*fields(secret), {"region": region}]
        return [identity_of(Custom(model, one), None).digest for one in settings]

    old, new = SHAPES[shape], SHAPES[shape][:-4] + "9z8Y"
    assert digests(old) == digests(new)
    assert len(set(digests(old))) >= 7
    assert digests(old)[-1] != digests(old, region="us")[-1]
    assert digests(old) != digests(old, model="other")


def test_what_is_no_secret_stays_in_the_identity():
    for one, other in (
        ({"keywords": ["invoice"]}, {"keywords": ["receipt"]}),
        ({"max_tokens": 1}, {"max_tokens": 2}),
        ({"primary_key": "id"}, {"primary_key": "name"}),
        (["be brief"], ["be long"]),
        (Login("a", "x"), Login("b", "x")),
        ({"url": "https://me:word1234@one"}, {"url": "https://me:word1234@two"}),
    ):
        assert identity_of(Custom(settings=one), None).digest != identity_of(Custom(settings=other), None).digest
    value = {"a": [1, "x", {"b": Login("a", None)}]}
    assert public({"plain": [1, 2]}) == {"plain": [1, 2]}
    assert public(value)["a"][2]["b"] == {"user": "a"}


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_of_strategies_of_ones_own(tmp_path, caplog, shape):
    secret = SHAPES[shape]
    quoted = urllib.parse.quote(secret, safe="")
    for number, says in enumerate(
        (
            f"401 for https://me:{quoted}@host/v1",
            f"GET https://host/v1?key={quoted}&x=1 failed",
            f'{{"api_key": "{secret}"}}',
            f"Authorization: Bearer {secret}",
            *([f"Incorrect API key provided: {secret}."] if shape not in ("aws secret", "azure", "odd") else []),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert_absent(secret, artefacts(Custom(says=says), folder, caplog))


@pytest.mark.parametrize(("shape", "dialect"), list(zip(SHAPES, itertools.cycle(DIALECTS), strict=False)))
def test_what_a_server_repeats(tmp_path, caplog, dialect, shape):
    """The key, fixed or of a function, or a header, a cookie, a field; in errors and answers, of any shape."""
    secret = SHAPES[shape]
    quoted, basic = urllib.parse.quote(secret, safe=""), base64.b64encode(f"me:{secret}".encode()).decode()
    said = f"you sent {secret}, {quoted}, {json.dumps(secret)}"

    def replies(said):
        return (
            (401, {"error": {"message": said, "code": secret, "type": said}}, {"x-request-id": secret}),
            (500, f"<html>{said}</html>".encode(), {"content-type": "text/html"}),
            (200, b"{" + said.encode(), {}),
            (200, answer(dialect, said, model=secret, id=secret), {"x-request-id": secret}),
        )

    given = (
        {"api_key": secret},
        {"api_key": ["other-key-123456", secret]},
        {"api_key": lambda: secret},
        {"extra_headers": {"X-Tenant-Token": secret, "Cookie": secret}},
        {"extra_headers": {"Authorization": f"Basic {basic}"}},
        {"extra_body": {"auth": {"api_key": secret, "list": [{"token": secret}]}}},
    )
    with serve() as served:
        for number, options in enumerate(given):
            sent = str(options)
            for place, reply in enumerate(replies(f"{said}, {basic}" if basic in sent else said)):
                served.reply = lambda body, count, reply=reply: reply
                folder = tmp_path / f"{number}-{place}"
                folder.mkdir()
                strategy = served.strategy(dialect, raw=True, **options)
                text = artefacts(strategy, folder, caplog, ["x"], kinds=["db"])
                caplog.clear()
                assert_absent(secret, text)


def test_passwords_of_addresses_and_proxies(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxypass-1234@127.0.0.1:9")
    with serve() as served:
        served.reply = lambda body, number: (407, {"error": {"message": "no: basepass-1234, proxypass-1234"}}, {})
        root = served.root.replace("//", "//me:basepass-1234@")
        for number, strategy in enumerate((
            llm("openai:m", api_key="k", base_url=f"{root}/v1?sig=signature-1234"),
            EmbeddingStrategy("openai:m", "k", f"{root}/v1"),
            llm("openai:m", api_key="k", base_url="https://host.invalid/v1"),
            llm("openai:m", api_key="k", base_url="https://host.invalid/v1",
                transport=Transport(proxy="http://me:proxypass-1234@127.0.0.1:9")),
        )):  # fmt: skip
            folder = tmp_path / str(number)
            folder.mkdir()
            text = artefacts(strategy, folder, caplog, ["x"])
            for secret in ("basepass", "proxypass", "signature-1234"):
                assert secret not in text


def test_headers_and_fields_are_known_by_a_digest(tmp_path):
    secret = "f00dfacecafe0123"
    with SimulatedProvider() as provider:

        def strategy(**options):
            return llm("openai:m", api_key="k", base_url=provider.base_url, **options)

        for options in ({"extra_headers": {"X-Custom": secret}}, {"extra_body": {"user": secret}}, {"stop": secret},
                        {"system_prompt": f"The word is {secret}."}):  # fmt: skip
            folder = tmp_path / next(iter(options))
            run(strategy(**options), ["x"], store=folder / "a.db", progress=False)
            assert secret not in read_all(folder)
            assert identity_of(strategy(**options), None).digest != identity_of(strategy(), None).digest
        (told,) = inspect(folder / "a.db").identities
        assert told["model"] == "m"
        assert told["digest_of"] == ["system_prompt"]


def test_a_rotated_key_in_a_field_is_the_same_request():
    def digest(secret):
        body = {"aws": {"aws_access_key_id": secret, "aws_session_token": secret}, "user": "me"}
        headers = {"X-Api-Key": secret, "Cookie": secret, "X-Title": "t"}
        strategy = llm("openai:m", api_key=secret, base_url="http://h/v1", extra_body=body, extra_headers=headers)
        return identity_of(strategy, None).digest

    assert digest("AKIAIOSFODNN7EXAMPLE") == digest("AKIAIOSFODNN7OTHERXX")


def test_the_environments_secrets_are_masked(monkeypatch, tmp_path, caplog):
    secret = "0011223344556677aabbccdd"
    monkeypatch.setenv("MY_SERVICE_API_KEY", secret)
    assert_absent(secret, artefacts(Custom(says=f"the server said {secret}"), tmp_path, caplog))


def test_the_command_line(tmp_path):
    secret = SHAPES["openai"]
    with serve() as served:
        served.reply = lambda body, number: (
            400,
            {"error": {"message": f"bad {served.headers[-1].get('authorization')}"}},
            {},
        )
        environment = {**os.environ, "OPENAI_API_KEY": secret, "OPENAI_BASE_URL": f"{served.root}/v1"}
        file = tmp_path / "in.jsonl"
        file.write_text('{"prompt": "x"}\n')
        command = [sys.executable, "-m", "batch_llm", "run", str(file), "-m", "openai:m", "-o", str(tmp_path / "out")]
        command += ["--output-format", "jsonl", "--report", str(tmp_path / "report.html"), "--retries", "0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert served.headers[-1]["authorization"] == f"Bearer {secret}"
        looked = subprocess.run(
            [sys.executable, "-m", "batch_llm", "inspect", str(tmp_path / "out.store.db"), "--failed"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert "bad Bearer sk-" in looked.stdout
    assert_absent(secret, done.stdout + done.stderr + looked.stdout + looked.stderr + read_all(tmp_path))


def test_words_are_left_as_they_are():
    for text in (
        "Basic authentication failed",
        "Bearer authentication required",
        "no API key for openai: set the environment variable OPENAI_API_KEY (or pass api_key=...)",
        "max_tokens: 128000 is more than 4096",
        "see https://host:8080/v1?model=gpt-5&version=2024-10-21 at 12:30:45",
        "risk-assessment-of-2024-and-task-list-1234",
        "monkey=banana12345",
        "a tokenizer for 'abc'",
    ):
        assert mask(text) == text


def test_a_direct_call_and_reprs():
    secret = SHAPES["openai"]
    with serve(lambda body, number: (401, {"error": {"message": f"bad {secret}"}}, {})) as served:
        strategy = served.strategy("chat", api_key=lambda: secret)
        with contextlib.suppress(batch_llm.ProviderError):
            asyncio.run(strategy.execute("x", 1, 10.0))
        with pytest.raises(batch_llm.ProviderError) as raised:
            asyncio.run(strategy.execute("x", 1, 10.0))
        assert_absent(secret, repr(raised.value) + repr(vars(raised.value)) + repr(strategy))
        store = SqliteArtifactStore("a.db", user_metadata={"api_key": secret})
        assert_absent(secret, repr(store) + str(store.user_metadata))
