"""Estimates of a run from a sample of its items: ``dry_run="sample"``. Used by ``prompts`` and the command line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._logs import logger
from ._native import NativeStrategy
from ._results import RunEstimate, by_length, by_sample
from ._secrets import quoted
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
READ = 1_000
EXPECTED_OUTPUT = 256.0
"""Tokens of an answer of unknown length."""
FRAME, PRIMER = 3, 3
"""Tokens around each message of a chat, and before the answer (OpenAI's cookbook, "How to count tokens")."""


class Sampling:
    """Read the items of a run, and estimate it.

    Args:
        lane: The lane of the run, for its price.
        prices: The user's own prices.
    """

    def __init__(self, lane: str | None = None, prices: Mapping[str, Price] | None = None) -> None:
        self._lane, self._prices = lane, prices
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
        """
        try:
            while items := await source.read(READ):
                for item in items:
                    self.add(item)
        finally:
            await source.close()
        return BatchResult([], prices=self._prices, estimate=self.estimate())

    def add(self, item: LLMWorkItem[Any, Any, Any]) -> None:
        """Take an item into account.

        Raises:
            TypeError: If its strategy is not native.
        """
        strategy: Any = item.strategy
        if not isinstance(strategy, NativeStrategy):
            raise TypeError(
                "dry_run='sample' needs a native strategy, such as 'openai:gpt-5-mini', not "
                f"{type(strategy).__name__}: nobody else knows what is sent"
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

    def estimate(self) -> RunEstimate:
        """Count the sample, and return the estimate."""
        tokens, sampled, how = self._counted()
        cost = None
        if self._cost is not None:
            prompts, output, longest = self._cost
            scale = 1.0 / self._expected if self._expected else 0.0
            low, about, high = (prompts * count * scale for count in tokens)
            cost = (low, about + output, None if self._most is None else high + longest)
        most = None if self._most is None else round(self._most)
        return RunEstimate(self._items, sampled, tokens, round(self._output), most, cost, how)

    def _counted(self) -> tuple[Interval, int, str]:
        counters: dict[int, Callable[[Any], int]] = {}
        counted, names = [], []
        try:
            for strategy, prompt, tokens in self._sample:
                if id(strategy) not in counters:
                    counters[id(strategy)], name = counter(strategy)
                    names.append(name)
                counted.append((tokens, float(counters[id(strategy)](prompt))))
        except UncountableError as error:
            why = f"their length, 4 bytes per token, which may be wrong by -33 % to +100 %: {error}"
            return by_length(self._expected), 0, why
        if not counted:
            return by_length(0.0), 0, "nothing: there are no items"
        which = "all of them" if len(counted) == self._items else f"a sample of {len(counted):,}"
        how = f"{' and '.join(dict.fromkeys(names))}, {which}"
        return by_sample(counted, self._expected, self._items), len(counted), how


def sampling_of(options: dict[str, Any], config: ProcessorConfig | None) -> Sampling | None:
    """Return what estimates a run, if that is wanted; ``dry_run`` is taken out of the options.

    Raises:
        ValueError: If ``dry_run`` is anything but ``"sample"``.
    """
    wanted = options.pop("dry_run", None)
    if wanted is None:
        return None
    if wanted != "sample":
        raise ValueError(
            f"dry_run must be 'sample' or None, not {quoted(wanted)}; for mock answers, "
            "pass config=ProcessorConfig(dry_run=True)"
        )
    return Sampling(options.get("lane"), None if config is None else config.guardrails.prices)


class UncountableError(Exception):
    """Tokens cannot be counted; says why."""


def counter(strategy: Any) -> tuple[Callable[[Any], int], str]:
    """Return what counts the tokens of a prompt for a strategy, and its name.

    Raises:
        UncountableError: If no tokenizer of the model is public, or it is not there.
    """
    if strategy.provider not in ("openai", "azure"):
        raise UncountableError(f"no tokenizer of {strategy.model} is public")
    try:
        import tiktoken
    except ImportError:
        raise UncountableError("tiktoken is not installed (pip install 'batch-llm[tiktoken]')") from None
    try:
        encoding = tiktoken.encoding_for_model(strategy.model)
    except KeyError:
        raise UncountableError(f"tiktoken does not know {strategy.model}") from None
    except Exception as error:  # it downloads the encoding the first time
        logger.debug("tiktoken cannot load the encoding of %s: %s", strategy.model, error)
        why = f"tiktoken cannot load the encoding of {strategy.model} ({type(error).__name__})"
        raise UncountableError(why) from error
    asked = strategy._asks

    def tokens_of(text: str) -> int:
        return len(encoding.encode(text, disallowed_special=()))

    system = asked.get("system_prompt")
    fixed = PRIMER + (tokens_of(system) + FRAME if system else 0)
    for name in ("tools", "schema"):
        if asked.get(name):
            fixed += tokens_of(json.dumps(asked[name], default=str))

    def count(prompt: Any) -> int:
        return fixed + sum(FRAME + tokens_of(text) for text in _texts(prompt))

    return count, f"tiktoken ({encoding.name})"


def _texts(prompt: Any) -> list[str]:
    """The text of each message of a prompt.

    Raises:
        UncountableError: If there is anything but text in it.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        raise UncountableError(f"a prompt is a {type(prompt).__name__}")
    if all(isinstance(part, str) for part in prompt):
        return ["".join(prompt)]
    texts = []
    for message in prompt:
        if not isinstance(message, Mapping) or not {"role", "content"} >= set(message):
            raise UncountableError("a prompt has media, or calls of tools")
        content = message["content"]
        parts = [content] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise UncountableError("a message has no text")
        texts.append("".join(_text_of(part) for part in parts))
    return texts


def _text_of(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
    if not isinstance(text, str):
        raise UncountableError("a prompt has media, or calls of tools")
    return text
