"""The estimated cost of a run of the command line, and its summary as text and JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from .._items import LLMWorkItem
from .._report import Costs
from .._results import BatchTermination, ProcessingStats, WorkItemResult
from .._shown import line
from ..errors import ERROR_MESSAGE_LIMIT
from ..estimates import Sampling
from ..pools import price_for
from .invalid_rows import InvalidRows


def estimate(items: Iterator[LLMWorkItem[Any, Any, Any]], invalid: InvalidRows, *, as_json: bool = False) -> None:
    """Print what a run would send: from the length of prompts, and the longest answers if those are bounded.

    Args:
        items: The items.
        invalid: The invalid rows.
        as_json: Whether to print JSON.
    """
    count, tokens, answers, cost, unbounded, unpriced = 0, 0.0, 0.0, 0.0, 0, 0
    for item in items:
        strategy: Any = item.strategy
        expected, longest = strategy._expect(item.prompt)[0], strategy._longest_answer()
        count, tokens, answers = count + 1, tokens + expected, answers + (longest or 0.0)
        unbounded += longest is None
        price = price_for(strategy)
        if price is None:
            unpriced += 1
        else:
            cost += price.of({"input_tokens": round(expected), "output_tokens": round(longest or 0)})
    if as_json:
        found = {
            "requests": count,
            "invalid_rows": invalid.count,
            "prompt_tokens": round(tokens),
            "most_answer_tokens": None if unbounded else round(answers),
            "cost": None if unpriced == count else round(cost, 6),
            "cost_has_answers": not unbounded,
            "requests_without_price": unpriced,
        }
        click.echo(json.dumps({"version": 1, "command": "run", "run": None, "data": found}))
        return
    click.echo(f"{count:,} requests, about {tokens:,.0f} prompt tokens; nothing was sent")
    if invalid.count:
        click.echo(_example_of(invalid))
    if unbounded < count:
        click.echo(f"at most {answers:,.0f} answer tokens")
    bound = "if every answer has its maximum length"
    if unbounded:
        bound = "prompts only; set --max-tokens to bound the answers"
    if unpriced < count:
        click.echo(f"about ${cost:,.4f} by list prices ({bound})")
    if unpriced:
        click.echo(f"the cost of {unpriced:,} requests is unknown")


def estimate_by_sample(
    items: Iterator[LLMWorkItem[Any, Any, Any]], invalid: InvalidRows, sampling: Sampling, *, as_json: bool = False
) -> None:
    """Print what a run would send and cost, with the tokens of a sample counted.

    Args:
        items: The items.
        invalid: The invalid rows.
        sampling: What estimates it.
        as_json: Whether to print JSON.
    """
    for item in items:
        sampling.add(item)
    try:
        found = asyncio.run(sampling.estimate())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        data = {**found.to_dict(), "invalid_rows": invalid.count}
        click.echo(json.dumps({"version": 1, "command": "run", "run": None, "data": data}))
        return
    click.echo(str(found))
    if invalid.count:
        click.echo(_example_of(invalid))


def _example_of(invalid: InvalidRows) -> str:
    """Return the summary line of invalid rows, with an example."""
    number, problem = invalid.first or (0, "")
    return f"invalid rows: {invalid.count:,}, for example row {number}: {problem.removeprefix('invalid row: ')}"


class Tally:
    """The outcome of a run, counted as it goes.

    Args:
        invalid: The invalid rows.
        stores: Whether all results are stored in memory.

    Attributes:
        is_whole: Whether every row is in the output.
        requeued: Results of items that were sent again after they had failed.
        is_outdated: Whether rows were written for which there is an answer by now.
        unwritten: The output, if it was not written.
    """

    def __init__(self, invalid: InvalidRows, *, stores: bool) -> None:
        self.total = self.succeeded = self.reused = self.not_sent = self.in_batch = 0
        self.tokens: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.costs = Costs()
        self.seconds = 0.0
        self.termination = BatchTermination()
        self.stats: ProcessingStats | None = None
        self.is_whole = False
        self.requeued: list[WorkItemResult[Any, Any]] = []
        self.is_outdated = False
        self.unwritten: str | None = None
        self.invalid = invalid
        self.results: list[WorkItemResult[Any, Any]] = []
        self._stores = stores

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.total - self.succeeded - self.not_sent

    def add(self, result: WorkItemResult[Any, Any]) -> None:
        """Count a result."""
        self.total += 1
        self.succeeded += bool(result.success)
        if result.not_sent:
            self.not_sent += 1
            self.in_batch += result.in_batch
        elif not result.success:
            category = result.error_category or "unknown"
            self.errors[category] += 1
            self.examples.setdefault(category, " ".join(str(result.error).split())[:ERROR_MESSAGE_LIMIT])
        if self._stores:
            self.results.append(result)
        if result.reused is not None:
            self.reused += 1
            return
        self._account(result)

    def _account(self, result: WorkItemResult[Any, Any]) -> None:
        usage: Any = result.token_usage or {}
        for name in ("input_tokens", "output_tokens"):
            self.tokens[name] += usage.get(name) or 0
        self.costs.add(result)

    def went_on_from(self, first: Tally) -> None:
        """Take over what a run has used whose rows were only written anew here; its requeued items included.

        Args:
            first: The tally of that run.
        """
        for result in first.requeued:
            first._account(result)
        self.reused, self.tokens, self.costs = first.reused, first.tokens, first.costs
        self.seconds, self.stats, self.termination = first.seconds + self.seconds, first.stats, first.termination

    def expect(self, total: int) -> None:
        """Count rows that have no result as not sent.

        Args:
            total: How many rows there are.
        """
        more = total - self.invalid.count - self.total
        if more > 0:
            self.not_sent += more
            self.total += more

    def text(self, store: str | None) -> str:
        """Return it as text.

        Args:
            store: Where results are stored.
        """
        again = f" ({self.reused:,} reused)" if self.reused else ""
        lines = [f"{self.succeeded:,} of {self.total + self.invalid.count:,} answered{again} in {self.seconds:,.1f} s"]
        if any(self.tokens.values()):
            cost = "" if self.costs.unpriced and not self.costs.known else f", ${self.costs.known:,.4f} by list prices"
            lines[0] += (
                f"; {self.tokens['input_tokens']:,} input + {self.tokens['output_tokens']:,} output tokens{cost}"
            )
        if self.invalid.count:
            lines.append(_example_of(self.invalid))
        for name, count in self.errors.most_common(8):
            lines.append(f"{count:,} failed: {name}, for example: {self.examples[name]}")
        if self.termination.kind not in ("completed", "in_batch"):
            lines.append(f"ended early: {self.termination.reason}")
        if self.in_batch:
            lines.append(f"{self.in_batch:,} rows are waiting in batches; see: batch-llm batches {store}")
        if unsent := self.not_sent - self.in_batch:
            lines.append(f"{unsent:,} rows were not sent{'; the output marks them' if self.is_whole else ''}")
        if self.unwritten is not None:
            kept = os.path.lexists(self.unwritten)
            lines.append(f"{self.unwritten} {'is unchanged' if kept else 'was not written'}")
        if store is not None and (self.failed or self.termination.kind != "completed"):
            see = f"; see: batch-llm inspect {store} --failed" if self.failed else ""
            todo = "collect the answers" if self.in_batch else f"resume from {store}"
            lines.append(f"To {todo}, run the same command again{see}")
        return "\n".join(map(line, lines))

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(
            {
                "total": self.total + self.invalid.count,
                "succeeded": self.succeeded,
                "failed": self.failed,
                "invalid": self.invalid.count,
                "not_sent": self.not_sent,
                "in_batch": self.in_batch,
                "reused": self.reused,
                "errors": dict(self.errors),
                "input_tokens": self.tokens["input_tokens"],
                "output_tokens": self.tokens["output_tokens"],
                "cost": round(self.costs.known, 6),
                "requests_without_price": self.costs.unpriced,
                "seconds": round(self.seconds, 3),
                "termination": self.termination.kind,
            }
        )
