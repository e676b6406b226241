"""What the documents say about hooks: who awaits them, when a strategy is cleaned up, what an object per item costs."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from batch_llm import (
    BaseMiddleware,
    BaseObserver,
    LLMCallStrategy,
    RateLimitStrategy,
    process_prompts,
)

from ..helpers import USAGE, quick, run

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def awaiting() -> set[str]:
    """The modules of the package that are on the stack of whoever asks: a coroutine in Rust has no frame there."""
    found, frame = set(), sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "batch_llm" in path.parts:
            found.add(path.as_posix().rpartition("/batch_llm/")[2])
        frame = frame.f_back
    return found


class Everything(LLMCallStrategy[str], BaseMiddleware, RateLimitStrategy, BaseObserver):
    """All hooks at once; notes who awaits each."""

    def __init__(self, script=("answer",)):
        self.seen: dict[str, set[str]] = {}
        self.script = script

    def note(self, hook):
        self.seen.setdefault(hook, set()).update(awaiting())

    async def prepare(self):
        self.note("prepare")

    async def execute(self, prompt, attempt, timeout, state=None):
        self.note("execute")
        await asyncio.sleep(0)
        self.note("execute")  # also when it goes on
        answer = self.script[min(attempt, len(self.script)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer, dict(USAGE)

    async def dry_run(self, prompt):
        self.note("dry_run")
        return "dry", {}

    async def cleanup(self):
        self.note("cleanup")

    async def on_error(self, first, second, state=None):
        self.note("on_error")

    async def before_process(self, work_item):
        self.note("before_process")
        return work_item

    async def after_process(self, result):
        self.note("after_process")
        return result

    async def on_rate_limit(self, worker_id, consecutive_limit_count):
        self.note("on_rate_limit")
        return 0.0

    def should_apply_slow_start(self, items_since_resume):
        return False, 0.0

    async def on_event(self, event, data):
        self.note("observers")

    async def post_process(self, result):
        self.note("post-processors")

    async def report(self, completed, total, item_id):
        self.note("progress callbacks")


def claimed(hook: str, *words: str) -> set[str]:
    """The modules that the table names for a hook."""
    for what, by in re.findall(r"^\| (.+?) \| ((?:Rust|Python), .+?) \|$", ARCHITECTURE, re.MULTILINE):
        if hook in what and all(word in what for word in words):
            names = [part.strip(" `") for part in by.partition(", ")[2].split(";")]
            parts = what.split("; ")
            if len(names) == len(parts):
                names = [name for name, part in zip(names, parts, strict=True) if hook in part]
            return set(names)
    raise AssertionError(f"docs/architecture.md does not say who awaits {hook}")


async def test_a_plain_execute_is_awaited_by_rust():
    strategy = Everything()
    await run(strategy, ["a", "b"])
    assert claimed("`execute()`", "nothing else") == {"bridge/runner.rs"}
    assert strategy.seen["prepare"] >= claimed("prepare")
    # The first item has the strategy prepared, in Python; the others come the short way.
    strategy.seen.clear()
    batch, _ = await run(Prepared(strategy), ["a", "b"])
    assert batch.succeeded == 2
    assert "_pipeline/attempts.py" not in strategy.seen["execute"]


class Prepared(LLMCallStrategy[str]):
    """Has nothing but ``execute()``."""

    def __init__(self, inner):
        self.inner = inner

    async def execute(self, prompt, attempt, timeout, state=None):
        return await self.inner.execute(prompt, attempt, timeout, state)


@pytest.mark.parametrize("who", ["middlewares", "observers"])
async def test_an_execute_that_others_see_is_awaited_by_python(who):
    hooks = Everything()
    await run(Prepared(hooks), **{who: [hooks]})
    assert hooks.seen["execute"] >= claimed("`execute()` otherwise") == {"_pipeline/attempts.py"}


async def test_all_other_hooks_are_awaited_by_the_modules_that_the_table_names():
    hooks = Everything((RuntimeError("429"), RuntimeError("again"), "answer"))
    await run(
        hooks,
        config=quick(max_workers=1),
        middlewares=[hooks],
        observers=[hooks],
        rate_limit_strategy=hooks,
        post_processor=hooks.post_process,
        progress_callback=hooks.report,
    )
    await run(hooks, config=quick(dry_run=True))
    for hook in (
        "prepare", "dry_run", "before_process", "after_process", "on_error", "on_rate_limit", "post-processors",
        "observers", "progress callbacks",
    ):  # fmt: skip
        assert hooks.seen[hook] >= claimed(hook), hook
    assert hooks.seen["cleanup"] >= claimed("cleanup", "after an item") == {"_pipeline/strategy_hooks.py"}
    hooks.seen.clear()
    await process_prompts(hooks, ["a", "b"])
    assert hooks.seen["cleanup"] >= claimed("cleanup", "after a run") == {"_llm/lifecycle.py"}


async def test_a_strategy_is_cleaned_up_as_often_as_the_guide_says():
    (row,) = re.findall(r"^\| `strategy\.cleanup\(\)` \| (.+)$", (ROOT / "docs" / "hooks.md").read_text(), re.MULTILINE)
    assert "once per strategy object" in row
    assert "with `process_all()`, as in 0.3.0, once per **item**" in row

    class Counts(Prepared):
        cleanups = 0

        async def cleanup(self):
            self.cleanups += 1

    counts = Counts(Everything())
    await process_prompts(counts, ["a", "b", "c"])
    assert counts.cleanups == 1
    await run(counts, ["a", "b", "c"])
    assert counts.cleanups == 4


def test_the_class_says_what_an_object_per_item_costs():
    text = " ".join(LLMCallStrategy.__doc__.split())
    assert "Share one object between items; one object per item costs money" in text
    assert "50,000,000 tokens at full price instead of 50,000" in text
