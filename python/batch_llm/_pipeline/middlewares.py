"""The user's middlewares around each item. Used by the pipeline of ``_pipeline.attempts``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._results import WorkItemResult

if TYPE_CHECKING:
    from .._items import LLMWorkItem
    from ..middleware.base import Middleware
    from .pipeline import Pipeline


SKIPPED = "Skipped by middleware"
"""The error of an item that a middleware took out."""


class StopAttempts(Exception):  # noqa: N818 - a signal, not an error
    """Carries an error that ends an item at once: a middleware failed, and must not be ignored."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Middlewares:
    """Calls them, in their order before an item and in reverse after it.

    Args:
        pipeline: Logs what fails.
        middlewares: The user's.
    """

    def __init__(self, pipeline: Pipeline, middlewares: Sequence[Middleware[Any, Any, Any]]) -> None:
        self._pipeline = pipeline
        self._all = list(middlewares)

    def __bool__(self) -> bool:
        return bool(self._all)

    async def before(self, item: LLMWorkItem[Any, Any, Any]) -> LLMWorkItem[Any, Any, Any] | None:
        """Return the item as they want it; None to skip it.

        Raises:
            StopAttempts: When one of them fails.
        """
        work: Any = copy.copy(item)
        for middleware in self._all:
            name = type(middleware).__name__
            try:
                work = await middleware.before_process(work)
                if work is None:
                    return None
                if not (hasattr(work, "strategy") and hasattr(work, "prompt")):
                    raise TypeError(
                        f"{name}.before_process() must return a work item or None, not {type(work).__name__}"
                    )
            except BaseException as error:
                self._pipeline.let_pass(error)
                self._pipeline.hook_failed(item, f"{name}.before_process()", error, logging.ERROR)
                raise StopAttempts(error) from error
        return work  # type: ignore[no-any-return] # a work item, or something like one

    async def after(self, result: WorkItemResult[Any, Any]) -> WorkItemResult[Any, Any]:
        """Return the result as they want it; one that fails leaves it as it is."""
        for middleware in reversed(self._all):
            name = type(middleware).__name__
            try:
                changed: Any = await middleware.after_process(result)
            except BaseException as error:
                self._pipeline.let_pass(error)
                self._pipeline.hook_failed(result, f"{name}.after_process()", error)
                continue
            if isinstance(changed, WorkItemResult):
                result = changed
            else:
                problem = TypeError(f"it returned {type(changed).__name__}, not a result; the result is unchanged")
                self._pipeline.hook_failed(result, f"{name}.after_process()", problem)
        return result

    async def on_error(self, item: LLMWorkItem[Any, Any, Any], error: Exception) -> WorkItemResult[Any, Any] | None:
        """Return the first result that one of them has for a failed item."""
        for middleware in self._all:
            name = f"{type(middleware).__name__}.on_error()"
            try:
                result: Any = await middleware.on_error(item, error)
            except BaseException as failure:
                self._pipeline.let_pass(failure)
                self._pipeline.hook_failed(item, name, failure)
                continue
            if isinstance(result, WorkItemResult):
                return result
            if result is not None:
                self._pipeline.hook_failed(item, name, TypeError(f"it returned {result!r:.80}, not a result"))
        return None

    def clear(self) -> None:
        """Drop all references to the user's objects."""
        self._all = []


def skipped(item: LLMWorkItem[Any, Any, Any], attempt: int) -> WorkItemResult[Any, Any]:
    """Return the result of an item that a middleware took out."""
    return WorkItemResult(
        item.item_id, False, None, SKIPPED, item.context, attempts=attempt, error_category="middleware_filtered"
    )
