"""The lifecycle of strategies: prepared once per object, under concurrency too. Used by the pipeline.

``process_all()`` has its own lifecycle, as in 0.3.0, and cleans up after every item. Where strategies live as
long as runs, overlapping runs of one event loop share them: prepared by the first, cleaned up by the last.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from .._endings import FAILURES
from .._forks import in_child
from .._logs import logger
from .._timeouts import TIMEOUT_ERRORS, expired, timeout
from .quota_scopes import scope_of
from .strategy import LLMCallStrategy

STRATEGY_PREPARE_TIMEOUT = 600.0
"""Limit of one ``prepare()``, seconds: without one, a hanging strategy would stop its items for ever."""
STRATEGY_CLEANUP_TIMEOUT = 60.0
"""Limit of one ``cleanup()``, seconds."""


class KnownStrategy:
    """What a processor knows about one strategy object."""

    __slots__ = (
        "_lock",
        "classifier",
        "converses",
        "hears_errors",
        "is_native",
        "must_clean_up",
        "prepared",
        "reference",
        "scope",
    )

    def __init__(self, strategy: Any, *, cleans_up_items: bool = True) -> None:
        self.prepared = not _has_own(strategy, "prepare")
        self.must_clean_up = cleans_up_items and _has_own(strategy, "cleanup")
        self.hears_errors = _has_own(strategy, "on_error")
        # The native path may replace `execute` only where `execute` is not overridden.
        native = getattr(type(strategy), "_native_execute", None)
        self.is_native = native is not None and type(strategy).execute is native
        self.converses = self.is_native and getattr(strategy, "_rules", None) is not None
        self.scope = scope_of(strategy)
        recommend = getattr(strategy, "recommended_error_classifier", None)
        self.classifier: Any = recommend() if callable(recommend) else None
        self._lock: asyncio.Lock | None = None
        self.reference: Any = None

    async def prepare(self, strategy: Any) -> None:
        """Prepare the strategy unless that has been done; of many callers one does it."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self.prepared:
                return
            deadline = timeout(STRATEGY_PREPARE_TIMEOUT)
            try:
                async with deadline:
                    await strategy.prepare()
            except TIMEOUT_ERRORS as error:
                if not expired(deadline):
                    raise
                name = type(strategy).__name__
                raise TimeoutError(f"{name}.prepare() did not end within {STRATEGY_PREPARE_TIMEOUT:.0f} s") from error
            self.prepared = True


def _has_own(strategy: Any, name: str) -> bool:
    """Whether a strategy overrides a hook. One that lacks it counts as overriding, and fails when it is called."""
    try:
        method = getattr(strategy, name, None)
    except Exception:
        return True  # asking for it fails again where the failure belongs to an item
    return getattr(method, "__func__", method) is not getattr(LLMCallStrategy, name)


class _Life:
    """A strategy that lives as long as the runs that use it."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        self.known = KnownStrategy(strategy, cleans_up_items=False)
        self.holders = 0


_LIVES: dict[tuple[int, int], _Life] = {}
"""By the identities of strategy and event loop, both of which live while the entry does."""


in_child(_LIVES.clear)  # what the parent has prepared is not ready here, and its loops stand still


async def clean_up_quietly(strategy: Any) -> None:
    """Call ``cleanup()``; what it raises is logged."""
    name = type(strategy).__name__
    try:
        async with timeout(STRATEGY_CLEANUP_TIMEOUT):
            await strategy.cleanup()
    except FAILURES as error:
        logger.warning("%s.cleanup() failed: %s: %s", name, type(error).__name__, error)


class KnownStrategies:
    """All strategies that a processor has met, by identity.

    Referenced weakly where the object allows it: a processor may see a million strategies, one per item. The entry dies
    with the object, before another one can get its address.
    """

    def __init__(self) -> None:
        self._known: dict[int, KnownStrategy] = {}

    def get(self, strategy: Any) -> KnownStrategy:
        """Return what is known of a strategy; it may be new."""
        known = self._known.get(id(strategy))
        return known if known is not None else self._add(strategy)

    def _add(self, strategy: Any) -> KnownStrategy:
        key = id(strategy)
        known = self._known[key] = KnownStrategy(strategy)
        entries = self._known
        try:
            known.reference = weakref.ref(strategy, lambda _: entries.pop(key, None))
        except TypeError:
            known.reference = strategy
        return known


class RunStrategies(KnownStrategies):
    """The strategies of one run that live with it: used from their first item until :meth:`release`."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._held: list[_Life] = []

    def _add(self, strategy: Any) -> KnownStrategy:
        if not (_has_own(strategy, "prepare") or _has_own(strategy, "cleanup")):
            return super()._add(strategy)
        key = (id(strategy), id(self._loop))
        life = _LIVES.get(key)
        if life is None:
            life = _LIVES[key] = _Life(strategy)
        life.holders += 1
        self._held.append(life)
        self._known[id(strategy)] = life.known
        return life.known

    async def release(self, clean_up: bool) -> None:
        """Release them; those that no other run uses are cleaned up. Their exceptions are logged.

        Raises:
            BaseException: What one of them raised to end more than itself; after all others.
        """
        held, self._held = self._held, []
        self._known.clear()
        ending: BaseException | None = None
        for life in held:
            life.holders -= 1
            if life.holders:
                continue
            _LIVES.pop((id(life.strategy), id(self._loop)), None)
            if clean_up and _has_own(life.strategy, "cleanup"):
                try:
                    await clean_up_quietly(life.strategy)
                except BaseException as error:
                    ending = ending or error
        if ending is not None:
            raise ending
