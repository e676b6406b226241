"""A provider on this machine: real HTTP, deterministic answers, quotas, faults on schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .._checks import check_known
from .._core import SimulatorHandle
from .._llm import SIMULATED, simulated_url, simulators, table

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

FaultName = Literal[
    "billing", "daily_quota", "error_inside", "reset", "hang", "drip", "cut", "malformed", "html", "keep_alive"
]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong on schedule. Requests are numbered from 1 in the order of arrival.

    Args:
        kind: An HTTP status from 400 to 599; or ``"billing"`` and ``"daily_quota"`` (429s that no waiting helps),
            ``"error_inside"`` (an error object inside a 200), ``"reset"`` (the connection closes without a reply),
            ``"hang"`` (no reply ever comes), ``"drip"`` (it comes byte by byte), ``"cut"`` (it is truncated),
            ``"malformed"`` (its JSON is), ``"html"`` (a proxy's page), ``"keep_alive"`` (blank lines and a comment
            before the JSON).
        every: Hits every N-th request; 0 = none.
        on: The numbers of requests that are hit.
        between: The first and the last number of a storm that hits all.
        retry_after: Sent as ``Retry-After``, seconds.

    Raises:
        ValueError: If a value is invalid.
    """

    kind: int | FaultName
    every: int = 0
    on: Sequence[int] = field(default=())
    retry_after: float | None = None
    between: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.kind, int) and not 400 <= self.kind <= 599:
            raise ValueError(f"a status must be 400 to 599 (got {self.kind})")
        if self.every < 0 or any(number < 1 for number in self.on):
            raise ValueError(f"every must be >= 0 and the numbers in on >= 1 (got {self.every}, {list(self.on)})")
        if not self.every and not self.on and self.between is None:
            raise ValueError("a fault needs every=N, on=[...] or between=(first, last), or it never happens")


@dataclass(frozen=True)
class Violation:
    """A request that was rate limited because it came too early.

    Args:
        at: When, seconds since the start.
        limit: ``"requests"`` or ``"tokens"``.
        early_by: How much too early, seconds.
    """

    at: float
    limit: str
    early_by: float


@dataclass(frozen=True)
class SimulatorStats:
    """Statistics of a simulated provider.

    Args:
        requests: Requests received.
        peak_concurrency: Maximum number of requests in flight.
        statuses: Replies by HTTP status; 0 = none was sent.
        per_second: Requests received in each second since the start (the first hour).
        input_tokens: Tokens of all answered prompts.
        output_tokens: Tokens of all answers.
        paths: Requests by path.
        violations: Requests that came too early for the quota (10,000 at most).
        questions: How often each prompt (its last message) came, of the accepted requests, with
            ``count_questions=True``.
    """

    requests: int
    peak_concurrency: int
    statuses: dict[int, int]
    per_second: list[int]
    input_tokens: int
    output_tokens: int
    paths: dict[str, int]
    violations: list[Violation]
    questions: dict[str, int]


@dataclass(frozen=True)
class _Latency:
    """The latencies as the extension needs them."""

    fixed: float
    spread: float
    distribution: str
    per_token: float


@dataclass(frozen=True)
class _Fault:
    """The fault as the extension needs it."""

    kind: str
    every: int
    on: Sequence[int]
    between: tuple[int, int] | None
    retry_after: float | None


class SimulatedOptions(TypedDict, total=False):
    """What a :class:`SimulatedProvider` takes by name only: its quota, and what it counts."""

    requests_per_minute: float | None
    tokens_per_minute: float | None
    burst_seconds: float
    seed: int
    count_questions: bool


_ARGUMENTS = (
    "latency", "latency_spread", "faults", "replies", "api_key", "port", "distribution", "latency_per_token",
)  # fmt: skip
_BURST = 10.0
"""Of how many seconds a quota may be used at once, unless it is said."""


