"""A job as text, and as a moment of its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._shown import amount, line

if TYPE_CHECKING:
    from .._results import BatchTermination, ProcessingStats

KINDS = 8
"""Categories of errors that are shown; the rest is a number."""


def summarize(stats: ProcessingStats, ended: BatchTermination, in_flight: float) -> str:
    """Return the lines; see ``Job.summary``."""
    part = f" ({100 * stats.succeeded / stats.processed:.1f}%)" if stats.processed else ""
    unsent = f", {stats.not_sent:,} not sent" if stats.not_sent else ""
    done = f"{stats.processed:,}: {stats.succeeded:,} succeeded{part}, {stats.failed:,} failed{unsent}"
    rows = [("items", done)]
    if in_flight:
        rows.append(("in flight", f"{in_flight:,.0f}"))
    if ended.kind != "completed":
        rows.append(("ended", f"{ended.kind}: {ended.reason}"))
    if stats.replayed:
        rows.append(("reused", f"{stats.replayed:,}"))
    if stats.rate_limit_count:
        rows.append(("rate limits", f"{stats.rate_limit_count:,}"))
    counts = {"input": stats.total_input_tokens, "output": stats.total_output_tokens}
    counts["cached"] = stats.total_cached_tokens
    if any(counts.values()):
        rows.append(("tokens", ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)))
    if stats.budget_cost_used:
        rows.append(("cost", f"{amount(stats.budget_cost_used)}"))
    failed = sorted(stats.error_counts.items(), key=lambda one: (-one[1], one[0]))
    rows += [("failed", f"{count:,} x {category}") for category, count in failed[:KINDS]]
    rest = stats.failed - sum(count for _, count in failed[:KINDS])
    if failed and rest > 0:
        rows.append(("failed", f"{rest:,} more"))
    return "\n".join(line(f"{name:<12}{text}") for name, text in rows)
