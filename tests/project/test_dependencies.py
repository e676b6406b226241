"""What users may install and what works on the package are apart; tools that judge the code are pinned."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUDGES = {"ruff", "mypy", "pyright", "import-linter", "pandas-stubs", "types-tqdm"}


@pytest.fixture(scope="module")
def project():
    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~;@ ]", requirement)[0]


def test_extras_are_for_users(project):
    assert not {"dev", "docs", "engines"} & set(project["project"]["optional-dependencies"])
    assert set(project["dependency-groups"]) == {"dev", "docs", "engines"}


def test_tools_that_judge_the_code_are_pinned(project):
    groups = project["dependency-groups"]
    pins: dict[str, set[str]] = {}
    for requirement in (one for group in groups.values() for one in group):
        if name_of(requirement) in JUDGES:
            assert re.search(r"==[\d.]+( ?;|$)", requirement), requirement
            pins.setdefault(name_of(requirement), set()).add(requirement)
    assert set(pins) == JUDGES
    assert all(len(same) == 1 for same in pins.values()), "one version each"


def test_groups_that_commands_install_exist(project):
    files = [ROOT / "Makefile", *(ROOT / ".github" / "workflows").glob("*.yml")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert set(re.findall(r"--group (\w+)", text)) == set(project["dependency-groups"])
    extras = set(re.findall(r"--extra (\w+)", text))
    assert extras <= set(project["project"]["optional-dependencies"])


def test_versions_have_dates_from_the_first_one_with_a_changelog_on():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased" or " - " in versions[0]
    dated = versions[: versions.index("0.3.0")]
    assert all(re.fullmatch(r"Unreleased|\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2}", one) for one in dated), dated


def test_links_of_the_changelog_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
