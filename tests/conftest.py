"""What all tests share."""

from __future__ import annotations

import os

import pytest

from batch_llm._llm.providers import table
from batch_llm.testing import SimulatedProvider


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


@pytest.fixture
def provider(monkeypatch):
    """A simulated provider in the place of OpenAI, which counts how often each prompt came."""
    with SimulatedProvider(count_questions=True) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


@pytest.fixture
def at(tmp_path, monkeypatch):
    """The folder of the test, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
