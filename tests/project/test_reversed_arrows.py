"""An import that goes up is found by the contracts of import-linter, as ``src/floors.rs`` finds one of Rust."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("_secrets.py", "from . import base", "batch_llm._secrets -> batch_llm.base"),
        # Also one that only a type checker follows, or that comes late.
        (
            "_run/tasks.py",
            "def late():\n    from .._pipeline import Pipeline",
            "batch_llm._run.tasks -> batch_llm._pipeline",
        ),
        ("prompts.py", "from ._run.run import Run", "batch_llm.prompts -> batch_llm._run.run"),
    ],
)
def test_a_reversed_import_is_found(tmp_path, file, line, says):
    pytest.importorskip("importlinter")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "python" / "batch_llm"
    shutil.copytree(
        ROOT / "python" / "batch_llm", package, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    )
    with (package / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(package.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 broken" in done.stdout
    assert says in done.stdout
