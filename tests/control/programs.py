"""Programs with runs that are controlled: a strategy whose attempts wait until they are let go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import time

from batch_llm import LLMCallStrategy, process_prompts
from batch_llm._control import entries


class Held(LLMCallStrategy[str]):
    """Answers with the prompt, as soon as somebody lets it: ``free`` counts how many may."""

    def __init__(self) -> None:
        self.free = 0
        self.calls: list[str] = []
        self.waiting = 0
        self.fails: set[str] = set()
        self.more = asyncio.Event()

    def let(self, count: int) -> None:
        self.free += count
        self.more.set()

    async def execute(self, prompt, attempt, timeout, state=None):
        self.calls.append(prompt)
        self.waiting += 1
        while not self.free:
            self.more.clear()
            await self.more.wait()
        self.free -= 1
        self.waiting -= 1
        if prompt in self.fails:
            raise ValueError(f"{prompt} is not liked")
        return prompt, {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}

    async def begun(self, count: int) -> None:
        """Wait until so many attempts wait."""
        while self.waiting < count:
            await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Give whatever would start the time to start."""
        for _ in range(20):
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(strategy, prompts, **options):
    """A run as a task, which is ended at the end of the block."""
    task = asyncio.create_task(process_prompts(strategy, prompts, **options))
    try:
        while not any(entry.is_live and entry.pid == os.getpid() for entry in entries()):
            if task.done():
                break
            await asyncio.sleep(0.005)
        yield task
    finally:
        if not task.done():
            strategy.let(1_000_000)
        await asyncio.gather(task, return_exceptions=True)


def program(code: str, *arguments: str, **options) -> subprocess.Popen:
    """Start a program."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def until(condition, seconds: float = 60.0):
    """Wait for something that another process does, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def ask_raw(entry, data: bytes) -> dict:
    """Send bytes to an endpoint, and return its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(entry.address["socket"])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while not answer.endswith(b"\n") and (more := connection.recv(65536)):
                answer += more
    return json.loads(answer)
