"""Several endpoints as one strategy: replicas, regions, keys, and models to fall back on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ._callers import ends_at_caller
from ._checks import check_known
from ._core import NativePool
from ._llm import LLMCallStrategy, scope_of, stores_arguments
from ._native import NativeOptions, NativeStrategy, TOutput
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
    name_of_doubt,
    tell,
    weights_of,
)
from ._strategies import as_strategy
from .mixed_pools import MixedPoolStrategy
from .native import llm
from .prices import price_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._core import Scope
    from .prices import Price

__all__ = ["Fallback", "MixedPoolStrategy", "PoolStrategy", "pool"]

_HOOKS = ("execute", "prepare", "cleanup", "on_error")
"""What a subclass may override, so that requests must be made in Python."""


class PoolStrategy(Pooled, NativeStrategy[TOutput]):
    """Sends each request to one of several strategies; see :func:`pool`, which makes it.

    A result's ``metadata`` has ``member``, the label of the strategy that answered; ``member_reason``, why a fallback
    did (one of the reasons of :class:`Fallback`); and ``hedged``, if a second request was sent.

    Args:
        members: The strategies.
        fallback: Strategies to try when the members cannot answer, in this order.
        weights: How much of the load each member gets, relative to the others.
        hedge: When a request that takes long is sent a second time; see :func:`pool`.
        escalate_if: Which answers are doubtful; see :func:`pool`.

    Raises:
        ValueError: If the members cannot be one strategy; the message says why.
        TypeError: If a member is not a native strategy.
    """

    @stores_arguments
    def __init__(
        self,
        members: Sequence[NativeStrategy[TOutput]],
        fallback: Sequence[NativeStrategy[TOutput] | Fallback] = (),
        weights: Sequence[float] | None = None,
        hedge: Literal["tail"] | bool = "tail",
        escalate_if: Callable[[TOutput], bool] | None = None,
    ) -> None:
        later = [one if isinstance(one, Fallback) else Fallback(one) for one in fallback]
        everybody: list[Any] = [*members, *(one.strategy for one in later)]
        _check(members, everybody, hedge)
        doubt = None
        if escalate_if is not None:
            check_doubt(escalate_if, later)
            doubt = functools.partial(_is_doubtful, members[0]._read, escalate_if)
        shares = weights_of(weights, len(members))
        vars(self).update((name, value) for name, value in vars(members[0]).items() if name != "_origin")
        self.labels = labels_of(everybody)
        parts = [
            Member(one._client, _scope_of(one), label, share, 0, (), endpoint_of(one), one.provider in OWN_SERVERS)
            for one, label, share in zip(members, self.labels, shares, strict=False)
        ]
        for tier, (one, label) in enumerate(zip(later, self.labels[len(members) :], strict=True), 1):
            strategy: Any = one.strategy
            reasons, endpoint = tuple(one.on), endpoint_of(strategy)
            parts.append(Member(strategy._client, _scope_of(strategy), label, 1.0, tier, reasons, endpoint))
        self._scopes = tuple(part.scope for part in parts)
        self._pool = NativePool(parts, hedge_of(hedge), False, tell, doubt)
        self._client = self._pool.client()
        self._scope = self._pool.scope()
        self._key_count = sum(one._key_count or 1 for one in everybody)
        self._stream_timeout = self._client.stream_timeout(False)
        self._overhead = max(one._overhead for one in everybody)
        longest = [one._max_tokens for one in everybody]
        self._max_tokens = None if None in longest else max(longest)
        self.strategies = tuple(everybody)
        others = [one._asks for one in everybody if one._asks != self._asks]
        if others:
            self._asks = {**self._asks, "pool": others}
        if escalate_if is not None:
            self._asks = {**self._asks, "escalate_if": name_of_doubt(escalate_if)}

    _construct: ClassVar[Any] = __init__


@ends_at_caller
def pool(
    members: Sequence[LLMCallStrategy[Any] | Callable[..., Any] | str] | str,
    *,
    fallback: Sequence[LLMCallStrategy[Any] | Fallback | Callable[..., Any] | str] = (),
    weights: Sequence[float] | None = None,
    hedge: Literal["tail"] | bool = "tail",
    escalate_if: Callable[[Any], bool] | None = None,
    api_key: Sequence[str] | str | None = None,
    base_url: Sequence[str] | str | None = None,
    **options: Unpack[NativeOptions],
) -> PoolStrategy[Any] | MixedPoolStrategy[Any]:
    """Make one strategy of several: ``pool("vllm:qwen3", base_url=["http://a:8000/v1", "http://b:8000/v1"])``.

    Each member has its own limits, pace and health, shared with other strategies that use the same provider, key and
    model. A request goes to the one of two random members with the lower expected wait. If it fails because of the
    member, it goes to another one at once, which uses up no attempt; it waits only if all others are at their limits.

    A member is ejected for 5 s (then 10 s, up to 60 s) after three failed connections or five failed requests in a row,
    or if many more of its requests fail than of the others'; then one probe decides whether it is back. At most half of
    the members are ejected at a time, never the last. Members that take three times as long as the fastest get requests
    only while the others are at their limits. A member whose key is wrong or out of credit, or that does not have the
    model, is dropped, with a warning.

    Each vLLM or SGLang server has its own prompt cache: prompts with the same first 2 KB go to the same member, as long
    as its load is at most 1.25 times the mean, or four requests above it. Queued requests of other clients, which the
    server reports in ``/metrics``, are part of the load. Keys of one account, as named in response headers, share
    limits. With ``shared_limits``, each member shares its own with other processes.

    A budget reserves for each attempt its price with the most expensive member, and is charged the price of the member
    that answered.

    Args:
        members: Strategies, models' names, such as ``"openai:gpt-5-mini"``, or functions of a prompt; or one name, with
            a list of keys or of base URLs.
        fallback: The same, or :class:`Fallback` objects: tried in this order when the members cannot answer.
        weights: How much of the load each member gets, relative to the others; by default all get the same.
        hedge: ``"tail"``: when a run has nothing left to start, a request that takes longer than the p95 latency is
            sent a second time, to another member if there is one; the first answer counts, and the other request is
            cancelled. At most 1.5% of all requests are hedged, and none while half of the members are ejected, while
            all are at their limits, or in a run with a budget. A cancelled request is assumed to cost as much as the
            answer. ``True``: during the whole run; ``False``: never.
        escalate_if: A function of the output, a string or a parsed object. If it returns true, the request goes to the
            first fallback for ``"escalated"``, within the same attempt; if that fails, the first answer is used. It is
            called in a thread of the extension, so it must be quick. If it raises, the first answer is used, with a
            warning. Streamed answers (``stream_tokens()``) are not checked.
        api_key: A key, or a list with a key for each member; for members given by name.
        base_url: An address, or a list with one for each member; for members given by name.
        options: Arguments for members and fallbacks that are given by name; see :class:`NativeStrategy`.

    Returns:
        A strategy for :func:`run` and everything else that takes one: a :class:`PoolStrategy` if all members and
        fallbacks are native; otherwise a :class:`MixedPoolStrategy`; its documentation lists the differences.

    Raises:
        ValueError: If the members cannot be one strategy, or an argument is invalid; the message says why.
        TypeError: If a member is not a strategy, or an option is unknown.
    """
    given: dict[str, Any] = dict(options)
    check_known(given, (*NativeOptions.__annotations__, "response_model", "response_parser"), "pool()")
    names: list[Any] = [members] if isinstance(members, str) else list(members)
    places = _places(names, api_key, base_url)
    if any(not isinstance(name, str) for name in names) and (given or api_key or base_url):
        named = next(iter(given), "api_key" if api_key else "base_url")
        raise ValueError(f"{named} is for members given by name; pass it to each strategy instead")
    made: list[Any] = [
        llm(name, **place, **given) if isinstance(name, str) else as_strategy(name) for name, place in places
    ]
    later = [_fallback(one, given) for one in fallback]
    if all(_is_native(one) for one in (*made, *(one.strategy for one in later))):
        return PoolStrategy(made, later, weights, hedge, escalate_if)
    return MixedPoolStrategy(made, later, weights, hedge, escalate_if)


def _fallback(one: Any, given: dict[str, Any]) -> Fallback:
    found = one if isinstance(one, Fallback) else Fallback(one)
    made = llm(found.strategy, **given) if isinstance(found.strategy, str) else as_strategy(found.strategy)
    return found if made is found.strategy else Fallback(made, found.on)


def _is_native(strategy: Any) -> bool:
    """Whether nothing but the extension takes part in its requests."""
    return isinstance(strategy, NativeStrategy) and all(
        getattr(getattr(strategy, name), "__func__", None) is getattr(NativeStrategy, name) for name in _HOOKS
    )


def price_for(strategy: Any, given: Any = None) -> Price | None:
    """The price of a strategy's model, or of the most expensive one of a pool; None if that is unknown."""
    if isinstance(strategy, Pooled):
        return strategy._price(given)
    model = getattr(strategy, "model", None)
    return price_of(model, given) if isinstance(model, str) else None


