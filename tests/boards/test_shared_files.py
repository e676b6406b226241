"""Limits that processes of one host share through a file."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from batch_llm import (
    ParallelBatchProcessor,
    ProcessorConfig,
)
from batch_llm.testing import SimulatedProvider

from ..helpers import Echo, quick, run
from .processes import one_dies, worker


async def _leases(path, count):
    """Wait until there are so many leases."""
    while True:
        with contextlib.suppress(OSError, ValueError):  # it is not there yet, or being written
            if len(json.loads(path.read_text())["leases"]) >= count:
                return
        await asyncio.sleep(0.05)


async def test_processes_part_their_limits_and_a_dead_one_gives_its_part_back(tmp_path):
    with SimulatedProvider(requests_per_minute=3000, burst_seconds=1.5) as provider:
        dying = await worker(provider, tmp_path / "limits.json", 100_000)
        await _leases(tmp_path / "limits.json", 2)  # two scopes each
        staying = await worker(provider, tmp_path / "limits.json", 300)
        await _leases(tmp_path / "limits.json", 4)
        await asyncio.sleep(2.0)
        await one_dies(dying, staying, provider)
    leases = json.loads((tmp_path / "limits.json").read_text())["leases"]
    assert {lease["scope"] for lease in leases} <= {"run", f"openai {provider.base_url} shared"}


async def test_a_file_that_cannot_be_shared_is_named_before_anything_starts(tmp_path):
    (tmp_path / "novel.txt").write_text("It was a dark and stormy night.")
    for name, error in [("novel.txt", "use another path"), ("no/such/place", "No such file")]:
        strategy = Echo()
        with pytest.raises(OSError, match=error) as caught:
            await run(strategy, ["x"], quick(shared_limits=tmp_path / name))
        assert "shared_limits=" in str(caught.value)
        assert strategy.calls == []
    with pytest.raises(TypeError, match="shared_limits must be a path, a URL"):
        ParallelBatchProcessor(config=ProcessorConfig(shared_limits=True))
