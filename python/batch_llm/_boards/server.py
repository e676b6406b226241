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
    """Shared limits in the memory of one process.

    Pass it to several runs of one process as ``shared_limits=``, or wrap it in a server or an actor of your own that
    forwards ``renew()``, ``report()`` and ``leave()``.
    """

    def __init__(self) -> None:
        self._board = Board.memory()

    def renew(self, scope: str, holder: str, demand: Demand) -> Share:
        """Renew the lease of ``holder`` on the limits of ``scope``, or take it.

        Args:
            scope: The name of the quota scope.
            holder: The name of the process; unique among all that share the limits.
            demand: What it needs.
        """
        return cast("Share", self._board.renew(scope, holder, demand))

    def report(self, job: str, holder: str, report: JobReport) -> JobVerdict:
        """Take the report of a process that works on a job, and return what it may spend.

        Args:
            job: The name of the job.
            holder: The name of the process; unique among all that work on the job.
            report: Its counters, what it has spent, and what it wants to spend.
        """
        return cast("JobVerdict", self._board.report(job, holder, report))

    def leave(self, scope: str, holder: str) -> None:
        """Give back a share of limits, or what is left of a job's allowance (``scope`` is then the job's name)."""
        self._board.leave(scope, holder)


class LimitServer:
    """A TCP server for limits shared by processes of several hosts: give them its ``url`` as ``shared_limits=``.

    It runs in a thread. Anyone with the URL can use it; the connection is not encrypted, so keep it within a
    network that you trust. While it is unreachable, each process keeps its last share.

    Args:
        host: Where to listen: the address of an interface, or ``"0.0.0.0"`` for all.
        port: 0 = a free one.
        token: The token that clients must send; by default a random one. To restart a server under the same URL, pass
            the same token and port.

    Raises:
        OSError: If the address is not available.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, token: str | None = None) -> None:
        self._host = host
        self._token = secrets.token_urlsafe(24) if token is None else token
        if not self._token:
            raise ValueError("token must not be empty")
        self._server = LimitServerHandle(host, port, self._token, Board.memory())

    @property
    def url(self) -> str:
        """The URL to pass as ``shared_limits=``. It contains the token."""
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
