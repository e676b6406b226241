"""Strategies for tests."""

from __future__ import annotations

from typing import TypeVar

from ..llm_strategies import MockAgentStrategy, PydanticAIStrategy
from .mocks import MockAgent

__all__ = ["MockAgent", "PydanticAIStrategy", "TOutput", "mock_strategy"]

TOutput = TypeVar("TOutput")


def mock_strategy(mock_agent: MockAgent[TOutput]) -> PydanticAIStrategy[TOutput]:
    """Return a strategy that answers with a mock agent. pydantic-ai is not needed."""
    return MockAgentStrategy(mock_agent)
