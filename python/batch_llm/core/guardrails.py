"""What a run may not exceed: time per item and per batch, tokens, money; and which errors end it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar

from .._checks import check_number, reject
from ..prices import Price


class AbortMode(str, Enum):
    """What happens to attempts in flight when a run ends early."""

    DRAIN_ACTIVE = "drain_active"
    """They may finish."""
    CANCEL_ACTIVE = "cancel_active"
    """They are cancelled."""


@dataclass(frozen=True)
class AttemptUsage:
    """One attempt, as passed to a cost function.

    Args:
        item_id: The item's id.
        attempt: Number of the attempt, from 1.
        strategy: The item's strategy.
        usage: Tokens of this attempt only; read-only.
        success: Whether the attempt succeeded.
    """

    item_id: str
    attempt: int
    strategy: Any
    usage: Mapping[str, int]
    success: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "usage", MappingProxyType(dict(self.usage)))


CostFunction = Callable[[AttemptUsage], float]
"""The cost of one attempt, in the currency of ``max_total_cost``; sync, finite, >= 0."""


@dataclass
class GuardrailConfig:
    """Limits that end a run: deadlines, fatal errors, and caps on tokens and cost.

    A guardrail that trips ends the run in a controlled way: nothing more starts, every accepted item gets a result, and
    ``batch.termination`` says why.

    Args:
        total_timeout_per_item: Limit of one item, seconds, > 0: from its first start, with all its attempts and waits.
            An item that exceeds it fails with ``ItemDeadlineExceeded``.
        batch_timeout: Limit of the run, seconds, > 0, from its start.
        abort_on_error_categories: An item that fails with one of these categories ends the run. Use it for errors that
            affect every later item, such as ``"authentication"`` and ``"insufficient_balance"``.
        abort_mode: What happens to attempts in flight when a guardrail trips: an :class:`AbortMode`, or its value as a
            string.
        max_total_tokens: Cap on the tokens of all attempts, > 0.
        max_total_cost: Cap on the cost of all attempts, > 0, in the currency of the prices.
        prices: Prices by model name, instead of the table in :mod:`batch_llm.prices`.
        fail_early: Whether a run ends at once when its first answers all show that it cannot succeed: HTTP 401 or 403,
            an unknown model, no credit or quota left. This takes at least five such answers (with a list of keys, two
            per key) and no success before them. If items of other strategies are waiting, the run continues.
        cost_function: Returns the cost of an attempt; used instead of prices. The cap is then soft: it counts only
            attempts that have ended, so attempts in flight may exceed it.

    Caps are hard if the maximum use of an attempt is known: the maximum is reserved before the attempt is sent. For
    native strategies it is known if ``max_tokens`` is set (or the model's own limit is in the table of prices) and the
    prompt is text. Otherwise the estimate is reserved, and the cap may be exceeded by the estimation error of the
    attempts in flight.
    """

    total_timeout_per_item: float | None = None
    batch_timeout: float | None = None
    abort_on_error_categories: frozenset[str] = frozenset()
    abort_mode: AbortMode | str = AbortMode.DRAIN_ACTIVE
    max_total_tokens: int | None = None
    max_total_cost: float | None = None
    prices: Mapping[str, Price] | None = None
    cost_function: CostFunction | None = None
    fail_early: bool = True

    _fail_early_off: ClassVar[str] = "GuardrailConfig(fail_early=False)"  # how users turn it off

    def validate(self) -> None:
        """Check the fields.

        Raises:
            ValueError: If a field is invalid; the message names it, its value and a remedy.
            TypeError: If ``cost_function`` cannot be called.
        """
        for name in ("total_timeout_per_item", "batch_timeout", "max_total_cost"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                if value <= 0:
                    reject(f"{name} must be > 0", value, "Use None for no limit.")
        if self.max_total_tokens is not None:
            check_number("max_total_tokens", self.max_total_tokens, integer=True)
            if self.max_total_tokens < 1:
                reject("max_total_tokens must be >= 1", self.max_total_tokens, "Use None for no limit.")
        categories: Any = self.abort_on_error_categories
        if isinstance(categories, str) or not all(isinstance(name, str) and name for name in categories):
            hint = "For example {'authentication', 'insufficient_balance'}."
            reject("abort_on_error_categories must be a set of non-empty strings", repr(categories), hint)
        try:
            AbortMode(self.abort_mode)
        except ValueError:
            hint = "Use 'drain_active' to let attempts end, 'cancel_active' to cancel them."
            reject("abort_mode must be an AbortMode", repr(self.abort_mode), hint)
        if not isinstance(self.fail_early, bool):
            reject("fail_early must be True or False", repr(self.fail_early), "False tries all items.")
        if self.cost_function is not None and not callable(self.cost_function):
            raise TypeError(f"cost_function must be callable, not {type(self.cost_function).__name__}")
        for model, price in (self.prices or {}).items():
            if not isinstance(price, Price):
                reject(
                    f"prices[{model!r}] must be a Price",
                    repr(price),
                    "For example Price(input=0.25, output=2.0), per million tokens.",
                )
