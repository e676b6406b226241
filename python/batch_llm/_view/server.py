"""Serves the page of a run to the browser on this machine, during the run or afterwards.

It listens on loopback only, on a random port. The address has a token: whoever does not have it gets nothing. Requests
with another host in their header are rejected, so that no web page reaches it by a name that leads here (DNS
rebinding). Used by ``BatchResult.view`` and the command line.
"""

from __future__ import annotations

import contextlib
import hmac
import http.server
import json
import logging
import secrets
import socket
import threading
import time
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, cast

from .._logs import message_of
from .compare import Comparison
from .index import Index
from .page import page, policy
from .query import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from .items import Items

HOST = "127.0.0.1"
LOOK_SECONDS = 1.0
"""How often a store is looked at for more."""
LONGEST_LOOK = 0.1
"""The share of the time that looking takes at most."""
BREATH = 0.1
"""How long after a request the next one is expected: a browser asks for the page, the sums and the rows."""
LONGEST_WAY = 0.25
"""How long reading waits for requests at most, seconds."""
MOST_ROWS = 1000
"""Rows that one request gets."""
LONGEST_PATH = 8_000
"""Characters of an address."""
PATIENCE = 30.0
"""How long a connection may be silent, seconds."""

_log = logging.getLogger("batch_llm.view")


