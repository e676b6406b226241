"""How long an error's message may be: one length, wherever it is shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from batch_llm import BaseObserver, ProcessingEvent, RateLimitStrategy
from batch_llm.errors import ERROR_MESSAGE_LIMIT

from ..helpers import Scripted, quick, run

PACKAGE = Path(__file__).parents[2] / "python" / "batch_llm"


def literal_lengths(tree: ast.AST) -> list[tuple[int, int]]:
    """Where text is cut at a length that is written there: ``text[:200]`` and ``{value:.200}``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Slice) and node.lower is None and isinstance(node.upper, ast.Constant):
            found.append((node.upper.lineno, node.upper.value))
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            for part in node.format_spec.values:
                cut = re.fullmatch(r"\.(\d+)", str(part.value)) if isinstance(part, ast.Constant) else None
                if cut is not None:
                    found.append((node.lineno, int(cut[1])))
    return [(line, length) for line, length in found if isinstance(length, int) and length >= 100]


def test_no_length_is_written_elsewhere():
    places = [
        f"{path.relative_to(PACKAGE)}:{line}: {length}"
        for path in PACKAGE.rglob("*.py")
        for line, length in literal_lengths(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert places == [], "take batch_llm.errors.ERROR_MESSAGE_LIMIT"


LONG = "x" * 10 * ERROR_MESSAGE_LIMIT


def longest(text: str) -> int:
    """The longest row of the letter that the messages are made of."""
    return max(map(len, re.findall("x+", text)))


@pytest.mark.parametrize("error", [ValueError(LONG), RuntimeError(LONG)], ids=["permanent", "tried again"])
async def test_a_long_message_is_cut_at_that_length_in_results_summaries_and_reports(error, tmp_path, caplog):
    batch, _ = await run(Scripted(lambda prompt, attempt: error))
    (result,) = batch.results
    assert result.error == f"{type(error).__name__}: {'x' * ERROR_MESSAGE_LIMIT}"
    assert result.exception is error
    batch.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for shown in (batch.summary(), page, batch.to_json(), caplog.text):
        assert longest(shown) <= ERROR_MESSAGE_LIMIT


async def test_a_long_message_of_a_rate_limit_strategy_is_cut_at_that_length():
    class Fails(RateLimitStrategy):
        async def on_rate_limit(self, worker_id, consecutive_limit_count):
            raise RuntimeError(LONG)

        def should_apply_slow_start(self, items_since_resume):
            return False, 0.0

    class Sees(BaseObserver):
        error = None

        async def on_event(self, event, data):
            if event is ProcessingEvent.COOLDOWN_ENDED:
                self.error = data["error"]

    sees = Sees()

    def limited_once(prompt, attempt):
        return RuntimeError("429") if attempt == 1 else "answer"

    batch, _ = await run(Scripted(limited_once), rate_limit_strategy=Fails(), observers=[sees])
    assert batch.succeeded == 1
    assert longest(sees.error) == ERROR_MESSAGE_LIMIT


async def test_a_long_message_of_a_context_that_cannot_be_stored_is_cut_at_that_length(tmp_path):
    from batch_llm import SqliteArtifactStore

    def fails(context):
        raise RuntimeError(LONG)

    store = SqliteArtifactStore(tmp_path / "run.db", context_in_identity=True, context_fingerprinter=fails)
    batch, _ = await run(Scripted(lambda prompt, attempt: "answer"), config=quick(), artifact_store=store)
    assert longest(batch.results[0].error) == ERROR_MESSAGE_LIMIT


def test_a_long_message_is_cut_at_that_length_in_a_span():
    pytest.importorskip("opentelemetry.sdk")
    from batch_llm import run as run_now

    from .test_opentelemetry import Seen

    async def fails(prompt):
        raise ValueError(LONG)

    seen = Seen()
    run_now(fails, ["p"], observers=[seen.observer])
    assert longest(seen.spans[0].status.description) == ERROR_MESSAGE_LIMIT
