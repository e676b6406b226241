"""Strategies and short cuts that many tests use."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

from batch_llm import (
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    RateLimitConfig,
    RetryConfig,
)

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


class Echo(LLMCallStrategy[str]):
    """Answers with the prompt, after ``delay`` seconds; counts its calls."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.calls: list[tuple[str, int]] = []
        self.active = self.peak = 0

    async def execute(self, prompt, attempt, timeout, state=None):
        self.calls.append((prompt, attempt))
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.active -= 1
        return prompt, dict(USAGE)


class Scripted(LLMCallStrategy[str]):
    """Does per attempt what a function says: raises what it returns if that is an exception, else answers with it."""

    def __init__(self, script: Callable[[str, int], Any]) -> None:
        self.script = script
        self.calls: list[tuple[str, int]] = []
        self.errors: list[tuple[str, int]] = []
        self.cleanups = 0

    async def execute(self, prompt, attempt, timeout, state=None):
        self.calls.append((prompt, attempt))
        await asyncio.sleep(0)
        answer = self.script(prompt, attempt)
        if isinstance(answer, BaseException):
            raise answer
        return answer, dict(USAGE)

    async def on_error(self, exception, attempt, state=None):
        self.errors.append((type(exception).__name__, attempt))

    async def cleanup(self):
        self.cleanups += 1


class Deaf(LLMCallStrategy[str]):
    """Ignores every cancellation until it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.active = 0

    async def execute(self, prompt, attempt, timeout, state=None):
        self.active += 1
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                pass
        return "too late", {}


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, however slow the machine is; pytest's time limit ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.001)


def quick(**fields: Any) -> ProcessorConfig:
    """A configuration whose waits are short."""
    fields.setdefault("retry", RetryConfig(initial_wait=0.01, max_wait=0.02))
    fields.setdefault("rate_limit", RateLimitConfig(cooldown_seconds=0.02, slow_start_items=0))
    return ProcessorConfig(**fields)


async def run(strategy: Any, prompts: Any = ("hello",), config: ProcessorConfig | None = None, **arguments: Any):
    """Run prompts through a processor; return the batch and the processor."""
    processor = ParallelBatchProcessor(config=config or quick(), **arguments)
    for number, prompt in enumerate(prompts):
        await processor.add_work(LLMWorkItem(f"item-{number}", strategy, prompt, context=number))
    return await processor.process_all(), processor


def script(text: str, timeout: float = 30.0, **signals: float) -> subprocess.CompletedProcess[str]:
    """Run a program of its own; optionally interrupt it after so many seconds."""
    program = "import asyncio, os, sys, time\nfrom batch_llm import *\nfrom tests.helpers import *\n" + textwrap.dedent(
        text
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(os.path.dirname(__file__)),
    )
    if "interrupt" in signals:
        assert process.stdout is not None
        process.stdout.readline()  # "ready"
        time.sleep(signals["interrupt"])
        process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
