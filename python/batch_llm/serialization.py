"""Results as JSON and back: a versioned envelope, plain values, no classes in the data.

``BatchResult`` and ``WorkItemResult`` have the methods that people use; they call these functions. Written is
``{"schema": "batch-llm-result", "version": 1, ...}``; read is that, and version 1 of the envelope of async-batch-llm.

Encoded are JSON's own values; tuples, sets and arrays of numbers as lists; dataclasses, named tuples and pydantic
models as objects; dates and times as ISO 8601, spans of time as seconds; UUIDs and paths as text; members of
enumerations as their values; NaN and infinity, which JSON does not have, as null; keys that are no text as JSON writes
them, or as their text. A value that refers to itself, or has two keys with one text, is asked of the encoder as a
whole. What looks like a credential by its name is ``"[REDACTED]"``. Exceptions are not written, only what ``error``
says.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import os
import pathlib
import re
import uuid
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from ._contexts import circular_place
from ._files import replaced
from ._secrets import REDACTED, is_credential, mask
from .errors import ResultSerializationError
from .results import BatchResult, BatchTermination, ProcessingStats, WorkItemResult
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

JSONValue: TypeAlias = Any
"""None, bool, int, float, str, or lists and dicts (with keys of text) of these."""
ValueEncoder = Callable[[Any], Any]
"""Makes something that can be encoded of a value that cannot."""
ValueDecoder = Callable[[Any], Any]
"""Makes a value of a JSON value."""

DEPTH = 32
"""How often an encoder may be asked about what it returned itself, and how deep values may be nested beside."""
LONGEST_NESTING = 200

_KNOWN_SCHEMAS = {RESULT_SCHEMA_NAME, "async-batch-llm-result"}
_LABELLED = re.compile(
    r"\b(proxy[-_ ]?authorization|authorization|x[-_ ]?api[-_ ]?key|api[-_ ]?key|access[-_ ]?token|client[-_ ]?secret|"
    r"secret|passw(?:or)?d)(['\"]?\s*[:=]\s*['\"]?)((?:bearer|basic)\s+)?[^\s'\",;}]+",
    re.IGNORECASE,
)


def to_json_value(
    value: Any,
    encoder: ValueEncoder | None = None,
    *,
    path: str = "$",
    redact: bool = True,
    odd: Callable[[float], JSONValue] | None = None,
) -> JSONValue:
    """Return a value as JSON values; see the module.

    Args:
        value: Anything.
        encoder: Asked for what cannot be encoded.
        path: Where the value stands, for errors.
        redact: Whether what looks like a credential by its name is replaced.
        odd: Makes something of NaN and infinity, in place of null.

    Raises:
        ResultSerializationError: When it cannot be encoded (bytes, unknown objects, two keys with one text), or the
            encoder raises; names the place.
    """
    return _encode(value, encoder, path, 0, 0, redact, odd)


def name_of(named: Any) -> str:
    """``"module:qualified name"`` of a class or function."""
    return f"{getattr(named, '__module__', '')}:{named.__qualname__}"


def plainer(value: Any, encoder: ValueEncoder | None = None) -> Any:
    """Return something plainer for what JSON does not have, one step of the way.

    Args:
        value: A value that is none of JSON's own.
        encoder: Asked for what is unknown.

    Raises:
        ResultSerializationError: When nothing plainer is known.
    """
    plain = _plain(value)
    if plain is not _UNKNOWN:
        return plain
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return list(value)
    if encoder is not None:
        return encoder(value)
    raise ResultSerializationError(
        f"{type(value).__name__} ({value!r:.80}) is no JSON; an encoder can make something of it"
    )


def with_keys_of_text(value: Any) -> Any:
    """Return dicts, also within lists and tuples, with the keys that JSON has for theirs. No two become one."""
    if isinstance(value, dict):
        texts: dict[str, Any] = {}
        for key, part in value.items():
            text = _text_of_key(key)
            while text in texts or (type(key) is not str and text in value):
                text = f"{text} ({type(key).__name__})"
            texts[text] = with_keys_of_text(part)
        return texts
    if type(value) in (list, tuple):
        return [with_keys_of_text(part) for part in value]
    return value


def _encode(
    value: Any,
    encoder: ValueEncoder | None,
    path: str,
    asked: int,
    depth: int,
    redact: bool = True,
    odd: Callable[[float], JSONValue] | None = None,
) -> JSONValue:
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str or kind is int:
        return value
    if kind is float:
        if math.isfinite(value):
            return value
        return None if odd is None else odd(value)
    if depth > LONGEST_NESTING:
        place = circular_place(value, "it")
        why = "" if place is None else f": it refers to itself ({place}); give ids in place of objects"
        raise ResultSerializationError(f"{path:.80}... is nested too deep{why}")
    if isinstance(value, Mapping):
        return {
            key: REDACTED
            if redact and is_credential(key)
            else _encode(part, encoder, f"{path}.{key}", asked, depth + 1, redact, odd)
            for key, part in _text_keys(value, path)
        }
    try:
        plain = _plain(value)
    except Exception as error:  # a model that refers to itself, for instance
        raise ResultSerializationError(f"{path} is {kind.__name__}, which cannot be written: {error}") from error
    if plain is not _UNKNOWN:
        return _encode(plain, encoder, path, asked, depth + 1, redact, odd)
    if isinstance(value, (list, tuple, set, frozenset, deque, range)):
        parts = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [
            _encode(part, encoder, f"{path}[{index}]", asked, depth + 1, redact, odd)
            for index, part in enumerate(parts)
        ]
    if encoder is None:
        raise ResultSerializationError(
            f"{path} is {kind.__name__} ({value!r:.80}), which is no JSON; an encoder can make something of it"
        )
    if asked >= DEPTH:
        raise ResultSerializationError(f"{path}: the encoder returned what it had to encode itself {DEPTH} times over")
    try:
        plainer_one = encoder(value)
    except Exception as error:
        raise ResultSerializationError(f"{path}: its encoder failed: {type(error).__name__}: {error}") from error
    return _encode(plainer_one, encoder, path, asked + 1, depth + 1, redact, odd)


def _text_keys(value: Mapping[Any, Any], path: str) -> Iterable[tuple[str, Any]]:
    if all(type(key) is str for key in value):
        return value.items()
    texts: dict[str, Any] = {}
    for key, part in value.items():
        text = _text_of_key(key)
        if text in texts:
            raise ResultSerializationError(f"{path} has two keys that are {text!r:.80} in JSON")
        texts[text] = part
    return texts.items()


def _text_of_key(key: Any) -> str:
    """What stands for a key: as ``json`` writes it, where that does; else its text."""
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    return key.isoformat() if isinstance(key, (datetime.date, datetime.time)) else str(key)


_UNKNOWN = object()


def _plain(value: Any) -> Any:
    """An object as plainer values, or ``_UNKNOWN``."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.name[0] != "_"}
    dump = getattr(value, "model_dump", None)
    if callable(dump) and hasattr(type(value), "model_fields"):
        return dump(mode="json")
    as_dict = getattr(value, "_asdict", None)
    if isinstance(value, tuple) and callable(as_dict):
        return as_dict()
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' words for nothing
        return None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (uuid.UUID, pathlib.PurePath, decimal.Decimal)):
        return str(value)
    as_type = getattr(value, "astype", None)
    if as_type is not None and getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        return as_type(str).tolist()  # numpy's times, whose numbers nobody would know
    tolist = getattr(value, "tolist", None)  # numpy's arrays and numbers
    if callable(tolist) and (hasattr(value, "dtype") or type(value) is array):
        plain = tolist()
        return _UNKNOWN if plain is value else plain
    return _UNKNOWN


