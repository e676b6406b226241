"""Batch APIs of a simulated provider: their behavior, their faults, and what was paid for. Used by ``simulated``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..prices import Price, price_of
from .prompt_caches import UNKNOWN

BATCH_PRICE = 0.5
"""What an answer costs in a batch, as a fraction of its live price."""


@dataclass(frozen=True)
class BatchFault:
    """A scheduled fault of the batch APIs. Batches are numbered from 1, in the order in which they are created.

    Args:
        kind: What goes wrong.

            Creation: ``"create_lost"`` (the batch is created, but the connection closes without a reply),
            ``"create_500_made"`` and ``"create_500_not_made"`` (the reply is a 500; the batch is created, or not),
            ``"create_slow"`` or ``"create_slow:SECONDS"`` (the reply is a 504, and the batch is created that much
            later; 60 s by default), ``"upload_cut"`` (the connection closes in the middle of an upload; uploads are
            numbered separately), ``"queue_full"`` (the queue is full, reported in the provider's way),
            ``"queue_full:late"`` (the batch is created, then fails with ``token_limit_exceeded``) or
            ``"queue_full:now"`` (it is rejected), ``"second_batch"`` (two batches are created, as if a proxy had
            repeated the request), ``"no_credit"`` (the batch is rejected; at Anthropic, each of its lines).

            Processing: ``"stuck:STATE"`` (the batch never leaves the state ``waiting``, ``running``, ``writing`` or
            ``cancelling``, under the provider's name for it; one that is stuck in ``running`` answers half of its
            lines), ``"expire_after:FRACTION"`` (this fraction of its lines is answered, the rest expires),
            ``"cancel_after:FRACTION"`` (it is cancelled from elsewhere then), ``"404_for:SECONDS"`` (it cannot be
            found for this time), ``"list_lag:SECONDS"`` (it is missing from lists for this time), ``"label_dropped"``
            (replies lack its metadata or name), ``"capital_states"`` (states begin with a capital letter and
            ``created_at`` is text, as in Azure's older replies).

            Results: ``"all_failed"``, ``"no_output_file"``, ``"empty_error_file"``, ``"gone"`` (they can no longer be
            fetched), ``"cut_download"`` (the first download breaks off), ``"no_content_type"``, ``"shuffle"`` (Gemini's
            inline answers come in any order, without their metadata; all other answers always come in any order).

            Single lines: ``"line_status:STATUS"`` (an error; 0 = no status), ``"drop_lines"``, ``"repeat_lines"``,
            ``"foreign_lines"`` (answers to lines that were not in the input), ``"u2028"`` (unescaped Unicode line
            separators).
        every: Affects every N-th batch; 0 = none.
        on: Numbers of the affected batches.
        lines: For faults of single lines: affects every N-th line of a batch.

    Raises:
        ValueError: If a number is invalid. (An unknown ``kind`` is rejected when the provider starts.)
    """

    kind: str
    every: int = 0
    on: Sequence[int] = field(default=())
    lines: int = 10

    def __post_init__(self) -> None:
        if self.every < 0 or any(number < 1 for number in self.on):
            raise ValueError(f"every must be >= 0 and the numbers in on >= 1 (got {self.every}, {list(self.on)})")
        if self.lines < 1:
            raise ValueError(f"lines must be >= 1 (got {self.lines})")
        if not self.every and not self.on:
            raise ValueError("a fault needs every=N or on=[...], or it never happens")


@dataclass(frozen=True)
class SimulatedBatches:
    """How the batch APIs of a :class:`SimulatedProvider` behave. Times are in seconds of the batches' own clock.

    A :class:`Fault` with a status, ``"reset"`` or ``"hang"`` also affects requests to the batch APIs; quotas do not.

    Args:
        delay: Time from the creation of a batch to its end. For the first tenth of it the batch waits, in the last
            tenth it writes results.
        distribution: ``"fixed"``: every batch takes ``delay``. Otherwise as for the latency of a
            :class:`SimulatedProvider`, with ``delay`` as the spread.
        faults: Scheduled faults; all that affect a batch apply.
        queue_tokens: Maximum number of prompt tokens that an account may have in open batches of a model; None = no
            limit. If a batch exceeds it, OpenAI, Azure and Groq create the batch and then fail it; the others reject it
            (429).
        azure_at_once: Whether Azure rejects such a batch too (400), as it does in some regions.
        max_open: Maximum number of open batches of an account; more are rejected (429). None = no limit.
        list_lag: How long a new batch is missing from lists.
        time_scale: How many seconds of the clock pass in a real second. See also :meth:`SimulatedProvider.advance`.
        poll_interval: Polling the same batch at shorter intervals is a violation. None = the provider's rule: 60 s for
            Azure, no minimum for the others.
        max_lines: Maximum number of lines of a batch; None = the provider's limit.
        max_bytes: Maximum size of a batch's input, bytes; None = the provider's limit.
        prices: Prices by model, in addition to those of :mod:`batch_llm.prices`. A model without a price is counted at
            1 dollar per million input tokens and 5 per million output tokens.

    Raises:
        ValueError: If a value is invalid.
    """

    delay: float = 0.2
    distribution: Literal["fixed", "uniform", "exponential", "lognormal"] = "fixed"
    faults: Sequence[BatchFault] = field(default=())
    queue_tokens: int | None = None
    azure_at_once: bool = False
    max_open: int | None = None
    list_lag: float = 0.0
    time_scale: float = 1.0
    poll_interval: float | None = None
    max_lines: int | None = None
    max_bytes: int | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("delay", "list_lag", "poll_interval"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < math.inf:
                raise ValueError(f"{name} must be a number of seconds >= 0 (got {seconds!r})")
        for name in ("queue_tokens", "max_open", "max_lines", "max_bytes"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be >= 1 or None (got {number!r})")
        if not 0 < self.time_scale < math.inf:
            raise ValueError(f"time_scale must be > 0 (got {self.time_scale!r})")


@dataclass(frozen=True)
class SimulatedBatch:
    """A batch of a simulated provider.

    Args:
        id: Its id in the API.
        provider: The provider whose batch API it belongs to, such as ``"openai"``.
        state: Its state, by the provider's name.
        end: How it ended: ``"completed"``, ``"failed"``, ``"expired"`` or ``"cancelled"``; None = it is open.
        label: Its metadata, or its name; None = it has none.
        nonce: The text that identifies it: the label (of several metadata entries, the one whose name contains
            ``nonce``, otherwise the first); without a label, the first ``custom_id`` up to a hyphen; otherwise the name
            of the file.
        file: The name of its input file; None = the lines came in the request.
        model: Its model; None = each line names one.
        endpoint: The path of the live endpoint that gives the same answers.
        lines: Number of lines.
        succeeded: Number of lines with an answer.
        failed: Number of lines with an error.
        created: When it was created, seconds since 1970 by the clock of batches.
        ended: When it ended, likewise; None = it is open.
        polls: How often it was polled.
        account: A number that stands for the API key that created it.
    """

    id: str
    provider: str
    state: str
    end: Literal["completed", "failed", "expired", "cancelled"] | None
    label: dict[str, str] | str | None
    nonce: str | None
    file: str | None
    model: str | None
    endpoint: str
    lines: int
    succeeded: int
    failed: int
    created: float
    ended: float | None
    polls: int
    account: int


@dataclass(frozen=True)
class BatchViolation:
    """Something that a good client of batch APIs does not do.

    Args:
        at: When, in seconds of the clock since the start.
        rule: ``"poll"`` (a batch was polled again too soon), ``"open"`` (more open batches than ``max_open``),
            ``"size"`` (too many lines or bytes), ``"banned"`` (a body with ``stream``, or with a field that Anthropic
            does not accept in batches), ``"create_without_list"`` (a second batch with the same nonce was requested
            without listing the batches, or polling the first one, in between).
        detail: What happened.
    """

    at: float
    rule: str
    detail: str


@dataclass(frozen=True)
class LaneTotals:
    """What was paid for in one lane.

    Args:
        answers: Number of replies; an embeddings request counts as one, however many texts it has.
        input_tokens: Tokens of the prompts.
        output_tokens: Tokens of the answers.
        cost: Their cost, dollars.
    """

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class BatchLedger:
    """The batches of a simulated provider, and what was paid for live and in batches.

    A line is paid for if it has an answer that can be fetched. A question is a model with its texts, schema and tools;
    with embeddings, each text is a question.

    Args:
        batches: All batches, in the order in which they were created.
        per_nonce: Number of batches created, by nonce.
        live: What was paid for live.
        batch: What was paid for in batches, at half the price.
        paid_twice: How often a question was paid for that had already been paid for, live or in a batch.
        questions: How often each question was paid for, ``(live, in batches)``, with ``count_questions=True``.
        violations: What a good client does not do (10,000 at most).
        calls: Number of requests by kind: ``upload``, ``create``, ``poll``, ``list``, ``cancel``, ``download``,
            ``delete``.
        peak_open: Maximum number of open batches.
        peak_queue_tokens: Maximum number of tokens in the queue of an account and model, with ``queue_tokens=``.
        now: The time on the clock of batches, seconds since 1970.
    """

    batches: list[SimulatedBatch]
    per_nonce: dict[str, int]
    live: LaneTotals
    batch: LaneTotals
    paid_twice: int
    questions: dict[str, tuple[int, int]]
    violations: list[BatchViolation]
    calls: dict[str, int]
    peak_open: int
    peak_queue_tokens: int
    now: float

    @property
    def open(self) -> list[SimulatedBatch]:
        """Batches that have not ended."""
        return [batch for batch in self.batches if batch.end is None]


def ledger_of(counts: dict[str, Any], settings: SimulatedBatches) -> BatchLedger:
    """Price the counts of the extension."""
    totals = {"live": LaneTotals(), "batch": LaneTotals()}
    for lane, model, answers, read, written in counts.pop("lanes"):
        price = price_of(model, settings.prices) or UNKNOWN
        cost = price.of({"input_tokens": read, "output_tokens": written}) * (BATCH_PRICE if lane == "batch" else 1.0)
        before = totals[lane]
        totals[lane] = LaneTotals(
            before.answers + answers, before.input_tokens + read, before.output_tokens + written, before.cost + cost
        )
    return BatchLedger(
        batches=[_batch(row) for row in counts.pop("batches")],
        violations=[BatchViolation(*violation) for violation in counts.pop("violations")],
        live=totals["live"],
        batch=totals["batch"],
        **counts,
    )


def _batch(row: dict[str, Any]) -> SimulatedBatch:
    for name in ("end", "nonce", "file", "model"):
        row[name] = row[name] or None
    row["label"] = json.loads(row["label"]) if row["label"] else None
    return SimulatedBatch(**row)