class SimulatedProvider:
    """A simulated provider on a loopback port, in its own thread.

    OpenAI's Chat Completions, Responses and embeddings, Anthropic's Messages, Google's generateContent,
    batchEmbedContents and context caches; the vendors' own SDKs work against it too. ::

        with SimulatedProvider(latency=0.05, faults=[Fault(429, every=100, retry_after=0.5)]) as provider:
            strategy = OpenAIStrategy("any-model", base_url=provider.base_url)

    The same question always gets the same answer and the same usage (a token is four bytes). Answers fit the JSON
    Schema of the request, call the tool that they must call or all tools that the last message names, and are no longer
    than ``max_tokens``.

    What a model wants back comes with its answers: thoughts with signatures (Anthropic with ``thinking``), signatures
    of function calls (Gemini), reasoning items (Responses with ``reasoning``), ``reasoning_content`` (Chat Completions,
    models whose name has ``deepseek`` or ``kimi`` in it). Requests that the real servers reject are rejected with their
    messages: calls without results and results without calls, thoughts that are missing or changed (signatures of
    function calls from ``gemini-3`` on), empty text blocks, schemas that are not strict.

    Args:
        latency: Least time to a reply, seconds.
        latency_spread: What varies, seconds: by the request's number, so that every run is alike.
        distribution: How it varies: ``"uniform"`` from nothing to all of it, ``"exponential"`` with it as the mean,
            ``"lognormal"`` with it as the median.
        latency_per_token: Added for each token of the answer, seconds.
        faults: Scheduled faults; the first that hits a request counts.
        replies: Templates of the text, one of which the prompt's hash picks; ``{excerpt}`` is the beginning of the
            prompt's last line, ``{digest}`` its hash. By default an echo, or a value that fits the schema.
        api_key: The only key accepted, others get a 401; None = any key or none.
        requests_per_minute: A quota, enforced with a bucket, the provider's own headers, codes and bodies.
        tokens_per_minute: The same for tokens of prompts and answers.
        burst_seconds: How many seconds' worth of a quota may come at once (10).
        seed: Another seed gives other answers and latencies (0).
        port: The port; 0 = a free one.
        count_questions: Whether to count how often each prompt came; it then stores all prompts. (False)

    Raises:
        TypeError: If an option is unknown; names the nearest.
        ValueError: If a value is invalid.
        OSError: If the port is not available.
    """

    def __init__(
        self,
        latency: float = 0.0,
        latency_spread: float = 0.0,
        faults: Iterable[Fault] = (),
        replies: Sequence[str] = (),
        api_key: str | None = None,
        port: int = 0,
        *,
        distribution: Literal["uniform", "exponential", "lognormal"] = "uniform",
        latency_per_token: float = 0.0,
        **options: Unpack[SimulatedOptions],
    ) -> None:
        check_known(options, (*SimulatedOptions.__annotations__, *_ARGUMENTS), "SimulatedProvider")
        seed, burst_seconds = options.get("seed", 0), options.get("burst_seconds", _BURST)
        for name, number, most in (("port", port, 65_535), ("seed", seed, 2**64 - 1)):
            if type(number) is not int or not 0 <= number <= most:
                raise ValueError(f"{name} must be an integer from 0 to {most} (got {number!r:.80})")
        for name, value in (
            ("latency", latency),
            ("latency_spread", latency_spread),
            ("latency_per_token", latency_per_token),
            ("burst_seconds", burst_seconds),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of seconds >= 0 (got {value})")
        self._handle = SimulatorHandle(
            port=port,
            latency=_Latency(latency, latency_spread, distribution, latency_per_token),
            faults=[_Fault(str(one.kind), one.every, one.on, one.between, one.retry_after) for one in faults],
            replies=list(replies),
            api_key=api_key,
            limits=_limits(options.get("requests_per_minute"), options.get("tokens_per_minute"), burst_seconds),
            seed=seed,
            counts_questions=options.get("count_questions", False),
        )
        self._last: SimulatorStats | None = None
        self._api_key = api_key
        simulators.add(self.url)

    @property
    def url(self) -> str:
        """Where it is, without a path: what Anthropic's SDK takes as ``base_url``."""
        return f"http://127.0.0.1:{self._handle.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's strategies and SDK take as ``base_url``."""
        return f"{self.url}/v1"

    @property
    def gemini_url(self) -> str:
        """What :class:`~batch_llm.GoogleStrategy` takes as ``base_url``."""
        return f"{self.url}/v1beta"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that replace every provider by it, with a made-up key.

        ``os.environ.update(provider.environment)`` for this process, ``env={**os.environ, **provider.environment}`` for
        a child. Strategies and the vendors' SDKs read them when they are made. Native strategies of all providers use
        it then, also past proxies; one with another ``base_url`` raises ``ValueError``. SDKs whose address no variable
        sets have no key that their provider takes.
        """
        variables = {SIMULATED: self.url}
        for row in table().values():
            variables.update(dict.fromkeys(row.address_variables, simulated_url(row, self.url)))
            variables.update(dict.fromkeys((*row.key_variables, *row.token_variables), self._api_key or "simulated"))
        variables["ANTHROPIC_BASE_URL"] = variables["GOOGLE_GEMINI_BASE_URL"] = self.url  # as SDKs want them
        for name in ("NO_PROXY", "no_proxy"):
            there = [part for part in os.environ.get(name, "").split(",") if part.strip()]
            variables[name] = ",".join(dict.fromkeys([*there, "127.0.0.1", "localhost"]))
        return variables

    @property
    def stats(self) -> SimulatorStats:
        """What it has seen so far."""
        counts = self._handle.counts()
        if counts is not None:
            return _stats(counts)
        assert self._last is not None
        return self._last

    def set_limits(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        burst_seconds: float = _BURST,
    ) -> None:
        """Change the quota from now on; it starts with full buckets."""
        self._handle.set_limits(_limits(requests_per_minute, tokens_per_minute, burst_seconds))

    def stop(self) -> None:
        """Stop and close all connections. Idempotent."""
        simulators.discard(self.url)
        counts = self._handle.stop()
        if counts is not None:
            self._last = _stats(counts)

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


def _limits(requests: float | None, tokens: float | None, burst: float) -> tuple[float | None, float | None, float]:
    for name, value in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be > 0 or None (got {value})")
    return requests, tokens, burst


def _stats(counts: dict[str, Any]) -> SimulatorStats:
    violations = [Violation(*early) for early in counts.pop("violations")]
    return SimulatorStats(**counts, violations=violations)