def model_without_price(strategy: Any, given: Any = None) -> str | None:
    """The model of a strategy, or of a pool's member, whose price is unknown; its class or label, if it names none."""
    strategies = strategy.strategies if isinstance(strategy, Pooled) else (strategy,)
    labels = strategy.labels if isinstance(strategy, Pooled) else (type(strategy).__name__,)
    for one, label in zip(strategies, labels, strict=True):
        model = getattr(one, "model", None)
        if not isinstance(model, str) or price_of(model, given) is None:
            return model if isinstance(model, str) and model else label
    return None


def _places(names: list[Any], api_key: Any, base_url: Any) -> list[tuple[Any, dict[str, Any]]]:
    """The name of each member, with its key and its address."""
    lists = {
        name: list(value)
        for name, value in (("api_key", api_key), ("base_url", base_url))
        if value is not None and not isinstance(value, str) and not callable(value)
    }
    single = {
        name: value
        for name, value in (("api_key", api_key), ("base_url", base_url))
        if value is not None and name not in lists
    }
    count = max([len(names), *map(len, lists.values())])
    for name, values in lists.items():
        if len(values) not in (count, len(names)) or not values:
            raise ValueError(f"{name} has {len(values)} values for {count} members; give one for each")
    if len(names) == 1:
        names = names * count
    if len(names) != count:
        raise ValueError(f"there are {len(names)} members for {count} values; give one for each")
    return [
        (name, {**single, **{one: values[number] for one, values in lists.items()}})
        for number, name in enumerate(names)
    ]


