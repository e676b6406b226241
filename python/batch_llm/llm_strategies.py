"""Strategies: how a prompt becomes an answer.

**Share one strategy object between items.** ``prepare()`` runs once per strategy object, however many items share
it: a thousand items with one :class:`GeminiCachedStrategy` create one cache, a thousand items with one object each
create a thousand.

=========================  ==================  ==================
1,000 items, cached prompt  one shared object   one object per item
=========================  ==================  ==================
``prepare()`` calls         1                   1,000
context caches created      1                   up to 1,000
cached input tokens cost    a tenth             full price to create, each time
=========================  ==================  ==================
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, TypeVar

from ._llm import LLMCallStrategy, read_counts
from ._types import RetryState, TokenUsage

if TYPE_CHECKING:
    from pydantic_ai import Agent

    from ._gemini import GeminiCachedStrategy, GeminiResponse, GeminiStrategy

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


class PydanticAIStrategy(LLMCallStrategy[TOutput]):
    """Runs a pydantic-ai agent.

    Share one strategy (and agent) between items; see :mod:`batch_llm.llm_strategies`.

    Args:
        agent: The agent, or anything with an async ``run(prompt)``.

    Raises:
        ImportError: If pydantic-ai is not installed.
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
        """Return an unvalidated, empty instance of the agent's output model; otherwise the base class's mock answer."""
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
