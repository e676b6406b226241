"""Middlewares: code around each item, shared by all workers of a processor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from .._items import LLMWorkItem
from .._results import WorkItemResult
from .._types import TContext, TInput, TOutput

__all__ = ["BaseMiddleware", "LLMWorkItem", "Middleware", "TContext", "TInput", "TOutput", "WorkItemResult"]


class Middleware(ABC, Generic[TInput, TOutput, TContext]):
    """Hooks around each item: before its attempts, after a success, and on its final failure.

    Calls for different items may interleave.
    """

    @abstractmethod
    async def before_process(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext]
    ) -> LLMWorkItem[TInput, TOutput, TContext] | None:
        """Called before each attempt, in list order.

        Args:
            work_item: A shallow copy of the submitted item, or what the previous middleware returned.

        Returns:
            The item to use, modified or replaced; or None to skip the item.

        Raises:
            Exception: Fails the item. It is never sent unmodified.
        """

    @abstractmethod
    async def after_process(self, result: WorkItemResult[TOutput, TContext]) -> WorkItemResult[TOutput, TContext]:
        """Called after a successful attempt, in reverse list order.

        Returns:
            The result to use. Anything else, such as None, leaves the result unchanged, with a warning; so does an
            exception.
        """

    @abstractmethod
    async def on_error(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext], error: Exception
    ) -> WorkItemResult[TOutput, TContext] | None:
        """Called once when an item fails for good, in list order until a middleware returns a result.

        Returns:
            A result that replaces the failure, or None.
        """


class BaseMiddleware(Middleware[TInput, TOutput, TContext]):
    """A middleware that does nothing. Override the methods you need."""

    async def before_process(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext]
    ) -> LLMWorkItem[TInput, TOutput, TContext] | None:
        """Return the item."""
        return work_item

    async def after_process(self, result: WorkItemResult[TOutput, TContext]) -> WorkItemResult[TOutput, TContext]:
        """Return the result."""
        return result

    async def on_error(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext], error: Exception
    ) -> WorkItemResult[TOutput, TContext] | None:
        """Return None."""
        return None
