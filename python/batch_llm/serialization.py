"""Convert results to JSON and back, in a versioned format without class names.

``BatchResult`` and ``WorkItemResult`` have methods for this, which call these functions. They write
``{"schema": "batch-llm-result", "version": 1, ...}``, and read this format and version 1 of async-batch-llm's.

JSON's own types are written unchanged; tuples, sets and arrays of numbers as lists; dataclasses, named tuples and
pydantic models as objects; dates and times as ISO 8601, durations as seconds; UUIDs and paths as text; enum members as
their values; NaN and infinity, which JSON does not have, as null; keys that are not strings as JSON writes them, or as
text. A value that refers to itself, or has two keys with the same text, is passed to the encoder as a whole. A field
whose name looks like a credential becomes ``"[REDACTED]"``. Of an exception, only ``error`` is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ._json_values import UNKNOWN, JSONValue, ValueDecoder, ValueEncoder, encode, to_json_value, without_secrets
from ._json_values import to_plain as to_plain
from ._results import WorkItemResult
from .errors import ResultSerializationError
from .timing import AttemptTiming, WorkItemTiming

__all__ = [
    "RESULT_SCHEMA_NAME",
    "RESULT_SCHEMA_VERSION",
    "JSONValue",
    "ResultSerializationError",
    "ValueDecoder",
    "ValueEncoder",
    "iter_jsonl",
    "to_json_value",
]

RESULT_SCHEMA_NAME = "batch-llm-result"
RESULT_SCHEMA_VERSION = 1

_KNOWN_SCHEMAS = {RESULT_SCHEMA_NAME, "async-batch-llm-result"}


# Encoding


def encode_result(result: WorkItemResult[Any, Any], encoder: ValueEncoder | None, path: str = "$") -> dict[str, Any]:
    """Return the fields of a result as JSON values, without the envelope."""

    def encoded(name: str, value: Any) -> Any:
        # Most values are text or nothing: no place needs to be named for them.
        if value is None or type(value) is str:
            return value
        try:
            return encode(value, encoder, f"{path}.{name}", 0, 0)
        except ResultSerializationError:
            if encoder is None or (whole := _as_a_whole(value, encoder)) is UNKNOWN:
                raise
            return whole

    asked = {} if result.prompt is None else {"prompt": _prompt(result.prompt, encoder)}
    if result.messages is not None:
        asked["messages"], asked["rounds"] = _prompt(result.messages, encoder), result.rounds
    return {
        "item_id": result.item_id,
        "success": bool(result.success),
        **asked,
        "output": encoded("output", result.output),
        "error": without_secrets(result.error),
        "error_category": result.error_category,
        "context": encoded("context", result.context),
        "token_usage": encoded("token_usage", result.token_usage or {}),
        "gemini_safety_ratings": encoded("gemini_safety_ratings", result.gemini_safety_ratings),
        "attempts": result.attempts,
        "metadata": encoded("metadata", result.metadata),
        "submission_index": result.submission_index,
        "reused": result.reused,
        "timing": [_attempt(attempt) for attempt in result.timing.attempts],
    }


def _as_a_whole(value: Any, encoder: ValueEncoder) -> Any:
    """Return what an encoder makes of an unknown value; ``UNKNOWN`` if that is not JSON either."""
    try:
        made = encoder(value)
        return without_secrets(made) if isinstance(made, str) else encode(made, None, "$", 0, 0)
    except Exception:
        return UNKNOWN


def _prompt(prompt: Any, encoder: ValueEncoder | None) -> Any:
    """A prompt; pictures and the like, which JSON does not have, as Python shows them."""
    if type(prompt) is str:
        return prompt
    try:
        return encode(prompt, encoder, "$.prompt", 0, 0)
    except ResultSerializationError:
        return encode(prompt, repr, "$.prompt", 0, 0)


def _attempt(attempt: AttemptTiming) -> dict[str, Any]:
    """Return the fields of an attempt that are set."""
    return {name: value for name, value in vars(attempt).items() if name == "attempt" or value != _USUAL[name]}


_USUAL = vars(AttemptTiming(1))


def envelope(kind: str, **fields: Any) -> dict[str, Any]:
    """Return fields in an envelope with their kind and version."""
    return {"schema": RESULT_SCHEMA_NAME, "version": RESULT_SCHEMA_VERSION, "kind": kind, **fields}


def result_to_dict(result: WorkItemResult[Any, Any], encoder: ValueEncoder | None = None) -> dict[str, Any]:
    """Encode one result."""
    return envelope("result", result=encode_result(result, encoder))


# Decoding


def field_of(data: Any, name: str, kinds: tuple[type, ...], path: str, default: Any = None) -> Any:
    """Return a field, if it is of one of these kinds or missing; otherwise raise an error that names the problem."""
    value = data.get(name, default)
    if value is None and default is None:
        return None
    # In Python a bool is an int; in JSON it is not.
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return value
    names = " or ".join(kind.__name__ for kind in kinds)
    raise ResultSerializationError(f"{path}.{name} must be {names}, not {type(value).__name__} ({value!r:.80})")


def opened(data: Any, kinds: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what is within an envelope, if it is one of ours, of a kind and version that are read."""
    if not isinstance(data, Mapping):
        raise ResultSerializationError(f"$ must be an object, not {type(data).__name__}")
    schema, version = data.get("schema", data.get("schema_name")), data.get("version", data.get("schema_version"))
    if schema not in _KNOWN_SCHEMAS:
        raise ResultSerializationError(
            f"$.schema is {schema!r:.80}, not {RESULT_SCHEMA_NAME!r}: this is not a file of results"
        )
    if version != RESULT_SCHEMA_VERSION:
        raise ResultSerializationError(
            f"$.version is {version!r:.80}; this batch-llm reads version {RESULT_SCHEMA_VERSION}. Upgrade batch-llm"
        )
    kind = data.get("kind")
    if kind is not None and kind not in kinds:
        raise ResultSerializationError(f"$.kind is {kind!r:.80}, not {kinds[0]!r}")
    return data


