"""What the tests of lanes share."""

from __future__ import annotations

import contextlib
from pathlib import Path

from batch_llm import BatchSettings
from batch_llm.testing import SimulatedBatches, SimulatedProvider

FAST = BatchSettings(
    linger=0.05, first_poll=0.05, longest_poll=0.1, queue_wait=0.2, list_delays=(0.0, 0.2, 0.4, 0.6), probe=False
)
"""Batches that nobody waits for longer than a test may."""

MODELS = {
    "openai": "gpt-4.1-mini",
    "responses": "gpt-5-mini",
    "anthropic": "claude-haiku-4-5",
    "azure": "gpt-4.1-mini",
    "groq": "llama-3.3-70b-versatile",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "gemini": "gemini-2.5-flash",
    "mistral": "mistral-small-latest",
    "xai": "grok-4",
    "openrouter": "openai/gpt-4.1-mini",
}
"""A model of each way to ask."""


@contextlib.contextmanager
def simulated(delay: float = 0.1, **options):
    """A simulated provider whose batches take so long, and that may be asked as often as one likes."""
    with SimulatedProvider(batches=SimulatedBatches(delay=delay, poll_interval=0.0, **options)) as provider:
        yield provider


def of(provider: SimulatedProvider, name: str, store: Path, **options):
    """The arguments for a run in the batch lane of a provider."""
    maker = "openai" if name == "responses" else name
    strategy = f"{maker}:{MODELS[name]}"
    where = {"api_key": "key", "base_url": provider.batch_url(maker)}
    return strategy, {**where, "lane": "batch", "store": store, "batches": FAST, **options}