def without_secrets(text: str | None) -> str | None:
    """A text for a file: without what stands behind the names of credentials, and what looks like one."""
    return None if text is None else mask(_LABELLED.sub(rf"\1\2{REDACTED}", text))


# Encoding


def _result(result: WorkItemResult[Any, Any], encoder: ValueEncoder | None, path: str = "$") -> dict[str, Any]:
    def encoded(name: str, value: Any) -> Any:
        # Most values are text or nothing: no place needs to be named for them.
        if value is None or type(value) is str:
            return value
        try:
            return _encode(value, encoder, f"{path}.{name}", 0, 0)
        except ResultSerializationError:
            if encoder is None or (whole := _as_a_whole(value, encoder)) is _UNKNOWN:
                raise
            return whole

    asked = {} if result.prompt is None else {"prompt": _prompt(result.prompt, encoder)}
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
    """What an encoder makes of a value that cannot be taken apart; ``_UNKNOWN`` when that is no good either."""
    try:
        made = encoder(value)
        return without_secrets(made) if isinstance(made, str) else _encode(made, None, "$", 0, 0)
    except Exception:
        return _UNKNOWN


def _prompt(prompt: Any, encoder: ValueEncoder | None) -> Any:
    """A prompt; pictures and the like, which JSON does not have, as Python shows them."""
    if type(prompt) is str:
        return prompt
    try:
        return _encode(prompt, encoder, "$.prompt", 0, 0)
    except ResultSerializationError:
        return _encode(prompt, repr, "$.prompt", 0, 0)


