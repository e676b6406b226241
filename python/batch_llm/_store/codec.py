"""Results as JSON and back, in files of ours: what comes back is what went in. Used by ``run_store``, ``inspection``.

Outputs that are models, dataclasses or the like are written as plain JSON beside the name of their class. They are made
again only if that class is one of the strategy's own, or the user gave it to the store (``output_types``): a file
chooses among these, and imports and makes nothing else.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
from array import array
from collections.abc import Callable, Mapping
from typing import Any

from .._json_values import name_of, to_json_value, without_secrets
from .._messages import as_messages
from .._results import WorkItemResult
from ..errors import ERROR_MESSAGE_LIMIT, ArtifactSerializationError
from ..tools import ToolCall
from .output_types import remember

_PLAIN = frozenset({str, int, float, bool, type(None)})
_TYPECODES = frozenset("bBhHiIlLqQfd")


class UnreadableRecordError(Exception):
    """A record is not what was written: it counts as not there."""


def encode(value: Any, encoder: Callable[[Any], Any] | None, strategy: Any = None) -> tuple[Any, str | None]:
    """Return a value that JSON has, and what it was. ``strategy``: whose output it is.

    NaN and infinity become ``{"$float": "nan"}``, for a model whose number is null would not fit any more.

    Raises:
        ResultSerializationError: If it cannot be encoded; the message says where.
    """
    kind = type(value)
    if kind in _PLAIN:
        return (value, None) if kind is not float or math.isfinite(value) else (_marked(value), None)
    if kind is array:
        return {"typecode": value.typecode, "base64": base64.b64encode(value.tobytes()).decode()}, "array"
    if kind is list:
        kinds = {type(part) for part in value}
        if len(kinds) == 1 and (kinds & {array} or _is_class(next(iter(kinds)))):
            parts = [encode(part, encoder, strategy) for part in value]
            return [part for part, _ in parts], f"list {parts[0][1]}"
    if not _is_class(kind):
        return to_json_value(value, encoder, path="$.output", redact=False, odd=_marked), None
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        value = dump(mode="json", by_alias=True)
    if strategy is not None:
        remember(strategy, kind)
    return to_json_value(value, encoder, path="$.output", redact=False, odd=_marked), name_of(kind)


_MARK = "$float"


def _marked(number: float) -> dict[str, str]:
    return {_MARK: repr(number)}


def _unmarked(value: Any) -> Any:
    """A value with NaN and infinity in the places where they were."""
    if type(value) is list:
        return [_unmarked(part) for part in value]
    if type(value) is not dict:
        return value
    if len(value) == 1 and value.get(_MARK) in ("nan", "inf", "-inf"):
        return float(value[_MARK])
    return {name: _unmarked(part) for name, part in value.items()}


def _is_class(kind: type) -> bool:
    """Whether values of this class are something else than their JSON."""
    return (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "model_fields")
        or issubclass(kind, enum.Enum)
        or hasattr(kind, "_asdict")
        or (kind.__module__ in ("datetime", "uuid", "decimal") or kind.__module__.startswith("pathlib"))
    )


def decode(value: Any, name: str | None, types: Mapping[str, type]) -> Any:
    """Make a value again. ``types``: the classes that may be made, by name.

    Raises:
        ArtifactSerializationError: If its class is none of these; the message names it and the remedy.
        UnreadableRecordError: If its class does not take the value.
    """
    if name is None:
        return value
    kind, _, rest = name.partition(" ")
    if kind == "list" and rest:
        if not isinstance(value, list):
            raise UnreadableRecordError("its output is not a list")
        return [decode(part, rest, types) for part in value]
    try:
        if name == "array":
            if value["typecode"] not in _TYPECODES:
                raise UnreadableRecordError("its output is not an array of numbers")
            return array(value["typecode"], base64.b64decode(value["base64"], validate=True))
        found = types.get(name)
        if found is not None and _is_class(found):
            return _make(found, value)
    except UnreadableRecordError:
        raise
    except Exception as error:
        raise UnreadableRecordError(
            f"its output does not fit its type ({type(error).__name__}: {error!s:.{ERROR_MESSAGE_LIMIT}})"
        ) from error
    shown = name.replace(":", ".")
    raise ArtifactSerializationError(
        f"its output is a {shown!r:.80}, which is not a declared output type: annotate the strategy's function, or "
        f"give the store types=[{shown.rpartition('.')[2]:.80}] or an output_decoder"
    )


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


def record_of(
    result: WorkItemResult[Any, Any],
    output: bool,
    metadata: bool,
    encoder: Callable[[Any], Any] | None,
    strategy: Any = None,
) -> dict[str, Any]:
    """Return the fields of a stored result."""
    body: dict[str, Any] = {"attempts": result.attempts}
    if output and (result.success or result.output is not None):
        body["output"], kind = encode(result.output, encoder, strategy)
        if kind is not None:
            body["output_type"] = kind
    if result.error is not None:
        body["error"] = without_secrets(result.error)
    if result.token_usage:
        body["token_usage"] = result.token_usage
    if result.gemini_safety_ratings:
        body["gemini_safety_ratings"] = result.gemini_safety_ratings
    if output and result.messages is not None:
        # Without the prompt, which its item has, and which a store may not be meant to have.
        messages, begin = result._messages_after_prompt
        body["messages"] = to_json_value(messages, encoder or repr, path="$.messages", redact=False)
        body["rounds"], body["prompt_messages"] = result.rounds, begin
    if metadata and result.metadata:
        more: Any = {name: value for name, value in result.metadata.items() if name != "raw"}
        if "tool_calls" in more or encoder is not None:
            more = to_json_value(more, encoder, path="$.metadata", redact=False)
        body["metadata"] = more
    return body


class StoredTiming:
    """The engine's timing of an item, from a store."""

    __slots__ = ("_attempts",)

    def __init__(self, attempts: list[Any]) -> None:
        self._attempts = attempts

    def attempts(self, success: bool) -> list[Any]:
        """As the engine's."""
        return self._attempts

    def last(self) -> tuple[float, ...]:
        """As the engine's."""
        return tuple(self._attempts[-1][0]) if self._attempts else (0.0,) * 7


