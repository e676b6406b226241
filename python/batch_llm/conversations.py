"""Conversations as one item: tools that run, and dialogues that a function of the user's continues.

``llm("openai:gpt-5-mini", tools=[search], rounds=8)`` answers an item with as many requests as its conversation needs.
Between two requests an item holds no slot of the run, so others use it. A native strategy makes a :class:`Conversation`
of each item; the pipeline (``_pipeline.conversations``) takes it through its rounds, and records them in the store.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import itertools
import json
import logging
import math
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ._core import Messages
from ._error_text import describe
from ._json_values import to_plain
from ._logs import log_event
from ._messages import as_messages, content_of, length, of_reply, of_turn
from ._secrets import quoted
from ._timeouts import Deadlines
from .errors import ERROR_MESSAGE_LIMIT, RoundsExhaustedError, ToolError
from .tools import InvalidCall, Toolbox, ToolCall, ToolContext

if TYPE_CHECKING:
    from ._types import TokenUsage

__all__ = ["Conversation", "End", "Reply"]

USUAL_ROUNDS = 8
"""Most requests of an item whose strategy has a ``turn`` function and no ``rounds``."""
TOOL_TIMEOUT = 60.0
"""Limit of one tool call, seconds."""
MOST_CALLS = 128
"""Most calls of one reply that run. A model that makes more is stuck in a loop."""
_PROCESS = os.urandom(10).hex()
_calls = itertools.count(1)
RAW = "_raw"
"""Where an answer keeps what the extension gave, until its conversation takes it."""


@dataclass(frozen=True)
class Reply:
    """A reply of the model, for a ``turn`` function.

    Args:
        output: The answer: a string, or an object of the ``response_model``.
        token_usage: Its tokens; see :class:`~batch_llm.TokenUsage`.
        metadata: What the provider reports of it; see :class:`~batch_llm.NativeStrategy`.
    """

    output: Any
    token_usage: TokenUsage
    metadata: dict[str, Any]


@dataclass(frozen=True)
class End:
    """Returned by a ``turn`` function to end the conversation with this output, in place of the last answer.

    Args:
        output: The output of the result.
    """

    output: Any


@dataclass(frozen=True)
class Rules:
    """How the conversations of a strategy go on.

    Args:
        toolbox: Its tools.
        rounds: Most requests of an item, >= 1.
        turn: What continues a dialogue after an answer.
        tool_timeout: Limit of one tool call, seconds.
        tool_errors: Whether an error of a tool is shown to the model, or ends the item.
        marks_errors: Whether the provider takes a mark on a tool's result that it is an error.
    """

    toolbox: Toolbox
    rounds: int
    turn: Callable[..., Any] | None
    tool_timeout: float
    tool_errors: Literal["return", "raise"]
    marks_errors: bool


def rules_of(options: dict[str, Any], toolbox: Toolbox, provider: str) -> Rules | None:
    """Take the options of conversations out of ``options``; None: every item is one request.

    Raises:
        ValueError: If one of them cannot be used.
        TypeError: If ``turn`` cannot be called.
    """
    rounds, turn = options.pop("rounds", None), options.pop("turn", None)
    limit, errors = options.pop("tool_timeout", None), options.pop("tool_errors", None)
    if turn is not None and not callable(turn):
        raise TypeError(f"turn must be a function of the conversation and the reply, not {quoted(turn)}")
    if rounds is not None and (type(rounds) is not int or rounds < 1):
        raise ValueError(f"rounds must be an integer >= 1: the maximum requests per item (got {quoted(rounds)})")
    if limit is not None and not (isinstance(limit, (int, float)) and 0 < limit < math.inf):
        raise ValueError(f"tool_timeout must be a positive number of seconds (got {quoted(limit)})")
    if errors not in (None, "return", "raise"):
        raise ValueError(f"tool_errors must be 'return' or 'raise' (got {quoted(errors)})")
    if rounds is None and turn is None:
        given = next((name for name, value in (("tool_timeout", limit), ("tool_errors", errors)) if value), None)
        if given is not None:
            raise ValueError(f"{given} needs rounds= (or turn=): without it, tools are not run")
        return None
    if options.get("n") not in (None, 1):
        raise ValueError("n cannot be combined with rounds or turn: a conversation has one answer per round")
    for tool in toolbox.tools:
        if tool.function is None:
            raise ValueError(
                f"tool {quoted(tool.name)} has no function, so it cannot be run: pass the function itself, or "
                f"Tool(..., function=...)"
            )
    return Rules(
        toolbox, rounds or USUAL_ROUNDS, turn, float(limit or TOOL_TIMEOUT), errors or "return", provider == "anthropic"
    )


class Steps(Protocol):
    """Where a conversation's steps are recorded, and found again by a later run."""

    @property
    def key(self) -> bytes:
        """Under what the first reply is recorded."""
        ...

    def find(self, key: bytes) -> Any:
        """Return what was recorded under a key; None: nothing."""
        ...

    def keep(self, key: bytes, step: Any, usage: TokenUsage | None = None) -> None:
        """Record a step. ``usage``: what it cost."""
        ...

    def next_key(self, key: bytes, value: Any) -> bytes:
        """A key that depends on another one and on a value."""
        ...

    async def written(self) -> None:
        """Wait until all steps are on disk."""
        ...


