"""Pools with members in Python: the event loop asks them, the extension decides whom. Made by ``pools.pool()``."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from ._core import NativePool, Scope
from ._error_text import describe
from ._held_secrets import learn
from ._llm import (
    CORRECTION,
    KnownStrategy,
    LLMCallStrategy,
    Rebuildable,
    add,
    attach_usage,
    clean_up_quietly,
    counts_of,
    scope_of,
    stores_arguments,
    usage_of_failure,
)
from ._logs import log_event
from ._native import NativeStrategy
from ._pool_members import (
    OWN_SERVERS,
    Fallback,
    Member,
    Pooled,
    check_doubt,
    endpoint_of,
    hedge_of,
    is_doubtful,
    labels_of,
    tell,
    weights_of,
)
from ._types import TokenUsage
from .errors import ProviderError
from .strategies.errors import DefaultErrorClassifier, ErrorClassifier, ErrorInfo, status_of

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    from ._core import PoolPlace, PoolTrial
    from ._types import RetryState

    TOutput = TypeVarWithDefault("TOutput", default=Any)
else:
    TOutput = TypeVar("TOutput")

__all__ = ["MixedPoolStrategy"]

_MEMBER = "_pool_member"
"""Name of the exception attribute with the number of the member that raised it."""
_WAS_INVALID = "_pool_saw_invalid"
"""Name of the attribute of an item's state that says whether an answer to it was invalid."""
_CORRECTION = "_pool_correction"
"""Name of the attribute of an item's state with the last answer and what was wrong with it."""
_ASKED = "_pool_asked"
"""Name of the attribute of an item's state with the number of the member that was called last."""
_SHORTEST_LOOK = 0.005
"""How often it is looked whether a second request may be sent, seconds at least."""
_BY_DEFAULT = DefaultErrorClassifier()


