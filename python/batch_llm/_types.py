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

    ``input_tokens`` counts the whole prompt, including ``cached_input_tokens`` read from the provider's cache and
    ``cache_write_tokens`` written to it, of which ``cache_write_1h_tokens`` were written for an hour.
    ``cache_storage_token_hours`` are the tokens stored in explicit caches, times the hours that were paid for.
    ``output_tokens`` counts the whole answer, including ``reasoning_tokens``.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    cache_storage_token_hours: int
    reasoning_tokens: int


@dataclass
class RetryState:
    """State that an item's attempts share.

    Each work item has one instance, passed to ``execute()`` and ``on_error()`` in all its attempts, and never shared
    with other items. ``data`` may be read and written directly.
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
        """Return the value of ``key``, or ``default``."""
        return self.data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set the value of ``key`` to any object."""
        self.data[key] = value

    def delete(self, key: str, raise_if_missing: bool = False) -> None:
        """Delete ``key``.

        Raises:
            KeyError: If the key does not exist and ``raise_if_missing`` is set.
        """
        if raise_if_missing:
            del self.data[key]
        else:
            self.data.pop(key, None)

    def clear(self) -> None:
        """Delete all keys."""
        self.data.clear()

    def __contains__(self, key: str) -> bool:
        """Whether there is a value under ``key``."""
        return key in self.data

    def __repr__(self) -> str:
        return f"RetryState({self.data!r})"


@dataclass(frozen=True)
class ToolCall:
    """A tool call requested by the model; in ``result.tool_calls``.

    To continue, send the calls back unchanged in an assistant message, before the results.

    Args:
        id: The provider's id of the call; send it back with the tool's result.
        name: The name of the tool.
        arguments: The arguments, as JSON text.
        value: The arguments as an object of the tool's ``parameters`` type, or a dict.
        state: What the provider expects back with the calls of a turn (Gemini's thought signatures, Claude's thinking
            blocks, reasoning items); on the first call of the turn. Opaque, and valid only for the same provider and
            model.
    """

    id: str
    name: str
    arguments: str
    value: Any = None
    state: str | None = field(default=None, repr=False)
