"""A small server that speaks OpenAI's chat protocol and can be made to fail, in a process of its own.

``AwayServer`` starts it, switches it and kills it. Run as a script it is the server: it prints its port, and reads one
command a line from its standard input:

==================  ====================================================================================
``mode ok``         it answers
``mode 500``, ...   it answers with this status
``mode reset``      it accepts connections and resets them, also those that are open
``dead 3``          each third request is reset, as by a balancer with a dead endpoint; ``dead 0``: none
``stats``           it prints a JSON object: answers, failures, and when these were (``time.time()``)
==================  ====================================================================================

A prompt that contains ``bad`` always gets HTTP 500, and one with ``crash`` loses its connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

NOW = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


def say(line: str) -> None:
    """Tell whoever has started the server."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class State:
    """What the server does at the moment, and what it has done."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.mode = "ok"
        self.dead = 0
        self.requests = self.answers = 0
        self.failures: list[float] = []
        self.connections: set[Connection] = set()

    def command(self, line: str) -> None:
        """Do what a line says."""
        name, _, value = line.strip().partition(" ")
        if name == "mode":
            self.mode = value
            if value == "reset":
                for connection in list(self.connections):
                    connection.reset()
        elif name == "dead":
            self.dead = int(value)
        elif name == "stats":
            say(json.dumps({"answers": self.answers, "failures": self.failures}))


class Connection(asyncio.Protocol):
    """One connection: HTTP/1.1, a request at a time."""

    def __init__(self, state: State) -> None:
        self.state, self.buffer = state, b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Accept it, or not."""
        self.transport = transport
        self.state.connections.add(self)
        if self.state.mode == "reset":
            self.state.failures.append(time.time())
            self.reset()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self.state.connections.discard(self)

    def reset(self) -> None:
        """Close it with a reset."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOW)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.index(b"content-length:") + 15
            length = int(head[at:].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.ask(body)

    def ask(self, body: bytes) -> None:
        """Answer a request, now or later."""
        state = self.state
        state.requests += 1
        if b"crash" in body or (state.dead and state.requests % state.dead == 0):
            self.reset()
        elif b"bad" in body:
            self.reply(500)
        elif state.mode != "ok":
            state.failures.append(time.time())
            self.reply(int(state.mode))
        else:
            asyncio.get_running_loop().call_later(state.latency, self.reply, 200)

    def reply(self, status: int) -> None:
        """Send a reply."""
        if self.transport.is_closing():
            return
        if status == 200:
            self.state.answers += 1
            body = json.dumps({
                "id": "1", "object": "chat.completion", "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            })  # fmt: skip
        else:
            body = json.dumps({"error": {"message": "made on purpose", "type": "server_error"}})
        head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write((head + body).encode())


async def serve(port: int, latency: float) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    state = State(latency)
    listener = socket.create_server(("127.0.0.1", port), backlog=4096, reuse_port=False)
    await loop.create_server(lambda: Connection(state), sock=listener)
    say(str(listener.getsockname()[1]))
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        state.command(line.decode())


class AwayServer:
    """The server's process."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency, self.port = latency, 0
        self.start()

    def start(self) -> None:
        """Start it, on the same port as before."""
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.port), str(self.latency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        """Kill it: connections break, and new ones are refused."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def say(self, line: str) -> dict[str, Any]:
        """Give it a command, and wait until it is done; returns what it has done since it started."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\nstats\n")
        self.process.stdin.flush()
        stats: dict[str, Any] = json.loads(self.process.stdout.readline())
        return stats

    def stats(self) -> dict[str, Any]:
        """What it has done since it started."""
        return self.say("")

    def go(self, kind: str) -> None:
        """Begin an outage of this kind: refused, reset, or a status."""
        if kind == "refused":
            self.kill()
        else:
            self.say(f"mode {kind}")

    def come_back(self, kind: str) -> None:
        """End it."""
        if kind == "refused":
            self.start()
        else:
            self.say("mode ok")

    @property
    def base_url(self) -> str:
        """The address for strategies."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
