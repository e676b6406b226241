"""How a run accepts items when some need not be sent: results from a store, a cache, or an equal request.

Those are published and counted, and the engine only skips their indexes. Used by ``_run.Run`` with a store or cache.
"""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .._results import WorkItemResult
from ..errors import ArtifactIOError

if TYPE_CHECKING:
    from .._items import LLMWorkItem
    from .._store import Answer, RunStore
    from .protocols import ItemPipeline
    from .run import Run

PORTION = 64
"""Items looked up before the loop may do something else."""


class Intake:
    """Accepts items.

    Args:
        run: The run.
        pipeline: Publishes what is there.
        run_store: The store and cache.
    """

    def __init__(self, run: Run, pipeline: ItemPipeline, run_store: RunStore) -> None:
        self._run, self._pipeline, self._run_store = run, pipeline, run_store
        self._last_number = 0
        self._first_ones: asyncio.Future[None] | None = None

    def admit(self, indexes: range, waiting: dict[int, LLMWorkItem[Any, Any, Any]]) -> None:
        """Accept the items of these indexes, except for those that need not be sent.

        Args:
            indexes: The items, the next ones of the run.
            waiting: Items by index; those that need not be sent are removed.
        """
        answers = [(index, waiting[index], self._admit(index, waiting[index])) for index in indexes]
        for index, _, answer in answers:
            if answer is not None:
                del waiting[index]
        fresh = [item for _, item, answer in answers if answer is None]
        self._run.stage_before_accepting(indexes.stop, fresh[0].strategy if fresh else None)
        handle = self._run.handle
        for is_fresh, group in groupby(answers, lambda one: one[2] is None):
            items = [item for _, item, _ in group]
            if is_fresh:
                handle.accept(self._pipeline.groups(items))
            else:
                handle.skip(len(items))
        self._pipeline.reused([answer for _, _, answer in answers if isinstance(answer, WorkItemResult)])

    async def admit_all(self, indexes: range, waiting: dict[int, LLMWorkItem[Any, Any, Any]]) -> None:
        """Do the same with the items that a run starts with, in portions; items added meanwhile come after them."""
        done = self._first_ones = self._run.loop.create_future()
        try:
            for begin in range(0, len(indexes), PORTION):
                if not self._run.takes_items:
                    break
                self.admit(indexes[begin : begin + PORTION], waiting)
                await asyncio.sleep(0)
        finally:
            self._first_ones = None
            if not done.done():
                done.set_result(None)

    async def look_up(self, item: LLMWorkItem[Any, Any, Any]) -> tuple[int, Answer]:
        """Find out about an item that has no index yet; return a number that stands for it, and what is there."""
        if self._first_ones is not None:
            await asyncio.shield(self._first_ones)
        self._last_number -= 1
        return self._last_number, self._admit(self._last_number, item)

    def answer(self, number: int, index: int, answer: Answer) -> None:
        """Publish an item that was looked up and need not be sent; it has an index now."""
        self._run.handle.skip(1)
        if answer is None or answer == "waiting":
            self._run_store.place(number, index)
        else:
            answer.submission_index = index
            self._pipeline.reused([answer])

    def _admit(self, index: int, item: LLMWorkItem[Any, Any, Any]) -> Answer:
        try:
            answer = None if self._run_store.failure is not None else self._run_store.admit(index, item)
        except ArtifactIOError as error:
            self._pipeline.unwritten(str(error))
            return None
        if isinstance(answer, WorkItemResult) and self._pipeline.keeps_prompts:
            answer.prompt = item.prompt
        return answer
