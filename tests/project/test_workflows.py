"""What GitHub runs: it can be read, and each action is pinned by commit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GITHUB = Path(__file__).parents[2] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path):
    used = re.findall(r"^ *(?:- )?uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action


def test_an_action_has_one_version():
    texts = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    pins = set(re.findall(r"uses: (\S+)@(\S+)", texts))
    assert len(pins) == len({name for name, _ in pins})


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_files_are_yaml(path):
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_what_runs_weekly_exists():
    commands = re.findall(r"- run: make ([\w-]+)", (GITHUB / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    makefile = (GITHUB.parent / "Makefile").read_text(encoding="utf-8")
    assert commands == ["soak", "fuzz"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
