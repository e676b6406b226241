"""End a run whose first answers all show that it cannot succeed: a wrong key, an unknown model, no money.

Used by the pipeline. A failed attempt keeps its worker until Python has handled it. So while no item has succeeded,
such failures wait here: no new request replaces them, and the attempts in flight decide. One success, or any other
answer, turns the check off for the rest of the run.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from .._error_text import describe
from .._secrets import quoted
from ..errors import ERROR_MESSAGE_LIMIT, ProviderError
from ..strategies.errors import status_of

if TYPE_CHECKING:
    from .._items import LLMWorkItem
    from .._run import Run
    from ..strategies.errors import ErrorInfo

ENOUGH = 5
"""Answers that end a run, at least; with several keys, two for each."""
STRAGGLERS = 10
"""Answers per earlier request that may still be in flight: failures arrive sooner than answers."""
PATIENCE_SECONDS = 5.0
"""How long requests in flight are waited for: before a run is ended, where all have the same key; and afterwards."""
LOOK_SECONDS = 0.05
_FATAL = frozenset({"authentication", "permission_denied", "insufficient_balance", "quota_exhausted"})
_STATUSES = {401: "authentication", 403: "permission_denied", 402: "insufficient_balance"}
MODEL_NOT_FOUND = "model_not_found"
_CODES = frozenset(
    {MODEL_NOT_FOUND, "invalid_model", "model_not_supported", "model_not_available", "deploymentnotfound"}
)
_NAME = r"""[`'"]?[\w./:@+-]*[`'"]?"""
_WRONG_MODEL = re.compile(
    r"\bnot a valid model\b"  # OpenRouter
    # Mistral, LiteLLM, Perplexity, MiniMax
    r"|\b(?:invalid|unknown|no such|unsupported) model(?: id\b| identifier\b| name\b|\s*[:`'\".=(]|\s*$)"
    rf"|\bmodel(?: id| identifier| name)?:?\s+{_NAME}\s*"  # Bedrock, DeepSeek, Hugging Face
    r"(?:does not exist|doesn't exist|not exist|(?:is |was )?not found|(?:is )?(?:invalid|unknown|not available))\b"
    r"|\bunexpected model name\b"  # Gemini
    r"|模型不存在",  # Zhipu
    re.IGNORECASE,
)
"""How providers report an unknown model with HTTP 400. Any other 400 concerns its item only."""


def fatal_kind(error: Exception, info: ErrorInfo) -> str | None:
    """Return what makes a permanent failure concern every item: a category, or ``"model_not_found"``; None: nothing."""
    if info.error_category in _FATAL:
        return info.error_category
    status = status_of(error)
    if status in _STATUSES:
        return _STATUSES[status]
    text = str(error).lower()
    code = str(getattr(error, "code", None)).lower()
    if "api_key_invalid" in text or "api key not valid" in text:  # Google's, with status 400
        return "authentication"
    if code in _CODES or (status in (400, 422) and _WRONG_MODEL.search(text)):
        return MODEL_NOT_FOUND
    if status == 404:
        # What a function of the user's own does not find may be anything.
        is_model = isinstance(error, ProviderError) or "model" in text or "model" in code or "deployment" in text
        return MODEL_NOT_FOUND if is_model else None
    return None


class FailEarly:
    """Watches the first answers of one run.

    Args:
        enabled: Whether it may end the run.
        turned_off_by: The setting that turns this off, for the user.
    """

    def __init__(self, *, enabled: bool, turned_off_by: str) -> None:
        self._turned_off_by = turned_off_by
        self.undecided = enabled
        """Whether fatal failures are still to be brought here."""
        self.reason: str | None = None
        """Why the run was ended, if it was."""
        self.kind: str | None = None
        self.first: LLMWorkItem[Any, Any, Any] | None = None
        """The item that failed first."""
        self._run: Run
        self._cancel = False
        self._count = 0
        self._kinds: set[str] = set()
        self._needed, self._patience = ENOUGH, 0.0
        self._failed: dict[int, Any] = {}  # strategies, by identity
        self._first_error = ""
        self._waiting: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0

    def begin(self, run: Run, *, cancel: bool) -> None:
        """Attach to a run. ``cancel``: whether attempts in flight are cancelled when the run ends."""
        self._run, self._cancel = run, cancel

    async def failed(self, item: LLMWorkItem[Any, Any, Any], strategy: Any, error: Exception, info: ErrorInfo) -> None:
        """Record a permanent failure; return when its consequence is known."""
        kind = fatal_kind(error, info)
        if kind is None or self._has_succeeded():
            self._decide()  # mixed answers: these are the items' own failures
            return
        self._count += 1
        self._kinds.add(kind)
        self._last = self._run.loop.time()
        if self.first is None:
            self.first, self.kind, self._first_error = item, kind, _words(error)
        self._failed[id(strategy)] = strategy
        self._judge_by(strategy)
        waiter: asyncio.Future[None] = self._run.loop.create_future()
        self._waiting.add(waiter)
        self._look()
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def stopped(self) -> None:
        """Release what waits here: the run ends."""
        self._decide()

    def _judge_by(self, strategy: Any) -> None:
        keys = getattr(strategy, "_key_count", None)
        if isinstance(keys, int) and keys > 1:
            self._needed = max(self._needed, 2 * keys)
        self._patience = PATIENCE_SECONDS if keys in (0, 1) else 0.0

    def _has_succeeded(self) -> bool:
        return self._run.stats().succeeded > self._run.reused_successes

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.undecided or self._run.closing:
            self._release()
            return
        if self._has_succeeded():
            self._decide()
            return
        in_flight = self._run.gauges()[1] - len(self._waiting)
        if self._count >= self._needed and not self._waits_for_others():
            quiet = self._run.loop.time() - self._last
            few = in_flight * max(STRAGGLERS, self._needed) <= self._count
            if few or (self._patience and quiet >= self._patience):
                self._end()
                return
        if in_flight <= 0:
            self._release()  # too few to decide: the next ones
            return
        self._timer = self._run.loop.call_later(LOOK_SECONDS, self._look)

    def _waits_for_others(self) -> bool:
        """Whether items wait for other strategies, which may well succeed."""
        seen = {_scope_of(strategy) for strategy in self._failed.values()}
        # If each item has its own strategy, their class decides.
        by_class = len(self._failed) >= self._needed
        classes = {type(strategy) for strategy in self._failed.values()} if by_class else set()
        others = (item.strategy for _, item in self._run.waiting.all())
        return any(_scope_of(other) not in seen and type(other) not in classes for other in others)

    def _end(self) -> None:
        alike = "all" if len(self._kinds) == 1 else "all rejections, the first of them"
        self.reason = (
            f"the first {self._count} replies were {alike} {self._first_error[:ERROR_MESSAGE_LIMIT].rstrip('.')}; "
            f"{_remedy(self.kind, next(iter(self._failed.values())))} "
            f"({self._turned_off_by} disables this check)"
        )
        self._run.end_early(cancel=self._cancel)
        self._run.loop.call_later(PATIENCE_SECONDS, self._cancel_the_rest)
        self._decide()

    def _cancel_the_rest(self) -> None:
        """End what still hangs: the run is to end at once."""
        if not self._run.closing:
            self._run.end_early(cancel=True)

    def _decide(self) -> None:
        self.undecided = False
        self._failed.clear()
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def _words(error: Exception) -> str:
    """Return an error's message; that of a native strategy begins with its status."""
    return str(error) if isinstance(error, ProviderError) else describe(error)


def _scope_of(strategy: Any) -> Any:
    """What strategies have in common that fail together."""
    scope = getattr(strategy, "_scope", None)
    return id(strategy) if scope is None else scope


def _remedy(kind: str | None, strategy: Any) -> str:
    """What to do about it."""
    model = getattr(strategy, "model", None)
    named = f" {quoted(model)}" if isinstance(model, str) else ""
    if kind == "authentication":
        variables = getattr(strategy, "_key_from", None)
        return f"check {variables}" if variables else "check the API key"
    if kind == "permission_denied":
        return f"check whether the API key may use the model{named}"
    if kind == MODEL_NOT_FOUND:
        return f"check the model's name{named}, and the address"
    if kind == "quota_exhausted":
        return "run it again after the quota resets"
    return "add credit to the provider's account, and run it again"