def read(text: str) -> dict[str, Any]:
    """Read what :func:`record_of` returned, from an untrusted file.

    Raises:
        UnreadableRecordError: If it is something else; names the problem.
    """
    try:
        body = json.loads(text)
        if _MARK in text and type(body) is dict and "output" in body:
            body["output"] = _unmarked(body["output"])
    except (ValueError, RecursionError) as error:
        raise UnreadableRecordError(f"it is not JSON ({error})") from error
    if type(body) is not dict:
        raise UnreadableRecordError(f"it is {type(body).__name__}, not an object")
    for name, kinds in _FIELDS.items():
        value = body.get(name)
        if value is not None and type(value) not in kinds:
            raise UnreadableRecordError(f"{name} is {type(value).__name__}, not {kinds[0].__name__}")
    if not 0 <= (body.get("attempts") or 0) < 1 << 31:
        raise UnreadableRecordError(f"attempts is {body['attempts']!r:.40}")
    if any(type(count) not in (int, float, type(None)) for count in (body.get("token_usage") or {}).values()):
        raise UnreadableRecordError("token_usage has a value that is not a number")
    if not all(_is_attempt(one) for one in body.get("timing") or ()):
        raise UnreadableRecordError("timing is not a list of attempts")
    return body


_FIELDS: dict[str, tuple[type, ...]] = {
    "attempts": (int,), "error": (str,), "token_usage": (dict,), "gemini_safety_ratings": (dict,), "metadata": (dict,),
    "timing": (list,), "output_type": (str,), "messages": (list,), "rounds": (int,),
    "prompt_messages": (int,),
}  # fmt: skip


def _is_attempt(record: Any) -> bool:
    return (
        type(record) is list
        and 3 <= len(record) <= 4
        and type(record[0]) is list
        and len(record[0]) == 7
        and all(type(seconds) in (int, float) for seconds in record[0])
        and all(text is None or type(text) is str for text in record[1:])
    )


def result_of(
    item: Any,
    record: dict[str, Any],
    success: bool,
    category: str | None,
    decoder: Callable[[Any], Any] | None,
    types: Mapping[str, type],
) -> WorkItemResult[Any, Any]:
    """Make a result, for an item, of what :func:`read` returned.

    Raises:
        ArtifactSerializationError: If its output cannot be made again; the message names the item and the remedy.
        UnreadableRecordError: If it is not what was written.
    """
    output = record.get("output")
    try:
        if decoder is not None and output is not None:
            output = decoder(output)
        elif record.get("output_type") is not None:
            output = decode(output, record["output_type"], types)
    except UnreadableRecordError:
        raise
    except Exception as error:
        raise ArtifactSerializationError(f"item {item.item_id!r}: its stored output cannot be used: {error}") from error
    metadata: dict[str, Any] | None = record.get("metadata")
    calls = (metadata or {}).get("tool_calls")
    if metadata is not None and calls:
        try:
            metadata["tool_calls"] = [
                [ToolCall(**one) for one in call] if isinstance(call, list) else ToolCall(**call) for call in calls
            ]
        except (TypeError, ValueError) as error:
            raise UnreadableRecordError(f"its tool calls are invalid ({error})") from error
    timing: Any = StoredTiming(record.get("timing") or [])
    usage: Any = record.get("token_usage") or {}
    result: WorkItemResult[Any, Any] = WorkItemResult(
        item.item_id,
        success,
        output,
        record.get("error"),
        item.context,
        usage,
        record.get("gemini_safety_ratings"),
        record.get("attempts") or 0,
        None,
        timing,
        metadata,
        None,
        category,
    )
    if record.get("messages") is not None:
        prompt = getattr(item, "prompt", None) if record.get("prompt_messages") else None
        begin = [] if prompt is None else as_messages(prompt)
        result._set_conversation([*begin, *record["messages"]], record.get("rounds") or 0, len(begin))
    return result
