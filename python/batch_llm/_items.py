"""Work items, and the callbacks that receive results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Generic

from ._pickles import copied, portable
from ._results import Result
from ._types import TContext, TInput, TOutput

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._llm import LLMCallStrategy

_GIVEN_AS = frozenset({FunctionType, MethodType, str})
"""What stands for a strategy: a function, or a model's name."""


@dataclass
class LLMWorkItem(Generic[TInput, TOutput, TContext]):
    """A prompt, and the strategy that answers it.

    Args:
        item_id: Names the item in results, events and logs; a non-empty string. Ids need not be unique;
            results with the same id differ in ``submission_index``.
        strategy: Answers the prompt. Share one strategy between items: ``prepare()`` runs once per object. A function
            of a prompt, or a model name (``"openai:gpt-5-mini"``), is converted to a strategy.
        prompt: The prompt; a string, or with native strategies also a list of strings and media, or of messages.
        context: Any object; the result has it, by reference.
        sample: 0, 1, 2, ...: keeps identical requests separate that would otherwise share an answer (``dedupe=True``).
        priority: Items with a higher priority start first; among equals, in order of submission.

    Raises:
        ValueError: If ``item_id`` is not a string, or is empty or only whitespace; or if ``priority`` or ``sample`` is
            not an integer.
        TypeError: If ``strategy`` is None.
    """

    item_id: str
    strategy: LLMCallStrategy[TOutput]
    prompt: Any = ""
    context: TContext | None = None
    priority: int = field(default=0, compare=False)
    sample: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.item_id, str) or not self.item_id:
            kind = type(self.item_id).__name__
            raise ValueError(
                f"item_id must be a non-empty string (got {kind}: {self.item_id!r}). Convert it with str(...)."
            )
        if self.item_id.isspace():
            raise ValueError(f"item_id cannot be whitespace only (got {self.item_id!r}).")
        given: Any = self.strategy
        if given is None:
            raise TypeError(
                f"item {self.item_id!r}: strategy is None; give it an LLMCallStrategy, a model's name or a function. "
                "For a run with one strategy for all prompts, pass dicts or (id, prompt) instead of items"
            )
        if type(given) in _GIVEN_AS:
            from ._strategies import as_strategy

            self.strategy = as_strategy(given)
        if type(self.priority) is not int:
            raise ValueError(f"item {self.item_id!r}: priority must be an integer (got {self.priority!r}).")
        if type(self.sample) is not int:
            raise ValueError(f"item {self.item_id!r}: sample must be an integer (got {self.sample!r}).")

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled; without a strategy that cannot be: a run gives such an item its own."""
        return {
            **self.__dict__,
            "strategy": portable(self.strategy, "the strategy of an item"),
            "context": portable(self.context, "the context of an item"),
        }

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = memo[id(self)] = object.__new__(type(self))
        # Strategies are shared: they are prepared once.
        made.__dict__.update(
            (name, value if name == "strategy" else copied(value, memo)) for name, value in self.__dict__.items()
        )
        return made


PostProcessorFunc = Callable[[Result[TOutput, TContext]], Awaitable[None] | None]
"""Called with every result; sync or async."""
ProgressCallbackFunc = Callable[[int, int, str], Awaitable[None] | None]
"""Called with ``(completed, total, item_id)``; sync or async."""
