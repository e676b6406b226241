"""A proxy that cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Proxy:
    """A TCP proxy on a thread of its own, which passes on what is encrypted as it is.

    Args:
        url: The server's.
        idle: After how long without a byte it closes a connection, seconds.
        cuts: After how many bytes of the server each connection ends, in order; those after the last do not.
    """

    def __init__(self, url, idle=60.0, cuts=()):
        scheme, _, host = url.partition("://")
        self._scheme, self._target = scheme, int(host.rpartition(":")[2])
        self._idle, self._cuts = idle, iter(cuts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.cut = self.connections = 0

    def __enter__(self):
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.url = f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_):
        async def end():
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        left = next(self._cuts, None)
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError, asyncio.CancelledError):
            upstream, sink = await asyncio.open_connection("127.0.0.1", self._target)
            sending = asyncio.create_task(self._pass_on(reader, sink))
            try:
                while data := await asyncio.wait_for(upstream.read(65536), self._idle):
                    if left is not None and len(data) >= left:
                        writer.write(data[:left])
                        self.cut += 1
                        break
                    left = None if left is None else left - len(data)
                    writer.write(data)
                    await writer.drain()
            finally:
                sending.cancel()
                sink.close()
                writer.close()

    async def _pass_on(self, reader, sink):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                sink.write(data)
                await sink.drain()
