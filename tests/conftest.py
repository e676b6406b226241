"""What all tests share."""

from __future__ import annotations

import os

import pytest

from batch_llm._providers import table


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test but those against real providers sees a real key."""
    if not request.node.get_closest_marker("integration"):
        for row in table().values():
            headers = [variable for variable, _ in row.header_variables]
            for name in (*row.key_variables, *row.token_variables, *row.address_variables, *headers):
                monkeypatch.delenv(name, raising=False)


@pytest.fixture
def open_descriptors():
    """Count this process's file descriptors."""
    return lambda: len(os.listdir("/proc/self/fd"))
