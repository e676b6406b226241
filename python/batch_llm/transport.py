"""Connections of native strategies."""

from __future__ import annotations

import itertools
import os
import pickle
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from ._secrets import mask, quoted

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Transport"]


_numbers = itertools.count(1)
_TIMES = (
    "connect_timeout", "first_byte_timeout", "idle_timeout", "progress_timeout", "total_timeout", "connection_max_age",
)  # fmt: skip
_PEM_BEGINS = "-----BEGIN "
"""What the text of a PEM file contains, and no path does."""


@dataclass(frozen=True)
class Transport:
    """Timeouts, proxies, certificates and HTTP/2 for the connections of native strategies.

    Strategies with the same ``Transport`` object share its connections. Without one, each strategy has its own.

    TLS certificates are verified against the system's trust store. Proxies come from the environment (``HTTPS_PROXY``,
    ``NO_PROXY``, ...) unless one is given. The transport does not limit connections: only ``max_workers`` or
    ``concurrency`` limits the requests in flight.

    Args:
        connect_timeout: Timeout for connecting, including name resolution and TLS, seconds.
        first_byte_timeout: Timeout for the response headers, seconds; None = only ``timeout_per_item``.
        idle_timeout: Timeout for each further part of the response, seconds; None = none.
        total_timeout: Timeout of a whole request, seconds; None = only ``timeout_per_item``.
        max_body_bytes: Maximum size of a response, decompressed, bytes. At most 64 KB of an error response are read.
            Long responses of all strategies share a memory budget of 512 MB; beyond it, they are read one at a time.
        connection_max_age: Age at which connections are replaced and names are resolved again, seconds.
        proxy: A proxy for all requests, ``"http://host:port"`` or ``"socks5://..."``.
        ca_bundle: Certificate authorities to trust in addition to the system's: the path of a PEM file, or its text.
        client_certificate: A PEM file with a client certificate and its key.
        http2: ``"auto"`` if the server offers it, ``"never"``, or ``"always"``, even without TLS.
        progress_timeout: For streams: longest time without an event, and without one that continues the answer (a ping
            does not), seconds; None = 600, and 1,800 for reasoning models. Where a server is silent while its model
            thinks, ``idle_timeout`` must allow for that, too.

    Raises:
        ValueError: If a timeout or limit is invalid.
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
    progress_timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number", next(_numbers))
        for name in _TIMES:
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
        if _PEM_BEGINS in str(self.ca_bundle):
            shown["ca_bundle"] = f"{_PEM_BEGINS}..."
        return f"Transport({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; the other process has its own connections.

        Raises:
            pickle.PicklingError: If the proxy's address contains a password.
        """
        if self.proxy is not None and mask(self.proxy) != self.proxy:
            raise pickle.PicklingError(
                "the proxy of a Transport contains a password, which a pickle would reveal. Set HTTPS_PROXY in each "
                "process instead, or create the Transport there"
            )
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    # Its connections are those of this object.
    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def _spec(self) -> dict[str, Any]:
        """The settings as the extension needs them."""
        spec = {**asdict(self), "shared": self.__dict__["_number"]}
        for name in ("ca_bundle", "client_certificate"):
            spec[name] = os.fspath(spec[name]) if spec[name] is not None else None
        return spec
