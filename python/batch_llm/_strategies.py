"""Whatever a user gives as a strategy, as a strategy. Used by every surface."""

from __future__ import annotations

import weakref
from types import FunctionType
from typing import Any

from ._llm import LLMCallStrategy
from ._secrets import quoted
from .callable_strategy import CallableStrategy

_OF_FUNCTIONS: weakref.WeakKeyDictionary[Any, CallableStrategy[Any]] = weakref.WeakKeyDictionary()
"""One strategy per function: it is prepared, limited and learned from as one."""


def as_strategy(given: Any) -> LLMCallStrategy[Any]:
    """Return a strategy object.

    Args:
        given: A strategy; a model's name, ``"openai:gpt-5-mini"``; or a function of a prompt, async or (run in a
            thread) not.

    Raises:
        TypeError: If it is something else; names what makes a strategy of it.
        ValueError: If a name is unknown; the message suggests the closest match.
    """
    if isinstance(given, LLMCallStrategy):
        return given
    if isinstance(given, str):
        from .native import llm

        return llm(given)
    if isinstance(given, type):
        raise TypeError(
            f"strategy must be an object, not the class {given.__name__}: create one with {given.__name__}(...)"
        )
    if callable(getattr(given, "execute", None)):
        strategy: LLMCallStrategy[Any] = given  # whatever has the methods is one
        return strategy
    module, kind = type(given).__module__.split(".")[0], type(given).__name__
    wrapper = _WRAPPERS.get(module)
    if wrapper is not None:
        raise TypeError(f"strategy must be an LLMCallStrategy, not {module}'s {kind}: wrap it in {wrapper}")
    if isinstance(given, FunctionType):
        made = _OF_FUNCTIONS.get(given)
        if made is None:
            made = _OF_FUNCTIONS[given] = CallableStrategy(given, threads=True)
        return made
    if callable(given):
        return CallableStrategy(given, threads=True)
    raise TypeError(
        f"strategy must be an LLMCallStrategy, a model's name such as 'openai:gpt-5-mini', or a function of a prompt; "
        f"not {kind} ({quoted(given)})"
    )


_WRAPPERS = {
    "pydantic_ai": "PydanticAIStrategy(agent)",
    "langchain_core": "batch_llm.adapters.LangChainStrategy(runnable)",
    "openai": "batch_llm.adapters.OpenAIClientStrategy(client, model=...)",
    "anthropic": "batch_llm.adapters.AnthropicClientStrategy(client, model=...)",
    "google": "batch_llm.adapters.GoogleClientStrategy(client, model=...)",
}