def _check(members: Sequence[Any], everybody: Sequence[Any], hedge: object) -> None:
    if not members:
        raise ValueError("a pool needs at least one member")
    hedge_of(hedge)
    first = everybody[0]
    for number, one in enumerate(everybody):
        if not _is_native(one):
            raise TypeError(
                f"member {number} must be a native strategy, such as llm('openai:gpt-5-mini'), not "
                f"{type(one).__name__}; pool() takes others too"
            )
        if isinstance(one, PoolStrategy):
            raise ValueError(f"member {number} is a pool itself; put its members into this one")
        if not hasattr(one, "response_model"):
            raise ValueError(f"member {number} is an embedding strategy; a pool takes chat models only")
        if one._fresh_key is not None:
            raise ValueError(f"member {number} has a function as api_key; give it a fixed key")
        for name in ("response_model", "response_parser", "reask"):
            if getattr(one, name) != getattr(first, name):
                raise ValueError(f"member {number} has another {name} than the first; give all members the same")
        if one._toolbox.spec != first._toolbox.spec:
            raise ValueError(f"member {number} has different tools from the first; give all members the same")
        if (one._rules is None) != (first._rules is None):
            raise ValueError("rounds or turn must be given to all members, or to none")
        if one._rules is not None and (one.provider, one.model) != (first.provider, first.model):
            raise ValueError("members with rounds or turn must have the same provider and model")


def _is_doubtful(read: Callable[[Any], Any], escalate_if: Callable[[Any], Any], answer: Any) -> bool:
    """Whether an answer is to be made better; one that cannot be read fails elsewhere."""
    try:
        output = read(answer)[0]
    except Exception:
        return False
    return is_doubtful(escalate_if, output)


def _scope_of(strategy: NativeStrategy[Any]) -> Scope:
    scope = scope_of(strategy)
    assert scope is not None
    return scope
