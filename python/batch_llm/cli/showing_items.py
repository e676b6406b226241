"""What ``inspect`` prints of one item, and ``diff`` of two runs, for people."""

from __future__ import annotations

from typing import Any

from .._report import seconds
from .._shown import escaped, line
from .showing import instant, money

WIDTH = 40
"""Characters of the longest bar."""
_STATES = ("failed", "succeeded", "not sent")
WAITS = ("backoff", "cooldown", "worker", "quota", "concurrency")


def item(shown: Any) -> str:
    """All about an item."""
    lines = [f"{shown['id']}: {_STATES[shown['state']]}{_after(shown)}"]
    facts = {
        "model": shown["model"],
        "lane": shown["lane"],
        "finish": shown["finish"],
        "reused": shown["reused"] and f"from the {shown['reused']}",
        "tokens": ", ".join(f"{count:,} {name.replace('_tokens', '')}" for name, count in shown["tokens"].items()),
        "cost": None if shown["cost"] is None else money(shown["cost"]),
        "stored": None if shown["recorded_at"] is None else instant(shown["recorded_at"]),
    }
    lines += [f"{name:<10}{value}" for name, value in facts.items() if value]
    made = [line(one) for one in lines]
    made += (
        _part("prompt", shown["prompt"])
        if shown["prompt"]
        else ["", "prompt: not in the store; --prompts FILE reads it from the input of the run"]
    )
    for turn in shown["turns"]:
        calls = "".join(f"\n{call['name']}({call['arguments']['text']})" for call in turn["calls"])
        text = {"text": turn["text"]["text"] + calls, "left_out": turn["text"]["left_out"]}
        made += _part(line(" ".join(filter(None, (turn["role"], turn["name"])))), text)
    made += _part("answer" if shown["state"] == 1 else "error", shown["answer"])
    return "\n".join(made + _attempts(shown["attempts"]))


def _after(shown: Any) -> str:
    if not shown["tried"]:
        return ""
    category = f" ({shown['category']})" if shown["category"] else ""
    return f"{category}, {shown['tried']} attempt{'s' if shown['tried'] != 1 else ''}"


def _part(name: str, text: Any) -> list[str]:
    more = [f"... and {text['left_out']:,} more characters"] if text["left_out"] else []
    return ["", f"{name}:", *(f"  {one}" for one in escaped(text["text"]).split("\n")), *more]


def _attempts(attempts: list[Any]) -> list[str]:
    """The attempts as bars: dots are waits, what follows is the request."""
    if not attempts:
        return []
    begin = min(one["start"] - sum(one["waits"]) for one in attempts)
    end = max(one["start"] + one["seconds"] for one in attempts)
    scale = WIDTH / max(end - begin, 1e-9)
    lines = ["", "attempts:"]
    for number, one in enumerate(attempts, 1):
        waited = sum(one["waits"])
        offset = round((one["start"] - waited - begin) * scale)
        bar = " " * offset + "." * round(waited * scale) + "#" * max(round(one["seconds"] * scale), 1)
        waits = ", ".join(
            f"{name} {seconds(wait)}" for name, wait in zip(WAITS, one["waits"], strict=True) if wait >= 0.0005
        )
        outcome = "ok" if one["ok"] else f"{one['error'] or 'failed'} ({one['category']})"
        waited_for = f"; waited for {waits}" if waits else ""
        lines.append(line(f"  {number}  {bar:<{WIDTH + 1}} {seconds(one['seconds'])}, {outcome}{waited_for}"))
    return lines


def comparison(figures: Any) -> str:
    """Two runs side by side."""
    first, second = figures["first"], figures["second"]
    rows: list[tuple[str, ...]] = [("", str(first["name"]), str(second["name"]))]
    counts = ("items", "succeeded", "failed", "retried")
    rows += [(name, f"{first[name]:,}", f"{second[name]:,}") for name in counts]
    rows += [
        (f"latency {part}", *(seconds(one["latency"][part]) for one in (first, second))) for part in ("p50", "p95")
    ]
    rows += [
        (name.replace("_", " "), *(f"{one['tokens'][name]:,}" for one in (first, second))) for name in first["tokens"]
    ]
    rows.append(("cost", *("unknown" if one["cost"] is None else money(one["cost"]) for one in (first, second))))
    for category in {**first["errors"], **second["errors"]}:
        rows.append((category, *(f"{one['errors'].get(category, 0):,}" for one in (first, second))))
    widths = [max(len(line(row[column])) for row in rows) for column in range(3)]
    lines = [
        f"{line(name):<{widths[0]}}  {line(one):>{widths[1]}}  {line(two):>{widths[2]}}".rstrip()
        for name, one, two in rows
    ]
    agreement = figures["agreement"]
    lines.append("")
    if agreement["share"] is None:
        lines.append("no item has an answer in both")
    else:
        counted = f"{agreement['same']:,} of {agreement['compared']:,} items"
        lines.append(f"answers agree in {counted} ({_percent(agreement['share'])})")
    for name, one in agreement["fields"].items():
        lines.append(line(f"  {name}: {one['same']:,} of {one['compared']:,} ({_percent(one['share'])})"))
    outcomes = {name.replace("_", " "): count for name, count in figures["outcomes"].items() if count}
    lines.append(", ".join(f"{count:,} {name}" for name, count in outcomes.items()))
    return "\n".join(lines)


def _percent(share: float) -> str:
    # Rounded down: not all is not 100%.
    return f"{int(share * 1000) / 10:.1f}%"