@dataclass
class Shared:
    """What the conversations of one run share.

    Args:
        calls: Executions that equal calls share, by tool and arguments.
        deadlines: When tools that are running must have ended.
    """

    calls: dict[tuple[str, str], asyncio.Future[Any]] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)

    def end(self) -> None:
        """Cancel the executions that are still running: nobody waits for them."""
        for running in self.calls.values():
            running.cancel()
        self.calls.clear()
        self.deadlines.close()


class Conversation:
    """A conversation in progress, as a ``turn`` function sees it.

    Attributes:
        item_id: The item's id.
        context: The item's own context object.
        messages: All messages so far, including the last answer: dicts with ``role``, ``content`` and, for messages of
            the model, ``tool_calls``. Do not change them; return what comes next.
        rounds: The number of replies so far.
        state: A dict for your own data, kept between turns. With a store, it is stored after each turn if it can be
            written as JSON.
    """

    __slots__ = (
        "_added", "_begin", "_calls", "_key", "_raw", "_read", "_rules", "_sent", "context", "has_own_prompt",
        "is_stopped", "item_id", "messages", "paid_before", "reply", "rounds", "state", "steps", "task", "work",
    )  # fmt: skip

    def __init__(self, rules: Rules, item_id: str, prompt: Any, context: Any, steps: Steps) -> None:
        self.item_id, self.context = item_id, context
        self.state: dict[str, Any] = {}
        self.rounds = 0
        self.messages: list[dict[str, Any]] = as_messages(prompt)
        self.reply: Reply | None = None
        """The last one."""
        self.task: asyncio.Task[Any] | None = None
        """What works between two rounds."""
        self.work: Any = None
        """The item as it is sent, if a middleware has changed it."""
        self.has_own_prompt = True
        """Whether the prompt is that of the item; else a middleware has changed it."""
        self.is_stopped = False
        """Whether the item has its result, so that the conversation does not continue."""
        self.paid_before: TokenUsage | None = None
        """Tokens of replies that an earlier run has paid for."""
        self.steps = steps
        self._begin = len(self.messages)
        self._rules = rules
        self._key = steps.key
        self._sent = prompt  # what the first request says: the same as without rounds
        self._read: Messages | None = None
        self._added = 0
        self._calls: list[ToolCall] = []
        self._raw: Any = None

    @property
    def prompt(self) -> Any:
        """What the next request says, for the extension."""
        return self._sent if self._read is None else self._read

    def take(self, answer: tuple[Any, Any, dict[str, Any]]) -> bool:
        """Take an answer, as the strategy read it; return whether the conversation continues."""
        output, usage, metadata = answer
        self._raw = raw = metadata.pop(RAW)
        state = metadata.pop("state", None)
        self._calls = metadata.get("tool_calls") or []
        self.rounds += 1
        self.messages.append(of_reply(raw["output"], self._calls, state))
        self.reply = Reply(output, usage, metadata)
        return bool(self._calls) or self._rules.turn is not None

    def known_reply(self) -> Any:
        """The next reply, if an earlier run has recorded it."""
        step = self.steps.find(self._key)
        if not isinstance(step, dict) or "output" not in step:
            return None
        return step if all(isinstance(step.get(name), dict) for name in ("usage", "metadata")) else None

    def store_reply(self) -> None:
        """Record the last reply."""
        self.steps.keep(self._key, self._raw, self._raw["usage"])

    def request_tokens(self) -> tuple[float, float] | None:
        """Tokens of the next request, and no more than which, by those of the last one and the text that was added."""
        if self.reply is None:
            return None
        usage: Any = self.reply.token_usage
        tokens = float((usage.get("input_tokens") or 0) + (usage.get("output_tokens") or 0))
        if not tokens:
            return None
        # No tokenizer makes more tokens than bytes, and a character has at most four; a message has a frame.
        return tokens + self._added / 4 + 8, tokens + 4 * self._added + 64

    def tell(self, result: Any) -> None:
        """Tell a result of the conversation, which is over."""
        self.is_stopped = True
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()
        result._set_conversation(self.messages, self.rounds, self._begin, is_own=self.has_own_prompt)

    def check_rounds(self) -> None:
        """See whether another request may follow the last reply.

        Raises:
            RoundsExhaustedError: If the model wants tools and may not be asked again.
        """
        if self._calls and self.rounds >= self._rules.rounds:
            names = ", ".join(dict.fromkeys(call.name for call in self._calls))
            raise RoundsExhaustedError(
                f"there was no answer after {self.rounds} rounds: the model still calls "
                f"{names:.{ERROR_MESSAGE_LIMIT}}. Raise rounds, or tell the model to answer",
                item_id=self.item_id,
            )

    async def go_on(self, shared: Shared) -> End | None:
        """Run what the last reply calls, or the ``turn`` function, and append the messages that come of it.

        Returns:
            The end of the conversation, if it has come.

        Raises:
            ToolError: If a tool failed and its errors end the item, or the ``turn`` function failed.
        """
        if len(self._calls) == 1:
            added = [await self._run_call(0, self._calls[0], shared)]
        elif self._calls:
            added = await self._run_calls(shared)
        else:
            end = await self._turn()
            if isinstance(end, End):
                return end
            added = end
        self.messages.extend(added)
        if self._read is None:
            self._read = Messages(self.messages)
        else:
            self._read.extend(self.messages[-1 - len(added) :])
        self._added = sum(length(message.get("content")) for message in added)
        self._key = self.steps.next_key(self._key, [self._raw, added])
        return None

    # Tools

    async def _run_calls(self, shared: Shared) -> list[dict[str, Any]]:
        running = [
            asyncio.ensure_future(self._run_call(number, call, shared)) for number, call in enumerate(self._calls)
        ]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            return [one.result() if one.done() else await one for one in running]
        finally:
            left = [one for one in running if not one.done()]
            for one in left:
                one.cancel()
            if left:
                await asyncio.wait(left)
            for one in running:
                if not one.cancelled():
                    one.exception()  # of several that failed, one is reported

    async def _run_call(self, number: int, call: ToolCall, shared: Shared) -> dict[str, Any]:
        place = self.steps.next_key(self._key, ["call", number, call.name, call.arguments])
        message: dict[str, Any] = {"role": "tool", "tool_call_id": call.id, "name": call.name}
        known = self.steps.find(place)
        if isinstance(known, dict) and "content" in known:
            return {**message, **known}
        try:
            if number >= MOST_CALLS:
                result = self._error(f"more than {MOST_CALLS} calls in one reply; this one was not run")
            elif isinstance(call.value, InvalidCall):
                result = self._error(call.value.problem)
            else:
                is_shared = self._rules.toolbox.tool(call.name).shared
                running = self._execute_once(call, place, shared) if is_shared else self._execute(call, place, shared)
                result = {"content": content_of(await running)}
        except BaseException as error:
            if not _is_of_the_function(error):
                raise
            if self._rules.tool_errors == "raise":
                raise ToolError(f"tool {call.name}: {describe(error)}", item_id=self.item_id) from error
            result = self._error(f"{describe(error):.{ERROR_MESSAGE_LIMIT}}")
        self.steps.keep(place, result)
        return {**message, **result}

    def _execute(self, call: ToolCall, place: bytes, shared: Shared) -> Coroutine[Any, Any, Any]:
        """Run the tool of a call; what it returned."""
        rules = self._rules
        limit = rules.toolbox.tool(call.name).timeout or rules.tool_timeout
        return rules.toolbox.run(call, functools.partial(self._context, call, place), shared.deadlines.within(limit))

    async def _execute_once(self, call: ToolCall, place: bytes, shared: Shared) -> Any:
        """The same for a call that others may have made too."""
        key = (call.name, json.dumps(json.loads(call.arguments or "{}"), sort_keys=True))
        running = shared.calls.get(key)
        if running is None:
            running = shared.calls[key] = asyncio.ensure_future(self._execute(call, place, shared))
        try:
            # Whoever is cancelled does not take it from the others.
            return await asyncio.shield(running)
        finally:
            has_failed = running.done() and (running.cancelled() or running.exception() is not None)
            if has_failed and shared.calls.get(key) is running:
                del shared.calls[key]  # the next one tries again

    def _context(self, call: ToolCall, place: bytes) -> ToolContext:
        """What a tool may know of a call."""
        if place:
            # Equal conversations of two items are two.
            made = hashlib.sha256(b"\0".join((place, self.item_id.encode(), call.id.encode()))).hexdigest()[:32]
        else:
            # Without a store nobody can continue: the key only has to be unique.
            made = f"{_PROCESS}-{os.getpid():x}-{next(_calls):x}"
        return ToolContext(self.item_id, self.context, call.id, self.rounds, made)

    def _error(self, problem: str) -> dict[str, Any]:
        result: dict[str, Any] = {"content": f"Error: {problem}"}
        if self._rules.marks_errors:
            result["is_error"] = True
        return result

    # Dialogues

    async def _turn(self) -> End | list[dict[str, Any]]:
        turn, reply = self._rules.turn, self.reply
        assert turn is not None
        assert reply is not None
        if self.rounds >= self._rules.rounds:
            return End(reply.output)
        place = self.steps.next_key(self._key, "turn")
        known = self.steps.find(place)
        if isinstance(known, dict) and isinstance(known.get("messages"), list):
            if isinstance(known.get("state"), dict):
                self.state = known["state"]
            return list(known["messages"])
        try:
            returned = turn(self, reply)
            if inspect.isawaitable(returned):
                returned = await returned
            if returned is None:
                return End(reply.output)
            if isinstance(returned, End):
                return returned
            added = of_turn(returned)
        except BaseException as error:
            if not _is_of_the_function(error):
                raise
            raise ToolError(f"the turn function failed: {describe(error)}", item_id=self.item_id) from error
        self.steps.keep(place, {"messages": added, "state": _recordable(self.state, self.item_id)})
        return added


