"""Fixtures for pytest. Enable them with ``pytest_plugins = ["batch_llm.testing.pytest_plugin"]`` in ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .simulated import SimulatedProvider

__all__ = ["make_simulated_provider", "simulated_provider"]


@pytest.fixture
def make_simulated_provider() -> Iterator[Callable[..., SimulatedProvider]]:
    """Return a function that starts simulated providers; they stop at the end of the test."""
    started: list[SimulatedProvider] = []

    def make(**arguments: Any) -> SimulatedProvider:
        provider = SimulatedProvider(**arguments)
        started.append(provider)
        return provider

    yield make
    for provider in started:
        provider.stop()


@pytest.fixture
def simulated_provider(make_simulated_provider: Callable[..., SimulatedProvider]) -> SimulatedProvider:
    """Return a simulated provider that answers at once and never fails."""
    return make_simulated_provider()
