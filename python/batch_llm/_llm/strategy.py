"""The base class of strategies. Public as part of :mod:`batch_llm.llm_strategies`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic

from .._secrets import quoted
from .._types import RetryState, TokenUsage, TOutput

if TYPE_CHECKING:
    from ..strategies.errors import ErrorClassifier


class LLMCallStrategy(ABC, Generic[TOutput]):
    """Answers prompts. Subclass it to call any model in any way.

    **Share one object between items: one per item costs money.** ``prepare()`` runs once per object. Where it makes
    something that is paid, such as a context cache, a thousand items with an object each pay for it a thousand times:
    with a prompt of 50,000 tokens up to 50,000,000 tokens at full price instead of 50,000. Each object also has
    its own connections, if it creates a client.

    One object may serve many items and workers at the same time, all on one event loop. Called are ``prepare()`` once,
    before the first item that uses it; per item ``execute()`` once per attempt, and ``on_error()`` after each failed
    one; and ``cleanup()`` once, after the last item of the run.

    With ``process_all()`` (and only there) ``cleanup()`` is called as in 0.3.0, after *every* item: a strategy for it
    must not close there what other items still use; close clients after ``process_all()``.
    """

    async def prepare(self) -> None:
        """Get ready; called once per strategy object and processor.

        If it raises, that item fails, and the next item tries again. ``cleanup()`` is called anyway, so it must
        handle a half-finished ``prepare()``.
        """

    @abstractmethod
    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Answer one prompt, once.

        Args:
            prompt: The prompt.
            attempt: Number of this attempt, from 1. It grows after rate limits too.
            timeout: The time that the processor gives this attempt, seconds. For information: the processor cancels
                the call when it is over.
            state: The item's state, kept between its attempts. Never None when called by a processor.

        Returns:
            The output, and the tokens it took; a third value, a dict, becomes the result's ``metadata``.

        Raises:
            Exception: A failed attempt; the error classifier decides whether there is another one. Attach
                ``usage`` to the exception to account for tokens that a failed call has cost.
        """

    async def cleanup(self) -> None:
        """Release resources; called at the end of the run, or of each item. See the class."""

    def check_prompt(self, prompt: Any) -> None:
        """Check a prompt that is not a string; called by ``add_work()``. Override it to accept other types.

        Raises:
            TypeError: By default, always.
        """
        raise TypeError(
            f"prompt must be a string, not {type(prompt).__name__} ({quoted(prompt)}); convert it, move it to "
            "context, or override check_prompt() in the strategy"
        )

    async def on_error(self, exception: Exception, attempt: int, state: RetryState | None = None) -> None:
        """Handle a failed attempt; called before the decision to retry."""

    def recommended_error_classifier(self) -> ErrorClassifier | None:
        """Return the error classifier for this strategy where the processor was given none; None: the default one."""
        return None

    async def dry_run(self, prompt: str) -> tuple[TOutput, TokenUsage]:
        """Answer without a call, for ``ProcessorConfig(dry_run=True)``."""
        output: Any = f"[DRY-RUN] Mock output for prompt: {prompt[:50]}..."
        return output, {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
