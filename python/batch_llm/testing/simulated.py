"""A provider on this machine: real HTTP, deterministic answers, quotas, faults on schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .._checks import check_known
from .._core import SimulatorHandle
from .._llm import BATCH_PATHS, SIMULATED, simulated_url, simulators, table
from .batches import BatchFault as BatchFault
from .batches import BatchLedger, SimulatedBatches, ledger_of
from .clouds import CloudSource, CloudStats, settings_of, stats_of, variables
from .clouds import SimulatedClouds as SimulatedClouds
from .prompt_caches import PromptCaches, PromptCacheStats, ledger

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

FaultName = Literal[
    "billing", "daily_quota", "error_inside", "reset", "hang", "drip", "cut", "malformed", "html", "keep_alive",
    "stall", "ping_only", "stream_error", "checksum", "thinking",
    "crlf", "data_lines", "unknown_events", "running_usage", "no_call_indexes",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A scheduled fault. Requests are numbered from 1, in order of arrival.

    Args:
        kind: An HTTP status from 400 to 599; or ``"billing"`` or ``"daily_quota"`` (429s for which waiting does not
            help), ``"error_inside"`` (an error object inside a 200), ``"reset"`` (the connection closes without a
            reply), ``"hang"`` (there is never a reply), ``"drip"`` (the reply arrives byte by byte), ``"cut"`` (the
            reply is truncated), ``"malformed"`` (its JSON is invalid), ``"html"`` (a proxy's HTML page),
            ``"keep_alive"`` (blank lines and a comment before the JSON), ``"stall"`` (a stream stops after half of its
            events, and the connection stays open), ``"ping_only"`` (the same, but pings or comments continue),
            ``"stream_error"`` (an error event, "overloaded", in place of a stream's second half). For a reply that is
            not a stream, these three apply after the headers.
            ``"checksum"`` changes a byte of a stream of Bedrock's. The others are no faults but how some servers write
            streams: ``"thinking"`` (after its first event, only pings or comments arrive until the latency is over, and
            then the answer), ``"crlf"`` (lines end with CR LF), ``"data_lines"`` (the data of an event are several
            lines), ``"unknown_events"`` (events of an unknown kind in between), and in Chat Completions
            ``"running_usage"`` (the usage so far in each chunk) and ``"no_call_indexes"`` (fragments of tool calls
            without ``index``).
        every: Affects every N-th request; 0 = none.
        on: Numbers of the affected requests.
        between: First and last number of a range of affected requests.
        retry_after: The value of ``Retry-After``, seconds.

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
        at: When it came, in seconds since the start.
        limit: ``"requests"`` or ``"tokens"``.
        early_by: How much too early, seconds.
    """

    at: float
    limit: str
    early_by: float


@dataclass(frozen=True)
class FaultHit:
    """A request that a fault affected.

    Args:
        request: Its number, from 1 in order of arrival.
        kind: The fault's ``kind``, as text.
        question: The prompt (its last message), with ``count_questions=True``; empty if the fault took the place of any
            reply, for the prompt was not read then.
    """

    request: int
    kind: str
    question: str


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
        questions: How often each prompt (its last message) arrived in an accepted request, with
            ``count_questions=True``.
        faults: Requests that faults affected (10,000 at most).
        prompt_caches: The ledger of its prompt caches, with ``prompt_caches=``; else None.
        clouds: What its clouds have issued and checked, with ``clouds=``; else None.
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
    faults: list[FaultHit]
    prompt_caches: PromptCacheStats | None = None
    clouds: CloudStats | None = None


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


@dataclass(frozen=True)
class _Behaviour:
    """How to behave, as the extension needs it."""

    latency: _Latency
    faults: Sequence[_Fault]
    replies: Sequence[str]
    api_key: str | None
    limits: tuple[float | None, float | None, float]
    seed: int
    counts_questions: bool
    tls: bool
    prompt_caches: tuple[float, float, float] | None
    batches: SimulatedBatches
    clouds: tuple[float, int, int] | None
    queued: int | None


class SimulatedOptions(TypedDict, total=False):
    """What a :class:`SimulatedProvider` takes by name only: its quota, what it counts, encrypts and caches."""

    requests_per_minute: float | None
    tokens_per_minute: float | None
    burst_seconds: float
    seed: int
    count_questions: bool
    tls: bool
    prompt_caches: bool | PromptCaches
    batches: SimulatedBatches | None
    clouds: bool | SimulatedClouds
    queued: int | None


_ARGUMENTS = (
    "latency", "latency_spread", "faults", "replies", "api_key", "port", "distribution", "latency_per_token",
)  # fmt: skip
_BURST = 10.0
"""The default of ``burst_seconds``."""


