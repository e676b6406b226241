"""What a run says of itself: its status, what limits it, what it costs. Used by ``run_control`` and ``finished``."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from .._progress import Outlook, RecentRate, cost_of
from .._results import LEVEL, BatchTermination
from . import settings

if TYPE_CHECKING:
    from .._results import Forecast, Interval, ProcessingStats
    from .run_control import RunControl

FAILED, ENDED_EARLY, INTERRUPTED = 3, 4, 130
"""Exit codes of ``batch-llm run``."""


def exit_code_of(termination: BatchTermination, failed: int, error: BaseException | None) -> int:
    """Return what the command line would return for a run that has ended so."""
    if termination.kind == "interrupted" or isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
        return INTERRUPTED
    if error is not None:
        return 1
    if termination.kind != "completed":
        return ENDED_EARLY
    return FAILED if failed else 0


class Rate(RecentRate):
    """Results per second, lately; computed at most a few times a second."""

    _looked = 0.0
    _last = 0.0

    def now(self, done: int) -> float:
        """Return the rate."""
        time_now = time.monotonic()
        if time_now - self._looked >= 0.2:
            self._looked, self._last = time_now, self.after(done)
        return self._last


def status(control: RunControl, stats: ProcessingStats, rate: Rate, outlook: Outlook) -> dict[str, Any]:
    """Return the status of a run in progress."""
    run = control.run
    queued, in_flight, retrying, cooldown, outage, standstill = run.gauges()
    batches = run.pipeline.batch_progress()
    is_paused, *_, is_stopped = run.steering.state()
    done = stats.processed - stats.not_sent
    speed = rate.now(done)
    expected = run.pipeline.expected
    total = max(stats.total, expected or 0)
    is_final = expected is not None or not run.is_open
    expects = outlook.now()
    if expects is not None and expects.seconds_left is not None:
        left: float | None = expects.seconds_left.expected
    else:
        left = (total - stats.processed) / speed if speed > 0 and is_final else None
    termination = control.termination
    return {
        "run": control.entry.shown(),
        "state": "ending" if is_stopped else "paused" if is_paused else "running",
        "elapsed": round(run.elapsed(), 3),
        "progress": {
            "total": total,
            "total_is_final": is_final,
            "processed": stats.processed,
            "succeeded": stats.succeeded,
            "failed": stats.failed,
            "not_sent": stats.not_sent,
            "reused": stats.replayed,
            "requeued": control.requeued,
            "queued": queued,
            "in_flight": in_flight,
            "in_batches": batches.waiting,
            "batches": batches._asdict(),
            "retrying": retrying,
        },
        "rate": round(speed, 3),
        "seconds_left": None if left is None else round(left, 1),
        "forecast": None if expects is None else forecast(expects),
        "errors": dict(stats.error_counts),
        "tokens": _tokens(stats),
        "cost": cost_of(stats, run.pipeline.price()),
        "settings": settings.current(control),
        "adaptive": control.plan.config.concurrency == "auto",
        "waits": {
            "cooldown": round(cooldown, 3),
            "outage": outage,
            "standstill": None if standstill is None else standstill[0],
        },
        "termination": None
        if termination.kind == "completed"
        else {"kind": termination.kind, "reason": termination.reason},
        "changes": list(control.changes),
    }


def forecast(found: Forecast) -> dict[str, Any]:
    """Return a forecast as JSON values."""
    return {
        "level": LEVEL,
        "seconds_left": _interval(found.seconds_left, 1),
        "cost": _interval(found.cost, 6),
    }


def _interval(found: Interval | None, digits: int) -> dict[str, float] | None:
    return None if found is None else {name: round(value, digits) for name, value in found._asdict().items()}


def explained(stats: ProcessingStats, *, over_time: bool = False) -> dict[str, Any]:
    """Return what has limited a run, for how long, and how to change it; ``over_time``: in each interval, too."""
    more = {"bound_over_time": stats.bound_over_time} if over_time and stats.bound_over_time else {}
    return {
        "text": stats.explain(),
        "verdict": {"limit": (found := stats.verdict()).limit, "text": str(found)},
        "bound_by": {name: round(seconds, 3) for name, seconds in stats.bound_by.items()},
        "limits": list(stats.limits),
        "concurrency": stats.concurrency,
        "prompt_cache": dict(stats.prompt_cache),
        "sent_live": dict(stats.sent_live),
        "began_at": stats.start_time,
        **more,
    }


def cost(control: RunControl, stats: ProcessingStats, outlook: Outlook) -> dict[str, Any]:
    """Return what a run has cost, and what it will."""
    run = control.run
    spent = cost_of(stats, run.pipeline.price())
    counted = stats.processed - stats.not_sent - stats.replayed
    total = max(stats.total, run.pipeline.expected or 0)
    expects = outlook.now()
    projected = None
    if expects is not None and expects.cost is not None:
        projected = round(expects.cost.expected, 6)
    elif spent is not None and counted > 0:
        projected = round(spent + spent / counted * max(total - stats.processed, 0), 6)
    return {
        "spent": spent,
        "projected": projected,
        "forecast": None if expects is None else _interval(expects.cost, 6),
        "budget": control.plan.config.guardrails.max_total_cost,
        "tokens": _tokens(stats),
        "attempts_of_unknown_usage": stats.budget_unknown_usage_attempts,
    }


def _tokens(stats: ProcessingStats) -> dict[str, int]:
    return {
        "input": stats.total_input_tokens,
        "output": stats.total_output_tokens,
        "cached_input": stats.total_cached_tokens,
    }
