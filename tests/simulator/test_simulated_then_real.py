"""What a simulated provider has answered is nobody's answer when the real one is asked, and the other way round."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from batch_llm import CallableStrategy, EmbeddingStrategy, SqliteArtifactStore, llm, run
from batch_llm.testing import SimulatedProvider
from tests.cli_helpers import lines, write_lines
from tests.served import serve

KEY = "sk-of-the-real-provider-1"
REPLY = {"choices": [{"message": {"content": "real"}, "finish_reason": "stop"}]}


@pytest.fixture
def real(monkeypatch):
    def reply(body, number):
        return {"data": [{"index": 0, "embedding": [0.5]}]} if "input" in body else REPLY

    with serve(reply) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.root + "/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield served


@pytest.fixture
def simulated(monkeypatch):
    """Ask in a simulated environment."""

    def ask(make):
        with SimulatedProvider() as provider, monkeypatch.context() as patch:
            for name, value in provider.environment.items():
                patch.setenv(name, value)
            return make()

    return ask


async def own(prompt):
    return "own"


@pytest.mark.parametrize("kind", ["store", "cache"])
@pytest.mark.parametrize("name", ["chat", "embedding", "function", "stated"])
def test_what_was_simulated_is_not_found_for_real(tmp_path, real, simulated, kind, name):
    path = str(tmp_path / "kept.db")

    def ask():
        make = {"embedding": lambda: EmbeddingStrategy("openai:m"), "function": lambda: CallableStrategy(own)}
        strategy = make.get(name, lambda: llm("openai:m"))()
        kept = SqliteArtifactStore(path, identity="mine, version 1") if name == "stated" and kind == "store" else path
        return run(strategy, ["x"], progress=False, **{kind: kept}).results[0]

    first, second = simulated(ask), simulated(ask)
    assert first.reused is None, first.error
    assert second.reused == kind
    for expected in (None, kind):
        result = ask()
        assert result.success, result.error
        assert result.reused == expected
    assert simulated(ask).reused == kind
    if name in ("chat", "stated"):
        assert ask().output == "real"


@pytest.mark.parametrize("cache", [False, True])
def test_the_command_asks_anew_without_simulate(tmp_path, real, cache):
    write_lines(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "b"})

    def ask(output, *more):
        command = [sys.executable, "-m", "batch_llm", "run", "in.jsonl", "-m", "openai:m", "-q", "-o", output, *more]
        more = ["--cache", "kept.db"] if cache else []
        done = subprocess.run([*command, *more], cwd=tmp_path, env=dict(os.environ), capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [row["output"] for row in lines(tmp_path / output)]

    first = ask("a.jsonl", "--simulate")
    assert not real.bodies
    assert ask("b.jsonl" if cache else "a.jsonl") == ["real", "real"]
    assert len(real.bodies) == 2
    assert ask("c.jsonl" if cache else "a.jsonl", "--simulate") == first
    assert len(real.bodies) == 2
