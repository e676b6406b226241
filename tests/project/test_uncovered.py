"""``scripts/uncovered.py``: what it takes for public, and what for covered."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import batch_llm
from batch_llm import BatchResult, FixedDelayStrategy, ParallelBatchProcessor

ROOT = Path(__file__).parents[2]

spec = importlib.util.spec_from_file_location("uncovered", ROOT / "scripts" / "uncovered.py")
assert spec is not None
assert spec.loader is not None
uncovered = importlib.util.module_from_spec(spec)
spec.loader.exec_module(uncovered)


def python_report(tmp_path, function, *, covered):
    """Write a report in which one function's lines ran, or did not."""
    code = function.__code__
    lines = sorted({line for _, _, line in code.co_lines() if line and line > code.co_firstlineno})
    name = str(Path(code.co_filename).relative_to(ROOT))
    file = {"executed_lines": lines if covered else [code.co_firstlineno], "missing_lines": [] if covered else lines}
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"files": {name: file}}))
    return str(path)


def test_a_public_function_of_which_no_line_ran_fails(tmp_path, capsys):
    function = FixedDelayStrategy.on_rate_limit
    assert uncovered.main("python", python_report(tmp_path, function, covered=False)) == 1
    assert "no test covers on_rate_limit (python/batch_llm/strategies/" in capsys.readouterr().out
    assert uncovered.main("python", python_report(tmp_path, function, covered=True)) == 0


def test_public_are_functions_methods_and_properties():
    found = set(uncovered.public_functions())
    assert {inspect.unwrap(batch_llm.run), ParallelBatchProcessor.process_all, BatchResult.failures.fget} <= found
    assert ParallelBatchProcessor.__init__ not in found


@pytest.fixture
def rust(tmp_path, monkeypatch):
    """A crate with a public function, a private one, a module of tests and a bridge."""
    (tmp_path / "src" / "bridge").mkdir(parents=True)
    (tmp_path / "src" / "lib.rs").write_text(
        "pub fn called() {}\nfn private() {}\n"
        "#[cfg(test)]\nmod apart;\n#[cfg(test)]\nmod tests {\n    pub fn helper() {}\n}\n"
    )
    (tmp_path / "src" / "apart.rs").write_text("pub fn helper() {}\n")
    (tmp_path / "src" / "bridge" / "mod.rs").write_text("pub fn bridged() {}\n")
    monkeypatch.setattr(uncovered, "ROOT", tmp_path)

    def report(**counts):
        lines = {"lib.rs": {1: counts["called"], 2: 0, 7: 0}, "apart.rs": {1: 0}, "bridge/mod.rs": {1: 0}}
        records = [
            f"SF:{tmp_path / 'src' / name}\n" + "".join(f"DA:{line},{count}\n" for line, count in found.items())
            for name, found in lines.items()
        ]
        path = tmp_path / "lcov.info"
        path.write_text("".join(f"{record}end_of_record\n" for record in records))
        return str(path)

    return report


def test_of_rust_count_neither_tests_nor_the_bridge(rust, capsys):
    assert uncovered.main("rust", rust(called=1)) == 0
    assert "50.0% of 2 lines" in capsys.readouterr().out


def test_public_functions_of_rust_that_did_not_run_are_listed(rust, capsys):
    # Python tests may run them through the bridge.
    assert uncovered.main("rust", rust(called=0)) == 0
    assert "1 public functions that no Rust test calls: called (src" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="runs a shell script")
def test_without_llvm_the_rust_tests_run_all_the_same(tmp_path, monkeypatch):
    for name, script in (("cargo", 'echo "cargo $*"'), ("rustc", f"echo {tmp_path}"), ("rustup", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = subprocess.run([ROOT / "scripts" / "rust_coverage.sh"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "no coverage of Rust: llvm-cov is missing" in done.stdout
    assert done.stdout.endswith("cargo test --no-default-features\n")
