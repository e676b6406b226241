"""A strategy around a function of a prompt, and of what else its parameters name."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypedDict

from ._checks import check_known
from ._llm import LLMCallStrategy, counts_of, is_usage
from ._logs import log_event
from ._secrets import quoted
from ._threads import NoThreadError, in_thread
from ._turns import Place, Turns
from ._types import TOutput

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._types import RetryState, TokenUsage

__all__ = ["CallOutcome", "CallableStrategy", "DryRunCallback", "ErrorCallback", "InvokeCallback", "LifecycleCallback"]

InvokeCallback = Callable[..., Any]
"""``(prompt)``, and by name whatever it has of ``attempt``, ``timeout``, ``state``."""
LifecycleCallback = Callable[[], Awaitable[None] | None]
ErrorCallback = Callable[[Exception, int, "RetryState | None"], Awaitable[None] | None]
DryRunCallback = Callable[[str], Any]

THREADS = 1024
"""Most threads that a plain function runs in at the same time."""

_KEYWORDS = ("attempt", "timeout", "state")


@dataclass(frozen=True)
class CallOutcome(Generic[TOutput]):
    """What a function returns if it reports more than an output.

    Args:
        output: The output.
        token_usage: The tokens, with the names of :class:`~batch_llm.TokenUsage`; or an SDK's usage object, or its
            ``model_dump()``. Empty means unknown, not zero. Invalid counts are dropped and logged at DEBUG.
        metadata: Other information, for the result's ``metadata``.
    """

    output: TOutput
    token_usage: TokenUsage | Mapping[str, Any] | Any = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None


class CallableOptions(TypedDict, total=False):
    """The options of a :class:`CallableStrategy` that runs read."""

    error_classifier: Any
    scope: Any
    concurrency_scope: Any
    quota_scope: Any
    token_estimator: Any


_ARGUMENTS = ("invoke", "prepare", "cleanup", "on_error", "dry_run", "threads", "model", "max_concurrency")


class CallableStrategy(LLMCallStrategy[TOutput]):
    """Answers prompts by calling a function.

    ::

        async def shout(prompt: str) -> str:
            return (await my_model(prompt)).upper()

        batch = await process_prompts(shout, prompts)  # the same as CallableStrategy(shout)

    Args:
        invoke: The function or callable object. It gets the prompt and, as keyword arguments, those of ``attempt``
            (from 1), ``timeout`` (seconds) and ``state`` (a :class:`~batch_llm.RetryState`) that its signature
            declares. It returns the output; or, to report more, a :class:`CallOutcome` or a tuple
            ``(output, token_usage)`` or ``(output, token_usage, metadata)``, where ``token_usage`` is a dict or an
            SDK's usage object.
        prepare: Called once before the first item, sync or async.
        cleanup: Called once after the last item, sync or async.
        on_error: Called with ``(exception, attempt, state)`` after each failed attempt, sync or async.
        dry_run: Called with the prompt instead of ``invoke`` in a dry run. It may return anything that ``invoke`` may.
        threads: Whether ``invoke`` may be a plain function. It then runs in a thread per attempt (1,024 at most), so
            that it does not block the event loop. The timeout of an attempt starts when its thread does. An attempt
            that times out is cancelled, but its thread runs to the end.
        model: The name of the model, for prices.
        error_classifier: Classifies errors if the run has no classifier of its own.
        scope: The quota scope, which shares limits, cooldowns and outages: any hashable value; equal values share
            limits. ``quota_scope`` and ``concurrency_scope`` are aliases.
        token_estimator: Estimates tokens before a call; see :class:`~batch_llm.ProcessorConfig`.
        max_concurrency: Maximum calls in flight, > 0; by default, only the run's concurrency limits them. The timeout
            of a call starts after its wait; in ``result.timing`` the wait is part of ``execution_seconds``. A cancelled
            call does not count.

    Raises:
        TypeError: If ``invoke`` cannot be called with a prompt, or is not async while ``threads`` is False, or an
            option is unknown; the message suggests the closest match.
        ValueError: If ``max_concurrency`` is not a positive integer, or two different scopes are given.
    """

    def __init__(
        self,
        invoke: InvokeCallback,
        *,
        prepare: LifecycleCallback | None = None,
        cleanup: LifecycleCallback | None = None,
        on_error: ErrorCallback | None = None,
        dry_run: DryRunCallback | None = None,
        threads: bool = False,
        model: str | None = None,
        max_concurrency: int | None = None,
        **options: Unpack[CallableOptions],
    ) -> None:
        check_known(options, (*CallableOptions.__annotations__, *_ARGUMENTS), "CallableStrategy")
        if not callable(invoke):
            raise TypeError(
                f"invoke must be a function that takes a prompt, not {type(invoke).__name__} ({quoted(invoke)})"
            )
        self._name = getattr(invoke, "__qualname__", None) or type(invoke).__qualname__
        self._is_async = _is_async(invoke)
        if not (self._is_async or threads):
            raise TypeError(
                f"{self._name} must be async (async def); to have a plain function run in threads: "
                f"CallableStrategy({self._name}, threads=True)"
            )
        if max_concurrency is not None and (type(max_concurrency) is not int or max_concurrency < 1):
            raise ValueError(f"max_concurrency must be a positive integer or None (got {max_concurrency!r})")
        self.model = model
        self.max_concurrency = max_concurrency
        self._invoke = invoke
        self._wants = _wanted(invoke, self._name)
        self._prepare, self._cleanup, self._on_error, self._dry_run = prepare, cleanup, on_error, dry_run
        self._classifier = options.get("error_classifier")
        scope = _one_scope(**{name: options.get(name) for name in ("scope", "quota_scope", "concurrency_scope")})
        if scope is not None:
            self.quota_scope = scope
        if (estimator := options.get("token_estimator")) is not None:
            self.estimate_tokens = estimator
        self._turns: Turns | None = None
        if max_concurrency is not None or not self._is_async:
            most = THREADS if max_concurrency is None else max_concurrency
            self._turns = Turns(most if self._is_async else min(most, THREADS))
        # A hook that is not there costs nothing.
        hooks: dict[str, Any] = vars(self)
        if on_error is not None:
            hooks["on_error"] = self._handle_error
        if prepare is not None:
            hooks["prepare"] = self._get_ready
        if cleanup is not None:
            hooks["cleanup"] = self._clean_up

    def __repr__(self) -> str:
        return f"CallableStrategy({self._name})"

    def recommended_error_classifier(self) -> Any:
        """Return the given error classifier."""
        return self._classifier

    def check_prompt(self, prompt: Any) -> None:
        """Accept any prompt; the function decides which it takes."""

    async def execute(
        self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Call the function; see :class:`CallableStrategy`."""
        wants = self._wants
        given = {"attempt": attempt, "timeout": timeout, "state": state} if wants else {}
        arguments = {name: given[name] for name in wants}
        if self._turns is None:
            return self._outcome(await _awaited(self._invoke(prompt, **arguments)))
        place = await self._turns.take(state)
        try:
            if self._is_async:
                answer = self._invoke(prompt, **arguments)
            else:
                answer = await self._in_thread(self._turns, place, prompt, arguments)
            # A plain function may return something to wait for: a lambda around an async function does.
            return self._outcome(await _awaited(answer))
        finally:
            place.give_back()

    async def _in_thread(self, turns: Turns, place: Place, prompt: Any, arguments: dict[str, Any]) -> Any:
        while True:
            try:
                answer = in_thread(self._invoke, prompt, **arguments)
            except NoThreadError:
                if not await turns.wait_for_another(place):
                    raise
            else:
                return await answer

    async def dry_run(self, prompt: str) -> tuple[TOutput, TokenUsage]:
        """Call the given ``dry_run``; without one, return the base class's mock answer."""
        if self._dry_run is None:
            return await super().dry_run(prompt)
        return self._outcome(await _awaited(self._dry_run(prompt)))

    def _outcome(self, answer: Any) -> tuple[TOutput, TokenUsage]:
        """What a function returned, as ``execute()`` returns it."""
        outcome: Any = answer, {}
        if isinstance(answer, CallOutcome):
            metadata = None if answer.metadata is None else dict(answer.metadata)
            outcome = answer.output, self._counts(answer.token_usage), metadata
        elif type(answer) is tuple and len(answer) in (2, 3) and is_usage(answer[1]):
            outcome = (answer[0], self._counts(answer[1]), *answer[2:])
        returned: tuple[TOutput, TokenUsage] = outcome
        return returned

    def _counts(self, usage: Any) -> dict[str, int]:
        """Token counts by our names, with a total; an answer is one whatever is wrong with them."""
        counts, problem = counts_of(usage)
        if problem is not None:
            log_event(logging.DEBUG, "usage_unusable", "%s returned unusable token counts: %s", self._name, problem)
        if counts and "total_tokens" not in counts:
            counts["total_tokens"] = counts.get("input_tokens", 0) + counts.get("output_tokens", 0)
        return counts

    async def _handle_error(self, exception: Exception, attempt: int, state: RetryState | None = None) -> None:
        assert self._on_error is not None
        await _awaited(self._on_error(exception, attempt, state))

    async def _get_ready(self) -> None:
        assert self._prepare is not None
        await _awaited(self._prepare())

    async def _clean_up(self) -> None:
        assert self._cleanup is not None
        await _awaited(self._cleanup())


def _one_scope(**given: Any) -> Any:
    """Return the scope that was given under one of its names; limits and cooldowns cannot have different ones."""
    found = {name: scope for name, scope in given.items() if scope is not None}
    (first, scope), *others = found.items() or [("scope", None)]
    for name, other in others:
        if other != scope:
            raise ValueError(
                f"{first} and {name} are the same option, but {first}={quoted(scope)} and {name}={quoted(other)}; "
                "give only one of them"
            )
    return scope


async def _awaited(outcome: Any) -> Any:
    return await outcome if inspect.isawaitable(outcome) else outcome


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004 - to see whether calling it gives a coroutine
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _wanted(function: Any, name: str) -> tuple[str, ...]:
    """Which of the keywords a function takes; raises if it cannot be called with a prompt and these."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()
    parameters = signature.parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    by_name = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    }
    wanted = tuple(keyword for keyword in _KEYWORDS if takes_all or keyword in by_name)
    try:
        signature.bind("prompt", **dict.fromkeys(wanted))
    except TypeError as error:
        raise TypeError(
            f"{name}{signature} cannot be called with a prompt ({error}); it must take one argument, and may take "
            "attempt, timeout and state by name"
        ) from None
    return wanted
