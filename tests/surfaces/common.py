"""What several tests of the functions that take prompts use."""

from __future__ import annotations

import asyncio

from ..helpers import Echo


def tasks_left():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Lively(Echo):
    """Counts how often it is prepared and cleaned up."""

    def __init__(self, delay=0.0):
        super().__init__(delay)
        self.life = []

    async def prepare(self):
        self.life.append("prepare")

    async def cleanup(self):
        await asyncio.sleep(0)
        self.life.append("cleanup")
