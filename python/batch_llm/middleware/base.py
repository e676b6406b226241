"""Middlewares: code around each item, shared by all workers of a processor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from .._items import LLMWorkItem
from .._results import WorkItemResult
from .._types import TContext, TInput, TOutput

__all__ = ["BaseMiddleware", "LLMWorkItem", "Middleware", "TContext", "TInput", "TOutput", "WorkItemResult"]


class Middleware(ABC, Generic[TInput, TOutput, TContext]):
    """Sees each item before its attempts, its result after success, and its final failure.

    Calls for different items interleave.
    """

    @abstractmethod
    async def before_process(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext]
    ) -> LLMWorkItem[TInput, TOutput, TContext] | None:
        """Called before each attempt, in list order.

        Args:
            work_item: A shallow copy of the item as submitted, or what the middleware before returned.

        Returns:
            The item to use, changed or another one, or None to skip the item.

        Raises:
            Exception: Fails the item. It is never sent unmodified.
        """

    @abstractmethod
    async def after_process(self, result: WorkItemResult[TOutput, TContext]) -> WorkItemResult[TOutput, TContext]:
        """Called after a successful attempt, in reversed list order.

        Returns:
            The result to use. None or anything else that is not a result leaves it unchanged, with a warning, and so
            does an exception.
        """

    @abstractmethod
    async def on_error(
        self, work_item: LLMWorkItem[TInput, TOutput, TContext], error: Exception
    ) -> WorkItemResult[TOutput, TContext] | None:
        """Called once when an item finally fails, in list order until one returns a result.

        Returns:
            A result that replaces the failure, or None.
        """


class BaseMiddleware(Middleware[TInput, TOutput, TContext]):
    """Does nothing; override what you need."""

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
