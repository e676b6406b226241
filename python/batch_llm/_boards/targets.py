"""What ``shared_limits=`` may be: a path, a URL or a board."""

from __future__ import annotations

import os
import re
from typing import Any, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from .._core import Board as _Opened
from .demand import Board
from .server import LimitBoard, LimitServer

SharedLimits: TypeAlias = str | os.PathLike[str] | Board
"""A file, a URL (``tcp://TOKEN@host:port``, ``redis://host:port``) or an object with ``renew()`` and ``leave()``."""

_REDIS = ("redis", "rediss", "unix")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WHAT = "a path, a URL (tcp://TOKEN@host:port, redis://host:port) or a board with renew() and leave()"


def check_shared_limits(given: Any) -> None:
    """Check that it may be used, without touching it.

    Raises:
        TypeError: If it is none of what it may be.
        ValueError: If it is a URL, and wrong.
    """
    if isinstance(given, LimitServer):
        raise TypeError("shared_limits must be the url of the LimitServer: pass server.url")
    if isinstance(given, str):
        if _URL.match(given):
            _split(given)
    elif not isinstance(given, os.PathLike) and not _is_board(given):
        raise TypeError(f"shared_limits must be {_WHAT}, not {_name(given)}")


def shown(given: Any) -> str:
    """Return it as errors and logs show it: without the token or password of a URL."""
    if isinstance(given, str) and _URL.match(given):
        return repr(re.sub(r"(?<=://)[^/?#]*@", "***@", given.partition("?")[0]))
    return repr(os.fspath(given)) if isinstance(given, (str, os.PathLike)) else type(given).__name__


def open_board(given: SharedLimits) -> _Opened:
    """Return the board.

    Raises:
        ImportError: If the client of Redis is needed, and not there.
        ValueError: If it is a URL, and wrong.
    """
    if isinstance(given, LimitBoard):
        return given._board
    if not isinstance(given, (str, os.PathLike)):
        return _Opened.object(given)
    path = os.fspath(given)
    if not _URL.match(path):
        return _Opened.file(path)
    url = _split(path)
    if url.scheme in _REDIS:
        from .redis import RedisBoard

        return _Opened.object(RedisBoard(path))
    assert url.hostname is not None
    assert url.port is not None
    return _Opened.tcp(url.hostname, url.port, unquote(url.username or ""))


def _is_board(given: Any) -> bool:
    return not isinstance(given, type) and all(callable(getattr(given, name, None)) for name in ("renew", "leave"))


def _name(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def _split(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # without its words, which may show the token
        raise ValueError("shared_limits is not a valid URL; use one such as tcp://TOKEN@host:port") from None
    if url.scheme in _REDIS:
        return url
    if url.scheme != "tcp":
        raise ValueError(f"shared_limits has the URL scheme {url.scheme!r}; it must be {_WHAT}")
    if not url.hostname or port is None:
        raise ValueError("shared_limits has no host and port; pass the url of a LimitServer: tcp://TOKEN@host:port")
    if not url.username or url.password is not None or url.path.strip("/") or url.query or url.fragment:
        raise ValueError(
            "shared_limits must have a token, and only that, before the host; pass the url of a LimitServer unchanged"
        )
    return url
