"""What the README promises to somebody who decides in a minute: among other things, each block runs by itself."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from batch_llm import process_prompts, run, stream
from batch_llm.testing import SimulatedProvider

from ..helpers import Scripted

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


BLOCKS = [
    pytest.param(block, "no key" in before.rstrip().split("\n\n")[-1].lower(), id=f"block{number}")
    for number, (before, block) in enumerate(re.findall(r"(.*?)```python\n(.*?)```", README, re.DOTALL))
]
"""Each block, and whether the paragraph before it says that it needs no key."""


def as_program(block: str) -> str:
    """Return a block as a script; one with ``await`` runs in an event loop, as the README says."""
    if not re.search(r"^(\w+ = )?await ", block, re.MULTILINE):
        return block
    return "async def main():\n" + textwrap.indent(block, "    ") + "\nimport asyncio\nasyncio.run(main())"


@pytest.mark.parametrize(("block", "needs_no_key"), BLOCKS)
def test_a_block_runs_as_it_stands(block, needs_no_key, tmp_path):
    """In a process and a folder of its own; the simulated provider stands in where a key is needed, and only there."""

    def start(environment):
        command = [sys.executable, "-c", as_program(block)]
        env = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=env)

    done = start({})
    if not needs_no_key:
        assert "OPENAI_API_KEY" in done.stderr + done.stdout
        with SimulatedProvider() as provider:
            done = start(provider.environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_block_needs_no_key():
    assert BLOCKS[0].values[1]
    assert "SimulatedProvider" in BLOCKS[0].values[0]


@pytest.mark.skipif(sys.platform == "win32", reason="the block is for a POSIX shell")
def test_the_command_runs_as_it_stands(tmp_path):
    (block,) = re.findall(r"```\n(printf .*?)```", README, re.DOTALL)
    shell = f'batch-llm() {{ "{sys.executable}" -m batch_llm "$@"; }}\nset -e\n{block}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "rated.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_picture_is_small_and_asks_nobody(page):
    path = ROOT / page
    alternative, target = re.search(r"!\[(.+?)\]\((.+?\.svg)\)", path.read_text(encoding="utf-8")).groups()
    picture = (path.parent / target).read_bytes()
    assert len(alternative) > 40
    assert len(picture) < 60_000
    assert b"url(http" not in picture
    assert b"<script" not in picture


def test_the_picture_can_be_made_again(tmp_path):
    pytest.importorskip("rich")
    command = [sys.executable, str(ROOT / "scripts" / "make_pictures.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    picture = html.unescape((tmp_path / "run.svg").read_text(encoding="utf-8"))
    assert "5000/5000" in picture
    assert "5,000\u00a0succeeded" in picture


def test_the_quick_start_has_a_dry_run():
    blocks = re.findall(r"```python\n(.*?)```", section("In one minute"), re.DOTALL)
    assert any("dry_run=True" in block and "run(" in block for block in blocks)


@pytest.mark.parametrize("page", ["README.md", "docs/workers.md"])
def test_a_tree_tells_how_many_at_a_time(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    tree = next(
        block for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) if "do you know your quota?" in block
    )
    for asked in ("test?", "your own machine", "API with rate limits", "quota"):
        assert asked in tree
    for answer in ('"auto"', "parallel slots", "max_requests_per_minute", "max_tokens_per_minute", "in order"):
        assert answer in tree


def test_auto_is_the_default_that_the_tree_says():
    import inspect

    for function in (run, stream, process_prompts):
        assert inspect.signature(function).parameters["concurrency"].default == "auto"


def test_one_at_a_time_is_in_order_as_the_tree_says():
    def fails_at_first(prompt, attempt):
        return RuntimeError("again") if attempt == 1 else prompt

    strategy = Scripted(fails_at_first)
    from batch_llm import ProcessorConfig, RetryConfig

    config = ProcessorConfig(concurrency=1, retry=RetryConfig(initial_wait=0.001))
    run(strategy, ["a", "b"], config=config)
    assert strategy.calls == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_the_way_from_the_sources_asks_for_what_the_build_asks_for():
    cargo, project = (ROOT / "Cargo.toml").read_text(), (ROOT / "pyproject.toml").read_text()
    rust = re.search(r'^rust-version = "([\d.]+)"', cargo, re.MULTILINE).group(1)
    python = re.search(r'^requires-python = ">=([\d.]+)"', project, re.MULTILINE).group(1)
    for page in (README, (ROOT / "docs" / "index.md").read_text()):
        assert f"rustc {rust} or newer" in page
        assert f"Python {python} or newer" in page
    assert ".venv/bin/pip install .\n" in README
    for extra in re.findall(r"`\.\[([\w-]+)\]`", README):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_pip_can_install_the_sources():
    """All but the compilation, which takes minutes."""
    maturin = Path(sys.executable).parent / "maturin"
    if not (maturin.exists() and shutil.which("cargo")):
        pytest.skip("needs cargo, and maturin beside the interpreter")
    environment = {**os.environ, "PATH": f"{maturin.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-build-isolation", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert re.search(r"Would install batch[-_]llm-\d", done.stdout), done.stderr


def test_benchmarks_run_when_they_are_asked_for_and_not_otherwise():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(
        r"^bench-smoke: build ##.*\n\t.* -m benchmark tests/project/test_performance\.py$", makefile, re.MULTILINE
    )

    def collected(*options):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "tests/project/test_performance.py",
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        return done.stdout.count("test_performance.py::")

    assert collected("-m", "benchmark") > 10
    assert collected() == 0


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md"])
def test_what_bound_a_run_is_quoted_in_its_own_words(page):
    from batch_llm._results.bounds import _WORDS

    quoted = re.findall(r"\d+% of [\d.]+ s: (.+?)\. To change it:", (ROOT / page).read_text(encoding="utf-8"))
    meanings = [meaning.replace("{concurrency}", " ({} at the end)") for meaning, _ in _WORDS.values()]
    known = {re.sub(r"\{[^}]*\}", "N", meaning) for meaning in meanings}
    own = [re.sub(r"\d+", "N", text) for text in quoted if not text.startswith("the limit of")]
    assert own
    assert set(own) <= known


def test_the_supply_chain_is_as_the_readme_says():
    text = " ".join(section("Supply chain").split())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE).group(1)
    assert set(re.findall(r'^    "([\w-]+)', dependencies, re.MULTILINE)) == {
        "click",
        "pydantic",
        "tqdm",
        "async-timeout",
    }
    assert "click, pydantic and tqdm, and async-timeout on Python 3.10" in text
    assert "sbom = { rust = true }" in project
    assert '"openssl-sys"' in (ROOT / "deny.toml").read_text(encoding="utf-8")
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    for step in ("attest-build-provenance", "gh-action-pypi-publish", ".dist-info/sboms/", "--locked"):
        assert step in release


def test_the_versions_of_python_are_the_same_everywhere():
    def text(path):
        return (ROOT / path).read_text(encoding="utf-8")

    versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text("pyproject.toml"))
    oldest, newest = versions[0], versions[-1]
    assert f"Python {oldest} to {newest} on" in README
    assert f"the newest, {oldest} and {newest};" in text("docs/versioning.md")
    assert f'python: ["{oldest}", "{newest}"]' in text(".github/workflows/ci.yml")
    assert f"for version in {oldest} {newest};" in text(".github/workflows/release.yml")
    assert f"find_python {newest})" in text(".ci/run")


def test_a_free_threaded_interpreter_is_asked_for_its_lock_as_documented():
    assert "gil_used = true" in (ROOT / "docs" / "versioning.md").read_text(encoding="utf-8")
    assert "#[pyo3::pymodule(gil_used = true)]" in (ROOT / "src" / "lib.rs").read_text(encoding="utf-8")
