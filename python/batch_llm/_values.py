"""Values of any kind as plainer ones, for tables: nothing in here raises because of a value.

Used by ``_frames.columns`` and ``_report.tables``.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import json
import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

DEEP = 100
"""How deep values are looked into; what is deeper is text."""
_AS_THEY_ARE = frozenset({
    str, int, float, bool, type(None), bytes, array, datetime.datetime, datetime.date,
})  # fmt: skip


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a value that has some: of a mapping, a dataclass, a model."""
    if isinstance(value, Mapping):
        fields = {clean(str(key)): part for key, part in value.items()}
        return fields if len(fields) == len(value) else None  # 1 and "1" are two keys
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    kind: Any = type(value)
    if hasattr(kind, "model_fields") and hasattr(value, "model_dump"):
        more = getattr(value, "model_extra", None) or {}
        return {name: getattr(value, name) for name in kind.model_fields} | more
    return None


def is_vector(value: Any) -> bool:
    """Whether a value is an array of numbers in one line: an embedding."""
    if type(value) is array:
        return value.typecode not in "uw"
    if not (hasattr(value, "dtype") and hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1):
        return False
    return getattr(value.dtype, "kind", "f") in "fiu"


def is_missing(value: Any) -> bool:
    """Whether a value is none: None, NaN, and what numpy and pandas have for it."""
    if value is None:
        return True
    if isinstance(value, float):
        return value != value
    if type(value).__name__ in ("NAType", "NaTType", "Decimal") or getattr(value, "ndim", None) == 0:
        try:
            return bool(value != value)
        except Exception:  # comparisons with pandas.NA have no truth value
            return True
    return False


def simple(value: Any, deep: int = DEEP) -> Any:
    """A value without its classes.

    Objects with fields are dicts, sequences and sets lists, members of enumerations their values. Arrays of numbers
    stay as they are.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE or (kind is list and set(map(type, value)) <= _AS_THEY_ARE):  # embeddings are long
        return value
    if deep == 0:
        return shown(value)
    if isinstance(value, enum.Enum):
        return simple(value.value, deep - 1)
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if is_vector(value):
        return value
    fields = fields_of(value)
    if fields is not None:
        return {name: simple(part, deep - 1) for name, part in fields.items()}
    if isinstance(value, Mapping):
        return [[simple(key, deep - 1), simple(part, deep - 1)] for key, part in value.items()]
    if isinstance(value, (set, frozenset)):
        return [simple(part, deep - 1) for part in sorted(value, key=repr)]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [simple(part, deep - 1) for part in value]
    if hasattr(value, "dtype"):
        listed = _listed(value)
        return shown(value) if listed is value else simple(listed, deep - 1)
    if isinstance(value, str):  # classes made of these
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, datetime.datetime) and not getattr(value, "nanosecond", 0):
        plain = getattr(value, "to_pydatetime", lambda: value)()
        return plain if type(plain) is datetime.datetime else plain.isoformat()
    return value


def _listed(value: Any) -> Any:
    """The values of numpy's arrays and numbers, and of series; the same where it has none."""
    if getattr(value.dtype, "kind", "") in ("m", "M") and hasattr(value, "astype"):
        value = value.astype(str)  # times, whose numbers have no obvious unit
    for name in ("tolist", "to_list"):
        if hasattr(value, name):
            return getattr(value, name)()
    return value


def as_text(value: Any) -> str:
    """Return a text as it is, anything else as JSON, whatever it contains: the answer has been paid for."""
    if type(value) is str:
        return clean(value)
    try:
        plain = simple(value)
        plain = plain.tolist() if is_vector(plain) else plain
        if not isinstance(plain, (dict, list, int, float, type(None))):
            return clean(_word(plain))
        try:
            return clean(json.dumps(plain, ensure_ascii=False, default=_word, allow_nan=False))
        except ValueError:
            return clean(json.dumps(_finite(plain), ensure_ascii=False, default=_word))
    except Exception:  # for example, it contains itself
        return clean(shown(value))


def clean(text: str) -> str:
    r"""A text that UTF-8 has: of half a surrogate pair what JSON writes for it, ``\ud83d``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shown(value: Any) -> str:
    """A value as Python shows it."""
    try:
        return repr(value)
    except Exception:
        return f"({type(value).__name__}, which cannot be shown)"


def _word(value: Any) -> Any:
    """What JSON does not have, as text or list."""
    if isinstance(value, str):
        return value
    if is_vector(value):
        return _finite(value.tolist())
    if isinstance(value, (bytes, bytearray)):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    try:
        return str(value)
    except Exception:
        return shown(value)


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value
