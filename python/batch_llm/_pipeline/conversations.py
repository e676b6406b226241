"""Items of several requests: takes each conversation through its rounds. Used by ``attempts``.

A round is an attempt of its item like any other, with its own retries, limits and timeout. When its reply calls tools,
the item's slot is freed; the tools run in a task of the item; then the engine gets the item back for its next round.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .._endings import ends_run
from .._llm import add, paid_now
from ..conversations import End, NoSteps, Shared
from ..errors import GuardrailError
from .failures import uncancel

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .._core import Flight
    from .._items import LLMWorkItem
    from ..conversations import Conversation
    from .attempts import StrategyPipeline
    from .estimates import Limits
    from .failures import Failures

    Answer = tuple[Any, Any, dict[str, Any]]


class Conversations:
    """The conversations of one run.

    Args:
        pipeline: Whose they are.
        limits: Estimates requests.
        failures: Ends items that fail.
    """

    def __init__(self, pipeline: StrategyPipeline, limits: Limits, failures: Failures) -> None:
        self._pipeline, self._limits, self._failures = pipeline, limits, failures
        self._shared = Shared()
        self._none = NoSteps()

    def clear(self) -> None:
        """Drop all references to the user's objects; the run is over."""
        self._shared.end()

    def start(self, flight: Flight, strategy: Any) -> Coroutine[Any, Any, None] | None:
        """Send the next request of an item, or go on with what earlier runs have recorded of its conversation."""
        conversation = flight.conversation
        if conversation is None:
            step = self.begin(flight, strategy, flight.item)
            if step is not None:
                return self.resume(flight, strategy, step)
        return self._pipeline.send(flight, strategy, flight.conversation.prompt)

    def begin(self, flight: Flight, strategy: Any, work: LLMWorkItem[Any, Any, Any]) -> Any:
        """Begin the conversation of an item; return its first reply, if that is known. ``work``: what is sent."""
        store = self._pipeline.run_store
        steps = None if store is None else store.steps(flight.index, flight.item, self._pipeline.unwritten)
        conversation: Conversation = strategy._converse(work.item_id, work.prompt, work.context, steps or self._none)
        conversation.work = work
        conversation.has_own_prompt = work.prompt is flight.item.prompt
        flight.conversation = conversation
        return conversation.known_reply()

    async def resume(self, flight: Flight, strategy: Any, step: Any) -> None:
        """Go on with a conversation whose replies so far are known."""
        engine = self._pipeline.run.engine
        engine.not_sent(flight.index)
        engine.end_round(flight.index, None)
        await self.go_on(flight, strategy, None, step)

    async def go_on(self, flight: Flight, strategy: Any, answer: Answer | None, step: Any = None) -> None:
        """Take a reply, and do what follows: up to the next request, or to the item's result.

        Args:
            flight: The item.
            strategy: What answers it.
            answer: The reply, as the strategy has read it; None: it is known from an earlier run.
            step: What was recorded of it then.
        """
        conversation: Conversation = flight.conversation
        conversation.task = asyncio.current_task()
        try:
            while True:
                is_known = answer is None
                heard: Answer = answer or strategy._read((step["output"], step["usage"], {**step["metadata"]}))
                _, usage, metadata = heard
                if not conversation.take(heard):
                    break
                self._end_round(flight, conversation, usage, is_known)
                if not is_known:
                    conversation.store_reply()
                    await conversation.steps.written()
                conversation.check_rounds()
                end = await conversation.go_on(self._shared)
                if isinstance(end, End):
                    heard = end.output, {}, metadata
                    break
                await conversation.steps.written()
                step, answer = conversation.known_reply(), None
                if step is None:
                    await self._send_next(flight, conversation)
                    conversation.task = None
                    return
        except BaseException as error:
            conversation.task = None
            await self._failed(flight, conversation, error)
            return
        conversation.task = None
        await self._pipeline.end_conversation(flight, conversation.work, *heard)

    def _end_round(self, flight: Flight, conversation: Conversation, usage: Any, is_known: bool) -> None:
        flight.executing = False
        flight.usage = add(flight.usage, usage)
        if is_known:
            conversation.paid_before = add(conversation.paid_before, usage)
            return
        flight.round_ended()
        self._pipeline.run.engine.end_round(flight.index, paid_now(flight, flight.usage))

    async def _send_next(self, flight: Flight, conversation: Conversation) -> None:
        pipeline, strategy = self._pipeline, flight.item.strategy
        estimate = await self._limits.of_round(conversation, strategy)
        rejection, start = pipeline.run.engine.next_round(flight.index, estimate, pipeline.is_plain(strategy))
        if rejection is not None and rejection[0]:
            await self._failures.reject(flight, *rejection)
        elif start is not None:
            # It need not wait for the messages that are before its own.
            flight.next_attempt(*start)
            failed = pipeline.send(flight, strategy, conversation.prompt)
            if failed is not None:
                await failed

    async def _failed(self, flight: Flight, conversation: Conversation, error: BaseException) -> None:
        pipeline = self._pipeline
        if isinstance(error, asyncio.CancelledError) and conversation.is_stopped:
            uncancel()  # the item has its result
        elif isinstance(error, asyncio.CancelledError):
            await pipeline.failed_somehow(flight, error)
        elif isinstance(error, GuardrailError):
            await self._failures.end_with(flight, error, error.category)
        elif ends_run(error) or not isinstance(error, Exception):
            pipeline.break_run(error, flight)
        else:
            await self._failures.end_with(flight, error)