def _attempt(attempt: AttemptTiming) -> dict[str, Any]:
    """The fields of an attempt that say something."""
    return {name: value for name, value in vars(attempt).items() if name == "attempt" or value != _USUAL[name]}


_USUAL = vars(AttemptTiming(1))


def _envelope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"schema": RESULT_SCHEMA_NAME, "version": RESULT_SCHEMA_VERSION, "kind": kind, **fields}


def result_to_dict(result: WorkItemResult[Any, Any], encoder: ValueEncoder | None = None) -> dict[str, Any]:
    """Encode one result."""
    return _envelope("result", result=_result(result, encoder))


def _about(batch: BatchResult[Any, Any]) -> dict[str, Any]:
    return {
        "termination": dataclasses.asdict(batch.termination),
        "wall_time_seconds": batch.wall_time_seconds,
        "stats": None if batch.stats is None else to_json_value(batch.stats, path="$.stats"),
    }


def batch_to_dict(batch: BatchResult[Any, Any], encoder: ValueEncoder | None = None) -> dict[str, Any]:
    """Encode a batch."""
    results = [_result(result, encoder, f"$.results[{index}]") for index, result in enumerate(batch.results)]
    return _envelope("batch", **_about(batch), results=results)


def batch_to_json(batch: BatchResult[Any, Any], encoder: ValueEncoder | None, indent: int | None) -> str:
    """Encode a batch as text."""
    return _text(batch_to_dict(batch, encoder), indent=indent)


def batch_to_jsonl(
    batch: BatchResult[Any, Any], path: str | os.PathLike[str], encoder: ValueEncoder | None = None
) -> None:
    """Write a batch, a result per line; the file appears when it is whole."""
    with replaced(path) as file:
        file.write(_line(_envelope("batch-header", **_about(batch))))
        for index, result in enumerate(batch.results):
            file.write(_line(_result(result, encoder, f"$.results[{index}]")))


def _line(data: dict[str, Any]) -> str:
    return _text(data, separators=(",", ":")) + "\n"


def _text(data: Any, **form: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, **form)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON has as \ud83d alone
        return json.dumps(data, allow_nan=False, **form)
    return text


# Decoding


def _field(data: Any, name: str, kinds: tuple[type, ...], path: str, default: Any = None) -> Any:
    value = data.get(name, default)
    if value is None and default is None:
        return None
    # In Python a bool is an int; in JSON it is not.
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return value
    names = " or ".join(kind.__name__ for kind in kinds)
    raise ResultSerializationError(f"{path}.{name} must be {names}, not {type(value).__name__} ({value!r:.80})")