class SimulatedProvider:
    """A simulated provider on a loopback port, in its own thread.

    It speaks OpenAI's Chat Completions, Responses and embeddings, Anthropic's Messages, and Google's generateContent,
    batchEmbedContents and context caches; and the batch APIs of these and others (:meth:`batch_url`). The vendors' own
    SDKs work with it too. All answers can be streamed. ::

        with SimulatedProvider(latency=0.05, faults=[Fault(429, every=100, retry_after=0.5)]) as provider:
            strategy = OpenAIStrategy("any-model", base_url=provider.base_url)

    The same request always gets the same answer and usage (one token per four bytes). Answers match the JSON Schema of
    the request, respect ``max_tokens``, and call a required tool, or all tools that the last message names.

    Answers include what a model expects back: thoughts with signatures (Anthropic with ``thinking``), signatures of
    function calls (Gemini), reasoning items (Responses with ``reasoning``), ``reasoning_content`` (Chat Completions,
    for model names that contain ``deepseek`` or ``kimi``). Requests that the real servers reject are rejected with the
    same messages: calls without results and results without calls, missing or modified thoughts (from ``gemini-3`` on,
    also signatures of function calls), empty text blocks, schemas that are not strict.

    Args:
        latency: Minimum time to a reply, seconds. Streams begin at once, spread their events over this time, and end
            when the plain reply would arrive.
        latency_spread: Variable part of the latency, seconds. It depends on the number of the request, so every run is
            alike.
        distribution: Distribution of the variable part: ``"uniform"`` from zero to ``latency_spread``; or
            ``"exponential"`` with ``latency_spread`` as the mean; or ``"lognormal"`` with it as the median.
        latency_per_token: Latency added per token of the answer, seconds.
        faults: Scheduled faults; if several affect a request, the first applies.
        replies: Templates for the answer's text. The prompt's hash selects one; ``{excerpt}`` is the beginning of the
            prompt's last line, ``{digest}`` its hash. By default, the answer echoes the prompt, or is a value that
            matches the schema.
        api_key: The only key accepted; any other gets a 401. None = no key is required, and any is accepted.
        requests_per_minute: Quota of requests, enforced with a token bucket and reported with each provider's own
            headers, codes and bodies.
        tokens_per_minute: Quota of tokens of prompts and answers.
        burst_seconds: How many seconds' worth of a quota may arrive at once (10 by default).
        seed: Seed for answers and latencies (0 by default).
        port: The port; 0 = a free one.
        count_questions: Whether to count how often each prompt arrives. All prompts are then held in memory. (False by
            default)
        tls: Whether to serve TLS 1.3, with HTTP/2 if the client offers it. Clients must trust :attr:`ca`. (False by
            default)
        prompt_caches: Whether prompts are cached as the vendors do it: with their cache markers and minimum lengths,
            the time until an entry can be read and until it expires, their usage fields and prices. A
            :class:`PromptCaches` sets how fast time passes. ``stats.prompt_caches`` has hits and costs. (False by
            default: nothing is cached, and cache markers are ignored.)
        batches: How the batch APIs behave (see :attr:`batches` and :meth:`batch_url`). (None by default: every batch
            takes 0.2 s, and nothing goes wrong.)
        clouds: Whether Bedrock, Vertex AI and Azure check credentials, and issue them (see
            :meth:`cloud_environment`); a :class:`SimulatedClouds` sets how long they live. (False by default:
            anybody is let in.)
        queued: Number of queued requests of other clients, which ``/metrics`` reports as vLLM does, with those that
            run. It does not delay answers. None, the default: ``/metrics`` is not served.

    Raises:
        TypeError: If an option is unknown; the message suggests the closest match.
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
        caches, queued = _prompt_caches(options.get("prompt_caches", False)), options.get("queued")
        if queued is not None and (type(queued) is not int or not 0 <= queued < 2**53):
            raise ValueError(f"queued must be an integer >= 0 or None (got {queued!r:.80})")
        batches = _batches(options.get("batches"))
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
        behaviour = _Behaviour(
            latency=_Latency(latency, latency_spread, distribution, latency_per_token),
            faults=[_Fault(str(one.kind), one.every, one.on, one.between, one.retry_after) for one in faults],
            replies=list(replies),
            api_key=api_key,
            limits=_limits(options.get("requests_per_minute"), options.get("tokens_per_minute"), burst_seconds),
            seed=seed,
            counts_questions=options.get("count_questions", False),
            tls=options.get("tls", False),
            prompt_caches=None
            if caches is None
            else (caches.time_scale, caches.requests_per_machine, caches.implicit_hits),
            batches=batches,
            clouds=settings_of(options.get("clouds", False)),
            queued=queued,
        )
        self._handle = SimulatorHandle(port, behaviour)
        self._caches = caches
        self._batches = batches
        self._last_batches: BatchLedger | None = None
        self._last: SimulatorStats | None = None
        self._api_key = api_key
        simulators.add(self.url)

    @property
    def url(self) -> str:
        """The address without a path, for the ``base_url`` of Anthropic's SDK."""
        scheme = "http" if self._handle.ca is None else "https"
        return f"{scheme}://127.0.0.1:{self._handle.port}"

    @property
    def base_url(self) -> str:
        """The ``base_url`` for OpenAI's strategies and SDK."""
        return f"{self.url}/v1"

    @property
    def gemini_url(self) -> str:
        """The ``base_url`` for :class:`~batch_llm.GoogleStrategy`."""
        return f"{self.url}/v1beta"

    @property
    def ca(self) -> str | None:
        """With ``tls=True``, the certificate of the authority that clients must trust (PEM); else None.

        For strategies, ``Transport(ca_bundle=provider.ca)``; for the vendors' SDKs and anything else that takes an
        ``ssl.SSLContext``, ``ssl.create_default_context(cadata=provider.ca)``. Each process has its own authority, made
        when it is first needed. It is not written to disk; its key never leaves the process.
        """
        return self._handle.ca

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that replace every provider by this one, with a made-up key.

        Use ``os.environ.update(provider.environment)`` for this process, ``env={**os.environ, **provider.environment}``
        for a child process. Strategies and the vendors' SDKs read the variables when they are created. Native
        strategies of all providers then use the simulated provider, bypassing proxies; one with another ``base_url``
        raises ``ValueError``. An SDK whose address no variable sets gets no key that its provider would accept. With
        ``tls=True``, clients also need :attr:`ca`.
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

    def cloud_environment(self, source: CloudSource) -> dict[str, str]:
        """Return environment variables with credentials of a simulated cloud, with ``clouds=``.

        Native strategies and the vendors' SDKs read them.

        Args:
            source: ``"aws"`` (a pair of keys), ``"aws_machine"`` or ``"aws_container"`` (session keys of a metadata
                service), ``"google_machine"``, ``"azure"`` (an application with a secret) or ``"azure_machine"``.

        Raises:
            ValueError: If there is no such source.
        """
        return variables(source, self.url)

    @property
    def stats(self) -> SimulatorStats:
        """Statistics of the requests so far."""
        counts = self._handle.counts()
        if counts is not None:
            return _stats(counts, self._caches)
        assert self._last is not None
        return self._last

    @property
    def batches(self) -> BatchLedger:
        """The batches so far, and what was paid for, live and in batches."""
        counts = self._handle.batches()
        if counts is not None:
            return ledger_of(counts, self._batches)
        assert self._last_batches is not None
        return self._last_batches

    def batch_url(self, provider: str) -> str:
        """Return a ``base_url`` with the batch API of a provider: its paths, states and quirks.

        All live endpoints exist there too. For OpenAI, Anthropic and Gemini it is the same as :attr:`base_url`,
        :attr:`url` and :attr:`gemini_url`.

        Args:
            provider: Its name: ``openai``, ``azure``, ``anthropic``, ``gemini``, ``mistral``, ``groq``, ``together``,
                ``xai`` or ``openrouter``.

        Raises:
            ValueError: If there is no batch API of that name.
        """
        below = BATCH_PATHS.get(provider)
        if below is None:
            raise ValueError(f"there is no batch API of {provider!r} here (known: {', '.join(BATCH_PATHS)})")
        return self.url + below

    def advance(
        self, *, days: float = 0.0, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0
    ) -> BatchLedger:
        """Advance the clock of batches, and return :attr:`batches`.

        Raises:
            ValueError: If the total is negative.
        """
        self._handle.advance(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
        return self.batches

    def set_limits(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        burst_seconds: float = _BURST,
    ) -> None:
        """Change the quotas from now on. Their token buckets start full."""
        self._handle.set_limits(_limits(requests_per_minute, tokens_per_minute, burst_seconds))

    def stop(self) -> None:
        """Stop the provider and close all connections. Idempotent."""
        simulators.discard(self.url)
        batches = self._handle.batches()
        if batches is not None:
            self._last_batches = ledger_of(batches, self._batches)
        counts = self._handle.stop()
        if counts is not None:
            self._last = _stats(counts, self._caches)

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


def _prompt_caches(given: bool | PromptCaches) -> PromptCaches | None:
    if isinstance(given, PromptCaches):
        return given
    if not isinstance(given, bool):
        raise TypeError(f"prompt_caches must be True, False or a PromptCaches, not {type(given).__name__}")
    return PromptCaches() if given else None


def _batches(given: SimulatedBatches | None) -> SimulatedBatches:
    if given is not None and not isinstance(given, SimulatedBatches):
        raise TypeError(f"batches must be a SimulatedBatches or None, not {type(given).__name__}")
    return SimulatedBatches() if given is None else given


def _stats(counts: dict[str, Any], caches: PromptCaches | None) -> SimulatorStats:
    violations = [Violation(*early) for early in counts.pop("violations")]
    faults = [FaultHit(*hit) for hit in counts.pop("faults")]
    found = counts.pop("prompt_caches")
    money = None if found is None or caches is None else ledger(found, caches)
    clouds = stats_of(counts.pop("clouds"))
    return SimulatorStats(**counts, violations=violations, faults=faults, prompt_caches=money, clouds=clouds)
