"""What all pools have in common, with members in Python or without. Used by ``pools`` and ``mixed_pools``."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ._core import Scope
from ._error_text import describe
from ._json_values import name_of
from ._llm import LLMCallStrategy, shared_name_of
from ._logs import log_event
from ._native import NativeStrategy
from ._secrets import mask, quoted
from .callable_strategy import CallableStrategy
from .prices import Price, price_of

if TYPE_CHECKING:
    from ._core import NativeClient, NativePool

OWN_SERVERS = ("vllm", "sglang")
"""Providers whose servers each have a prompt cache and a queue of their own."""
FallbackReason = Literal["refusal", "overload", "context_length", "content_filter", "invalid", "escalated"]
REASONS: tuple[FallbackReason, ...] = (
    "refusal", "overload", "context_length", "content_filter", "invalid", "escalated",
)  # fmt: skip
_HEDGES = {"tail": "tail", True: "always", False: "never"}


@dataclass(frozen=True)
class Fallback:
    """A strategy that a pool tries when its members cannot answer.

    Args:
        strategy: A strategy, a model's name, such as ``"anthropic:claude-sonnet-5"``, or a function of a prompt.
        on: The reasons to try it. ``"refusal"``: the model refuses. ``"overload"``: no member is available, or all have
            failed. ``"context_length"``: the prompt is too long for the member's model. ``"content_filter"``: the
            provider's filter blocks the prompt or the answer. ``"invalid"``: an answer does not match the schema, and
            neither does the answer to a retry that shows the mistake. ``"escalated"``: the pool's ``escalate_if``
            returned true. By default all of them.

    Raises:
        ValueError: If ``on`` contains something else.
    """

    strategy: LLMCallStrategy[Any] | Callable[..., Any] | str
    on: Collection[FallbackReason] = REASONS

    def __post_init__(self) -> None:
        unknown = [self.on] if isinstance(self.on, str) else [one for one in self.on if one not in REASONS]
        if unknown or not self.on:
            known = ", ".join(repr(reason) for reason in REASONS)
            raise ValueError(f"on must be a list of {known} (got {quoted(self.on)})")


@dataclass(frozen=True)
class Member:
    """What the extension reads of a member."""

    client: NativeClient | None
    scope: Scope
    label: str
    weight: float
    tier: int
    reasons: Sequence[str]
    endpoint: int
    is_own_server: bool = False
    """Whether its server has a queue and a prompt cache of its own."""


class Pooled:
    """What all pools tell of their members."""

    labels: tuple[str, ...]
    """What results call the members, then the fallbacks."""
    strategies: tuple[LLMCallStrategy[Any], ...]
    """The members, then the fallbacks."""
    _pool: NativePool
    _scopes: tuple[Scope, ...]

    @property
    def dropped(self) -> list[str]:
        """The labels of members that were dropped: their key is wrong, or they do not have the model."""
        return self._pool.dropped()

    @property
    def name(self) -> str:
        """What logs call the pool."""
        first, more = self.labels[0], len(self.labels) - 1
        return f"pool of {first} and {more} more" if more else f"pool of {first}"

    def shared_name(self) -> str:
        """The name of the pool's limits among processes that share them: that of its members, in any order."""
        names = sorted(name for _, name in self.shared_scopes())
        return f"pool {hashlib.sha256(repr(names).encode()).hexdigest()[:16]}"

    def shared_scopes(self) -> list[tuple[Scope, str]]:
        """The members' limits, each with its name among processes that share them: as if it were used alone.

        Names have no keys, so members that differ in nothing else are numbered.
        """
        names, seen = [], Counter[str]()
        for one, label in zip(self.strategies, self.labels, strict=True):
            given = getattr(one, "quota_scope", None)
            # What has no limits of its own elsewhere has them here.
            name = f"member {label}" if given is None or isinstance(given, Scope) else shared_name_of(one)
            seen[name] += 1
            names.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
        return list(dict(zip(self._scopes, names, strict=True)).items())

    def _prices(self, given: Any) -> dict[str, Price | None]:
        """The prices of its models, by label."""
        models = [getattr(one, "model", None) for one in self.strategies]
        found = [price_of(model, given) if isinstance(model, str) else None for model in models]
        return dict(zip(self.labels, found, strict=True))

    def _price(self, given: Any) -> Price | None:
        """The price of the most expensive of its models; None if that of one is unknown."""
        prices = self._prices(given).values()
        known = [price for price in prices if price is not None]
        return max(known, key=_typical_cost) if known and len(known) == len(prices) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.labels)})"


