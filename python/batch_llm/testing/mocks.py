"""Mock agents in the manner of pydantic-ai's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

TOutput = TypeVar("TOutput")


class MockUsage:
    """Token counts of a mock run.

    Args:
        request_tokens: Tokens of the prompt.
        response_tokens: Tokens of the answer.
    """

    def __init__(self, request_tokens: int = 100, response_tokens: int = 50) -> None:
        self.request_tokens = request_tokens
        self.response_tokens = response_tokens
        self.total_tokens = request_tokens + response_tokens


class MockResult(Generic[TOutput]):
    """The result of a mock run.

    Args:
        output: The answer.
        usage_info: Its token counts; by default, 100 input and 50 output tokens.
    """

    def __init__(self, output: TOutput, usage_info: MockUsage | None = None) -> None:
        self.output = output
        self._usage = usage_info if usage_info is not None else MockUsage()

    def usage(self) -> MockUsage:
        """Return the token counts."""
        return self._usage

    def all_messages(self) -> list[Any]:
        """Return an empty list."""
        return []


class MockAgent(Generic[TOutput]):
    """Answers without a model, and fails as configured.

    Calls are numbered from 1, over all items. Whether a call fails depends on its number, not on how many run at the
    same time.

    Args:
        response_factory: Returns the answer for a prompt; by default, a dict that quotes the prompt.
        latency: Duration of a call, seconds.
        failure_rate: Probability of a random failure, 0 to 1.
        rate_limit_on_call: Number of the call that is rate limited.
        timeout_on_call: Number of the call that hangs for 999 s.
        errors: Exceptions by call number, raised instead of an answer.
        rate_limit_every: Every N-th call is rate limited; None = none.
        seed: Makes ``failure_rate`` reproducible; by default, the global ``random`` is used.
    """

    def __init__(
        self,
        response_factory: Callable[[str], TOutput] | None = None,
        latency: float = 0.1,
        failure_rate: float = 0.0,
        rate_limit_on_call: int | None = None,
        timeout_on_call: int | None = None,
        *,
        errors: Mapping[int, Exception] | None = None,
        rate_limit_every: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.response_factory = response_factory if response_factory is not None else _quote
        self.latency = latency
        self.failure_rate = failure_rate
        self.rate_limit_on_call = rate_limit_on_call
        self.timeout_on_call = timeout_on_call
        self.errors = dict(errors or {})
        self.rate_limit_every = rate_limit_every
        self.call_count = 0
        self._random: Callable[[], float] = random.random if seed is None else random.Random(seed).random  # noqa: S311

    async def run(self, prompt: str, **kwargs: Any) -> MockResult[TOutput]:
        """Answer one prompt.

        Raises:
            Exception: As configured, and whatever ``response_factory`` raises.
        """
        self.call_count += 1
        call = self.call_count
        await asyncio.sleep(self.latency)
        if call == self.rate_limit_on_call or (self.rate_limit_every and call % self.rate_limit_every == 0):
            raise ClientError("429 RESOURCE_EXHAUSTED")
        if call in self.errors:
            raise self.errors[call]
        if call == self.timeout_on_call:
            await asyncio.sleep(999)
        if self.failure_rate > 0 and self._random() < self.failure_rate:
            raise Exception(f"Random failure on call {call}")
        return MockResult(cast("TOutput", self.response_factory(prompt)))


class ClientError(Exception):
    """A rate limit as google's SDK names it; another class than google's."""


def _quote(prompt: str) -> Any:
    return {"response": f"Mock response to: {prompt[:50]}"}
