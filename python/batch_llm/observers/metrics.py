"""Counters of a run, for dashboards."""

from __future__ import annotations

import json
from typing import Any

from .base import BaseObserver, ProcessingEvent

__all__ = ["BaseObserver", "MetricsObserver", "ProcessingEvent"]

MAX_SAMPLES = 10_000
"""How many processing times are stored, the newest; their mean is over all."""


class MetricsObserver(BaseObserver):
    """Counts items, failures and rate limits, and records times.

    ``metrics`` is the live dict: ``items_processed``, ``items_succeeded``, ``items_failed``, ``rate_limits_hit``,
    ``total_cooldown_time`` (seconds), ``processing_times`` (seconds, the newest 10,000), ``error_counts``.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset all metrics."""
        self.metrics: dict[str, Any] = {
            "items_processed": 0,
            "items_succeeded": 0,
            "items_failed": 0,
            "rate_limits_hit": 0,
            "total_cooldown_time": 0.0,
            "processing_times": [],
            "error_counts": {},
        }
        self._timed = 0
        self._time = 0.0

    async def on_event(self, event: ProcessingEvent, data: dict[str, Any]) -> None:
        """Count an event."""
        metrics = self.metrics
        if event is ProcessingEvent.ITEM_COMPLETED:
            metrics["items_processed"] += 1
            metrics["items_succeeded"] += 1
            if "duration" in data:
                self._sample(data["duration"])
        elif event is ProcessingEvent.ITEM_FAILED and data.get("not_sent"):
            metrics["items_not_sent"] = metrics.get("items_not_sent", 0) + 1
        elif event is ProcessingEvent.ITEM_FAILED:
            metrics["items_processed"] += 1
            metrics["items_failed"] += 1
            if "error_type" in data:
                errors = metrics["error_counts"]
                errors[data["error_type"]] = errors.get(data["error_type"], 0) + 1
        elif event is ProcessingEvent.RATE_LIMIT_HIT:
            metrics["rate_limits_hit"] += 1
        elif event is ProcessingEvent.COOLDOWN_ENDED:
            metrics["total_cooldown_time"] += data.get("duration", 0.0)

    def _sample(self, seconds: float) -> None:
        self._timed += 1
        self._time += seconds
        times = self.metrics["processing_times"]
        times.append(seconds)
        if len(times) >= 2 * MAX_SAMPLES:
            # Cut in halves, not one by one: deleting from the front of a list moves all the rest.
            del times[:-MAX_SAMPLES]

    async def get_metrics(self) -> dict[str, Any]:
        """Return a snapshot: a copy of ``metrics`` with ``avg_processing_time`` and ``success_rate`` (0.0 to 1.0)."""
        metrics = self.metrics
        processed = metrics["items_processed"]
        times = metrics["processing_times"]
        return {
            **metrics,
            "processing_times": times[-MAX_SAMPLES:],
            "error_counts": dict(metrics["error_counts"]),
            "avg_processing_time": self._mean(times),
            "success_rate": metrics["items_succeeded"] / processed if processed else 0,
        }

    def _mean(self, times: list[float]) -> float:
        if self._timed:
            return self._time / self._timed
        # Somebody filled the live list by hand.
        return sum(times) / len(times) if times else 0

    async def export_dict(self) -> dict[str, Any]:
        """Return the same as :meth:`get_metrics`."""
        return await self.get_metrics()

    async def export_json(self) -> str:
        """Return the metrics as JSON, with ``processing_times_count`` instead of the times."""
        metrics = await self.get_metrics()
        del metrics["processing_times"]
        metrics["processing_times_count"] = self._timed or len(self.metrics["processing_times"])
        return json.dumps(metrics, indent=2)

    async def export_prometheus(self) -> str:
        """Return the metrics in Prometheus' text exposition format (version 0.0.4)."""
        metrics = await self.get_metrics()
        lines: list[str] = []
        for name, kind, text in _PROMETHEUS:
            lines += [
                f"# HELP batch_llm_{name} {text}",
                f"# TYPE batch_llm_{name} {kind}",
                f"batch_llm_{name} {metrics[name]}",
                "",
            ]
        if metrics["error_counts"]:
            lines += ["# HELP batch_llm_errors_total Total errors by type", "# TYPE batch_llm_errors_total counter"]
            for error, number in metrics["error_counts"].items():
                label = str(error).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
                lines.append(f'batch_llm_errors_total{{error_type="{label}"}} {number}')
            lines.append("")
        return "\n".join(lines) + "\n"


_PROMETHEUS = (
    ("items_processed", "counter", "Total items processed"),
    ("items_succeeded", "counter", "Total items succeeded"),
    ("items_failed", "counter", "Total items failed"),
    ("rate_limits_hit", "counter", "Total rate limits encountered"),
    ("avg_processing_time", "gauge", "Average processing time in seconds"),
    ("success_rate", "gauge", "Success rate (0.0 to 1.0)"),
    ("total_cooldown_time", "gauge", "Total time spent in rate limit cooldown (seconds)"),
)
