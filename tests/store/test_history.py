"""What the documents tell of versions before 0.4.0: that it is there, and that it is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from batch_llm import BatchResult, GeminiCachedStrategy, LLMCallStrategy, WorkItemResult

from ..helpers import Echo, run

ROOT = Path(__file__).parents[2]
GUIDE = "MIGRATION_V0_2.md"


def test_the_changelog_reaches_back_to_the_first_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [tuple(map(int, heading.split("."))) for heading in headings if heading != "Unreleased"]
    assert versions == sorted(versions, reverse=True)
    assert {(0, 4, 0), (0, 3, 0), (0, 2), (0, 1)} <= set(versions)


def test_the_guide_is_found():
    assert f'"{GUIDE}"' in (ROOT / "zensical.toml").read_text()
    for page in ("README.md", "docs/migration.md", "CHANGELOG.md"):
        assert GUIDE in (ROOT / page).read_text()


def test_every_page_of_the_site_is_in_its_navigation():
    named = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    # What agents are taught is no page.
    assert {page for page in pages if not page.startswith("skills/")} == named


def test_a_state_is_what_the_changelog_says():
    for method, place in (("execute", 4), ("on_error", 3)):
        names = list(inspect.signature(getattr(LLMCallStrategy, method)).parameters)
        assert names[place] == "state"


async def test_a_strategy_is_prepared_once_per_object_however_many_items():
    class Counts(Echo):
        prepared = 0

        async def prepare(self):
            self.prepared += 1

    shared = Counts()
    await run(shared, ["x"] * 50)
    assert shared.prepared == 1


async def test_a_cache_lives_as_the_guide_says():
    pytest.importorskip("google.genai")
    happened = []

    async def lists():
        return []

    async def create(**_):
        happened.append("created")
        return SimpleNamespace(name="cache", expire_time=None)

    async def delete(**_):
        happened.append("deleted")

    caches = SimpleNamespace(list=lists, create=create, delete=delete)
    client = SimpleNamespace(aio=SimpleNamespace(caches=caches))
    strategy = GeminiCachedStrategy("m", client, str, ["document"])  # type: ignore[arg-type]
    await strategy.prepare()
    await strategy.cleanup()
    assert happened == ["created"]
    await strategy.delete_cache()
    assert happened == ["created", "deleted"]
    with pytest.raises(ValueError, match="must be less than cache_ttl_seconds"):
        GeminiCachedStrategy("m", client, str, ["document"], cache_ttl_seconds=300)  # type: ignore[arg-type]


def test_cached_tokens_are_counted_as_the_guide_says():
    usage = {"input_tokens": 1000, "output_tokens": 10, "cached_input_tokens": 900}
    batch = BatchResult([WorkItemResult("a", True, "x", token_usage=usage)])
    assert batch.cache_hit_rate() == 90.0
    assert batch.effective_input_tokens() == 190
