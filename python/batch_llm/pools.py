"""Several endpoints as one strategy: replicas, regions, keys, and models to fall back on."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from ._callers import ends_at_caller
from ._checks import check_known
from ._core import NativePool
from ._error_text import describe
from ._json_values import name_of
from ._llm import keeps_arguments, scope_of
from ._logs import log_event
from ._native import NativeOptions, NativeStrategy, TOutput
from ._secrets import mask, quoted
from .native import llm
from .prices import Price, price_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._core import NativeClient, Scope

__all__ = ["Fallback", "PoolStrategy", "pool"]

T = TypeVar("T")
FallbackReason = Literal["refusal", "overload", "context_length", "content_filter", "invalid", "escalated"]
REASONS: tuple[FallbackReason, ...] = (
    "refusal", "overload", "context_length", "content_filter", "invalid", "escalated",
)  # fmt: skip
_CACHING = ("vllm", "sglang")
"""Providers whose servers each have a prompt cache of their own."""
_HEDGES = {"tail": "tail", True: "always", False: "never"}


@dataclass(frozen=True)
class Fallback:
    """A strategy that a pool asks when its members cannot answer.

    Args:
        strategy: A native strategy, or its name, such as ``"anthropic:claude-sonnet-5"``.
        on: What it is asked for. ``"refusal"``: the model refuses. ``"overload"``: no member can be asked, or all have
            failed. ``"context_length"``: the prompt is too long for the member's model. ``"content_filter"``: the
            provider's filter blocks the prompt or the answer. ``"invalid"``: an answer does not match the schema, after
            the model was shown its mistake. ``"escalated"``: the pool's ``escalate_if`` finds the answer doubtful. By
            default all of them.

    Raises:
        ValueError: If ``on`` contains something else.
    """

    strategy: NativeStrategy[Any] | str
    on: Collection[FallbackReason] = REASONS

    def __post_init__(self) -> None:
        unknown = [self.on] if isinstance(self.on, str) else [one for one in self.on if one not in REASONS]
        if unknown or not self.on:
            known = ", ".join(repr(reason) for reason in REASONS)
            raise ValueError(f"on must be a list of {known} (got {quoted(self.on)})")


@dataclass(frozen=True)
class _Member:
    """What the extension reads of a member."""

    client: NativeClient
    scope: Scope
    label: str
    weight: float
    tier: int
    reasons: Sequence[str]
    endpoint: int


class PoolStrategy(NativeStrategy[TOutput]):
    """Sends each request to one of several strategies; see :func:`pool`, which makes it.

    A result's ``metadata`` has ``member``, the label of the strategy that answered; ``member_reason``, why a fallback
    did (one of the reasons of :class:`Fallback`); and ``hedged``, if a second request was sent.

    Args:
        members: The strategies.
        fallback: Strategies to ask when the members cannot answer, in this order.
        weights: How much of the load each member gets, in terms of the others.
        hedge: When a request that takes long is sent a second time; see :func:`pool`.
        escalate_if: Which answers are doubtful; see :func:`pool`.

    Raises:
        ValueError: If the members cannot be one strategy; the message says why.
        TypeError: If a member is no native strategy.
    """

    labels: tuple[str, ...]
    """What results call the members, then the fallbacks."""

    @keeps_arguments
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
            _check_doubt(escalate_if, later)
            doubt = functools.partial(_is_doubtful, members[0]._read, escalate_if)
        shares = _weights(weights, len(members))
        vars(self).update((name, value) for name, value in vars(members[0]).items() if name != "_origin")
        self.labels = _labels(everybody)
        parts = [
            _Member(one._client, _scope_of(one), label, share, 0, (), _endpoint(one))
            for one, label, share in zip(members, self.labels, shares, strict=False)
        ]
        for tier, (one, label) in enumerate(zip(later, self.labels[len(members) :], strict=True), 1):
            strategy: Any = one.strategy
            reasons, endpoint = tuple(one.on), _endpoint(strategy)
            parts.append(_Member(strategy._client, _scope_of(strategy), label, 1.0, tier, reasons, endpoint))
        keeps_prefixes = all(one.provider in _CACHING for one in members)
        self._pool = NativePool(parts, _hedge(hedge), keeps_prefixes, _tell, doubt)
        self._client = self._pool.client()
        self._scope = self._pool.scope()
        self._key_count = sum(one._key_count or 1 for one in everybody)
        self._stream_timeout = self._client.stream_timeout(False)
        self._overhead = max(one._overhead for one in everybody)
        longest = [one._max_tokens for one in everybody]
        self._max_tokens = None if None in longest else max(longest)
        self._models = tuple(dict.fromkeys(one.model for one in everybody))
        others = [one._asks for one in everybody if one._asks != self._asks]
        if others:
            self._asks = {**self._asks, "pool": others}
        if escalate_if is not None:
            named = escalate_if if hasattr(escalate_if, "__qualname__") else type(escalate_if)
            self._asks = {**self._asks, "escalate_if": name_of(named)}

    _construct: ClassVar[Any] = __init__

    @property
    def dropped(self) -> list[str]:
        """The labels of members that are not asked any more: their key is wrong, or they have not got the model."""
        return self._pool.dropped()

    def _price(self, given: Any) -> Price | None:
        """The highest price of its models; None if that of one is unknown."""
        prices = [price_of(model, given) for model in self._models]
        known = [price for price in prices if price is not None]
        return max(known, key=_typical_cost) if len(known) == len(prices) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.labels)})"


def _typical_cost(price: Price) -> float:
    return 3.0 * price.input + price.output


@ends_at_caller
def pool(
    members: Sequence[NativeStrategy[Any] | str] | str,
    *,
    fallback: Sequence[NativeStrategy[Any] | Fallback | str] = (),
    weights: Sequence[float] | None = None,
    hedge: Literal["tail"] | bool = "tail",
    escalate_if: Callable[[Any], bool] | None = None,
    api_key: Sequence[str] | str | None = None,
    base_url: Sequence[str] | str | None = None,
    **options: Unpack[NativeOptions],
) -> PoolStrategy[Any]:
    """Make one strategy of several: ``pool("vllm:qwen3", base_url=["http://a:8000/v1", "http://b:8000/v1"])``.

    Each member has its own limits, pace and health, shared with other strategies that use the same provider, key and
    model. A request goes to the one of two random members with the lower expected wait. If it fails because of the
    member, it goes to another one at once, which uses up no attempt; only if all others are at their limits, it waits.

    A member is not asked for 5 s (then 10 s, up to 60 s) after three failed connections or five failed requests in a
    row, or if many more of its requests fail than of the others'; then one request finds out whether it is back. At
    most half of the members are left out so, never the last. Members that take three times as long as the fastest get
    requests only while the others are at their limits. A member whose key is wrong or out of credit, or that has not
    got the model, is left out for good, with a warning.

    Members at vLLM or SGLang have prompt caches of their own: there, prompts of which the first 2 KB are alike go to
    the same member, as long as that has at most 1.25 times the mean load. Keys of one account, as response headers name
    it, share limits.

    Args:
        members: Native strategies, or their names, such as ``"openai:gpt-5-mini"``; or one name, with a list of keys or
            of base URLs.
        fallback: Strategies, names or :class:`Fallback` objects: asked in this order when the members cannot answer.
        weights: How much of the load each member gets, in terms of the others; by default all the same.
        hedge: ``"tail"``: when a run has nothing left to start, a request that takes longer than 95 of 100 others is
            sent once more, to another member if there is one; the first answer counts, and the other request is
            cancelled. At most 1.5 % of all requests are, none while half of the members are left out, while all are at
            their limits, or while the run has a budget. The cost of the cancelled request is counted as that of the
            answer. ``True``: not only at the end; ``False``: never.
        escalate_if: A function of the output, such as a text or a parsed object. If it returns true, the request goes
            to the first fallback for ``"escalated"``, within the same attempt; if that fails, the answer stays. It is
            called in a thread of the extension, and must be quick. If it raises, the answer stays, with a warning.
            Answers that are followed while they come (``stream_tokens()``) are not checked.
        api_key: A key, or a list with a key for each member; for members given by name.
        base_url: An address, or a list with one for each member; for members given by name.
        options: Arguments for members and fallbacks that are given by name; see :class:`NativeStrategy`.

    Returns:
        A strategy for :func:`run` and everything else that takes one.

    Raises:
        ValueError: If the members cannot be one strategy, or an argument is invalid; the message says why.
        TypeError: If a member is no native strategy, or an option is unknown.
    """
    given: dict[str, Any] = dict(options)
    check_known(given, (*NativeOptions.__annotations__, "response_model", "response_parser"), "pool()")
    names: list[Any] = [members] if isinstance(members, str) else list(members)
    places = _places(names, api_key, base_url)
    if any(not isinstance(name, str) for name in names) and (given or api_key or base_url):
        named = next(iter(given), "api_key" if api_key else "base_url")
        raise ValueError(f"{named} is for members given by name; pass it to each strategy instead")
    made = [llm(name, **place, **given) if isinstance(name, str) else name for name, place in places]
    later: list[Any] = []
    for one in fallback:
        if isinstance(one, str):
            later.append(llm(one, **given))
        elif isinstance(one, Fallback) and isinstance(one.strategy, str):
            later.append(Fallback(llm(one.strategy, **given), one.on))
        else:
            later.append(one)
    return PoolStrategy(made, later, weights, hedge, escalate_if)


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
    _hedge(hedge)
    first = everybody[0]
    for number, one in enumerate(everybody):
        if not isinstance(one, NativeStrategy) or type(one).execute is not NativeStrategy.execute:
            raise TypeError(
                f"member {number} must be a native strategy, such as llm('openai:gpt-5-mini'), not {type(one).__name__}"
            )
        if isinstance(one, PoolStrategy):
            raise ValueError(f"member {number} is a pool itself; put its members into this one")
        if not hasattr(one, "response_model"):
            raise ValueError(f"member {number} makes embeddings; a pool is for chat models")
        if one._fresh_key is not None:
            raise ValueError(f"member {number} has a function for its key; give it a fixed key")
        for name in ("response_model", "response_parser", "reask"):
            if getattr(one, name) != getattr(first, name):
                raise ValueError(f"member {number} has another {name} than the first; give all the same")
        if one._toolbox.spec != first._toolbox.spec:
            raise ValueError(f"member {number} has other tools than the first; give all the same")
        if (one._rules is None) != (first._rules is None):
            raise ValueError("rounds or turn must be given to all members, or to none")
        if one._rules is not None and (one.provider, one.model) != (first.provider, first.model):
            raise ValueError("members with rounds or turn must have the same provider and model")


def _check_doubt(escalate_if: object, later: Sequence[Fallback]) -> None:
    if not callable(escalate_if):
        raise TypeError(f"escalate_if must be a function of the output, not {type(escalate_if).__name__}")
    if not any("escalated" in one.on for one in later):
        raise ValueError("escalate_if needs a fallback: pool(..., fallback=['openai:gpt-5'])")


def _is_doubtful(read: Callable[[Any], Any], escalate_if: Callable[[Any], Any], answer: Any) -> bool:
    """Whether an answer is to be made better; one that cannot be read fails elsewhere."""
    try:
        output = read(answer)[0]
    except Exception:
        return False
    try:
        return bool(escalate_if(output))
    except Exception as error:
        log_event(logging.WARNING, "escalate_if_failed", "escalate_if failed; the answer stays: %s", describe(error))
        return False


def _endpoint(strategy: NativeStrategy[Any]) -> int:
    """A number for a member's address and model."""
    return hash((strategy.provider, strategy.base_url, strategy.model)) & 0xFFFF_FFFF_FFFF_FFFF