class MixedPoolStrategy(Pooled, Rebuildable, LLMCallStrategy[TOutput]):
    """A pool that has members in Python; :func:`pool` makes it. Members are chosen as in any pool.

    Hooks: ``prepare()`` of a member is called before its first request; if it raises, the member has failed, and the
    next request calls it again. ``on_error()`` of a member is called each time that it fails, before another one is
    called; after a timeout, on the member that was called last. ``cleanup()`` of a member is called with that of the
    pool, if the member was called. All members get the same ``state`` of an item.

    What a failure means is decided by the member's ``recommended_error_classifier()``, or else by
    :class:`DefaultErrorClassifier`: errors that are not retryable, and answers that do not match their type, do not
    count as failures of the member.

    The queues of native members at vLLM or SGLang are read, and prompts with the same beginning are sent to the same
    one of them; what a Python strategy sends to a server is not known. A member belongs to one pool at a time.

    A result's ``metadata`` has ``member``, the label of the strategy that answered; ``member_reason``, why a fallback
    did (one of the reasons of :class:`Fallback`); and ``hedged``, if a second request was sent.

    Args:
        members: The strategies.
        fallback: Strategies to try when the members cannot answer, in this order.
        weights: How much of the load each member gets, relative to the others.
        hedge: When a request that takes long is sent a second time; see :func:`pool`.
        escalate_if: Which answers are doubtful; see :func:`pool`. Called on the event loop.

    Raises:
        ValueError: If the members cannot be one strategy; the message says why.
        TypeError: If a member is not a strategy.
    """

    @stores_arguments
    def __init__(
        self,
        members: Sequence[LLMCallStrategy[Any]],
        fallback: Sequence[LLMCallStrategy[Any] | Fallback] = (),
        weights: Sequence[float] | None = None,
        hedge: Literal["tail"] | bool = "tail",
        escalate_if: Callable[[Any], bool] | None = None,
    ) -> None:
        later = [one if isinstance(one, Fallback) else Fallback(one) for one in fallback]
        everybody: list[Any] = [*members, *(one.strategy for one in later)]
        if not members:
            raise ValueError("a pool needs at least one member")
        for number, one in enumerate(everybody):
            _check(number, one)
        if escalate_if is not None:
            check_doubt(escalate_if, later)
        self.escalate_if = escalate_if
        self.strategies = tuple(everybody)
        self.labels = labels_of(everybody)
        shares = [*weights_of(weights, len(members)), *[1.0] * len(later)]
        tiers = [(0, ())] * len(members) + [(tier, tuple(one.on)) for tier, one in enumerate(later, 1)]
        parts = [
            Member(
                one._client if _is_own_server(one) else None,
                scope_of(one) or Scope(),
                label,
                share,
                tier,
                reasons,
                _endpoint(one, number),
                _is_own_server(one) and not tier,
            )
            for number, (one, label, share, (tier, reasons)) in enumerate(
                zip(everybody, self.labels, shares, tiers, strict=True)
            )
        ]
        self._scopes = tuple(part.scope for part in parts)
        self._pool = NativePool(parts, hedge_of(hedge), True, tell)
        self.quota_scope = self._pool.scope()
        self._lives: weakref.WeakKeyDictionary[Any, _Life] = weakref.WeakKeyDictionary()

    _construct: ClassVar[Any] = __init__

    def _life(self) -> _Life:
        loop = asyncio.get_running_loop()
        life = self._lives.get(loop)
        if life is None:
            life = self._lives[loop] = _Life(self.strategies)
        return life

    async def prepare(self) -> None:
        """Start anew: members are prepared at their first request."""
        self._lives.pop(asyncio.get_running_loop(), None)

    async def cleanup(self) -> None:
        """Clean up members that were called since the last time; their exceptions are logged."""
        life = self._life()
        asked, life.asked = life.asked, {}
        await asyncio.gather(*(clean_up_quietly(one) for one in asked.values() if life.of(one).must_clean_up))

    async def on_error(self, exception: Exception, attempt: int, state: RetryState | None = None) -> None:
        """Report a timeout to the member that was called; it knows of other failures."""
        number = None if state is None or _MEMBER in vars(exception) else vars(state).get(_ASKED)
        if number is not None and KnownStrategy(self.strategies[number]).hears_errors:
            await self.strategies[number].on_error(exception, attempt, state)

    def check_prompt(self, prompt: Any) -> None:
        """Accept what all members and fallbacks accept."""
        for one in self.strategies:
            one.check_prompt(prompt)

    def recommended_error_classifier(self) -> ErrorClassifier:
        """Return what classifies an error as the member does that raised it."""
        return _Classifiers([KnownStrategy(one).classifier or _BY_DEFAULT for one in self.strategies])

    async def dry_run(self, prompt: str) -> tuple[TOutput, TokenUsage]:
        """Return the mock answer of the first member."""
        return await self.strategies[0].dry_run(prompt)

    async def execute(
        self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Ask a member, and others if it fails; see the class.

        Raises:
            Exception: What the last of them raised, with the tokens of all.
            ProviderError: If a member has failed, and the others are at their limits: a rate limit.
        """
        trial, life = self._pool.trial(prompt), self._life()
        paid: TokenUsage = {}
        answer: Any = None
        failed: _Tried | None = None
        step = trial.next()
        while not isinstance(step, str):
            if isinstance(step, (int, float)):
                await asyncio.sleep(step)
                step = trial.next()
                continue

            def ask(place: PoolPlace) -> Coroutine[Any, Any, _Tried]:
                return self._ask_member(life, place, (prompt, attempt, timeout, state))

            tried = await self._ask(trial, step, ask)
            if tried.error is not None:
                paid, failed = add(paid, tried.usage), tried
                step = trial.after(tried.place)
                continue
            found: Any = self._marked(trial, tried)
            escalate_if = self.escalate_if if answer is None and trial.may_escalate(tried.place) else None
            if escalate_if is None or not is_doubtful(escalate_if, found[0]):
                return _with(found, paid)
            answer = (found[0], {}, found[2])
            paid = add(paid, counts_of(found[1])[0])
            step = trial.doubtful(tried.place)
        if answer is not None:
            return _with(answer, paid)
        assert failed is not None
        assert failed.error is not None
        if step == "later":
            raise ProviderError(
                f"{self.labels[failed.place.member]} failed ({describe(failed.error)}), and the other members are at "
                "their limits",
                category="rate_limit",
                token_usage=paid or None,
                was_sent=False,
            ) from failed.error
        _charge(failed.error, paid)
        raise failed.error

    async def _ask(self, trial: PoolTrial, place: PoolPlace, ask: Callable[[PoolPlace], Any]) -> _Tried:
        """Ask a member; and another one beside it, if that takes much longer than usual, and may be done."""
        pause = trial.hedges_after()
        if pause is None:
            tried: _Tried = await ask(place)
            return tried
        look = max(pause / 8, _SHORTEST_LOOK)
        tasks: list[asyncio.Task[_Tried]] = [asyncio.ensure_future(ask(place))]
        try:
            while len(tasks) == 1:
                await asyncio.wait(tasks, timeout=pause)
                if tasks[0].done():
                    return tasks[0].result()
                pause = look
                second = trial.hedge(place)
                if second is not None:
                    tasks.append(asyncio.ensure_future(ask(second)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            tasks.sort(key=lambda task: not task.done())
            tried = tasks[0].result()
            if tried.error is not None:
                paid = tried.usage
                tried = await tasks[1]
                tried.usage = add(paid, tried.usage)
            else:
                # Nobody tells what the other one cost, which is cancelled now: as much, at most.
                tried.usage = add(tried.usage, tried.usage)
            tried.is_hedged = True
            return tried
        finally:
            for task in tasks:
                task.cancel()
                task.add_done_callback(_seen)

    async def _ask_member(
        self, life: _Life, place: PoolPlace, call: tuple[Any, int, float, RetryState | None]
    ) -> _Tried:
        member: Any = self.strategies[place.member]
        known = life.asks(member)
        state = call[3]
        if state is not None:
            vars(state)[_ASKED] = place.member
        try:
            if not known.prepared:
                await known.prepare(member)
            if known.is_native:
                correction = None if state is None else vars(state).get(_CORRECTION)
                answer = await member._execute_at(*call[:3], correction, place)
            else:
                answer = await member.execute(*call)
            if not isinstance(answer, (tuple, list)) or len(answer) not in (2, 3):
                raise TypeError(
                    f"{type(member).__name__}.execute() must return a pair (output, token_usage), or (output, "
                    f"token_usage, metadata), not {type(answer).__name__}"
                )
            usage: Any = counts_of(answer[1])[0]
        except Exception as error:
            error.__dict__[_MEMBER] = place.member
            learn(member)
            usage = usage_of_failure(error)
            was_invalid = state is not None and vars(state).get(_WAS_INVALID, False)
            is_invalid = place.failed(_failure_of(error, known.classifier, was_invalid), usage)
            if state is not None:
                vars(state)[_CORRECTION] = getattr(error, CORRECTION, None)
                vars(state)[_WAS_INVALID] = was_invalid or is_invalid
            if known.hears_errors:
                await _tell_error(member, error, call[1], state)
            return _Tried(place, usage=usage, error=error)
        except BaseException:
            place.cancelled()
            raise
        place.answered(usage)
        return _Tried(place, tuple(answer), usage)

    def _marked(self, trial: PoolTrial, tried: _Tried) -> tuple[Any, Any, dict[str, Any]]:
        """An answer that says who gave it, and why it was not a member."""
        output, usage, *rest = tried.answer
        metadata = {**(rest[0] or {} if rest else {}), "member": self.labels[tried.place.member]}
        if trial.reason is not None:
            metadata["member_reason"] = trial.reason
        if tried.is_hedged:
            metadata["hedged"] = True
            usage = tried.usage
        return output, usage, metadata


@dataclass
class _Tried:
    """What came of a request, and of the second one beside it if there was one."""

    place: PoolPlace
    answer: tuple[Any, ...] = ()
    usage: TokenUsage = field(default_factory=TokenUsage)
    error: Exception | None = None
    is_hedged: bool = False


@dataclass(frozen=True)
class _Failure:
    """What the extension reads of a failure."""

    category: str
    is_retryable: bool
    is_rate_limit: bool
    wait: float | None
    status: int | None
    code: str | None
    message: str
    was_invalid: bool


class _Life:
    """The members as one event loop knows them."""

    def __init__(self, strategies: Sequence[Any]) -> None:
        self._known = {id(one): KnownStrategy(one) for one in strategies}
        self.asked: dict[int, Any] = {}
        """Those that were called, and have not been cleaned up since."""

    def of(self, strategy: Any) -> KnownStrategy:
        return self._known[id(strategy)]

    def asks(self, strategy: Any) -> KnownStrategy:
        """What is known of a member that is about to be called."""
        self.asked[id(strategy)] = strategy
        return self._known[id(strategy)]


class _Classifiers(ErrorClassifier):
    """Classifies an error as the member does that raised it."""

    def __init__(self, classifiers: Sequence[Any]) -> None:
        self._classifiers = classifiers

    def classify(self, exception: Exception) -> ErrorInfo:
        number = exception.__dict__.get(_MEMBER)
        classifier = _BY_DEFAULT if number is None else self._classifiers[number]
        info: ErrorInfo = classifier.classify(exception)
        return info


def _check(number: int, one: Any) -> None:
    if isinstance(getattr(one, "_pool", None), NativePool):
        raise ValueError(f"member {number} is a pool itself; put its members into this one")
    if not callable(getattr(one, "execute", None)):
        raise TypeError(f"member {number} must be a strategy, not {type(one).__name__}; pool() takes functions too")
    if isinstance(one, NativeStrategy) and not hasattr(one, "response_model"):
        raise ValueError(f"member {number} is an embedding strategy; a pool takes chat models only")


def _is_own_server(one: Any) -> bool:
    return isinstance(one, NativeStrategy) and one.provider in OWN_SERVERS


def _endpoint(one: Any, number: int) -> int:
    """A number for where a member is. Replies of Python strategies name no account, so theirs does not matter."""
    return endpoint_of(one) if isinstance(one, NativeStrategy) else number


def _failure_of(error: Exception, classifier: Any, was_invalid: bool) -> _Failure:
    try:
        info: ErrorInfo = (classifier or _BY_DEFAULT).classify(error)
        category, wait = str(info.error_category), info.suggested_wait if info.wait_is_from_provider else None
    except Exception:
        # The run finds out, and says so.
        info, category, wait = ErrorInfo(False, False, False, ""), "", None
    code = getattr(error, "code", None)
    return _Failure(
        category,
        bool(info.is_retryable),
        bool(info.is_rate_limit),
        wait if isinstance(wait, (int, float)) and wait >= 0 else None,
        status_of(error),
        code if isinstance(code, str) else None,
        describe(error),
        was_invalid,
    )


async def _tell_error(member: Any, error: Exception, attempt: int, state: RetryState | None) -> None:
    try:
        await member.on_error(error, attempt, state)
    except Exception as raised:
        name = f"{type(member).__name__}.on_error()"
        log_event(logging.WARNING, "hook_failed", "%s failed: %s", name, describe(raised), hook=name)


def _with(answer: tuple[Any, Any, dict[str, Any]], paid: TokenUsage) -> tuple[Any, Any]:
    """An answer, with what was paid before it came. Its metadata is one more part, of which types do not tell."""
    output, usage, metadata = answer
    outcome: Any = (output, add(paid, counts_of(usage)[0]), metadata) if any(paid.values()) else answer
    returned: tuple[Any, Any] = outcome
    return returned


def _charge(error: Exception, paid: TokenUsage) -> None:
    """Have an error tell what all requests of its attempt have cost."""
    failed: Any = error
    if any(usage_of_failure(error).values()) and not callable(getattr(error, "usage", callable)):
        failed.usage = paid
    elif any(paid.values()):
        attach_usage(error, paid)


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at what a cancelled request has raised: nobody else will."""
    if not task.cancelled():
        task.exception()
