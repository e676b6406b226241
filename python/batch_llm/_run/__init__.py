"""One run on the event loop: items in, messages of the engine, results out.

Surfaces make a ``LiveRun``, processors a ``Run``. A run sees its pipeline as a protocol, ``ItemPipeline``, which
``_pipeline`` implements; nothing here imports that.
"""

from .interrupts import CaughtInterrupts, interrupted, interruption, last_interrupted, remember
from .plan import Hooks, RunPlan, run_settings
from .protocols import Engine, FailurePolicy, ItemPipeline, JobOfRun, Overseer
from .read_elsewhere import OfThread, ReadElsewhere, ReadInThread, read_in_thread
from .run import Run
from .session import LiveRun
from .settings import RunSettings, Timeouts
from .source import PromptEntry, Source

__all__ = [
    "CaughtInterrupts",
    "Engine",
    "FailurePolicy",
    "Hooks",
    "ItemPipeline",
    "JobOfRun",
    "LiveRun",
    "OfThread",
    "Overseer",
    "PromptEntry",
    "ReadElsewhere",
    "ReadInThread",
    "Run",
    "RunPlan",
    "RunSettings",
    "Source",
    "Timeouts",
    "interrupted",
    "interruption",
    "last_interrupted",
    "read_in_thread",
    "remember",
    "run_settings",
]
