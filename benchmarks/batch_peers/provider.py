"""The simulated provider, some way off, in a process of its own. Started by ``__main__.py``, with JSON as its argument.

Prints its URL. At the end of its input, puts the clock of batches forward until all have ended, and prints what it has
seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

from batch_llm.testing import BatchFault, SimulatedBatches, SimulatedProvider

GONE = 1.0
"""How long a request goes on whose sender is gone, seconds."""


class Distance:
    """Passes on what comes, either way, a little later. What is under way arrives, even if its sender was killed."""

    def __init__(self, url: str, seconds: float) -> None:
        self._port, self._seconds = int(url.rpartition(":")[2]), seconds
        self.times: list[float] = []
        """When something came, either way: the first and the last time, seconds."""

    async def listen(self) -> str:
        """Listen; return the URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, sink = await asyncio.open_connection("127.0.0.1", self._port)
        there, back = self._carry(reader, sink, GONE), self._carry(upstream, writer, 0.0)
        with contextlib.suppress(asyncio.CancelledError):  # at the end
            await asyncio.gather(there, back)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, linger: float) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(under_way, sink, linger))
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                self.times[1:] = [loop.time()]
                under_way.put_nowait((loop.time() + self._seconds, data))
        under_way.put_nowait((loop.time() + self._seconds, b""))
        await arriving

    async def _arrive(
        self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, linger: float
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        await asyncio.sleep(linger)
        sink.close()


async def serve(provider: SimulatedProvider, distance: Distance) -> None:
    """Say where, and serve until the input ends."""
    print(await distance.listen(), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serve, and say what was seen."""
    asked = json.loads(sys.argv[1])
    faults = [BatchFault(fault["kind"], on=fault["on"]) for fault in asked["faults"]]
    batches = SimulatedBatches(delay=asked["delay"], time_scale=asked["scale"], faults=faults)
    with SimulatedProvider(batches=batches) as provider:
        distance = Distance(provider.url, asked["distance"])
        asyncio.run(serve(provider, distance))
        ledger = provider.advance(days=2)
    seen = {
        "minutes": (max(distance.times, default=0.0) - min(distance.times, default=0.0)) * asked["scale"] / 60,
        "cost": ledger.live.cost + ledger.batch.cost,
        "paid_twice": ledger.paid_twice,
        "lines": [batch.lines for batch in ledger.batches],
        "cancelled": sum(batch.end == "cancelled" for batch in ledger.batches),
        "calls": ledger.calls,
        "violations": [violation.rule for violation in ledger.violations],
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