def _typical_cost(price: Price) -> float:
    return 3.0 * price.input + price.output


def check_doubt(escalate_if: object, later: Sequence[Fallback]) -> None:
    if not callable(escalate_if):
        raise TypeError(f"escalate_if must be a function of the output, not {type(escalate_if).__name__}")
    if not any("escalated" in one.on for one in later):
        raise ValueError("escalate_if needs a fallback: pool(..., fallback=['openai:gpt-5'])")


def name_of_doubt(escalate_if: Any) -> str:
    """What identifies the function, for stores."""
    return name_of(escalate_if if hasattr(escalate_if, "__qualname__") else type(escalate_if))


def is_doubtful(escalate_if: Callable[[Any], Any], output: Any) -> bool:
    """Whether an answer is to be made better; one that cannot be judged stays."""
    try:
        return bool(escalate_if(output))
    except Exception as error:
        log_event(logging.WARNING, "escalate_if_failed", "escalate_if failed; the answer stays: %s", describe(error))
        return False


def hedge_of(hedge: Any) -> Literal["tail", "always", "never"]:
    if not isinstance(hedge, (str, bool)) or hedge not in _HEDGES:
        raise ValueError(f"hedge must be 'tail', True or False (got {quoted(hedge)})")
    known: Any = _HEDGES[hedge]
    checked: Literal["tail", "always", "never"] = known
    return checked


def weights_of(weights: Any, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    given = list(weights) if not isinstance(weights, (str, Mapping)) else []
    are_numbers = all(
        isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) and one > 0 for one in given
    )
    if len(given) != count or not are_numbers:
        raise ValueError(f"weights must be a list of {count} positive numbers (got {quoted(weights)})")
    return [float(one) for one in given]


def endpoint_of(strategy: NativeStrategy[Any]) -> int:
    """A number for a member's address and model."""
    return hash((strategy.provider, strategy.base_url, strategy.model)) & 0xFFFF_FFFF_FFFF_FFFF


def labels_of(members: Sequence[Any]) -> tuple[str, ...]:
    """What distinguishes them: the model; the host, where several have it; a number, where that is the same too."""
    names = [_name_of(one) for one in members]
    hosts = [urlsplit(one._shown_url).netloc if isinstance(one, NativeStrategy) else "" for one in members]
    of_name = {name: {host for other, host in zip(names, hosts, strict=True) if other == name} for name in names}
    names = [f"{name} at {host}" if len(of_name[name]) > 1 else name for name, host in zip(names, hosts, strict=True)]
    often, seen = Counter(names), Counter[str]()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(f"{name} #{seen[name]}" if often[name] > 1 else name)
    return tuple(labels)


def _name_of(strategy: Any) -> str:
    if isinstance(strategy, NativeStrategy):
        return f"{strategy.provider}:{strategy.model}"
    name = strategy._name if isinstance(strategy, CallableStrategy) else type(strategy).__name__
    model = getattr(strategy, "model", None)
    return f"{name}:{model}" if isinstance(model, str) and model else name


def tell(kind: str, label: str, why: str) -> None:
    """Log what has become of a member."""
    why = mask(why).rstrip(". ")
    if kind == "dropped":
        log_event(
            logging.WARNING,
            "member_dropped",
            "%s was dropped from the pool: %.300s. Check its key and its model",
            label,
            why,
            member=label,
        )
    elif kind == "ejected":
        log_event(
            logging.INFO, "member_ejected", "%s is ejected from the pool for a while: %.300s", label, why, member=label
        )
    else:
        log_event(logging.INFO, "member_back", "%s is back in the pool", label, member=label)
