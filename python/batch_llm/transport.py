"""How native strategies connect."""

from __future__ import annotations

import itertools
import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ._secrets import quoted

__all__ = ["Transport"]


_numbers = itertools.count(1)


@dataclass(frozen=True)
class Transport:
    """Limits and ways of the connections of native strategies.

    Strategies with the same object share their connections to a server. Without one, each
    has its own.

    TLS is checked against the system's trust store. Proxies come from the environment (``HTTPS_PROXY``, ``NO_PROXY``,
    ...) unless one is given. The number of connections is limited by ``max_workers`` only.

    Args:
        connect_timeout: Limit of making a connection, name resolution and TLS included, seconds.
        first_byte_timeout: Limit of the wait for the reply's headers, seconds; None = only ``timeout_per_item``.
        idle_timeout: Limit of the wait for each further part of the reply, seconds; None = none.
        total_timeout: Limit of a whole request, seconds; None = only ``timeout_per_item``.
        max_body_bytes: Longest reply accepted, bytes, unpacked. Of an error 64 KB are read. Long replies of all
            strategies together take 512 MB while they are read: beyond that one is read on at a time.
        connection_max_age: Age at which connections are replaced and names resolved again, seconds.
        proxy: A proxy for all requests, ``"http://host:port"`` or ``"socks5://..."``.
        ca_bundle: A PEM file with certificate authorities to trust beside the system's.
        client_certificate: A PEM file with a client certificate and its key.
        http2: ``"auto"`` where the server offers it, ``"never"``, or ``"always"``, also without TLS.

    Raises:
        ValueError: If a limit is invalid.
    """

    connect_timeout: float = 10.0
    first_byte_timeout: float | None = None
    idle_timeout: float | None = None
    total_timeout: float | None = None
    max_body_bytes: int = 64 * 1024 * 1024
    connection_max_age: float = 300.0
    proxy: str | None = None
    ca_bundle: str | os.PathLike[str] | None = None
    client_certificate: str | os.PathLike[str] | None = None
    http2: Literal["auto", "never", "always"] = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number", next(_numbers))
        for name in ("connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout", "connection_max_age"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0 (got {value}); it is a number of seconds")
        if self.max_body_bytes < 1:
            raise ValueError(f"max_body_bytes must be >= 1 (got {self.max_body_bytes})")
        if self.http2 not in ("auto", "never", "always"):
            raise ValueError(f"http2 must be 'auto', 'never' or 'always' (got {quoted(self.http2)})")

    def __repr__(self) -> str:
        # A proxy's address may contain a password.
        shown = {name: value for name, value in asdict(self).items() if value is not None and name != "proxy"}
        return f"Transport({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def _spec(self) -> dict[str, Any]:
        """The settings as the extension needs them."""
        spec = {**asdict(self), "shared": self.__dict__["_number"]}
        for name in ("ca_bundle", "client_certificate"):
            spec[name] = os.fspath(spec[name]) if spec[name] is not None else None
        return spec
