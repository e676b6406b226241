"""Batch APIs of a simulated provider: how they behave, what goes wrong, what was paid for. Used by ``simulated``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..prices import Price, price_of
from .prompt_caches import UNKNOWN

BATCH_PRICE = 0.5
"""What an answer costs in a batch, as a part of its price live."""


@dataclass(frozen=True)
class BatchFault:
    """A scheduled fault of the batch APIs. Batches are numbered from 1, in the order in which they are created.

    Args:
        kind: What goes wrong.

            When a batch is created: ``"create_lost"`` (it is made, the connection closes without a reply),
            ``"create_500_made"``, ``"create_500_not_made"``, ``"create_slow"`` or ``"create_slow:SECONDS"`` (the reply
            is a 504, and the batch is made so much later; 60 s by default), ``"upload_cut"`` (the connection closes in
            the middle of an upload; uploads have numbers of their own), ``"queue_full"`` (as the provider does it),
            ``"queue_full:late"`` (made, then failed with ``token_limit_exceeded``) or ``"queue_full:now"``,
            ``"second_batch"`` (two batches are made, as if a proxy had repeated the request), ``"no_credit"``
            (rejected; at Anthropic, all of its lines are).

            On its way: ``"stuck:STATE"`` (it never leaves the state ``waiting``, ``running``, ``writing`` or
            ``cancelling``, or what its provider calls it; one that is stuck running answers half of its lines),
            ``"expire_after:FRACTION"`` (so many of its lines are answered, the rest expires),
            ``"cancel_after:FRACTION"`` (somebody else cancels it then), ``"404_for:SECONDS"`` (it cannot be found),
            ``"list_lag:SECONDS"`` (it is missing from lists), ``"label_dropped"`` (metadata or name are not told),
            ``"capital_states"`` (states begin with a capital and ``created_at`` is text, as in Azure's older replies).

            Results: ``"all_failed"``, ``"no_output_file"``, ``"empty_error_file"``, ``"gone"`` (they cannot be fetched
            any more), ``"cut_download"`` (the first download breaks off), ``"no_content_type"``, ``"shuffle"`` (inline
            answers of Gemini come in any order, without their metadata; all others always do).

            Some lines: ``"line_status:STATUS"`` (an error; 0 = no status), ``"drop_lines"``, ``"repeat_lines"``,
            ``"foreign_lines"`` (lines that nobody has asked for), ``"u2028"`` (unescaped line separators of Unicode).
        every: Affects every N-th batch; 0 = none.
        on: Numbers of the affected batches.
        lines: For faults of lines, affects every N-th line of a batch.

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
    """How the batch APIs of a :class:`SimulatedProvider` behave. Times are seconds of their clock.

    A :class:`Fault` with a status, ``"reset"`` or ``"hang"`` also affects requests to the batch APIs; quotas do not.

    Args:
        delay: From the creation of a batch to its end. It waits for a tenth of that, and writes results for another.
        distribution: ``"fixed"``: every batch takes ``delay``; else as the latency of a :class:`SimulatedProvider`,
            with ``delay`` as its spread.
        faults: Scheduled faults; all that affect a batch apply.
        queue_tokens: The most tokens of prompts that an account may have in open batches of a model; None = no limit.
            OpenAI, Azure and Groq make a batch that exceeds it, and fail it; the others reject it (429).
        azure_at_once: Whether Azure rejects such a batch too (400), as it does in some regions.
        max_open: The most batches that an account may have open; more are rejected (429). None = no limit.
        list_lag: For how long a new batch is missing from lists.
        time_scale: How many seconds of the clock pass in a second. See also :meth:`SimulatedProvider.advance`.
        poll_interval: Two looks at the same batch that are closer than this are a violation. None = as the provider
            has it: 60 s for Azure, anything for the others.
        max_lines: The most lines of a batch; None = as the provider has it.
        max_bytes: The most bytes of a batch's input; None = as the provider has it.
        prices: Prices by model for the ledger, beside those of :mod:`batch_llm.prices`. A model without a price is
            counted at 1 dollar per million tokens of input and 5 of output.

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
    """A batch that a simulated provider has.

    Args:
        id: Its id, as the API tells it.
        provider: Whose batch API it belongs to, such as ``"openai"``.
        state: Its state in the provider's words.
        end: How it has ended: ``"completed"``, ``"failed"``, ``"expired"`` or ``"cancelled"``; None = it is open.
        label: Its metadata, or its name; None = it has none.
        nonce: What tells it from all others: the label (of several pairs, the one whose name contains ``nonce``, else
            the first), or else the beginning of the first ``custom_id`` up to a hyphen, or else the file's name.
        file: The name of the file with its lines; None = they came in the request.
        model: Its model; None = each line has one.
        endpoint: The path of the live endpoint that gives the same answers.
        lines: Number of its lines.
        succeeded: Lines that have an answer.
        failed: Lines that have an error.
        created: When it was made, in seconds since 1970 by the clock of batches.
        ended: When it ended, likewise; None = it is open.
        polls: How often somebody has looked at it.
        account: A number for the API key that made it.
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
        rule: ``"poll"`` (a look at a batch too soon after the last), ``"open"`` (more open batches than ``max_open``),
            ``"size"`` (too many lines or bytes), ``"banned"`` (a body with ``stream``, or a field that Anthropic does
            not take in batches), ``"create_without_list"`` (a second create with the same nonce, and neither a list nor
            a look at the first batch in between, though there may be one).
        detail: What happened.
    """

    at: float
    rule: str
    detail: str


@dataclass(frozen=True)
class LaneTotals:
    """What was paid for on one lane.

    Args:
        answers: Replies; an embeddings request is one, however many texts it has.
        input_tokens: Tokens of their prompts.
        output_tokens: Tokens of the answers.
        cost: What they cost, dollars.
    """

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class BatchLedger:
    """What the batch APIs of a simulated provider have seen, and what was paid for live and in batches.

    A line is paid for if it has an answer that can be fetched. A question is a model with its texts, schema and tools;
    with embeddings, each text is one.

    Args:
        batches: All batches, in the order in which they were made.
        per_nonce: Number of batches made, by nonce.
        live: What was paid for live.
        batch: What was paid for in batches, at half the price.
        paid_twice: How often a question was paid for that had been paid for before, over both lanes.
        questions: How often each question was paid for, ``(live, in batches)``, with ``count_questions=True``.
        violations: What a good client does not do (10,000 at most).
        calls: Requests by what they did: ``upload``, ``create``, ``poll``, ``list``, ``cancel``, ``download``,
            ``delete``.
        peak_open: Maximum number of open batches.
        peak_queue_tokens: Maximum number of tokens in the queue of an account and model, with ``queue_tokens=``.
        now: What the clock of batches says, in seconds since 1970.
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
