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

    **Share one object between items; one object per item costs money.** ``prepare()`` runs once per object. If it
    creates something that you pay for, such as a context cache, a thousand items with an object each pay a thousand
    times: for a prompt of 50,000 tokens, up to 50,000,000 tokens at full price instead of 50,000. Each object that
    creates a client also has its own connections.

    One object may serve many items and workers at the same time, all on one event loop. ``prepare()`` is called once,
    before the first item; ``execute()`` once per attempt; ``on_error()`` after each failed attempt; and ``cleanup()``
    once, after the last item of the run.

    Only ``process_all()`` calls ``cleanup()`` after *every* item, as in 0.3.0. There, do not close anything in
    ``cleanup()`` that other items still use; close clients after ``process_all()``.
    """

    async def prepare(self) -> None:
        """Set up the strategy; called once per strategy object and processor.

        If it raises, that item fails, and the next item calls it again. ``cleanup()`` is called anyway, so it must
        handle a partial setup.
        """

    @abstractmethod
    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Answer one prompt, in one attempt.

        Args:
            prompt: The prompt.
            attempt: The number of this attempt, from 1. It increases after rate limits too.
            timeout: The timeout of this attempt, seconds. For information only: the processor cancels the call when it
                expires.
            state: The item's state, shared by its attempts. Never None when called by a processor.

        Returns:
            The output and the token usage; optionally a third value, a dict, for the result's ``metadata``.

        Raises:
            Exception: The attempt fails; the error classifier decides whether it is retried. Set ``usage`` on the
                exception to account for the tokens of a failed call.
        """

    async def cleanup(self) -> None:
        """Release resources; called at the end of the run, or of each item. See :class:`LLMCallStrategy`."""

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
        """Return the error classifier to use if the processor has none; None for the default one."""
        return None

    async def dry_run(self, prompt: str) -> tuple[TOutput, TokenUsage]:
        """Return a mock answer, for ``ProcessorConfig(dry_run=True)``."""
        output: Any = f"[DRY-RUN] Mock output for prompt: {prompt[:50]}..."
        return output, {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
