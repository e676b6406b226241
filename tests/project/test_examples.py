"""The examples run, each offline against the simulated provider."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Arguments, and what the program says when all went well.
SIMULATED = {
    "anthropic_images.py": ("", r"red: kind='\w+' caption="),
    "classify_csv.py": (f"{EXAMPLES}/data/reviews.csv rated.csv", r"rated\.csv: 10 rated; "),
    "embeddings.py": ("", r"27 vectors of 256 numbers"),
    "escalation.py": ("", r"12 of 12 solved: .*'gpt-5'.*\n[1-9]\d* went up the ladder"),
    "gemini_cached.py": (
        f"{ROOT}/README.md",
        r"    Simulated reply [\s\S]*\n100% of the input tokens",
    ),
    "leave_and_collect.py": (
        f"submit {EXAMPLES}/data/reviews.csv answers.db",
        # One row is sent by itself, before the first batch.
        r"^9 of 10 rows wait in batches\n(?:\d+: Simulated reply .*\n){11}$",
    ),
    "local_server.py": ("", r"50 succeeded \(100\.0%\)"),
    "openai_quickstart.py": ("", r"Lima: Simulated reply"),
    "overnight.py": (
        f"{EXAMPLES}/data/reviews.csv rated.csv",
        r"^batch +10 requests, [\s\S]*rated\.csv: 10 of 10 rated; \{'live': 1, 'batch': 9\}",
    ),
    "partial_results.py": ("", r"mei: name='Anna Berg'.*order=3001\n    2 attempts; .*\['age', 'email', 'name'\]"),
    "rag.py": (f"{ROOT}/docs/stores.md {ROOT}/docs/limits.md", r"passages; 0 answers were in rag-cache\.db"),
    "tools.py": ("", r"Lima, 2 rounds: Simulated reply"),
    "agent_over_files.py": (f"{ROOT}/tests", r"\d+ rounds for \d+ files"),
    "judge_and_critic.py": ("", r"a lost key: \d+ points, \d drafts"),
}
ELSEWHERE = {"custom_strategy.py", "summarize_stdlib.py"}
"""Those with tests of their own below."""


def start(example, *arguments, cwd, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env={**clean, **environment},
    )


def test_each_example_is_tried_here_and_listed_in_the_documents():
    there = {path.name for path in EXAMPLES.glob("*.py")}
    assert there == {*SIMULATED, *ELSEWHERE}
    listed = set(re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "examples.md").read_text(), re.MULTILINE))
    assert listed == there | {path.name for path in EXAMPLES.glob("*.ipynb")}


@pytest.mark.parametrize("example", SIMULATED)
def test_an_example_runs_simulated_without_a_key(example, tmp_path):
    arguments, expected = SIMULATED[example]
    done = start(example, *arguments.split(), "--simulate", cwd=tmp_path)
    assert re.search(expected, done.stdout), (done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr


def test_the_classified_file_has_typed_columns_and_goes_on(tmp_path):
    arguments = [*SIMULATED["classify_csv.py"][0].split(), "--simulate"]
    for _ in range(2):
        assert start("classify_csv.py", *arguments, cwd=tmp_path).returncode == 0
        with (tmp_path / "rated.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == [str(number) for number in range(1, 11)]
        assert {row["mood"] for row in rows} <= {"happy", "neutral", "angry"}
        assert not any(row["error"] for row in rows)


def test_the_night_has_its_file_and_the_next_one_costs_nothing(tmp_path):
    arguments = [*SIMULATED["overnight.py"][0].split(), "--simulate"]
    files = []
    for _ in range(2):  # the second has a provider that knows nothing of the first
        assert start("overnight.py", *arguments, cwd=tmp_path).returncode == 0
        files.append((tmp_path / "rated.csv").read_text())
        rows = list(csv.DictReader(files[-1].splitlines()))
        assert [row["id"] for row in rows] == [str(number) for number in range(1, 11)]
        assert not any(row["error"] for row in rows)
    assert files[0] == files[1]


def test_the_second_run_over_documents_asks_nothing(tmp_path):
    arguments = [*SIMULATED["rag.py"][0].split(), "--simulate"]
    start("rag.py", *arguments, cwd=tmp_path)
    assert "3 answers were in rag-cache.db" in start("rag.py", *arguments, cwd=tmp_path).stdout


KEYLESS = {"custom_strategy.py", "local_server.py"}
"""Those that need no key."""
NEED_KEYS = sorted(({*SIMULATED, *ELSEWHERE}) - KEYLESS)


@pytest.mark.parametrize("with_arguments", [True, False], ids=["whole", "without arguments"])
@pytest.mark.parametrize("example", NEED_KEYS)
def test_without_a_key_it_says_what_to_do(example, with_arguments, tmp_path):
    arguments = ["--real"] if example == "summarize_stdlib.py" else []
    if with_arguments:
        arguments += SIMULATED.get(example, ("",))[0].split()
    done = start(example, *arguments, cwd=tmp_path)
    variable = {"anthropic_images.py": "ANTHROPIC_API_KEY", "gemini_cached.py": "GEMINI_API_KEY"}
    name = variable.get(example, "OPENAI_API_KEY")
    assert done.returncode == 1
    assert re.fullmatch(rf"{name} is not set\. Get a key .*: export {name}=\S+ \(or .+\)\n", done.stderr), done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
    # Who reads the program instead of running it is told too.
    assert name in (EXAMPLES / example).read_text().split('"""')[1]


@pytest.mark.parametrize(
    ("model", "says"),
    [("openai:gpt-5-mini", r"no API key for openai: .*OPENAI_API_KEY"), ("opnai:gpt-5-mini", "did you mean 'openai'")],
)
def test_a_model_that_is_not_local_is_no_traceback(model, says, tmp_path):
    done = start("local_server.py", model, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(rf".*{says}.*\n", done.stderr), done.stderr


def test_the_custom_strategy_runs(tmp_path):
    done = start("custom_strategy.py", cwd=tmp_path)
    assert re.search(r"\d+ succeeded, \d+ failed", done.stdout), done.stderr


def test_the_quickstart_takes_a_server_from_the_environment(tmp_path):
    from batch_llm.testing import SimulatedProvider

    with SimulatedProvider() as provider:
        done = start("openai_quickstart.py", cwd=tmp_path, OPENAI_BASE_URL=provider.base_url)
    assert "Lima: Simulated reply" in done.stdout, done.stderr
