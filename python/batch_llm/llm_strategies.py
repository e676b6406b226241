"""Strategies: how a prompt becomes an answer.

**Share one strategy object between items.** ``prepare()`` runs once per strategy object, however many items share
it: a thousand items with one :class:`GeminiCachedStrategy` create one cache, a thousand items with a strategy each
create a thousand.

=========================  ==================  ==================
1,000 items, cached prompt  one shared object   one object per item
=========================  ==================  ==================
``prepare()`` calls         1                   1,000
context caches created      1                   up to 1,000
cached input tokens paid    at a tenth          at full price to create, each time
=========================  ==================  ==================
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._secrets import quoted
from ._types import RetryState, TokenUsage
from ._usage import read_counts

if TYPE_CHECKING:
    from pydantic_ai import Agent

    from ._gemini import GeminiCachedStrategy, GeminiResponse, GeminiStrategy
    from .strategies.errors import ErrorClassifier

__all__ = [
    "GeminiCachedStrategy",
    "GeminiResponse",
    "GeminiStrategy",
    "LLMCallStrategy",
    "PydanticAIStrategy",
    "RetryState",
    "TOutput",
    "TokenUsage",
]

TOutput = TypeVar("TOutput")


def _installed(package: str) -> bool:
    """Whether a package can be imported, without importing it: the SDKs take seconds, and most programs use none."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


_GENAI_INSTALLED = _installed("google.genai")
_PYDANTIC_AI_INSTALLED = _installed("pydantic_ai")


class LLMCallStrategy(ABC, Generic[TOutput]):
    """Answers prompts. Subclass it to call any model in any way.

    **Share one object between items: one per item costs money.** ``prepare()`` runs once per object. Where it makes
    something that is paid, such as a context cache, a thousand items with an object each pay for it a thousand times:
    with a prompt of 50,000 tokens up to 50,000,000 tokens at full price in place of 50,000. Each object also has
    connections of its own, if it makes a client.

    One object may serve many items and workers at the same time, all on one event loop. Called are ``prepare()`` once,
    before the first item that uses it; per item ``execute()`` once per attempt, and ``on_error()`` after each failed
    one; and ``cleanup()`` once, after the last item of the run.

    With ``process_all()`` (and only there) ``cleanup()`` is called as in 0.3.0, after *every* item: a strategy for it
    must not close there what other items still use; close clients after ``process_all()``.
    """

    async def prepare(self) -> None:
        """Get ready; called once per strategy object and processor.

        If it raises, that item fails, and the next item tries again. ``cleanup()`` is called all the same, so it must
        cope with a half-finished ``prepare()``.
        """

    @abstractmethod
    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Answer one prompt, once.

        Args:
            prompt: The prompt.
            attempt: Number of this attempt, from 1. It grows after rate limits too.
            timeout: The time that the processor gives this attempt, seconds. For information: the processor cancels
                the call when it is over.
            state: The item's own notes, kept over its attempts. Never None when a processor calls.

        Returns:
            The output, and the tokens it took; a third value, a dict, becomes the result's ``metadata``.

        Raises:
            Exception: A failed attempt; the error classifier decides whether there is another one. Attach
                ``usage`` to the exception to account for tokens that a failed call has cost.
        """

    async def cleanup(self) -> None:
        """Let go of what was needed; called at the end of the run, or of each item. See the class."""

    def check_prompt(self, prompt: Any) -> None:
        """Say whether a prompt that is no string can be used; called by ``add_work()``. Override it to accept more.

        Raises:
            TypeError: By default, always.
        """
        raise TypeError(
            f"prompt must be a string, not {type(prompt).__name__} ({quoted(prompt)}); convert it, put it into "
            "context, or override check_prompt() in the strategy"
        )

    async def on_error(self, exception: Exception, attempt: int, state: RetryState | None = None) -> None:
        """Take note of a failed attempt; called before it is decided whether there is another one."""

    def recommended_error_classifier(self) -> ErrorClassifier | None:
        """Return the error classifier for this strategy where the processor was given none; None: the default one."""
        return None

    async def dry_run(self, prompt: str) -> tuple[TOutput, TokenUsage]:
        """Answer without a call, for ``ProcessorConfig(dry_run=True)``."""
        output: Any = f"[DRY-RUN] Mock output for prompt: {prompt[:50]}..."
        return output, {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}


class PydanticAIStrategy(LLMCallStrategy[TOutput]):
    """Answers with a pydantic-ai agent.

    Share one strategy (and agent) between items; see the module.

    Args:
        agent: The agent, or anything with an async ``run(prompt)``.

    Raises:
        ImportError: When pydantic-ai is not installed.
    """

    def __init__(self, agent: Agent[None, TOutput]) -> None:
        if not _PYDANTIC_AI_INSTALLED:
            raise ImportError(
                "pydantic-ai is required for PydanticAIStrategy. Install it: pip install 'batch-llm[pydantic-ai]'"
            )
        self.agent = agent

    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Run the agent on the prompt."""
        result: Any = await self.agent.run(prompt)
        return result.output, agent_usage(result)

    async def dry_run(self, prompt: str) -> tuple[TOutput, TokenUsage]:
        """Return an unvalidated, empty instance of the agent's output model, else the base class's answer."""
        try:
            from pydantic import BaseModel

            agent: Any = self.agent
            kind = getattr(agent, "output_type", None) or agent.result_type
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                words = len(prompt.split())
                output: Any = kind.model_construct()
                return output, {"input_tokens": words, "output_tokens": 50, "total_tokens": words + 50}
        except Exception:  # noqa: S110 - a mock agent has no type to construct: the base class answers
            pass
        return await super().dry_run(prompt)


def agent_usage(result: Any) -> TokenUsage:
    """Token counts of an agent's result, of any pydantic-ai version: method or property, old names or new."""
    counts = read_counts(getattr(result, "usage", None))
    return {
        "input_tokens": counts.get("input_tokens", 0),
        "output_tokens": counts.get("output_tokens", 0),
        "total_tokens": counts.get("total_tokens", 0),
    }


class MockAgentStrategy(PydanticAIStrategy[TOutput]):
    """A :class:`PydanticAIStrategy` around a mock agent, which needs no pydantic-ai."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent


def __getattr__(name: str) -> Any:
    # They subclass the above, so that this module cannot import them at its top.
    if name in ("GeminiCachedStrategy", "GeminiResponse", "GeminiStrategy"):
        return getattr(importlib.import_module("._gemini", __package__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