class NoSteps:
    """Records nothing, and finds nothing."""

    key = b""

    def find(self, key: bytes) -> Any:
        """As :class:`Steps`."""
        return None

    def keep(self, key: bytes, step: Any, usage: TokenUsage | None = None) -> None:
        """As :class:`Steps`."""

    def next_key(self, key: bytes, value: Any) -> bytes:
        """As :class:`Steps`: always the same, for nobody looks it up."""
        return key

    async def written(self) -> None:
        """As :class:`Steps`."""


Answered = tuple[Any, "TokenUsage", dict[str, Any]]
Ask = Callable[[Any], Coroutine[Any, Any, Answered]]


async def whole(conversation: Conversation, ask: Ask, total: Callable[[Any, Any], Any]) -> Answered:
    """Take a conversation to its end outside of a run. ``ask``: sends a prompt; ``total``: adds token counts."""
    shared = Shared()
    try:
        return await _to_the_end(conversation, ask, total, shared)
    finally:
        shared.end()


async def _to_the_end(
    conversation: Conversation, ask: Ask, total: Callable[[Any, Any], Any], shared: Shared
) -> Answered:
    usage: Any = {}
    while True:
        answer = await ask(conversation.prompt)
        output, used, metadata = answer
        usage = total(usage, used)
        if conversation.take(answer):
            conversation.check_rounds()
            end = await conversation.go_on(shared)
            if end is None:
                continue
            output = end.output
        return output, usage, {**metadata, "messages": conversation.messages, "rounds": conversation.rounds}


def _is_of_the_function(error: BaseException) -> bool:
    """Whether an exception of a tool or a ``turn`` function is its own affair, and nobody wants the item to end."""
    if isinstance(error, asyncio.CancelledError):
        # From Python 3.11 on, a task knows whether it was cancelled.
        cancelling = getattr(asyncio.current_task(), "cancelling", None)
        return cancelling is not None and not cancelling()
    return isinstance(error, Exception)


def _recordable(state: dict[str, Any], item_id: str) -> dict[str, Any] | None:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(to_plain(state)))
    except Exception as error:
        log_event(
            logging.WARNING,
            "step_not_stored",
            "Item %s: the state of its conversation cannot be stored, so it is empty after a crash: %.200s",
            item_id,
            error,
            item_id=item_id,
        )
        return None
    return plain
