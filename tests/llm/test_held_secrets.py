"""What a strategy holds under the name of a secret shows nowhere, whatever it looks like; words stay as they are."""

from __future__ import annotations

import base64
import functools
import gc
import json
import urllib.parse

import pydantic
import pytest

from batch_llm import CallableStrategy, LLMCallStrategy, _held_secrets, _secrets, run
from batch_llm._secrets import mask
from batch_llm._store.identity import identity_of

from .test_secrets import FAST, artefacts, assert_absent

A, B = "qWeRtYuIoPaSdFgHjKlZ", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


@pytest.fixture(autouse=True)
def nothing_is_known():
    _held_secrets._learned.clear()
    _held_secrets._apply()


class Conf(pydantic.BaseModel):
    """Settings with a secret."""

    api_token: str
    region: str = "eu"


class Client:
    """An object of somebody else's library."""

    __slots__ = ("endpoint", "secret_key")

    def __init__(self, secret_key):
        self.endpoint, self.secret_key = "https://host/v1", secret_key


FIELDS = {
    "aws_secret_access_key": (f"wJal/{A}+{B[:10]}", lambda one: one),
    "aws_session_token": (f"IQoJb3JpZ2luX2VjE{A}{B}==", lambda one: one),
    "api_key": (B, lambda one: one),
    "password": ("hunter", lambda one: one),
    "client_secret": ("8BP8Q~MPZFBjpXCgfry92fbzkn5LUTLS0RyuUcap", lambda one: one),
    "passphrase": ("open-sesame", lambda one: one),
    "bearer": (f"{A}7", lambda one: one),
    "credentials": (f"{A}{A}", lambda one: {"a": {"b": one}}),
    "access_keys": (B, lambda one: {"prod": one}),
    "headers": (A, lambda one: {"Authorization": "Token " + one}),
    "auth": ("some-words", lambda one: ("someone", one)),
    "cookies": (A, lambda one: {"session": one}),
    "settings": ("sec-ret-word", lambda one: {"nested": [{"password": one}]}),
    "conf": (f"{A}9", lambda one: Conf(api_token=one)),
    "secret_str": (A, lambda one: pydantic.SecretStr(one)),
    "client": (A, Client),
    "dsn": (A, lambda one: f"postgresql://app:{one}@db.example/x"),
    "connection_string": (B, lambda one: f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={one}"),
    "webhook_url": (A, lambda one: f"https://ours.example/hooks/{one}"),
    "encoded": ("a b/c+d=e&f-1234567", lambda one: {"api_key": one}),
}


class Own(LLMCallStrategy[str]):
    """Fails with what a function makes of itself; answers without one."""

    def __init__(self, value=None, says=None, fails_in="execute"):
        self.says, self.fails_in, self.value = says, fails_in, value

    async def prepare(self):
        if self.fails_in == "prepare":
            raise RuntimeError(self.says)

    async def execute(self, prompt, attempt, timeout, state=None):
        if self.says is not None:
            raise RuntimeError(self.says)
        return "fine", {}


def named(field, value, says=None, **more):
    """A strategy that keeps a value under that name."""

    def init(self, **given):
        Own.__init__(self, None, says, **more)
        setattr(self, field, given[field])

    namespace = {}
    exec(f"def __init__(self, {field}): self._init({field}={field})", namespace)
    kind = type("Named", (Own,), {"__init__": namespace["__init__"], "_init": init, "__module__": __name__})
    return kind(value)


@pytest.mark.parametrize("field", FIELDS)
def test_what_is_held_shows_nowhere(tmp_path, caplog, field):
    secret, make = FIELDS[field]
    written = [
        f"cannot connect with {secret!r}",
        f"cannot connect with {urllib.parse.quote(secret, safe='')}.",
        f"cannot connect with {json.dumps([secret])}",
        *([f"cut {secret[: len(secret) * 2 // 3]}..."] if len(secret) >= 24 else []),
    ]
    for number, says in enumerate(written):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = artefacts(named(field, make(secret), says), folder, caplog)
        assert secret not in text
        if len(secret) >= 12:
            assert_absent(secret, text)


def test_a_user_with_a_password_as_it_is_sent():
    sent = base64.b64encode(b"someone:some-words").decode()
    result = run(named("auth", ("someone", "some-words"), f"refused {sent}"), ["x"], config=FAST).results[0]
    assert result.error == "RuntimeError: refused [REDACTED]"


def test_prepare_too(caplog):
    strategy = named("api_key", B, f"no luck with {B}", fails_in="prepare")
    result = run(strategy, ["x"], config=FAST).results[0]
    assert B not in caplog.text + repr(result) + result.error
    assert "no luck with" in result.error


MODULE_API_KEY = "abcdefghijk-of-this-module"


def test_what_functions_are_bound_to():
    api_key, more = "k" * 20, {"password": "swordfish"}

    async def closes_over(prompt):
        raise RuntimeError(f"{api_key} {more['password']} {MODULE_API_KEY} {prompt}")

    async def takes(prompt, password="sword-of-damocles", *, secret="shh-shh-shh-1"):
        raise RuntimeError(f"{password} {secret} {prompt}")

    for function, expected in (
        (closes_over, "[REDACTED] [REDACTED] [REDACTED] x"),
        (takes, "[REDACTED] [REDACTED] x"),
        (functools.partial(takes, password="another-word"), "[REDACTED] [REDACTED] x"),
    ):
        assert run(CallableStrategy(function), ["x"], config=FAST).results[0].error == f"RuntimeError: {expected}"


def test_a_token_that_was_renewed_is_known():
    class Renewing(Own):
        def __init__(self):
            super().__init__()
            self.access_token, self.number = "first-token", 0

        async def execute(self, prompt, attempt, timeout, state=None):
            self.number += 1
            self.access_token = f"token-number-{self.number}"
            raise RuntimeError(f"no {self.access_token}")

    results = run(Renewing(), ["x", "y", "z"], config=FAST).results
    assert {result.error for result in results} == {"RuntimeError: no [REDACTED]"}


def test_words_are_left():
    strategy = Own(
        {
            "model": "gpt-5-mini",
            "tokenizer": "cl100k_base",
            "keywords": ["invoice", "receipt-12"],
            "api_key": "EMPTY-x",
        },
        "gpt-5-mini invoice receipt-12 cl100k_base sessions",
    )
    assert run(strategy, ["x"], config=FAST).results[0].error == f"RuntimeError: {strategy.says}"
    strategy = named("password", "cat-cat", "cat-catalogue, cat-cat")
    assert run(strategy, ["x"], config=FAST).results[0].error == "RuntimeError: cat-catalogue, [REDACTED]"


def test_it_is_bounded_and_forgotten():
    class Loop:
        def __init__(self):
            self.me, self.api_keys = self, {str(number): f"key-number-{number}" for number in range(100_000)}

        def __getattr__(self, name):
            raise RuntimeError("look away")

    strategy = Own([Loop(), list(range(100_000))])
    _held_secrets.learn(strategy)
    assert len(_held_secrets._learned[id(strategy)][2]) == _held_secrets.MOST
    several = [named("api_key", f"key-of-strategy-{number}") for number in range(200)]
    for one in several:
        _held_secrets.learn(one)
    assert len(_held_secrets._learned) <= _held_secrets._STRATEGIES
    assert mask("key-of-strategy-199") == _secrets.REDACTED
    del several, one
    gc.collect()
    _held_secrets.learn(Own())
    assert mask("key-of-strategy-199") == "key-of-strategy-199"
    for odd in (None, 5, object(), type, Loop):
        _held_secrets.learn(odd)


def test_what_failed_is_the_same_request_afterwards():
    # The secret is a part of a field that is none.
    strategy = named("settings", {"password": "eu-west", "region": "eu-west"})
    before = identity_of(strategy, None).digest
    _held_secrets.learn(strategy)
    assert mask("eu-west") == _secrets.REDACTED
    assert identity_of(strategy, None).digest == before


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Token {}",
        "{{'Authorization': 'ApiKey {}'}}",
        "proxy-authorization: Custom {}",
        "Cookie: theme=dark; session={}",
        "set-cookie: sid={}; Path=/; HttpOnly",
        '{{"Cookie": "a={}"}}',
        "https://hooks.slack.com/services/T0000AAAA/B0000BBBB/{}",
        "hooks.slack.com/workflows/T0000AAAA/A1/{}",
        "https://discord.com/api/webhooks/1234/{}",
        "npm_{}QwErTyUiOpAsD",
        "SG.{0}.{0}{0}",
    ],
)
@pytest.mark.parametrize("secret", [A, A[::-1] + "1"])
def test_shapes(text, secret):
    shown = mask("before " + text.format(secret) + "\nafter")
    assert secret not in shown
    assert shown.startswith("before ")
    assert shown.endswith("after")
    # A rotated one is the same request.
    one, other = (named("setting", text.format(value)) for value in (secret, secret[1:] + "Z"))
    assert identity_of(one, None).digest == identity_of(other, None).digest


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: required for this resource",
        "the authorization token is missing",
        "cookie: none was sent",
        "see https://hooks.slack.com/docs",
        "npm_install failed",
        "SG.1 and SG.2",
    ],
)
def test_prose_is_left(text):
    assert mask(text) == text


@pytest.mark.parametrize("field", ["cookies", "cookie_jar", "webhook", "webhook_url", "auth", "session_cookie"])
def test_rotated_fields_are_the_same_request(field):
    make = {
        "auth": lambda one: ("someone", one),
        "cookies": lambda one: {"session": one},
        "cookie_jar": lambda one: [one],
    }.get(field, lambda one: f"https://ours.example/{one}")
    one, other = (identity_of(named(field, make(value)), None) for value in ("abcdefgh", "ijklmnop"))
    assert one.digest == other.digest
    assert identity_of(named("other", make("abcdefgh")), None).digest != one.digest