class ViewServer:
    """A page that is being served. ``BatchResult.view`` returns one.

    It ends with :meth:`close`, with the ``with`` block, or with the process.

    Args:
        items: The items of a run.
        other: Those of a run that it is compared with.

    Raises:
        OSError: If no port can be opened.
    """

    def __init__(self, items: Items, other: Items | None = None) -> None:
        self._index, self._items, self._other = Index(items), items, other
        self._comparison: Comparison | None = None
        self._problem: str | None = None
        self._in_work, self._asked_at = 0, float("-inf")
        self._lock = threading.Lock()
        self._compared = threading.Event()
        self._stop = threading.Event()
        self._token = secrets.token_urlsafe(24)
        self._once: str | None = secrets.token_urlsafe(24)
        self._server = _Server((HOST, 0), self)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), name="batch-llm view", daemon=True),
            threading.Thread(target=self._follow, name="batch-llm view: reading", daemon=True),
        ]
        if other is not None:
            self._threads.append(threading.Thread(target=self._compare, name="batch-llm view: comparing", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        """The address of the page. Whoever has it can read the run, as long as it is served."""
        return f"http://{HOST}:{self._server.server_port}/{self._token}/"

    @property
    def url_once(self) -> str:
        """An address that leads to the page once: for command lines, which other users of this machine can see."""
        return f"http://{HOST}:{self._server.server_port}/{self._once or ''}/"

    def take_once(self, text: str) -> str | None:
        """Return where the page is, if a text is the token of ``url_once``, which it is only once."""
        with self._lock:
            if self._once is None or not hmac.compare_digest(text.encode("utf-8", "replace"), self._once.encode()):
                return None
            self._once = None
        return f"/{self._token}/"

    def __repr__(self) -> str:
        # Without the token: what is shown may be logged.
        shown = "closed" if self._stop.is_set() else f"http://{HOST}:{self._server.server_port}/..."
        return f"{type(self).__name__}({shown})"

    def close(self) -> None:
        """End it. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()
        for thread in self._threads:
            thread.join()
        self._index.close()
        if self._comparison is not None:
            self._comparison.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> None:
        """Read the items, then look for more."""
        pause = 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                self._index.read(self._stop, self._give_way)
                self._problem = None
            except Exception as error:
                self._problem = f"the store cannot be read: {message_of(error)}"
                _log.debug("reading the store failed", exc_info=True)
            pause = (
                max(LOOK_SECONDS, (time.monotonic() - began) / LONGEST_LOOK)
                if self._index.is_complete
                else LOOK_SECONDS
            )

    def _give_way(self) -> None:
        """Let requests be answered first: Python runs one thread at a time, and reading a large store takes minutes."""
        until = time.monotonic() + LONGEST_WAY
        while (now := time.monotonic()) < until and not self._stop.is_set():
            if not self._in_work and now - self._asked_at > BREATH:
                return
            time.sleep(0.002)

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """Answer a request while reading waits."""
        with self._lock:
            self._in_work += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_work -= 1
                self._asked_at = time.monotonic()

    def _compare(self) -> None:
        assert self._other is not None
        try:
            self._comparison = Comparison(self._items, self._other, self._stop)
        except Exception as error:
            self._problem = f"the runs cannot be compared: {message_of(error)}"
            _log.debug("comparing failed", exc_info=True)
        self._compared.set()

    # What is asked

    def has_token(self, text: str) -> bool:
        """Whether a text is the token."""
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    def is_host(self, name: str | None) -> bool:
        """Whether a request was meant for this server."""
        port = self._server.server_port
        return name in (f"{HOST}:{port}", f"localhost:{port}")

    def answer(self, name: str, given: Mapping[str, str]) -> Any:
        """Return what is asked for, as JSON values; None: there is no such thing.

        Raises:
            ValueError: If a parameter is wrong; the message names it.
        """
        ask: Callable[[Mapping[str, str]], Any] | None = {
            "overview": self._overview, "rows": self._rows, "item": self._item, "position": self._position,
            "comparison": self._sums, "pairs": self._pairs,
        }.get(name)  # fmt: skip
        return None if ask is None else ask(given)

    def _overview(self, given: Mapping[str, str]) -> Any:
        found = self._index.overview()
        if self._other is not None:
            found["about"] = {**found["about"], "compared_with": self._other.about()["name"]}
        return {**found, "error": self._problem}

    def _rows(self, given: Mapping[str, str]) -> Any:
        return self._index.rows(Query.of(given), _number(given, "start", 0), _number(given, "count", 100, MOST_ROWS))

    def _item(self, given: Mapping[str, str]) -> Any:
        place = _number(given, "place")
        if given.get("side") == "second":
            return None if self._other is None else self._index.details(place, self._other)
        return self._index.details(place)

    def _position(self, given: Mapping[str, str]) -> Any:
        return {"position": self._index.position(Query.of(given), _number(given, "place"))}

    def _sums(self, given: Mapping[str, str]) -> Any:
        if self._other is None:
            return None
        if self._comparison is None:
            return {"is_complete": self._compared.is_set(), "error": self._problem}
        return {"is_complete": True, "figures": self._comparison.figures}

    def _pairs(self, given: Mapping[str, str]) -> Any:
        if self._comparison is None:
            return None
        start, count = _number(given, "start", 0), _number(given, "count", 100, MOST_ROWS)
        return self._comparison.rows(given.get("outcome") or None, start, count)


def _number(given: Mapping[str, str], name: str, usual: int | None = None, most: int = 1 << 62) -> int:
    text = given.get(name)
    if text is None and usual is not None:
        return usual
    if text is None or not text.isdecimal() or not text.isascii() or len(text) > 19 or int(text) > most:
        raise ValueError(f"{name}={(text or '')[:80]!r}: it is a number from 0 to {most}")
    return int(text)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], view: ViewServer) -> None:
        self.view = view
        self._open: set[Any] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """End connections that are open: browsers keep them."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a request failed", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "batch-llm", ""
    timeout = PATIENCE
    _HEADERS: ClassVar[dict[str, str]] = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy(is_served=True) + "; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Log nothing: addresses have the token."""

    def do_GET(self) -> None:
        """Answer."""
        view = cast("_Server", self.server).view
        with view.first():
            self._reply(view)

    def _reply(self, view: ViewServer) -> None:
        hosts = self.headers.get_all("Host") or []
        is_foreign = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if len(hosts) != 1 or not view.is_host(hosts[0]) or len(self.path) > LONGEST_PATH:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"forbidden")
            return
        address = urllib.parse.urlsplit(self.path)
        token, _, rest = address.path.removeprefix("/").partition("/")
        if not rest and (place := view.take_once(token)) is not None:
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": place})
        elif not view.has_token(token) or (is_foreign and rest):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        elif not rest and address.path.endswith("/"):
            self._send(HTTPStatus.OK, "text/html", "".join(page("batch-llm view")).encode())
        else:
            self._answer(view, rest.removeprefix("api/") if rest.startswith("api/") else "", address.query)

    def _answer(self, view: ViewServer, name: str, query: str) -> None:
        try:
            given = dict(urllib.parse.parse_qsl(query, max_num_fields=20))
            found = view.answer(name, given)
        except ValueError as error:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", str(error).encode("utf-8", "replace"))
            return
        except Exception:
            _log.debug("a request failed", exc_info=True)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"the store cannot be read")
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        else:
            self._send(HTTPStatus.OK, "application/json", json.dumps(found, default=str).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes, more: Mapping[str, str] | None = None) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            for name, value in {**self._HEADERS, **(more or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - its name
