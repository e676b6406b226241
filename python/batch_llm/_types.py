"""Small public types that everything else may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, TypeVar

TInput = TypeVar("TInput")
TOutput = TypeVar("TOutput")
TContext = TypeVar("TContext")

ProgressDisplay = bool | Literal["auto", "tqdm", "rich", "notebook"]
"""True: a bar, or in a notebook the panel. ``"auto"``: the same, but an occasional line where there is no terminal."""


class TokenUsage(TypedDict, total=False):
    """Token counts of one call. A missing count, or None, counts as 0.

    ``input_tokens`` is the whole prompt; ``cached_input_tokens`` of it were read from the provider's cache and
    ``cache_write_tokens`` written to it. ``output_tokens`` is the whole answer, ``reasoning_tokens`` of it reasoning.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


@dataclass
class RetryState:
    """State that a strategy keeps between the attempts of an item.

    One fresh instance per work item, given to ``execute()`` and ``on_error()`` of all its attempts; never shared
    between items. ``data`` may be read and written directly.
    """

    data: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        # The engine makes states without calling __init__, for most are never looked into.
        if name == "data":
            data: dict[str, Any] = {}
            self.data = data
            return data
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under ``key``, else ``default``."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Store any object under ``key``."""
        self.data[key] = value

    def delete(self, key: str, raise_if_missing: bool = False) -> None:
        """Forget ``key``.

        Raises:
            KeyError: If there is no such key and ``raise_if_missing`` is set.
        """
        if raise_if_missing:
            del self.data[key]
        else:
            self.data.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self.data.clear()

    def __contains__(self, key: str) -> bool:
        """Whether there is a value under ``key``."""
        return key in self.data

    def __repr__(self) -> str:
        return f"RetryState({self.data!r})"


@dataclass(frozen=True)
class ToolCall:
    """A tool call requested by the model; in ``result.tool_calls``.

    To continue, send the calls back unchanged, in a message of the assistant, before the results.

    Args:
        id: The provider's id of the call; send it back with the tool's result.
        name: The tool.
        arguments: Its arguments, JSON text.
        value: The same as an object of the tool's ``parameters`` type, or a dict.
        state: What the provider wants back with the calls of its turn (Gemini's thought signatures, Claude's thinking
            blocks, reasoning items); on the first call of the turn. Opaque, for the same provider and model alone.
    """

    id: str
    name: str
    arguments: str
    value: Any = None
    state: str | None = field(default=None, repr=False)
