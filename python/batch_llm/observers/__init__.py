"""Observers: receive the events of a run."""

from typing import TYPE_CHECKING, Any

from .base import BaseObserver, ProcessingEvent, ProcessorObserver
from .metrics import MetricsObserver

if TYPE_CHECKING:
    from .opentelemetry import OpenTelemetryObserver

__all__ = ["BaseObserver", "MetricsObserver", "OpenTelemetryObserver", "ProcessingEvent", "ProcessorObserver"]


def __getattr__(name: str) -> Any:
    if name == "OpenTelemetryObserver":  # needs an extra
        from .opentelemetry import OpenTelemetryObserver

        return OpenTelemetryObserver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
