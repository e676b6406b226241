"""The table of providers, and where their keys and addresses come from. Used by native strategies."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core import Address
from .._core import providers as _providers
from .._guesses import nearest
from .._json_values import name_of
from .._logs import logger_of
from .._secrets import is_opaque, mask, may_be_secret, public, quoted
from ..transport import Transport
from . import clouds

ApiKey = str | Sequence[str] | Callable[[], str]
"""A key; several, of which each request takes the next; or a function that gives one for each request."""

_logger = logger_of("batch_llm")

_SALT = secrets.token_bytes(32)

SIMULATED = "BATCH_LLM_SIMULATED"
"""The environment variable with the address of a simulated provider that stands in for all providers."""

SIMULATED_MARK = "simulated"
"""In identities, of requests that a simulated provider answers in the place of another."""

simulators: set[str] = set()
"""Origins of the simulated providers that run in this process."""

_BELOW = {
    "chat": "/v1",
    "anthropic": "",
    "gemini": "/v1beta",
    "bedrock": "",
    "vertex": "/v1/projects/simulated/locations/global",
}
BATCH_PATHS = {
    "openai": "/v1",
    "azure": "/openai/v1",
    "anthropic": "",
    "gemini": "/v1beta",
    "mistral": "/mistral/v1",
    "groq": "/groq/openai/v1",
    "together": "/together/v1",
    "xai": "/xai/v1",
    "openrouter": "/openrouter/api/v1",
}
"""Where a simulated provider has the batch APIs of others, each beside the live endpoints."""


@dataclass(frozen=True)
class ProviderRow:
    """What is known of one provider; a row of ``src/providers/table.rs``."""

    name: str
    base_url: str | None
    address_variables: tuple[str, ...]
    key_variables: tuple[str, ...]
    token_variables: tuple[str, ...]
    header_variables: tuple[tuple[str, str], ...]
    is_cloud: bool
    needs_key: bool
    has_responses: bool
    embeddings: int
    is_bearer: bool
    language: str


@functools.cache
def table() -> dict[str, ProviderRow]:
    """Return all rows by name."""

    def frozen(row: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}

    rows = (ProviderRow(**frozen(row)) for row in _providers())
    return {row.name: row for row in rows}


def row_of(name: str) -> ProviderRow:
    """Return a provider's row.

    Raises:
        ValueError: If there is none; the message suggests the closest match.
    """
    row = table().get(name)
    if row is None:
        raise ValueError(
            f"unknown provider {quoted(name)}{nearest(name, table())} (known providers: {', '.join(table())})"
        )
    return row


_VENDORS = (
    (r"(text-|chat)?gpt-|o\d|text-embedding-|codex-|ft:gpt", "openai"),
    (r"claude", "anthropic"),
    (r"gemini|gemma|learnlm", "gemini"),
    (r"deepseek", "deepseek"),
    (r"(open-)?[mp]i[sx]tral|ministral|codestral|devstral|magistral", "mistral"),
    (r"grok", "xai"),
    (r"llama|qwen|phi|mistral", "ollama"),
)
"""Providers by the first letters of their models' names."""


_BEDROCK = re.compile(r"(?:[a-z]{2,6}\.)?(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|writer)\.")
"""First parts of Amazon Bedrock's model names, with or without a region before."""
_NO_PROVIDER = "a model's name has the form 'provider:model'"


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Names of environment variables."""


def vendor_of(model: str) -> str | None:
    """Return the provider of a model with this name, if it can be guessed; one with a slash is OpenRouter's."""
    if "/" in model:
        return "openrouter"
    found = (vendor for pattern, vendor in _VENDORS if re.match(pattern, model.lower()))
    return next(found, None)


def is_model(name: str) -> bool:
    """Whether this looks like the beginning of a model's name."""
    return vendor_of(name) is not None or _BEDROCK.match(name) is not None


