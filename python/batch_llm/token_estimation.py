"""Token estimates, which quotas and budgets reserve before an attempt is sent.

By default, prompts are estimated by their length and answers by previous answers. Actual usage replaces the estimate as
soon as it is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from ._checks import check_number, reject

__all__ = ["CharacterTokenEstimator", "TokenEstimate", "TokenEstimator"]


@dataclass(frozen=True)
class TokenEstimate:
    """The expected token usage of an attempt.

    Args:
        input_tokens: Tokens of the prompt, >= 0.
        output_tokens: Tokens of the answer, >= 0.

    Raises:
        ValueError: If a value is negative or not an integer.
    """

    input_tokens: int
    output_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            value = getattr(self, name)
            check_number(name, value, integer=True)
            if value < 0:
                reject(f"{name} must be >= 0", value, "It is a number of tokens.")

    @property
    def total_tokens(self) -> int:
        """The sum of input and output tokens."""
        return self.input_tokens + self.output_tokens


class TokenEstimator(Protocol):
    """A callable with this signature, sync or async."""

    def __call__(self, prompt: Any, *, strategy: Any, attempt: int, state: Any) -> Any:
        """Return a :class:`TokenEstimate`, or an awaitable of one.

        Args:
            prompt: The item's prompt.
            strategy: The item's strategy.
            attempt: Always 1: the estimate is made once per item, before its first attempt.
            state: Always None: there is no state before the first attempt.
        """


@dataclass(frozen=True)
class CharacterTokenEstimator:
    """Estimates tokens from the length of the prompt.

    Args:
        characters_per_token: > 0; about 4 for English, 2 to 3 for code, 1 to 2 for Chinese or Japanese.
        expected_output_tokens: Estimated tokens of an answer, >= 0.
        minimum_input_tokens: Minimum estimate for a prompt, >= 0.

    Raises:
        ValueError: If a value is invalid.
    """

    characters_per_token: float = 4.0
    expected_output_tokens: int = 256
    minimum_input_tokens: int = 1

    def __post_init__(self) -> None:
        check_number("characters_per_token", self.characters_per_token)
        if not 0 < self.characters_per_token < math.inf:
            reject("characters_per_token must be > 0", self.characters_per_token, "About 4 for English.")
        for name in ("expected_output_tokens", "minimum_input_tokens"):
            value = getattr(self, name)
            check_number(name, value, integer=True)
            if value < 0:
                reject(f"{name} must be >= 0", value, "It is a number of tokens.")

    def __call__(self, prompt: Any, *, strategy: Any = None, attempt: int = 1, state: Any = None) -> TokenEstimate:
        """Return the estimate for a prompt."""
        length = len(prompt) if isinstance(prompt, str) else len(str(prompt))
        tokens = max(self.minimum_input_tokens, math.ceil(length / self.characters_per_token))
        return TokenEstimate(tokens, self.expected_output_tokens)
