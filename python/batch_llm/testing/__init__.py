"""Tools for tests: fake strategies, mock agents, and a simulated provider that speaks real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fake import FakeRateLimitError, FakeStrategy
from .mocks import MockAgent, MockResult
from .strategies import mock_strategy

if TYPE_CHECKING:
    from .batches import BatchFault, SimulatedBatches
    from .clouds import SimulatedClouds
    from .prompt_caches import PromptCaches
    from .simulated import Fault, SimulatedProvider

__all__ = [
    "BatchFault",
    "FakeRateLimitError",
    "FakeStrategy",
    "Fault",
    "MockAgent",
    "MockResult",
    "PromptCaches",
    "SimulatedBatches",
    "SimulatedClouds",
    "SimulatedProvider",
    "mock_strategy",
]


def __getattr__(name: str) -> Any:
    # The extension is loaded when the simulated provider is wanted.
    if name in ("BatchFault", "Fault", "PromptCaches", "SimulatedBatches", "SimulatedClouds", "SimulatedProvider"):
        from . import simulated

        return getattr(simulated, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
