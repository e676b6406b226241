"""Estimates of a run from a sample of its items: ``dry_run="sample"``. Used by ``prompts`` and the command line."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._native import NativeStrategy
from ._results import RunEstimate, by_length, by_sample
from ._secrets import quoted
from ._token_counts import UncountableError, at_provider, local
from .pools import price_for
from .results import BatchResult

if TYPE_CHECKING:
    from ._items import LLMWorkItem
    from ._results import Interval
    from ._run import Source
    from .core.config import ProcessorConfig
    from .prices import Price

__all__ = ["RunEstimate"]

SAMPLE = 400
"""How many items are counted."""
AT_PROVIDER = 100
"""How many, if the provider counts them: requests per minute that even the lowest tiers have."""
READ = 1_000
EXPECTED_OUTPUT = 256.0
"""Tokens of an answer of unknown length."""


class Sampling:
    """Read the items of a run, and estimate it.

    Args:
        lane: The lane of the run, for its price.
        config: The settings of the run: the user's own prices, and limits for requests that count tokens.
        tokenizer: The path of a ``tokenizer.json``, or ``hf:owner/name``; by default the model's own, if it is there.
    """

    def __init__(
        self, lane: str | None = None, config: ProcessorConfig | None = None, tokenizer: str | None = None
    ) -> None:
        self._lane, self._config, self._tokenizer = lane, config, tokenizer
        self._prices: Mapping[str, Price] | None = None if config is None else config.guardrails.prices
        self._random = random.Random(0)  # noqa: S311 - the same sample each time
        self._sample: list[tuple[Any, Any, float]] = []
        self._items = 0
        self._expected = self._output = 0.0
        self._most: float | None = 0.0
        self._cost: list[float] | None = [0.0, 0.0, 0.0]
        """Of prompts by their length, of expected answers, of the longest answers."""

    async def batch(self, source: Source) -> BatchResult[Any, Any]:
        """Read a source to its end; return a batch without results, with the estimate.

        Raises:
            TypeError: If a strategy is not native.
            ValueError: If the tokenizer cannot be used.
        """
        try:
            while items := await source.read(READ):
                for item in items:
                    self.add(item)
        finally:
            await source.close()
        return BatchResult([], prices=self._prices, estimate=await self.estimate())

    def add(self, item: LLMWorkItem[Any, Any, Any]) -> None:
        """Take an item into account.

        Raises:
            TypeError: If its strategy is not native.
        """
        strategy: Any = item.strategy
        if not isinstance(strategy, NativeStrategy):
            raise TypeError(
                "dry_run='sample' needs a native strategy, such as 'openai:gpt-5-mini', not "
                f"{type(strategy).__name__}: only native strategies know the requests that they send"
            )
        tokens, longest = strategy._expect(item.prompt)[0], strategy._longest_answer()
        output = EXPECTED_OUTPUT if longest is None else min(longest, EXPECTED_OUTPUT)
        self._items += 1
        self._expected += tokens
        self._output += output
        self._most = None if longest is None or self._most is None else self._most + longest
        self._price(strategy, tokens, output, longest or 0.0)
        # Each item is in the sample with the same probability (Vitter's algorithm R).
        place = len(self._sample) if len(self._sample) < SAMPLE else self._random.randrange(self._items)
        if place < SAMPLE:
            self._sample[place : place + 1] = [(strategy, item.prompt, tokens)]

    def _price(self, strategy: Any, tokens: float, output: float, longest: float) -> None:
        price = price_for(strategy, self._prices)
        if price is None or self._cost is None:
            self._cost = None
            return
        price = price.in_lane(self._lane)
        for number, usage in enumerate(({"input_tokens": round(tokens)}, {"output_tokens": round(output)},
                                        {"output_tokens": round(longest)})):  # fmt: skip
            self._cost[number] += price.of(usage)

    async def estimate(self) -> RunEstimate:
        """Count the sample, and return the estimate.

        Raises:
            ValueError: If the tokenizer cannot be used.
        """
        tokens, sampled, how, sent = await self._counted()
        cost = None
        if self._cost is not None:
            prompts, output, longest = self._cost
            scale = 1.0 / self._expected if self._expected else 0.0
            low, about, high = (prompts * count * scale for count in tokens)
            cost = (low, about + output, None if self._most is None else high + longest)
        most = None if self._most is None else round(self._most)
        return RunEstimate(self._items, sampled, tokens, round(self._output), most, cost, how, sent)

    async def _counted(self) -> tuple[Interval, int, str, int]:
        """Tokens of all prompts, how many prompts were counted, how, and how many the provider was sent."""
        if not self._sample:
            return by_length(0.0), 0, "nothing: there are no items", 0
        sent = 0
        try:
            counted, names, to_count = self._counted_here()
            if to_count:
                # In a random order, for the sample is cut.
                self._random.shuffle(self._sample)
                self._sample = self._sample[:AT_PROVIDER]
                counted, names, to_count = self._counted_here()
                _check_keys(to_count)
                sent = len(to_count)
                counts = await at_provider([(strategy, prompt) for strategy, prompt, _ in to_count], self._config)
                found = zip(to_count, counts, strict=True)
                counted += [(tokens, float(count)) for (_, _, tokens), count in found if count is not None]
        except UncountableError as error:
            why = f"their length, 4 bytes per token, which may be wrong by -33% to +100%: {error}"
            return by_length(self._expected), 0, why, sent
        which = "all prompts" if len(counted) == self._items else f"a sample of {len(counted):,}"
        how = f"{' and '.join(names)}, {which}"
        return by_sample(counted, self._expected, self._items), len(counted), how, sent

    def _counted_here(self) -> tuple[list[tuple[float, float]], list[str], list[tuple[Any, Any, float]]]:
        """Tokens by length and as counted on this machine, the names of what counts, and what providers have to count.

        Raises:
            UncountableError: If neither can count some of the sample.
        """
        counted: list[tuple[float, float]] = []
        names: list[str] = []
        to_count: list[tuple[Any, Any, float]] = []
        of_strategies: dict[int, list[tuple[Any, Any, float]]] = {}
        for one in self._sample:
            of_strategies.setdefault(id(one[0]), []).append(one)
        for sample in of_strategies.values():
            strategy = sample[0][0]
            try:
                count, name = local(strategy, self._tokenizer)
                counted += [(tokens, float(count(prompt))) for _, prompt, tokens in sample]
            except UncountableError:
                if not strategy._client.counts:
                    raise
                to_count += sample
                name = f"{strategy.provider}'s endpoint that counts tokens"
            names.append(name)
        return counted, list(dict.fromkeys(names)), to_count


def _check_keys(to_count: list[tuple[Any, Any, float]]) -> None:
    """Check that there are keys, before anything is sent.

    Raises:
        UncountableError: If one is missing.
    """
    for strategy in {id(one[0]): one[0] for one in to_count}.values():
        try:
            strategy._key()
        except ValueError as error:
            raise UncountableError(f"{strategy.provider} could count the tokens, but {error}") from error


def sampling_of(options: dict[str, Any], config: ProcessorConfig | None) -> Sampling | None:
    """Return what estimates a run, if that is wanted; ``dry_run`` and ``tokenizer`` are taken out of the options.

    Raises:
        TypeError: If ``tokenizer`` is neither a string nor a path.
        ValueError: If ``dry_run`` is anything but ``"sample"``, or there is a ``tokenizer`` without it.
    """
    wanted, tokenizer = options.pop("dry_run", None), options.pop("tokenizer", None)
    if tokenizer is not None and not isinstance(tokenizer, (str, os.PathLike)):
        raise TypeError(
            f"tokenizer must be the path of a tokenizer.json, or 'hf:owner/name', not {type(tokenizer).__name__}"
        )
    if wanted is None and tokenizer is not None:
        raise ValueError("tokenizer needs dry_run='sample': only estimates count tokens")
    if wanted is None:
        return None
    if wanted != "sample":
        raise ValueError(
            f"dry_run must be 'sample' or None, not {quoted(wanted)}; for mock answers, "
            "pass config=ProcessorConfig(dry_run=True)"
        )
    return Sampling(options.get("lane"), config, None if tokenizer is None else os.fspath(tokenizer))