def _opened(data: Any, kinds: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ResultSerializationError(f"$ must be an object, not {type(data).__name__}")
    schema, version = data.get("schema", data.get("schema_name")), data.get("version", data.get("schema_version"))
    if schema not in _KNOWN_SCHEMAS:
        raise ResultSerializationError(f"$.schema is {schema!r:.80}, not {RESULT_SCHEMA_NAME!r}: these are no results")
    if version != RESULT_SCHEMA_VERSION:
        raise ResultSerializationError(
            f"$.version is {version!r:.80}; this batch-llm reads {RESULT_SCHEMA_VERSION}. A newer one may read more"
        )
    kind = data.get("kind")
    if kind is not None and kind not in kinds:
        raise ResultSerializationError(f"$.kind is {kind!r:.80}, not {kinds[0]!r}")
    return data


def _decode(
    data: Any, output_decoder: ValueDecoder | None, context_decoder: ValueDecoder | None, path: str
) -> WorkItemResult[Any, Any]:
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
        _field(data, "error", (str,), path),
        _made(context_decoder, context, f"{path}.context"),
        _field(data, "token_usage", (dict,), path, {}),
        _field(data, "gemini_safety_ratings", (dict,), path),
        _field(data, "attempts", (int,), path, 0),
        metadata=_field(data, "metadata", (dict,), path),
        error_category=_field(data, "error_category", (str,), path),
        submission_index=_field(data, "submission_index", (int,), path),
        reused=_reused(data, path),
        prompt=data.get("prompt"),
    )
    timing = data.get("timing")
    if isinstance(timing, Mapping):
        timing = timing.get("attempts")
    result.timing = _timing(timing, f"{path}.timing")
    return result


def _reused(data: Any, path: str) -> Any:
    return _field(data, "reused", (str,), path) or ("store" if data.get("replayed_from_artifact") else None)


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
    return _decode(_opened(data, ("result",)).get("result"), output_decoder, context_decoder, "$.result")


def _batch(about: Mapping[str, Any], results: list[WorkItemResult[Any, Any]]) -> BatchResult[Any, Any]:
    termination = _field(about, "termination", (dict,), "$", {})
    stats = _field(about, "stats", (dict,), "$")
    return BatchResult(
        results,
        termination=_filled(BatchTermination, termination),
        stats=None if stats is None else _filled(ProcessingStats, stats),
        wall_time_seconds=_field(about, "wall_time_seconds", (int, float), "$"),
    )


def _filled(kind: Any, data: Mapping[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in data.items() if name in known})


def batch_from_dict(
    data: Any, output_decoder: ValueDecoder | None = None, context_decoder: ValueDecoder | None = None
) -> BatchResult[Any, Any]:
    """Decode a batch."""
    opened = _opened(data, ("batch",))
    results = opened.get("results")
    if not isinstance(results, list):
        raise ResultSerializationError(f"$.results must be a list, not {type(results).__name__}")
    return _batch(
        opened,
        [_decode(part, output_decoder, context_decoder, f"$.results[{index}]") for index, part in enumerate(results)],
    )


def batch_from_json(
    text: str | bytes, output_decoder: ValueDecoder | None = None, context_decoder: ValueDecoder | None = None
) -> BatchResult[Any, Any]:
    """Decode a batch from text."""
    return batch_from_dict(_parsed(text, "$"), output_decoder, context_decoder)


def _parsed(text: str | bytes, path: str) -> Any:
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
    """Read results one after the other from a file that ``BatchResult.to_jsonl()`` wrote, of any size.

    Args:
        path: The file.
        output_decoder: Makes outputs of JSON values.
        context_decoder: The same for contexts.

    Raises:
        ResultSerializationError: When a line is not what was written; names it.
        OSError: When the file cannot be read.
    """
    lines = _lines(path)
    _opened(next(lines)[1], ("batch-header",))
    for number, data in lines:
        yield _decode(data, output_decoder, context_decoder, f"line {number}")


def batch_from_jsonl(
    path: str | os.PathLike[str],
    output_decoder: ValueDecoder | None = None,
    context_decoder: ValueDecoder | None = None,
) -> BatchResult[Any, Any]:
    """Read a whole file."""
    lines = _lines(path)
    about = _opened(next(lines)[1], ("batch-header",))
    return _batch(about, [_decode(data, output_decoder, context_decoder, f"line {number}") for number, data in lines])


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    empty = True
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                empty = False
                yield number, _parsed(line.removeprefix(b"\xef\xbb\xbf"), f"{os.fspath(path)!r}, line {number}")
    if empty:
        raise ResultSerializationError(f"{os.fspath(path)} is empty")
