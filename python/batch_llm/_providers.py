"""The table of providers, and where their keys and addresses come from. Used by native strategies."""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from . import _core
from .serialization import is_secret, name_of

ApiKey = str | Sequence[str] | Callable[[], str]
"""A key; several, of which each request takes the next; or a function that gives one for each request."""

_SALT = secrets.token_bytes(32)


@dataclass(frozen=True)
class ProviderRow:
    """What is known of one provider; a row of ``src/providers/table.rs``."""

    name: str
    base_url: str | None
    base_url_variable: tuple[str, str] | None
    key_variables: tuple[str, ...]
    needs_key: bool
    has_responses: bool
    embeddings: int
    is_bearer: bool


@functools.cache
def table() -> dict[str, ProviderRow]:
    """Return all rows by name."""
    rows = (ProviderRow(**{**row, "key_variables": tuple(row["key_variables"])}) for row in _core.providers())
    return {row.name: row for row in rows}


def row_of(name: str) -> ProviderRow:
    """Return a provider's row.

    Raises:
        ValueError: When there is none; names the nearest.
    """
    row = table().get(name)
    if row is None:
        raise ValueError(f"unknown provider {name!r}{nearest(name, table())}; known are {', '.join(table())}")
    return row


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing."""
    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def address(row: ProviderRow, given: str | None) -> str:
    """The base URL: as given, else from the environment, else the provider's own.

    Raises:
        ValueError: When there is none.
    """
    if given:
        return given
    if row.base_url_variable is not None:
        variable, suffix = row.base_url_variable
        value = os.environ.get(variable)
        if value:
            return value.rstrip("/") + suffix
    if row.base_url is None:
        variable = f" or set {row.base_url_variable[0]}" if row.base_url_variable else ""
        raise ValueError(f"{row.name} needs base_url: pass base_url='http://...'{variable}")
    return row.base_url


def keys_for(row: ProviderRow, base_url: str, given: ApiKey | None) -> tuple[list[str], Callable[[], str] | None]:
    """The fixed keys, and the function that gives fresh ones.

    A key of the environment belongs to its provider: another server gets only a key that was meant for it.

    Raises:
        ValueError: When a key is missing.
        TypeError: When it is none.
    """
    if callable(given):
        return [], given
    if given is not None:
        keys = [given] if isinstance(given, str) else list(given)
        if not all(isinstance(key, str) for key in keys):
            raise TypeError("api_key must be a string, a list of strings, or a function that returns one")
        if any(keys):
            return [key for key in keys if key], None
    at_home = row.base_url is None or _host(base_url) == _host(row.base_url)
    for variable in row.key_variables if at_home else ():
        value = os.environ.get(variable)
        if value:
            return [value.strip()], None
    if row.needs_key and at_home:
        variables = " or ".join(row.key_variables)
        raise ValueError(f"no API key for {row.name}: pass api_key=... or set the environment variable {variables}")
    return [], None


def fingerprint(keys: list[str], fresh: Callable[[], str] | None) -> Any:
    """Tell keys apart without holding them: a digest under a secret of this process."""
    if fresh is not None:
        return id(fresh)
    return hashlib.blake2b("\n".join(keys).encode(), key=_SALT, digest_size=16).hexdigest()


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()


def without_secrets(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path.split('?', 1)[0]}"


def unknown_options(options: Any, known: Iterable[str], what: str) -> TypeError:
    """The error for options that are not there; names the nearest."""
    name = next(iter(options))
    return TypeError(f"{what} has no option {name!r}{nearest(name, known)}")


def asks(
    row: ProviderRow,
    base_url: str,
    spec: Mapping[str, Any],
    headers: Mapping[str, str],
    body: Mapping[str, Any],
    response_model: Any,
    response_parser: Any,
) -> dict[str, Any]:
    """Who is asked, and how: what makes two requests with one prompt the same.

    A provider that is not at home is known by its host too, but not by its port. Credentials are no part of it.
    """
    at_home = row.base_url is not None and urlsplit(row.base_url).hostname == urlsplit(base_url).hostname
    parts: dict[str, Any] = {"provider": row.name if at_home else f"{row.name} at {urlsplit(base_url).hostname}"}
    parts.update((name, value) for name, value in spec.items() if value is not None and value != [])
    parts["headers"] = {name.lower(): value for name, value in headers.items() if not is_secret(name)}
    parts["extra_body"] = body
    for name, value in (("response_model", response_model), ("response_parser", response_parser)):
        if hasattr(value, "__qualname__"):
            parts[name] = name_of(value)
    return {name: value for name, value in parts.items() if value != {}}