def without_provider(name: str) -> str:
    """Return the error message for a model's name without its provider."""
    if mask(name) != name:
        return f"{_NO_PROVIDER}, and this value looks like an API key: pass it as api_key=..."
    if _BEDROCK.match(name):
        return (
            f"{_NO_PROVIDER}, and {name!r} is an Amazon Bedrock model, which names no provider: write "
            f"{f'bedrock:{name}'!r}"
        )
    vendor = vendor_of(name)
    if vendor is not None:
        return f"{_NO_PROVIDER}, and {name!r} names no provider: write {f'{vendor}:{name}'!r}"
    if name in table():
        return f"{_NO_PROVIDER}, and {name!r} names no model: write {f'{name}:MODEL'!r}"
    return (
        f"{_NO_PROVIDER}, and {name!r} names no provider: write 'openai:{name}', for example"
        f"{nearest(name, table())} (known providers: {', '.join(table())})"
    )


@dataclass(frozen=True)
class Endpoint:
    """Where a strategy's requests go, and with which credentials.

    Args:
        address: The address, read and completed.
        text: The address as it was given.
        keys: The fixed keys.
        fresh: The function that gives a key for each request.
        is_token: Whether the keys are tokens, sent as ``authorization: Bearer``.
        headers: Further headers that the environment asks for.
        is_direct: Whether no proxy of the environment may see the requests.
        is_simulated: Whether a simulated provider answers: then no proxy at all may.
        variable: The environment variable that the key comes from, if it does.
        credentials: The variables from which a cloud's credentials are read, which sign requests in place of keys.
    """

    address: Address
    text: str = field(repr=False)
    keys: list[str] = field(default_factory=list, repr=False)
    fresh: Callable[[], str] | None = None
    is_token: bool = False
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    is_direct: bool = False
    is_simulated: bool = False
    variable: str | None = None
    credentials: dict[str, str] | None = field(default=None, repr=False)

    @property
    def key_count(self) -> int | None:
        """How many keys there are; None: a function gives them."""
        return len(self.keys) if self.fresh is None else None

    def connecting(self, transport: Transport | None) -> dict[str, Any]:
        """The connection settings as the extension needs them."""
        spec = {} if transport is None else transport._spec
        return {**spec, "direct": True, "proxy": None} if self.is_simulated else {**spec, "direct": self.is_direct}

    @property
    def is_at_home(self) -> bool:
        """Whether the provider itself answers, or what simulates it: all of its fields are known there."""
        return self.address.is_own or self.is_simulated or self.address.origin in simulators

    @property
    def url(self) -> str:
        """The base URL; it may contain a user and a password."""
        return self.text if self.address.problem else self.address.url

    def scope(self, row: ProviderRow, model: str) -> tuple[str, str, str, Any, str]:
        """The quota scope: shared by all requests to the same server with the same credentials for the same model."""
        named = [f"{name}={value}" for name, value in sorted((self.credentials or {}).items())]
        credentials = fingerprint([*self.keys, self.url, *named], self.fresh)
        return "provider", row.name, self.address.shown, credentials, model

    def headers_with(self, given: Mapping[str, str]) -> dict[str, str]:
        """The further headers: those given, and of those of the environment the others."""
        names = {name.lower() for name in given}
        return {**{name: value for name, value in self.headers.items() if name not in names}, **given}


