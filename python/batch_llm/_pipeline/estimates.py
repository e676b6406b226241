"""What the engine has to know of items before it sends them. Used by the pipeline.

Whose limits they share, how many tokens they will use, and what those cost.
"""

from __future__ import annotations

import math
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._boards import note_reached, open_board, shown, was_reached
from .._endings import FAILURES
from .._error_text import describe
from .._items import LLMWorkItem
from .._llm import holder, shared_name_of
from .._pool_members import Pooled
from ..errors import TokenEstimationError
from ..pools import price_for
from ..token_estimation import CharacterTokenEstimator
from .member_prices import MemberPrices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._core import Board, Scope
    from .._llm import KnownStrategies, KnownStrategy
    from .._run import Engine
    from ..conversations import Conversation
    from ..core.config import ProcessorConfig
    from ..prices import Price
    from .lanes import Lane


OWN_KINDS = 1000
"""Number of strategies of a run with estimates of their own; further ones share by class."""

_BY_LENGTH = CharacterTokenEstimator()
Estimate = tuple[float, float, "float | None", "float | None", "float | None", int]
"""Requests, input, output or None, most input or None, most output or None, kind."""


class Limits:
    """The queues and kinds of one run, and the estimates of its items.

    Args:
        config: The processor's.
        known: What is known of strategies.
    """

    def __init__(self, config: ProcessorConfig, known: KnownStrategies) -> None:
        self._config = config
        self.lane_of_run: Lane | None = None
        """The lane of the run, if requests do not go the usual way."""
        self._known = known
        self._engine: Engine
        self.shared = None if config.dry_run else config.shared_limits
        """Where the run shares its limits with other processes."""
        self._board: Board | None = None
        self._queues: dict[int, int] = {}
        self.names: dict[int, str] = {}
        """By queue, what a strategy of its items sends requests to."""
        self._scopes: list[Any] = []  # referenced, so that their ids stay theirs
        self._kinds: dict[Any, tuple[int, float | None]] = {}
        self._prices: set[Price | None] = set()
        self.members = MemberPrices(config.guardrails.prices)
        """What the members of pools cost."""
        self.failures: dict[int, BaseException] = {}
        """Why items could not be estimated, by their index."""

    def begin(self, engine: Engine) -> None:
        """Attach to a run.

        Raises:
            ImportError: If shared limits need a package that is not installed.
            OSError: If the board of shared limits cannot be used.
        """
        self._engine = engine
        if self.shared is not None:
            self._board = open_board(self.shared)
            self._share(0, "run", f"{holder()}-{id(self)}")

    def _share(self, whose: int | Scope, words: str, holder: str) -> None:
        """Share the limits of a queue, or of a pool's member."""
        assert self._board is not None
        assert self.shared is not None
        how = (self._board, words, holder, was_reached(self.shared))
        try:
            if isinstance(whose, int):
                self._engine.share(whose, *how)
            else:
                self._engine.share_member(whose, *how)
            note_reached(self.shared)
        except OSError as error:
            raise type(error)(f"shared_limits={shown(self.shared)} cannot be used: {error}") from error

    def one_price(self) -> Price | None:
        """The price of all items so far, if they have one."""
        return next(iter(self._prices)) if len(self._prices) == 1 else None

    @property
    def prices_are_known(self) -> bool:
        """Whether the price of every item so far is known."""
        return bool(self._prices) and None not in self._prices

    def queue(self, strategy: Any) -> int:
        """The queue of the strategy's items; 0 is that of the run's own scope."""
        if len(self._prices) < 2:
            self._prices.add(self.price(strategy))
            if self.members.differ(strategy):
                self._prices.update(self.members.prices(strategy).values())
        own = None if self.lane_of_run is None else self.lane_of_run.queue(self._engine)
        return self.live_queue(strategy) if own is None else own

    def live_queue(self, strategy: Any) -> int:
        """The queue of requests that are sent one by one; 0 is that of the run's own scope."""
        scope = self._known.get(strategy).scope
        if scope is None:
            if not self.names:
                self.names[0] = _name_of(strategy)
            return 0
        queue = self._queues.get(id(scope))
        if queue is None:
            queue = self._queues[id(scope)] = self._engine.queue(scope)
            self._scopes.append(scope)
            self.names[queue] = _name_of(strategy)
            if self._board is not None:
                self._share_all(queue, strategy)
        return queue

    def _share_all(self, queue: int, strategy: Any) -> None:
        if not isinstance(strategy, Pooled):
            self._share(queue, shared_name_of(strategy), holder())
            return
        self._share(queue, strategy.shared_name(), holder())
        for scope, name in strategy.shared_scopes():
            if id(scope) not in self._queues and scope not in self._scopes:
                self._scopes.append(scope)
                self._share(scope, name, holder())

    def groups(self, items: Iterable[LLMWorkItem[Any, Any, Any] | None]) -> list[tuple[int, int, int]]:
        """Items in order of submission as ``(queue, priority, count)``."""
        groups: list[tuple[int, int, int]] = []
        strategy: Any = None
        queue = priority = count = 0
        for item in items:
            if item is None:
                continue
            urgency = getattr(item, "priority", 0)
            if item.strategy is not strategy or urgency != priority:
                other = self.queue(item.strategy)
                strategy = item.strategy
                if other != queue or urgency != priority:
                    if count:
                        groups.append((queue, priority, count))
                    queue, priority, count = other, urgency, 0
            count += 1
        if count:
            groups.append((queue, priority, count))
        return groups

    async def estimate(self, items: list[tuple[int, LLMWorkItem[Any, Any, Any]]]) -> None:
        """Tell the engine what these items will use."""
        estimates: list[tuple[int, Estimate | None]] = []
        for index, item in items:
            try:
                estimates.append((index, await self._estimate(item)))
            except FAILURES as error:
                self.failures[index] = error
                estimates.append((index, None))
        self._engine.expect(estimates)

    async def _estimate(self, item: LLMWorkItem[Any, Any, Any]) -> Estimate:
        strategy: Any = item.strategy
        known = self._known.get(strategy)
        kind, most_output = self._kind(strategy, known)
        custom = self._config.token_estimator or getattr(strategy, "estimate_tokens", None)
        requests, tokens = 1.0, 0.0
        most_input: float | None = None
        if known.is_native:
            tokens, most_input, requests = strategy._expect(item.prompt)
        elif custom is None:
            tokens = _BY_LENGTH(item.prompt).input_tokens
        if custom is None:
            return requests, tokens, None, most_input, most_output, kind
        estimate: Any = custom(item.prompt, strategy=strategy, attempt=1, state=None)
        if isawaitable(estimate):
            estimate = await estimate
        counts = [getattr(estimate, name, None) for name in ("input_tokens", "output_tokens")]
        if not all(isinstance(count, (int, float)) and math.isfinite(count) and count >= 0 for count in counts):
            raise TypeError(f"a token estimator must return a TokenEstimate, not {estimate!r:.80}")
        given_input, given_output = counts
        return requests, float(given_input or 0), float(given_output or 0), most_input, most_output, kind

    async def of_live(self, item: LLMWorkItem[Any, Any, Any]) -> Estimate | None:
        """What an item will use that was meant for a batch, at the usual price; None: as much as was expected."""
        price = self.price_live(item.strategy)
        if price is None:
            return None
        estimate = await self._estimate(item)
        known = self._known.get(item.strategy)
        kind, _ = self._kind_at(("live", self._key(item.strategy, known)), item.strategy, known, price)
        return (*estimate[:-1], kind)

    async def of_round(self, conversation: Conversation, strategy: Any) -> Estimate | None:
        """What the next request of a conversation will use; None: as much as its last."""
        known = self._known.get(strategy)
        custom = self._config.token_estimator or getattr(strategy, "estimate_tokens", None)
        tokens = conversation.request_tokens()
        if custom is not None or tokens is None:
            try:
                return await self._estimate(LLMWorkItem(conversation.item_id, strategy, conversation.messages))
            except FAILURES as error:
                problem = f"the tokens of the next request could not be estimated: {describe(error)}"
                raise TokenEstimationError(problem, item_id=conversation.item_id) from error
        kind, most_output = self._kind(strategy, known)
        return 1.0, tokens[0], None, tokens[1], most_output, kind

    def _kind(self, strategy: Any, known: KnownStrategy) -> tuple[int, float | None]:
        return self._kind_at(self._key(strategy, known), strategy, known, self.price(strategy))

    def _key(self, strategy: Any, known: KnownStrategy) -> Any:
        """What strategies of one kind have in common: themselves, or their class and model, if there are too many."""
        if known not in self._kinds and len(self._kinds) >= OWN_KINDS:
            return type(strategy), getattr(strategy, "model", None)
        return known

    def _kind_at(self, key: Any, strategy: Any, known: KnownStrategy, price: Price | None) -> tuple[int, float | None]:
        """The kind of a strategy's items at a price, and the most output of an answer; made if there is none."""
        kind = self._kinds.get(key)
        if kind is None:
            longest = strategy._longest_answer() if known.is_native else None
            if longest is None and price is not None:
                longest = price.max_output_tokens
            start = _BY_LENGTH.expected_output_tokens if longest is None else min(longest, 256)
            number = self._engine.kind(float(start), None if price is None else price._per_token)
            kind = self._kinds[key] = (number, None if longest is None else float(longest))
        return kind

    def price_live(self, strategy: Any) -> Price | None:
        """The usual price of a strategy's model, if it is known."""
        return price_for(strategy, self._config.guardrails.prices)

    def price(self, strategy: Any) -> Price | None:
        """The price of a strategy's model in the lane of the run, if it is known."""
        price = self.price_live(strategy)
        return price if price is None or self.lane_of_run is None else price.in_lane(self.lane_of_run.price_lane)


def _name_of(strategy: Any) -> str:
    """The model of a strategy and where it is, or its class."""
    if isinstance(strategy, Pooled):
        return strategy.name
    model, address = getattr(strategy, "model", None), getattr(strategy, "base_url", None)
    if not isinstance(model, str) or not model:
        return type(strategy).__name__
    place = urlsplit(address).netloc.rpartition("@")[2] if isinstance(address, str) else ""
    return f"{model} at {place}" if place else model
