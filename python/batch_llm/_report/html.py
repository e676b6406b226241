"""A batch as HTML: a cell of a notebook. Used by ``BatchResult``; the page of a run is in ``_view``.

Everything is in the one text: no script, nothing fetched, so that it shows in a notebook that is not trusted. All that
comes from prompts, answers and errors is escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from .._values import as_text
from .charts import STYLE as CHARTS_STYLE
from .charts import charts
from .summary import figures, rows, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._results import WorkItemResult
    from .batch import Batch

CELL_RESULTS = 10
"""Results shown in a notebook's cell."""
LONGEST_LINE = 160
"""Longest part of an output or an error that stands on one line, characters."""

INK = (
    "var(--jp-content-font-color1,var(--jp-ui-font-color1,var(--vscode-editor-foreground,"
    "var(--colab-primary-text-color,inherit))))"
)
"""The colour of text in a notebook: that of its theme, which need not be that of the operating system. All text is in
this colour; what is coloured is not text, and is visible on light and dark backgrounds."""
MARK, BAD, GOOD = "#3b86d1", "#d9603f", "#2a955c"

_COLOURS = f"""
.bl{{--bl-mark:{MARK};--bl-bad:{BAD};--bl-good:{GOOD};--bl-line:rgba(128,128,128,.4);--bl-soft:rgba(128,128,128,.1);
color:{INK};font:13px/1.45 system-ui,sans-serif;text-align:left}}
"""
# Twice `.bl`: notebooks have rules for tables, which centre them.
_STYLE = """
.bl.bl table{border-collapse:collapse;font:inherit;color:inherit;margin:8px 0;border:0}
.bl.bl tr:nth-child(n){background:none}
.bl.bl th,.bl.bl td{text-align:left;vertical-align:top;padding:3px 12px 3px 0;border:0;
border-bottom:1px solid var(--bl-line);background:none;color:inherit;white-space:normal;max-width:60em}
.bl.bl th{font-weight:500}
.bl .charts{display:flex;flex-wrap:wrap;justify-content:flex-start;gap:12px}
.bl .no{font-weight:600}.bl .no,.bl .yes{white-space:nowrap}
.bl .no::before,.bl .yes::before{content:"";display:inline-block;width:.6em;height:.6em;border-radius:50%;
margin-right:.4em;background:var(--bl-good)}
.bl .no::before{background:var(--bl-bad)}
.bl .dim,.bl.bl th{opacity:.8}
"""


def _css(text: str) -> str:
    return f"<style>{text}</style>"


def cell(batch: Batch) -> str:
    """What a notebook shows: the summary, small charts, and the first results."""
    found = figures(batch)
    shown = "".join(_short_row(result) for result in _shown(batch, CELL_RESULTS))
    more = batch.total_items - CELL_RESULTS
    rest = f'<div class="dim">and {more:,} more</div>' if more > 0 else ""
    head = "<tr><th>item</th><th></th><th>prompt</th><th>output</th><th>time</th></tr>"
    table = f"<table>{head}{shown}</table>{rest}" if shown else ""
    return (
        f'{_css(_COLOURS + _STYLE + CHARTS_STYLE)}<div class="bl">{_figures(batch, found)}'
        f'<div class="charts">{charts(batch, found)}</div>{table}</div>'
    )


def _figures(batch: Batch, found: Any) -> str:
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
        for name, text in rows(batch, found)
        if name != "failed"
    )
    return f"<table>{lines}</table>"


def _shown(batch: Batch, count: int) -> Sequence[WorkItemResult[Any, Any]]:
    if len(batch.results) <= count:
        return batch.results
    shown: list[WorkItemResult[Any, Any]] = [*batch.failures[: count // 2]]
    shown += batch.successes[: count - len(shown)]
    return [*shown, *batch.unsent[: count - len(shown)]]


def _text(result: WorkItemResult[Any, Any]) -> str:
    if not result.success:
        return str(result.error)
    try:
        return result.output if isinstance(result.output, str) else repr(result.output)
    except Exception as error:
        return f"(its repr failed: {type(error).__name__})"


def _prompt(result: WorkItemResult[Any, Any]) -> str:
    return "" if result.prompt is None else as_text(result.prompt)


def _one_line(text: str, most: int) -> str:
    # Not all of it: a prompt may be a book.
    text = " ".join(text[: 4 * most].split())
    return text[: most - 3] + "..." if len(text) > most else text


def _mark(result: WorkItemResult[Any, Any]) -> str:
    if result.success:
        return '<span class="yes">ok</span>'
    return '<span class="dim">not sent</span>' if result.not_sent else '<span class="no">failed</span>'


def _short_row(result: WorkItemResult[Any, Any]) -> str:
    text, asked = _one_line(_text(result), LONGEST_LINE), _one_line(_prompt(result), 80)
    mark = _mark(result)
    time = seconds(result.timing.execution_seconds) if result.attempts else ""
    return (
        f"<tr><td>{escape(result.item_id)}</td><td>{mark}</td><td>{escape(asked)}</td><td>{escape(text)}</td>"
        f"<td>{time}</td></tr>"
    )
