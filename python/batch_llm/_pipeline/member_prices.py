"""What the members of a pool cost, where that differs: an attempt is paid for at the price of whoever answered.

Until then the most that it can cost is reserved, at the price of the most expensive. Used by the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._pool_members import Pooled
from ..prices import Price

if TYPE_CHECKING:
    from .._core import Flight
    from .._results import WorkItemResult
    from .._run import Engine


class MemberPrices:
    """The prices of members, as far as a run has met them.

    Args:
        own: The user's own prices, which go before the list.
    """

    def __init__(self, own: Mapping[str, Price] | None) -> None:
        self._own = own
        self._known: dict[int, dict[str, Price]] = {}
        self._pools: list[Pooled] = []  # referenced, so that their ids stay theirs

    def prices(self, strategy: Any) -> dict[str, Price]:
        """The prices of a pool's members by label; none where all cost the same, or the price of one is unknown."""
        if not isinstance(strategy, Pooled):
            return {}
        found = self._known.get(id(strategy))
        if found is None:
            prices = {label: price for label, price in strategy._prices(self._own).items() if price is not None}
            is_known = len(prices) == len(strategy.labels) and len(set(prices.values())) > 1
            found = self._known[id(strategy)] = prices if is_known else {}
            self._pools.append(strategy)
        return found

    def differ(self, strategy: Any) -> bool:
        """Whether it matters who answers."""
        return bool(self.prices(strategy))

    def book(self, flight: Flight, result: WorkItemResult[Any, Any], engine: Engine) -> None:
        """Tell the engine what the attempt that led to a result costs, before it is told that it has ended."""
        prices = self.prices(flight.item.strategy) if result.success else {}
        price = prices.get(str((result.metadata or {}).get("member")))
        if price is not None:
            engine.reprice(flight.index, price._per_token)
