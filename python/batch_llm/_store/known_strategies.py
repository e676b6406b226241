"""What a store has to know of the strategies of a run. Used by ``run_store``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from .output_types import types_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._results import WorkItemResult
    from ..prices import Price
    from .identity import Identity


class KnownStrategy:
    """A strategy's identity, price and types of outputs.

    Args:
        identity: What it is.
        price: What its tokens cost.
        of_members: The same for those of a pool, by label.
    """

    __slots__ = ("_held", "_of_members", "_price", "_types", "identity", "number", "price")

    def __init__(
        self, identity: Identity, price: Price | None, of_members: Mapping[str, Price | None] | None = None
    ) -> None:
        self.identity, self.number = identity, identity.number
        self._of_members = of_members
        self.price = None if price is None else price._per_token
        self._price = price
        self._types: dict[int, dict[str, type]] = {}
        self._held: Any = None

    def price_of(self, result: WorkItemResult[Any, Any]) -> tuple[float, float, float, float, float, float] | None:
        """What the tokens of a result cost, in its lane."""
        metadata = result.metadata or {}
        if self._of_members is not None and "member" in metadata:
            price = self._of_members.get(metadata["member"])
            return None if price is None else price._per_token
        lane = metadata.get("lane")
        return self.price if lane is None or self._price is None else self._price.in_lane(lane)._per_token

    def lives_with(self, strategy: Any, entries: dict[int, KnownStrategy]) -> None:
        """Leave the entries with the strategy, before another one can get its address; a run may see a million."""
        key = id(strategy)
        try:
            self._held = weakref.ref(strategy, lambda _: entries.pop(key, None))
        except TypeError:
            self._held = strategy

    def types(self, strategy: Any, given: tuple[Any, ...]) -> dict[str, type]:
        """The classes that its outputs may have, with those that a file was given."""
        known = self._types.get(id(given))
        if known is None:
            known = self._types[id(given)] = types_of(strategy, given)
        return known