def endpoint(
    row: ProviderRow,
    base_url: str | None,
    api_key: ApiKey | None,
    model: str,
    transport: Transport | None = None,
    variable: str | None = None,
) -> Endpoint:
    """Find the address (as given, else the environment's, else the provider's own) and the credentials for it.

    What the environment holds for a provider belongs together: its key goes to its address, or to the provider. An
    address that was given gets it only if its origin (scheme, host, port) is one of these two. And it is sent over
    https, or to this machine past all proxies; otherwise it is not sent, and a warning is logged.

    Args:
        row: The provider.
        base_url: The address, if one was given.
        api_key: The keys, if some were given.
        model: The model's name.
        transport: The connections' settings.
        variable: The environment variable of the key, if one was given. The key counts as given, too.

    Raises:
        ValueError: If the address cannot be used, or a key is missing.
        TypeError: If an argument has the wrong type.
    """
    if variable is not None:
        check_variable(variable)
        if api_key is not None:
            raise ValueError("api_key and api_key_env cannot be combined: remove one of them")
        api_key = environment(variable)
    simulator = environment(SIMULATED)
    if simulator is not None:
        return _simulated(row, base_url, api_key, model, simulator)
    address, text, is_trusted = _address(row, base_url, model)
    if callable(api_key):
        return Endpoint(address, text, fresh=api_key)
    keys = _given(api_key)
    if variable is not None and not keys:
        raise ValueError(f"no API key for {row.name}: set the environment variable {variable}, which api_key_env names")
    if keys:
        return Endpoint(address, text, keys, is_token=variable in row.token_variables, variable=variable)
    if is_trusted:
        headers = {header: value for variable, header in row.header_variables if (value := environment(variable))}
        for is_token, names in ((False, row.key_variables), (True, row.token_variables)):
            value = environment(*names)
            if value and not address.is_encrypted and not _stays_here(address, transport):
                _warn_of_clear_text(address, names)
                return Endpoint(address, text)
            if value:
                return Endpoint(
                    address,
                    text,
                    [value],
                    is_token=is_token,
                    headers=headers,
                    is_direct=not address.is_encrypted,
                    variable=next(name for name in names if environment(name)),
                )
        if row.is_cloud and (address.is_encrypted or _stays_here(address, transport)):
            found = clouds.credentials(row.name)
            if found is not None:
                return Endpoint(address, text, is_direct=not address.is_encrypted, credentials=found)
    elif address.has_own_host and not address.is_encrypted:
        for names in (row.key_variables, row.token_variables):
            if environment(*names):
                _warn_of_clear_text(address, names)
                break
    if row.needs_key and (address.is_own or (is_trusted and row.base_url is None)):
        variables = " or ".join(sorted(row.key_variables))
        raise ValueError(f"no API key for {row.name}: set the environment variable {variables} (or pass api_key=...)")
    return Endpoint(address, text)


def check_variable(name: Any) -> None:
    """Check the name of an environment variable.

    Raises:
        ValueError: If it is none; it may be the key itself, so the message does not show it.
    """
    is_name = isinstance(name, str) and _VARIABLE.fullmatch(name) is not None
    if not is_name or mask(name) != name or (is_opaque(name) and "_" not in name):
        raise ValueError("api_key_env must be the name of an environment variable, such as 'MY_KEY', not a key")


def _given(api_key: Any) -> list[str]:
    """The fixed keys that were given, without those that are blank."""
    if api_key is None:
        return []
    keys = [api_key] if isinstance(api_key, str) else list(api_key)
    if not all(isinstance(key, str) for key in keys):
        raise TypeError("api_key must be a string, a list of strings, or a function that returns one")
    return [key.strip() for key in keys if key.strip()]


def _simulated(row: ProviderRow, base_url: str | None, api_key: ApiKey | None, model: str, simulator: str) -> Endpoint:
    """Use the simulated provider, whatever else the environment has; nothing leaves this machine.

    Raises:
        ValueError: If another server was requested.
    """
    text = simulated_url(row, simulator)
    try:
        address = Address(row.name, text, model)
    except ValueError as error:
        raise ValueError(f"the environment variable {SIMULATED} cannot be used: {error}") from None
    if not address.is_loopback:
        raise ValueError(f"{SIMULATED} is for a simulated provider on this machine, not for {address.origin}; unset it")
    if base_url:
        given = Address(row.name, base_url, model)
        if given.problem is not None or given.origin not in {address.origin, *simulators}:
            raise ValueError(
                f"base_url is {given.origin}, but a simulated provider replaces all providers: remove "
                f"base_url, or unset the environment variable {SIMULATED} (did you mean --simulate?)"
            )
        address, text = given, base_url
    if callable(api_key):
        return Endpoint(address, text, fresh=api_key, is_simulated=True)
    keys = _given(api_key) or [key for key in [environment(*row.key_variables)] if key]
    return Endpoint(address, text, keys, is_simulated=True)


def simulated_url(row: ProviderRow, simulator: str) -> str:
    """The base URL of a simulated provider for those who know it by this row."""
    below = "" if row.name == "azure" else BATCH_PATHS.get(row.name, _BELOW[row.language])
    return simulator.rstrip("/") + below


def _stays_here(address: Address, transport: Transport | None) -> bool:
    """Whether what is sent in clear text does not leave this machine."""
    proxy = None if transport is None else transport.proxy
    try:
        return address.is_loopback and (proxy is None or Address("openai-compatible", proxy, "").is_loopback)
    except ValueError:
        return False


