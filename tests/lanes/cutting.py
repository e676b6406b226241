"""A TCP proxy that cuts all connections after so many bytes, in whichever direction these go."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit


class Cutting:
    """Passes bytes between a program and a server until they are to be cut; see :func:`cutting`."""

    def __init__(self) -> None:
        self.passed = 0
        """Bytes that have gone through."""
        self._left: int | None = None
        self._then: Callable[[], object] = bool
        self._upstream = ("", 0)
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    def url(self, url: str) -> str:
        """The same URL through the proxy."""
        parts = urlsplit(url)
        assert (parts.hostname, parts.port) == self._upstream
        return urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._port}"))

    def cut_after(self, count: int, then: Callable[[], object]) -> None:
        """Call ``then``, and cut all connections, once so many more bytes have gone through."""
        self._left, self._then = count, then

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
            both = {writer, server_writer}
            self._writers |= both
            try:
                await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))
            finally:
                self._writers -= both
                for one in both:
                    one.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            is_last = self._left is not None and len(data) > self._left
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            self.passed += len(data)
            writer.write(data)
            await writer.drain()
            if is_last:
                self._left = None
                self._then()
                for one in self._writers:
                    one.transport.abort()
                return
        with contextlib.suppress(OSError):
            writer.write_eof()


@contextlib.contextmanager
def cutting(url: str) -> Iterator[Cutting]:
    """A proxy before the server of a URL."""
    proxy = Cutting()
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy._upstream = (parts.hostname, parts.port)
    loop = asyncio.new_event_loop()
    started, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy._port = server.sockets[0].getsockname()[1]
        started.set()
        await over.wait()
        server.close()
        for one in list(proxy._writers):
            one.transport.abort()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
