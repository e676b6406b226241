"""What the commands of ``control`` print for people."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

from .._lanes import BatchProgress
from .._shown import amount

if TYPE_CHECKING:
    from collections.abc import Sequence


MOST_PARTS = 24
"""Parts of a run whose limits are listed."""


def runs(found: Sequence[Any], *, is_all: bool) -> str:
    """A table of runs."""
    if not found:
        return "no runs" if is_all else "no run is in progress; `batch-llm ps --all` lists past ones"
    rows = [("ID", "NAME", "STATE", "AGE", "PID", "STORE")]
    for run in found:
        end = run["ended_at"] or time.time()
        state = run["state"]
        if run["exit_code"] is not None and state == "ended":
            state = f"ended ({run['exit_code']})"
        rows.append(
            (run["id"], run["name"], state, span(end - run["started_at"]), str(run["pid"]), run["store"] or "-")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def progress(found: Any) -> str:
    """One line about a run."""
    counts = found["progress"]
    total = f" of {counts['total']:,}" if counts["total_is_final"] else ""
    state = "ended early" if found["termination"] and found["state"] == "ended" else found["state"]
    words = [f"{state}: {counts['processed'] - (counts['not_sent'] or 0):,}{total} done"]
    names = ("failed", "not_sent", "reused", "in_flight", "retrying")
    words += [f"{counts[name]:,} {name.replace('_', ' ')}" for name in names if counts[name]]
    words += BatchProgress(**counts["batches"]).words()
    if found["rate"]:
        words.append(f"{found['rate']:,.1f}/s")
    if found["seconds_left"]:
        left = (found.get("forecast") or {}).get("seconds_left")
        interval = f" ({span(left['low'])} to {span(left['high'])})" if left else ""
        words.append(f"{span(found['seconds_left'])} left{interval}")
    if found["cost"]:
        final = (found.get("forecast") or {}).get("cost")
        end = f" so far, {money(final['low'])} to {money(final['high'])} by the end" if final else ""
        words.append(f"{money(found['cost'])}{end}")
    return ", ".join(words)


def status(found: Any) -> str:
    """All about a run."""
    run = found["run"]
    lines = [f"{run['id'] or 'store'}  {run['name']}", f"progress    {progress(found)}"]
    if found["elapsed"] is not None:
        lines.append(f"time        {span(found['elapsed'])}, since {instant(run['started_at'])}")
    tokens = found["tokens"]
    if any(tokens.values()):
        lines.append(
            f"tokens      {tokens['input']:,} input ({tokens['cached_input']:,} cached), {tokens['output']:,} output"
        )
    if found["errors"]:
        lines.append(f"errors      {', '.join(f'{count:,} x {name}' for name, count in found['errors'].items())}")
    if found["settings"] is not None:
        given = {name: value for name, value in found["settings"].items() if value is not None}
        words = [f"{name}={setting(name, value)}" for name, value in given.items()]
        if found.get("adaptive"):
            words[0] = f"concurrency=auto, at most {given['concurrency']:,}"
        lines.append(f"settings    {', '.join(words)}")
    waits = found["waits"] or {}
    if waits.get("outage") is not None:
        lines.append(f"waiting     the provider has been down for {span(waits['outage'])}")
    elif waits.get("cooldown"):
        lines.append(f"waiting     for the end of a cooldown, {span(waits['cooldown'])}")
    if found["termination"] is not None:
        lines.append(f"ended early {found['termination']['reason']}")
    if found.get("error"):
        lines.append(f"error       {found['error']}")
    lines += [f"change      {change(made)}" for made in found["changes"][-10:]]
    if run["log"]:
        lines.append(f"log         {run['log']}")
    if run["store"]:
        lines.append(f"store       {run['store']}")
    return "\n".join(lines)


def change(made: Any) -> str:
    """A change: when, what, by whom, why."""
    what = made["type"]
    for name, value in (made.get("values") or {}).items():
        what += f" {name}: {setting(name, value['before'])} -> {setting(name, value['after'])}"
    if "count" in made:
        what += f" {made['count']:,} items"
    if "item" in made:
        what += f" {made['item']}"
    by = made.get("by") or {}
    reason = f": {made['reason']}" if made.get("reason") else ""
    return f"{instant(made['at'])} {what}, by {by.get('user')}@{by.get('host')} (pid {by.get('pid')}){reason}"


def failures(found: Any, *, is_first: bool) -> str:
    """Failures, one per line."""
    if not found["failures"] and is_first:
        return "no failures"
    return "\n".join(f"{one['id']}  {one['category']}  {one['error']}" for one in found["failures"])


def cost(found: Any) -> str:
    """What a run costs."""
    if found["spent"] is None:
        return "the cost is unknown, because the price of the model is unknown"
    words = [f"{money(found['spent'])} so far"]
    if found["projected"] is not None and found["projected"] > found["spent"]:
        final = found.get("forecast")
        interval = f" ({money(final['low'])} to {money(final['high'])})" if final else ""
        words.append(f"about {money(found['projected'])}{interval} by the end")
    if found["budget"] is not None:
        words.append(f"budget {money(found['budget'])}")
    return ", ".join(words)


def limits_over_time(found: Any) -> list[str]:
    """A line for each part of a run that had another main limit: from when to when, and its share of the time."""
    over_time = found.get("bound_over_time")
    if not over_time:
        return []
    interval, end, seconds = over_time["interval"], over_time["end"], over_time["seconds"]
    count = max(map(len, seconds.values()), default=0)
    step = max(-(-count // MOST_PARTS), 1)
    parts: list[tuple[str, int, float]] = []  # the limit, how many intervals, its seconds
    for start in range(0, count, step):
        sums = {name: sum(times[start : start + step]) for name, times in seconds.items()}
        name = max(sums, key=lambda name: sums[name])
        if parts and parts[-1][0] == name:
            _, intervals, before = parts.pop()
            parts.append((name, intervals + step, before + sums[name]))
        elif sums[name] > 0:
            parts.append((name, step, sums[name]))
        else:
            parts.append(("", step, 0.0))
    lines, at = [], 0.0
    for name, intervals, its in parts:
        until = min(at + intervals * interval, end)
        if name and until > at:
            words = name.replace("_", " ").replace(":", " of ")
            lines.append(f"{span(at)} to {span(until)}: {words} ({min(its / (until - at), 1):.0%})")
        at = until
    return lines


def paused(found: Any) -> str:
    """Whether a run is paused."""
    after, before = found["paused"]["after"], found["paused"]["before"]
    word = "paused" if after else "running"
    if after == before:
        return f"it is {word} already"
    return f"it would be {word}" if found["dry_run"] else word


def values(found: Any) -> str:
    """Settings that were changed."""
    would = "would change " if found["dry_run"] else ""
    return "\n".join(
        f"{would}{name}: {setting(name, value['before'])} -> {setting(name, value['after'])}"
        for name, value in found["values"].items()
    )


def requeued(found: Any) -> str:
    """What is sent again."""
    items, are = (f"{found['items']:,} items", "are") if found["items"] != 1 else ("1 item", "is")
    if not found["items"]:
        return "nothing has failed"
    if found["dry_run"]:
        return f"{items} would be sent again"
    if found["when"] == "now":
        return f"{items} {are} sent again"
    return f"the next run with this store sends {items} again"


def ended(found: Any, word: str) -> str:
    """What a run that ends leaves."""
    would = "would be " if found["dry_run"] else ""
    if "item" in found:
        return f"{found['item']} {would}{word}"
    return f"{would}{word}: {found['in_flight']:,} in flight, at least {found['not_sent']:,} not sent"


def setting(name: str, value: Any) -> str:
    """A setting in words."""
    if value is None:
        return "none"
    if name == "deadline":
        return f"in {span(value)}"
    return money(value) if name == "budget" else f"{value:,}"


def money(value: float) -> str:
    """A sum of money."""
    return f"${value:,.2f}" if value >= 1 else f"${amount(value)}"


def span(seconds: float) -> str:
    """A length of time."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def instant(seconds: float) -> str:
    """A moment, by the clock of this machine."""
    try:
        return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