def _warn_of_clear_text(address: Address, names: Sequence[str]) -> None:
    name = next(name for name in names if environment(name))
    if (name, address.origin) not in _warned:
        _warned.add((name, address.origin))
        _logger.warning(
            "The key in %s is not sent to %s: the connection is not encrypted. Use https://, or pass api_key=... to "
            "send the key anyway",
            name,
            address.origin,
        )


_warned: set[tuple[str, str]] = set()


def environment(*variables: str) -> str | None:
    """The value of the first of these variables that is set to something, without blanks and quotes around it."""
    for variable in variables:
        value = os.environ.get(variable, "").strip()
        # Files for Docker keep quotes as a part of the value.
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1].strip()
        if value:
            return value
    return None


def _address(row: ProviderRow, given: str | None, model: str) -> tuple[Address, str, bool]:
    """Return the address, its text, and whether credentials of the environment belong to it."""
    if given is not None and not isinstance(given, str):
        raise TypeError(f"base_url must be a string, not {type(given).__name__}")
    named = environment(*row.address_variables)
    if not given and named is None:
        if row.language in ("bedrock", "vertex"):
            text = clouds.address(row.name, model)
            return Address(row.name, text, model), text, True
        if row.base_url is None:
            variable = f" or set {row.address_variables[0]}" if row.address_variables else ""
            raise ValueError(f"{row.name} needs base_url: pass base_url='http://...'{variable}")
        return Address(row.name, row.base_url, model), row.base_url, True
    if row.language == "vertex":  # the path names the project
        given = clouds.address(row.name, model, given) if given else given
        named = clouds.address(row.name, model, named) if named else named
    if given:
        address = Address(row.name, given, model)
        try:
            is_named = named is not None and Address(row.name, named, model).origin == address.origin
        except ValueError:
            is_named = False  # it is not used
    else:
        assert named is not None
        try:
            address, is_named = Address(row.name, named, model), True
        except ValueError as error:
            variable = next(name for name in row.address_variables if environment(name))
            raise ValueError(f"the environment variable {variable} cannot be used: {error}") from None
    # The provider itself is used over TLS only: its key must not be sent in clear text.
    in_clear = address.has_own_host and not address.is_own
    if address.problem is not None:
        _logger.warning("No request will be sent to %s: %s", address.origin, address.problem)
        return address, given or named or "", False
    return address, given or named or "", address.is_own or (is_named and not in_clear)


def fingerprint(keys: list[str], fresh: Callable[[], str] | None) -> Any:
    """Return a digest that identifies keys without storing them, under a secret of this process."""
    if fresh is not None:
        return id(fresh)
    return hashlib.blake2b("\n".join(keys).encode(), key=_SALT, digest_size=16).hexdigest()


def _orders(value: Any) -> Iterator[list[str]]:
    """The names of properties of all schemas in a value, each in its order."""
    if isinstance(value, Mapping):
        properties = value.get("properties")
        if isinstance(properties, Mapping):
            yield [str(name) for name in properties]
        for name in sorted(value, key=str):
            yield from _orders(value[name])
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _orders(part)


def asks(
    where: Endpoint,
    spec: Mapping[str, Any],
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    response_model: Any,
    response_parser: Any,
) -> dict[str, Any]:
    """The identity of requests: what makes two requests with one prompt the same.

    A server that is not the provider's own is known by its host too, but not by its port. Credentials are left out.
    Answers of a simulated provider are marked, so that they are never reused for real ones.
    """
    parts: dict[str, Any] = {"provider": where.address.label}
    if where.is_simulated:
        parts[SIMULATED_MARK] = True
    parts.update((name, value) for name, value in spec.items() if value is not None and value != [])
    # Models answer in the order of a schema's properties, and a fingerprint knows no order.
    orders = list(_orders([spec.get("schema"), spec.get("tools")]))
    if any(names != sorted(names) for names in orders):
        parts["order"] = orders
    parts["headers"] = {name.lower(): value for name, value in headers.items() if not may_be_secret(name)}
    parts["extra_body"] = public(body)
    for name, value in (("response_model", response_model), ("response_parser", response_parser)):
        if hasattr(value, "__qualname__"):
            parts[name] = name_of(value)
    return {name: value for name, value in parts.items() if value != {}}
