"""What the tests of control share."""

from __future__ import annotations

import pytest

from batch_llm._control import run_control


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The folder of a registry of the test's own: it knows no runs but these."""
    path = tmp_path / "state"
    monkeypatch.setenv("BATCH_LLM_STATE", str(path))
    monkeypatch.setattr(run_control, "_has_warned", False)
    return path
