"""Results as JSON and back, in files of ours: what comes back is what went in. Used by ``_keeping`` and ``inspection``.

Outputs that are models, dataclasses or the like are written as plain JSON beside the name of their class. They are made
again only if that class is there already, in a module that the program has imported: reading a file imports nothing and
runs no code but that of the class.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import sys
import weakref
from array import array
from collections.abc import Callable
from typing import Any

from .errors import ArtifactSerializationError
from .results import WorkItemResult
from .serialization import name_of, to_json_value, without_secrets
from .tools import ToolCall

_PLAIN = frozenset({str, int, float, bool, type(None)})
_SEEN: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
"""Classes of outputs that this process has written: also those that no module holds, made inside of functions."""


def encode(value: Any, encoder: Callable[[Any], Any] | None) -> tuple[Any, str | None]:
    """Return a value that JSON has, and what it was.

    Raises:
        ResultSerializationError: When it cannot be encoded; names the place.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value, None
    if kind is array:
        return {"typecode": value.typecode, "base64": base64.b64encode(value.tobytes()).decode()}, "array"
    if kind is list:
        kinds = {type(part) for part in value}
        if len(kinds) == 1 and (kinds & {array} or _is_class(next(iter(kinds)))):
            parts = [encode(part, encoder) for part in value]
            return [part for part, _ in parts], f"list {parts[0][1]}"
    if not _is_class(kind):
        return to_json_value(value, encoder, path="$.output", redact=False), None
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        value = dump(mode="json", by_alias=True)
    name = name_of(kind)
    _SEEN[name] = kind
    return to_json_value(value, encoder, path="$.output", redact=False), name


def _is_class(kind: type) -> bool:
    """Whether values of this class are something else than their JSON."""
    return (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "model_fields")
        or issubclass(kind, enum.Enum)
        or hasattr(kind, "_asdict")
        or (kind.__module__ in ("datetime", "uuid", "decimal") or kind.__module__.startswith("pathlib"))
    )


def decode(value: Any, name: str | None, strategy: Any = None) -> Any:
    """Make a value again.

    Raises:
        ArtifactSerializationError: When its class is not there, or does not take the value; names it and the remedy.
    """
    if name is None:
        return value
    kind, _, rest = name.partition(" ")
    if kind == "list":
        return [decode(part, rest, strategy) for part in value]
    if name == "array":
        return array(value["typecode"], base64.b64decode(value["base64"]))
    found = _find(name, strategy)
    if found is None:
        raise ArtifactSerializationError(
            f"it is a {name.replace(':', '.')}, which this program does not have: import it, or give the store an "
            "output_decoder"
        )
    try:
        return _make(found, value)
    except Exception as error:
        raise ArtifactSerializationError(
            f"{name.replace(':', '.')} does not take what is stored ({type(error).__name__}: {error}); give the store "
            "an output_decoder, or use another file"
        ) from error


def _find(name: str, strategy: Any) -> Any:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and _is_class(found):  # and nothing else that a file may name
        return found
    for attribute in ("response_model", "output_type"):
        given = getattr(strategy, attribute, None)
        if isinstance(given, type) and name_of(given) == name:
            return given
    return _SEEN.get(name)


def _make(kind: Any, value: Any) -> Any:
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if issubclass(kind, enum.Enum):
        return kind(value)
    try:
        from pydantic import TypeAdapter
    except ImportError:
        if type(value) is dict:
            return kind(**value)
        return kind(*value) if type(value) is list else kind(value)
    return TypeAdapter(kind).validate_python(value)


def told(
    result: WorkItemResult[Any, Any], output: bool, metadata: bool, encoder: Callable[[Any], Any] | None
) -> dict[str, Any]:
    """What a file tells of a result."""
    body: dict[str, Any] = {"attempts": result.attempts}
    if output and (result.success or result.output is not None):
        body["output"], kind = encode(result.output, encoder)
        if kind is not None:
            body["output_type"] = kind
    if result.error is not None:
        body["error"] = without_secrets(result.error)
    if result.token_usage:
        body["token_usage"] = result.token_usage
    if result.gemini_safety_ratings:
        body["gemini_safety_ratings"] = result.gemini_safety_ratings
    if metadata and result.metadata:
        more: Any = {name: value for name, value in result.metadata.items() if name != "raw"}
        if "tool_calls" in more or encoder is not None:
            more = to_json_value(more, encoder, path="$.metadata", redact=False)
        body["metadata"] = more
    return body


class StoredTiming:
    """The engine's notes of an item, read again."""

    __slots__ = ("_attempts",)

    def __init__(self, attempts: list[Any]) -> None:
        self._attempts = attempts

    def attempts(self, success: bool) -> list[Any]:
        """As the engine's."""
        return self._attempts

    def last(self) -> tuple[float, ...]:
        """As the engine's."""
        return tuple(self._attempts[-1][0]) if self._attempts else (0.0,) * 7


def result_of(
    item: Any, told: dict[str, Any], success: bool, category: str | None, decoder: Callable[[Any], Any] | None
) -> WorkItemResult[Any, Any]:
    """Make a result, for an item, of what :func:`told` said.

    Raises:
        ArtifactSerializationError: When its output cannot be made again; names the item and the remedy.
    """
    output = told.get("output")
    try:
        if decoder is not None and output is not None:
            output = decoder(output)
        elif "output_type" in told:
            output = decode(output, told["output_type"], item.strategy)
    except Exception as error:
        raise ArtifactSerializationError(f"item {item.item_id!r}: its stored output cannot be used: {error}") from error
    metadata: dict[str, Any] | None = told.get("metadata")
    calls = (metadata or {}).get("tool_calls")
    if metadata is not None and calls:
        metadata["tool_calls"] = [
            [ToolCall(**one) for one in call] if isinstance(call, list) else ToolCall(**call) for call in calls
        ]
    timing: Any = StoredTiming(told.get("timing") or [])
    usage: Any = told.get("token_usage") or {}
    return WorkItemResult(
        item.item_id,
        success,
        output,
        told.get("error"),
        item.context,
        usage,
        told.get("gemini_safety_ratings"),
        told.get("attempts", 0),
        None,
        timing,
        metadata,
        None,
        category,
    )
