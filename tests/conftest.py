"""What all tests share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test but those against real providers sees a real key."""
    if not request.node.get_closest_marker("integration"):
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def open_descriptors():
    """Count this process's file descriptors."""
    return lambda: len(os.listdir("/proc/self/fd"))
