"""JSON as text, so that copied values keep their digits. Used by the other modules of the command line.

A row that was read as a line of JSON is written again from that line. What JSON does not have becomes null (``NaN``,
``Infinity``), and half of a surrogate pair stays an escape (in JSON) or becomes U+FFFD (in tables).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined] # typeshed does not know it
from json.encoder import encode_basestring as text_of
from typing import TYPE_CHECKING, Any

from .._json_values import to_json_value

if TYPE_CHECKING:
    from typing_extensions import Self


class Digits(float):
    """A number that was read from JSON, and remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Read it."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def _integer(text: str) -> Any:
    try:
        return int(text)
    except ValueError:  # longer than Python reads
        return Digits(text)


def _nothing(constant: str) -> None:
    return None


class Ambiguous(dict[str, Any]):
    """An object that has a name twice; the last value is the one that it has."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else Ambiguous(made)


_reader = json.JSONDecoder(parse_float=Digits, parse_constant=_nothing, object_pairs_hook=_object)
_patient_reader = json.JSONDecoder(
    parse_float=Digits, parse_constant=_nothing, object_pairs_hook=_object, parse_int=_integer
)
_plain_reader: Any = json.JSONDecoder()
_OPENING = re.compile(r"[\s{,]*").match
_COLON = re.compile(r"[\s:]*").match
_NO_JSON = re.compile(r'("(?:[^"\\]|\\.)*")|-?Infinity|NaN')
_HALVES = re.compile("[\ud800-\udfff]")


def read(text: str) -> Any:
    """The value of a JSON text; its fractions are :class:`Digits`.

    Raises:
        ValueError: If it is none.
    """
    try:
        return _reader.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _patient_reader.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def strict(text: str) -> str:
    """A JSON text without what only Python reads."""
    if "NaN" not in text and "Infinity" not in text:
        return text
    return _NO_JSON.sub(lambda found: found[1] or "null", text)


def fields(line: str) -> list[tuple[str, str]]:
    """The fields of an object, each with the JSON text of its value, as it is written.

    Args:
        line: The text of an object that can be read.
    """
    try:
        return _fields(line, _plain_reader.scan_once)
    except ValueError:  # an integer that is longer than Python reads
        reader: Any = _patient_reader
        return _fields(line, reader.scan_once)


def _fields(line: str, scan: Callable[[str, int], tuple[Any, int]]) -> list[tuple[str, str]]:
    is_strict = "NaN" not in line and "Infinity" not in line
    found = []
    place = _after(_OPENING, line, 0)
    while line[place] != "}":
        name, end = scanstring(line, place + 1, True)
        begin = _after(_COLON, line, end)
        end = scan(line, begin)[1]
        text = line[begin:end]
        found.append((name, text if is_strict else strict(text)))
        place = _after(_OPENING, line, end)
    return found


def _after(pattern: Callable[[str, int], re.Match[str] | None], line: str, place: int) -> int:
    found = pattern(line, place)
    return place if found is None else found.end()


def of(value: Any) -> str:
    """The JSON text of a value; what JSON does not know is a text in it, bytes as base64."""
    kind = type(value)
    if kind is str:
        return str(text_of(value))
    if value is None:
        return "null"
    if kind is int:
        return repr(value)
    try:
        text = _writer(value)
    except (TypeError, ValueError):  # for example keys of other types
        text = json.dumps(to_json_value(value, encoder=_as_text), ensure_ascii=False)
    return strict(text)


def _as_text(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_writer = json.JSONEncoder(ensure_ascii=False, default=_as_text).encode


def object_of(parts: list[tuple[str, str]]) -> str:
    """An object of fields and their JSON texts."""
    return "{" + ", ".join([f"{text_of(name)}: {text}" for name, text in parts]) + "}"


def whole(text: str) -> str:
    """A text without halves of surrogate pairs; two that belong together become their character."""
    if text.isascii() or _HALVES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def has_halves(text: str) -> bool:
    """Whether there are halves of surrogate pairs in a text."""
    return not text.isascii() and _HALVES.search(text) is not None