def decode_result(
    data: Any, output_decoder: ValueDecoder | None, context_decoder: ValueDecoder | None, path: str
) -> WorkItemResult[Any, Any]:
    """Make a result of the fields that :func:`encode_result` returned."""
    if not isinstance(data, Mapping):
        raise ResultSerializationError(f"{path} must be an object, not {type(data).__name__}")
    for name, kind in (("item_id", str), ("success", bool)):
        if not isinstance(data.get(name), kind):
            raise ResultSerializationError(f"{path}.{name} must be {kind.__name__}, not {data.get(name)!r:.80}")
    output, context = data.get("output"), data.get("context")
    result: WorkItemResult[Any, Any] = WorkItemResult(
        data["item_id"],
        data["success"],
        _made(output_decoder, output, f"{path}.output"),
        field_of(data, "error", (str,), path),
        _made(context_decoder, context, f"{path}.context"),
        field_of(data, "token_usage", (dict,), path, {}),
        field_of(data, "gemini_safety_ratings", (dict,), path),
        field_of(data, "attempts", (int,), path, 0),
        metadata=field_of(data, "metadata", (dict,), path),
        error_category=field_of(data, "error_category", (str,), path),
        submission_index=field_of(data, "submission_index", (int,), path),
        reused=_reused(data, path),
        prompt=data.get("prompt"),
    )
    messages = field_of(data, "messages", (list,), path)
    if messages is not None:
        result._set_conversation(messages, field_of(data, "rounds", (int,), path, 0))
    timing = data.get("timing")
    if isinstance(timing, Mapping):
        timing = timing.get("attempts")
    result.timing = _timing(timing, f"{path}.timing")
    return result


def _reused(data: Any, path: str) -> Any:
    return field_of(data, "reused", (str,), path) or ("store" if data.get("replayed_from_artifact") else None)


def _made(decoder: ValueDecoder | None, value: Any, path: str) -> Any:
    if decoder is None or value is None:
        return value
    try:
        return decoder(value)
    except Exception as error:
        raise ResultSerializationError(f"{path}: its decoder failed: {type(error).__name__}: {error}") from error


_ATTEMPT_FIELDS = {field.name for field in dataclasses.fields(AttemptTiming)}


def _timing(data: Any, path: str) -> WorkItemTiming:
    if data is None:
        return WorkItemTiming()
    if not (isinstance(data, list) and all(isinstance(part, Mapping) and "attempt" in part for part in data)):
        raise ResultSerializationError(f"{path} must be a list of attempts")
    return WorkItemTiming([AttemptTiming(**{k: v for k, v in part.items() if k in _ATTEMPT_FIELDS}) for part in data])


def result_from_dict(
    data: Any, output_decoder: ValueDecoder | None = None, context_decoder: ValueDecoder | None = None
) -> WorkItemResult[Any, Any]:
    """Decode one result."""
    return decode_result(opened(data, ("result",)).get("result"), output_decoder, context_decoder, "$.result")


def parsed(text: str | bytes, path: str) -> Any:
    """Read JSON text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultSerializationError(f"{path} is not JSON: {error}") from error


def iter_jsonl(
    path: str | os.PathLike[str],
    *,
    output_decoder: ValueDecoder | None = None,
    context_decoder: ValueDecoder | None = None,
) -> Iterator[WorkItemResult[Any, Any]]:
    """Iterate over the results in a file that ``BatchResult.to_jsonl()`` wrote, of any size.

    Args:
        path: The file.
        output_decoder: Converts JSON values to outputs.
        context_decoder: Converts JSON values to contexts.

    Raises:
        ResultSerializationError: If a line is invalid; the message names it.
        OSError: If the file cannot be read.
    """
    lines = lines_of(path)
    opened(next(lines)[1], ("batch-header",))
    for number, data in lines:
        yield decode_result(data, output_decoder, context_decoder, f"line {number}")


def lines_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    """Read the lines of a file that are not empty, with their numbers, from 1."""
    empty = True
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                empty = False
                yield number, parsed(line.removeprefix(b"\xef\xbb\xbf"), f"{os.fspath(path)!r}, line {number}")
    if empty:
        raise ResultSerializationError(f"{os.fspath(path)} is empty")
