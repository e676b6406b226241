"""A strategy with scripted answers and failures."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._llm import LLMCallStrategy
from .._types import TOutput

if TYPE_CHECKING:
    from .._types import RetryState, TokenUsage

__all__ = ["FakeRateLimitError", "FakeStrategy"]


class FakeRateLimitError(Exception):
    """The error of a provider's client for a 429; always classified as a rate limit.

    Args:
        message: The error message.
        retry_after: The wait that the server requests, seconds.
    """

    status_code = 429

    def __init__(self, message: str = "429 rate limit", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FakeStrategy(LLMCallStrategy[TOutput]):
    """Answers without a provider, and fails as scheduled.

    ::

        strategy = FakeStrategy(str.upper, latency=0.01, failure_schedule=[FakeRateLimitError(), None])

    Args:
        response: The answer to every prompt, or a function that returns an answer for a prompt, sync or async.
        latency: Duration of each call, seconds, >= 0.
        failure_schedule: The exceptions of the first calls, in order; None = that call succeeds.
        failure_rate: Fraction (0 to 1) of later calls that raise ``ConnectionError``.
        seed: Makes ``failure_rate`` reproducible; required if ``failure_rate`` is set.
        token_usage: The token usage of every answer.

    Raises:
        ValueError: If an argument is invalid.
    """

    def __init__(
        self,
        response: TOutput | Callable[[Any], TOutput | Awaitable[TOutput]],
        *,
        latency: float = 0.0,
        failure_schedule: Sequence[Exception | None] = (),
        failure_rate: float = 0.0,
        seed: int | None = None,
        token_usage: TokenUsage | None = None,
    ) -> None:
        if not 0 <= latency < float("inf"):
            raise ValueError(f"latency must be a finite number of seconds >= 0 (got {latency!r})")
        if not 0 <= failure_rate <= 1:
            raise ValueError(f"failure_rate must be between 0 and 1 (got {failure_rate!r})")
        if failure_rate > 0 and seed is None:
            raise ValueError("failure_rate needs a seed, so that a test is repeatable")
        self._response = response
        self._latency = latency
        self._schedule = list(failure_schedule)
        self._failure_rate = failure_rate
        self._random = random.Random(seed)  # noqa: S311 - for tests, not for secrets
        self._usage: TokenUsage = token_usage if token_usage is not None else {}
        self.calls: list[Any] = []
        """The prompts of all calls, failed ones included."""

    def check_prompt(self, prompt: Any) -> None:
        """Accept any prompt."""

    async def execute(
        self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Answer or fail, as scheduled."""
        number = len(self.calls)
        self.calls.append(prompt)
        if self._latency:
            await asyncio.sleep(self._latency)
        planned = self._schedule[number] if number < len(self._schedule) else None
        if planned is not None:
            raise planned
        if number >= len(self._schedule) and self._random.random() < self._failure_rate:
            raise ConnectionError(f"random failure of call {number}")
        answer: Any = self._response(prompt) if callable(self._response) else self._response
        if inspect.isawaitable(answer):
            answer = await answer
        usage: Any = dict(self._usage)
        return answer, usage
