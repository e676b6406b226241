"""A batch as HTML: a cell of a notebook, and a page that stands by itself. Used by ``BatchResult``.

Everything is in the one text: no script, nothing fetched, so that a page can be mailed, and shows in a notebook that is
not trusted. All that comes from prompts, answers and errors is escaped.
"""

from __future__ import annotations

import datetime
import os
from html import escape
from typing import TYPE_CHECKING, Any

from .._files import replaced
from .._values import as_text
from ..errors import ERROR_MESSAGE_LIMIT
from .charts import STYLE as CHARTS_STYLE
from .charts import charts
from .summary import figures, rows, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._results import WorkItemResult
    from .batch import Batch

CELL_RESULTS = 10
"""Results shown in a notebook's cell."""
PAGE_RESULTS = 1000
"""Results shown on a page: first all kinds of failures, then successes."""
LONGEST_LINE = 160
"""Longest part of an output or an error that stands on one line, characters."""
LONGEST_TEXT = 20_000
"""Longest output shown, characters."""
LONGEST_PROMPT = 2_000
"""Longest prompt shown, and longest message of a conversation, characters."""
MOST_TURNS = 50
"""Most messages shown of a conversation, besides its prompt and its answer."""

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
_PAGE_STYLE = """
body{margin:0;background:#fff;color:#1b1f24}main.bl{color:inherit}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}}
main.bl{max-width:1100px;margin:0 auto;padding:24px 20px 60px}
.bl h1{font-size:22px;margin:0 0 4px}.bl h2{font-size:16px;margin:28px 0 6px}
.bl svg{background:var(--bl-soft);border-radius:6px}
.bl pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0;padding:8px;background:var(--bl-soft);
border-radius:6px;font:12px/1.5 ui-monospace,monospace}
.bl details{border-bottom:1px solid var(--bl-line);padding:3px 0}.bl summary{cursor:pointer;overflow-wrap:anywhere}
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


def write(batch: Batch, path: str | os.PathLike[str], mode: int | None = None) -> None:
    """Write the page. ``mode``: permissions of a new file; None: what the umask leaves."""
    text = page(batch)
    with replaced(path, mode) as file:
        file.write(text)


def page(batch: Batch) -> str:
    """The page."""
    found = figures(batch)
    shown = _shown(batch, PAGE_RESULTS)
    began = batch.stats.start_time if batch.stats is not None else None
    when = "" if began is None else datetime.datetime.fromtimestamp(began).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    kinds = "".join(
        f"<tr><td>{kind.count:,}</td><td>{escape(kind.category)}</td><td>{escape(kind.example[:ERROR_MESSAGE_LIMIT])}</td>"
        f'<td class="dim">{escape(", ".join(kind.ids))}</td></tr>'
        for kind in found.errors
    )
    errors = (
        f"<h2>Errors</h2><table><tr><th>count</th><th>kind</th><th>example</th><th>items</th></tr>{kinds}</table>"
        if kinds
        else ""
    )
    results = "".join(_details(result) for result in shown)
    rest = batch.total_items - len(shown)
    note = f'<p class="dim">{rest:,} further results are not shown.</p>' if rest > 0 else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>batch-llm: run report</title>'
        f'<link rel="icon" href="data:,">{_css(_COLOURS + _STYLE + _PAGE_STYLE + CHARTS_STYLE)}</head><body>'
        f'<main class="bl"><h1>Run report</h1><div class="dim">{escape(when)}</div>{_figures(batch, found)}'
        f'<div class="charts">{charts(batch, found)}</div>{_limits(batch)}{errors}'
        f"<h2>Results</h2>{results}{note}</main></body></html>"
    )


def _figures(batch: Batch, found: Any) -> str:
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
        for name, text in rows(batch, found)
        if name != "failed"
    )
    return f"<table>{lines}</table>"


def _limits(batch: Batch) -> str:
    if batch.stats is None or not batch.stats.limits:
        return ""
    lines = ""
    for limit in batch.stats.limits:
        measure = escape(str(limit.get("measure")).replace("_", " "))
        by = "the provider" if limit.get("learned") else "the configuration"
        amount = f"{limit.get('amount', 0):,.0f} in {seconds(limit.get('per'))}"
        lines += f"<tr><td>{measure}</td><td>{amount}</td><td>{by}</td></tr>"
    return f"<h2>Limits</h2><table><tr><th>limit</th><th>amount</th><th>set by</th></tr>{lines}</table>"


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


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n... and {len(text) - most:,} more characters"


def _turns(result: WorkItemResult[Any, Any]) -> Iterator[tuple[str, str]]:
    """Who said what between the prompt and the answer of a conversation."""
    messages = (result.messages or ())[1:]
    if result.success and messages and messages[-1].get("role") == "assistant":
        messages = messages[:-1]  # the answer
    for message in messages[:MOST_TURNS]:
        said = [as_text(message["content"])] if message.get("content") else []
        said += [f"{call.get('name')}({call.get('arguments')})" for call in message.get("tool_calls") or ()]
        yield str(message.get("name") or message.get("role")), "\n".join(said)
    if len(messages) > MOST_TURNS:
        yield "", f"... and {len(messages) - MOST_TURNS:,} more messages"


def _details(result: WorkItemResult[Any, Any]) -> str:
    text = _text(result)
    line = " ".join(text.split())[:LONGEST_LINE]
    mark = _mark(result)
    prompt = _prompt(result)
    asked = f"<div class=dim>prompt</div><pre>{escape(_short(prompt, LONGEST_PROMPT))}</pre>" if prompt else ""
    asked += "".join(
        f"<div class=dim>{escape(who)}</div><pre>{escape(_short(said, LONGEST_PROMPT))}</pre>"
        for who, said in _turns(result)
    )
    usage = ", ".join(
        f"{name}: {count:,}" for name, count in (result.token_usage or {}).items() if isinstance(count, int)
    )
    attempts = "".join(
        f"<tr><td>{attempt.attempt}</td><td>{seconds(attempt.queue_seconds)}</td>"
        f"<td>{seconds(attempt.quota_wait_seconds)}</td><td>{seconds(attempt.admission_wait_seconds)}</td>"
        f"<td>{seconds(attempt.cooldown_wait_seconds)}</td><td>{seconds(attempt.retry_backoff_seconds)}</td>"
        f"<td>{seconds(attempt.execution_seconds)}</td><td>{escape(attempt.error_category or '')}</td></tr>"
        for attempt in result.timing.attempts
    )
    times = (
        "<table><tr><th>attempt</th><th>queue</th><th>quota</th><th>admission</th><th>cooldown</th><th>backoff</th>"
        f"<th>execution</th><th>error</th></tr>{attempts}</table>"
        if attempts
        else ""
    )
    return (
        f"<details><summary>{escape(result.item_id)} {mark} <span class=dim>{escape(line)}</span></summary>"
        f"{asked}<pre>{escape(_short(text, LONGEST_TEXT))}</pre><div class=dim>{escape(usage)}</div>{times}</details>"
    )