def _hedge(hedge: Any) -> Literal["tail", "always", "never"]:
    if not isinstance(hedge, (str, bool)) or hedge not in _HEDGES:
        raise ValueError(f"hedge must be 'tail', True or False (got {quoted(hedge)})")
    known: Any = _HEDGES[hedge]
    checked: Literal["tail", "always", "never"] = known
    return checked


def _weights(weights: Any, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    given = list(weights) if not isinstance(weights, (str, Mapping)) else []
    are_numbers = all(
        isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) and one > 0 for one in given
    )
    if len(given) != count or not are_numbers:
        raise ValueError(f"weights must be a list of {count} positive numbers (got {quoted(weights)})")
    return [float(one) for one in given]


def _scope_of(strategy: NativeStrategy[Any]) -> Scope:
    scope = scope_of(strategy)
    assert scope is not None
    return scope


def _labels(members: Sequence[NativeStrategy[Any]]) -> tuple[str, ...]:
    """What distinguishes them: the model; the host, where several have it; a number, where that is the same too."""
    names = [f"{one.provider}:{one.model}" for one in members]
    hosts = [urlsplit(one._shown_url).netloc for one in members]
    of_name = {name: {host for other, host in zip(names, hosts, strict=True) if other == name} for name in names}
    names = [f"{name} at {host}" if len(of_name[name]) > 1 else name for name, host in zip(names, hosts, strict=True)]
    often, seen = Counter(names), Counter[str]()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(f"{name} #{seen[name]}" if often[name] > 1 else name)
    return tuple(labels)


def _tell(kind: str, label: str, why: str) -> None:
    """Log what has become of a member."""
    why = mask(why)
    if kind == "dropped":
        log_event(
            logging.WARNING,
            "member_dropped",
            "%s is not asked any more: %.300s. Check its key and its model",
            label,
            why,
            member=label,
        )
    elif kind == "ejected":
        log_event(logging.INFO, "member_ejected", "%s is left out for a while: %.300s", label, why, member=label)
    else:
        log_event(logging.INFO, "member_back", "%s answers again", label, member=label)
