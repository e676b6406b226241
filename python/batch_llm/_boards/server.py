"""A board in memory, and a TCP server over it."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from .._core import Board, LimitServerHandle
from .demand import Demand, JobReport, JobVerdict, Share

if TYPE_CHECKING:
    from typing_extensions import Self

_ALL_INTERFACES = ("", "0.0.0.0", "::")  # noqa: S104 - to recognise them
# Nothing is sent there: an address of the network where documentation lives, to see which of ours is used.
_SOMEWHERE = ("192.0.2.1", 9)


class LimitBoard:
    """Shared limits in the memory of one process: ``renew()``, ``report()`` and ``leave()``, with a clock of its own.

    Give it to several runs of one process as ``shared_limits=``, or make it what a server or an actor of yours wraps.
    """

    def __init__(self) -> None:
        self._board = Board.memory()

    def renew(self, scope: str, holder: str, demand: Demand) -> Share:
        """Renew the lease of ``holder`` on the limits of ``scope``, or take it.

        Args:
            scope: What the limits are for.
            holder: Who asks; unique among all who share.
            demand: What it says of itself.
        """
        return cast("Share", self._board.renew(scope, holder, demand))

    def report(self, job: str, holder: str, report: JobReport) -> JobVerdict:
        """Take the report of ``holder``, who works on a job.

        Args:
            job: Its name.
            holder: Who works on it; unique among all who do.
            report: What it says.
        """
        return cast("JobVerdict", self._board.report(job, holder, report))

    def leave(self, scope: str, holder: str) -> None:
        """Give a share back, or what is left of the allowance for a job."""
        self._board.leave(scope, holder)


class LimitServer:
    """A TCP server for limits shared by processes of several hosts: give them its ``url`` as ``shared_limits=``.

    It runs in a thread. Whoever has the URL may use it; the connection is not encrypted, so keep it within a
    network that you trust. While it is away, each process keeps its last share.

    Args:
        host: Where to listen: the address of an interface, or ``"0.0.0.0"`` for all.
        port: 0 = a free one.
        token: What clients must know; by default a random one. Give it, and a port, to start a server again under the
            URL that others have.

    Raises:
        OSError: If the address cannot be had.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, token: str | None = None) -> None:
        self._host = host
        self._token = secrets.token_urlsafe(24) if token is None else token
        if not self._token:
            raise ValueError("token must not be empty")
        self._server = LimitServerHandle(host, port, self._token, Board.memory())

    @property
    def url(self) -> str:
        """What to give as ``shared_limits=``. It holds the token."""
        return f"tcp://{quote(self._token, safe='')}@{self._address}"

    @property
    def _address(self) -> str:
        host = _own_address() if self._host in _ALL_INTERFACES else self._host
        return f"[{host}]:{self._server.port}" if ":" in host else f"{host}:{self._server.port}"

    def close(self) -> None:
        """Stop the server. Idempotent."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LimitServer at {self._address}>"


def _own_address() -> str:
    """Return the address by which other hosts reach this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
        except OSError:  # no network
            return "127.0.0.1"
        return str(probe.getsockname()[0])
