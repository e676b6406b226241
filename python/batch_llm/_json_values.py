"""Any value as JSON values. Used wherever something is written for other programs; see ``serialization``."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import re
import uuid
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ._contexts import circular_place
from ._secrets import REDACTED, is_credential, mask
from .errors import ResultSerializationError

JSONValue: TypeAlias = Any
"""None, bool, int, float, str, or lists and dicts (with keys of text) of these."""
ValueEncoder = Callable[[Any], Any]
"""Makes something that can be encoded of a value that cannot."""
ValueDecoder = Callable[[Any], Any]
"""Makes a value of a JSON value."""

DEPTH = 32
"""How often an encoder is called for its own results, and how deep values may be nested besides."""
LONGEST_NESTING = 200

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
    """Convert a value to JSON values; see :mod:`batch_llm.serialization`.

    Args:
        value: The value.
        encoder: Called with values that cannot be encoded.
        path: The position of the value, for error messages.
        redact: Whether fields whose names look like credentials are replaced.
        odd: Converts NaN and infinity, which otherwise become null.

    Raises:
        ResultSerializationError: If a value cannot be encoded (bytes, unknown objects, two keys with the same text), or
            the encoder raises; the message says where.
    """
    return encode(value, encoder, path, 0, 0, redact, odd)


def name_of(named: Any) -> str:
    """``"module:qualified name"`` of a class or function."""
    return f"{getattr(named, '__module__', '')}:{named.__qualname__}"


def to_plain(value: Any, encoder: ValueEncoder | None = None) -> Any:
    """Convert a value that JSON does not have by one step.

    Args:
        value: A value that is none of JSON's own.
        encoder: Called for unknown types.

    Raises:
        ResultSerializationError: If it cannot be converted.
    """
    plain = _plain(value)
    if plain is not UNKNOWN:
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
        f"{type(value).__name__} ({value!r:.80}) cannot be written as JSON; pass an encoder that converts it"
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


def encode(
    value: Any,
    encoder: ValueEncoder | None,
    path: str,
    turns: int,
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
        why = "" if place is None else f": it contains a circular reference ({place}); use ids in place of objects"
        raise ResultSerializationError(f"{path:.80}... is nested too deeply{why}")
    if isinstance(value, Mapping):
        return {
            key: REDACTED
            if redact and is_credential(key)
            else encode(part, encoder, f"{path}.{key}", turns, depth + 1, redact, odd)
            for key, part in _text_keys(value, path)
        }
    try:
        plain = _plain(value)
    except Exception as error:  # for example a model that refers to itself
        raise ResultSerializationError(
            f"{path} is {kind.__name__}, which cannot be written as JSON: {error}"
        ) from error
    if plain is not UNKNOWN:
        return encode(plain, encoder, path, turns, depth + 1, redact, odd)
    if isinstance(value, (list, tuple, set, frozenset, deque, range)):
        parts = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [
            encode(part, encoder, f"{path}[{index}]", turns, depth + 1, redact, odd) for index, part in enumerate(parts)
        ]
    if encoder is None:
        raise ResultSerializationError(
            f"{path} is {kind.__name__} ({value!r:.80}), which cannot be written as JSON; pass an encoder that "
            "converts it"
        )
    if turns >= DEPTH:
        raise ResultSerializationError(
            f"{path}: after {DEPTH} calls the encoder still returns a value that is not JSON"
        )
    try:
        encoded = encoder(value)
    except Exception as error:
        raise ResultSerializationError(f"{path}: its encoder failed: {type(error).__name__}: {error}") from error
    return encode(encoded, encoder, path, turns + 1, depth + 1, redact, odd)


def _text_keys(value: Mapping[Any, Any], path: str) -> Iterable[tuple[str, Any]]:
    if all(type(key) is str for key in value):
        return value.items()
    texts: dict[str, Any] = {}
    for key, part in value.items():
        text = _text_of_key(key)
        if text in texts:
            raise ResultSerializationError(f"{path} has two keys that both become {text!r:.80} in JSON")
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


UNKNOWN = object()


def _plain(value: Any) -> Any:
    """An object as plain values, or ``UNKNOWN``."""
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
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' missing values
        return None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (uuid.UUID, pathlib.PurePath, decimal.Decimal)):
        return str(value)
    as_type = getattr(value, "astype", None)
    if as_type is not None and getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        return as_type(str).tolist()  # numpy's times, whose numbers have no obvious unit
    tolist = getattr(value, "tolist", None)  # numpy's arrays and numbers
    if callable(tolist) and (hasattr(value, "dtype") or type(value) is array):
        plain = tolist()
        return UNKNOWN if plain is value else plain
    return UNKNOWN


def without_secrets(text: str | None) -> str | None:
    """A text for a file: without what stands behind the names of credentials, and what looks like one."""
    return None if text is None else mask(_LABELLED.sub(rf"\1\2{REDACTED}", text))
