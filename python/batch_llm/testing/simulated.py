"""A provider on this machine: real HTTP, deterministic answers, faults on schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._core import SimulatorHandle

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


@dataclass(frozen=True)
class Fault:
    """An error reply on schedule. Requests are numbered from 1 in the order of arrival.

    Args:
        status: The HTTP status, 400 to 599.
        every: Hits every so many requests; 0 = only those of ``on``.
        on: The numbers of the requests that are hit.
        retry_after: Sent as ``Retry-After``, seconds.

    Raises:
        ValueError: When a value makes no sense.
    """

    status: int
    every: int = 0
    on: Sequence[int] = field(default=())
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"status must be 400 to 599 (got {self.status})")
        if self.every < 0 or any(number < 1 for number in self.on):
            raise ValueError(f"every must be >= 0 and the numbers in on >= 1 (got {self.every}, {list(self.on)})")
        if not self.every and not self.on:
            raise ValueError("a fault needs every=N or on=[...], or it never happens")


@dataclass(frozen=True)
class SimulatorStats:
    """What a simulated provider has seen.

    Args:
        requests: Requests received.
        peak_concurrency: Requests in work at the same time, at most.
        statuses: Replies by HTTP status.
    """

    requests: int
    peak_concurrency: int
    statuses: dict[int, int]


class SimulatedProvider:
    """Speaks Chat Completions on a loopback port, in a thread of its own.

    ::

        with SimulatedProvider(latency=0.05, faults=[Fault(429, every=100, retry_after=0.5)]) as provider:
            strategy = OpenAIStrategy("any-model", base_url=provider.base_url)

    The same request always gets the same text and the same usage; a token is four characters.

    Args:
        latency: Least time to a reply, seconds.
        latency_spread: Up to this much more, seconds, by the request's number.
        faults: Scheduled errors; the first that hits a request counts.
        replies: Templates of the text, one of which the prompt's hash picks; ``{excerpt}`` is the beginning of the
            prompt's last line, ``{digest}`` its hash. By default an echo.
        api_key: The only key accepted, others get a 401; None = any key or none.
        port: The port; 0 = a free one.

    Raises:
        ValueError: When a time is negative.
        OSError: When the port cannot be had.
    """

    def __init__(
        self,
        latency: float = 0.0,
        latency_spread: float = 0.0,
        faults: Iterable[Fault] = (),
        replies: Sequence[str] = (),
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        for name, value in (("latency", latency), ("latency_spread", latency_spread)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of seconds >= 0 (got {value})")
        self._handle = SimulatorHandle(
            port=port,
            latency=latency,
            latency_spread=latency_spread,
            faults=list(faults),
            replies=list(replies),
            api_key=api_key,
        )
        self._last: SimulatorStats | None = None

    @property
    def base_url(self) -> str:
        """What to give a strategy as ``base_url``."""
        return f"http://127.0.0.1:{self._handle.port}/v1"

    @property
    def stats(self) -> SimulatorStats:
        """What it has seen so far."""
        counts = self._handle.counts()
        if counts is not None:
            return SimulatorStats(**counts)
        assert self._last is not None
        return self._last

    def stop(self) -> None:
        """Stop and close all connections. Idempotent."""
        counts = self._handle.stop()
        if counts is not None:
            self._last = SimulatorStats(**counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
