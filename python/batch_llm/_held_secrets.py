"""Secrets in a strategy, by the names of its fields: no error may quote them, whatever they look like.

Failures call :func:`learn` before they describe an error; ``_secrets.mask`` replaces what was learned. Nothing is
searched before something fails.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
import threading
import types
import urllib.parse
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import _secrets
from ._forks import in_child

SHORTEST = 6
"""Shorter values may be words, characters."""
MOST = 256
"""How many ways of writing the secrets of one strategy are known."""
_STRATEGIES = 64
"""How many strategies are known at a time; the others are looked through again when they fail again."""
_NODES = 2_000
"""How many values of one strategy are looked at."""
_DEPTH = 8
_LONGEST = 20_000
"""Longer texts are not secrets, characters."""
_PREFIX = 12
"""First characters that identify a long secret, where an error truncates it."""
_LEAVES = (str, bytes)
_PLAIN = (bool, int, float, complex, type(None), type, types.ModuleType, re.Pattern)

_lock = threading.Lock()
"""Locks changes of what was learned. A forked child gets a new one: its parent's may be locked for ever in it."""
_learned: dict[int, tuple[Any, tuple[int, ...], frozenset[str]]] = {}
"""By the id of a strategy: a reference to it, which texts its fields were, and its secrets."""
_masked: frozenset[str] = frozenset()


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()


in_child(_forget_lock)


def learn(strategy: Any) -> None:
    """Find the secrets in a strategy, so that texts are masked from now on. Never raises."""
    try:
        # Looked through once, and again where a text of its own is another one, as tokens are that are renewed.
        texts = tuple(id(value) for value in _fields_of(strategy).values() if isinstance(value, _LEAVES))
        known = _learned.get(id(strategy))
        if known is not None and known[0]() is strategy and known[1] == texts:
            return
        found = frozenset(_Search().of(strategy))
        with _lock:
            _learned.pop(id(strategy), None)
            while len(_learned) >= _STRATEGIES:
                _learned.pop(next(iter(_learned)), None)
            _learned[id(strategy)] = (_reference(strategy), texts, found)
            _apply()
    except Exception:  # noqa: S110 - objects of others may do anything when they are looked at
        pass


def _reference(strategy: Any) -> Callable[[], Any]:
    number = id(strategy)

    def forget(reference: Any) -> None:
        # No lock: this may run whenever memory is collected, also under it.
        known = _learned.get(number)
        if known is not None and known[0] is reference:
            _learned.pop(number, None)

    try:
        return weakref.ref(strategy, forget)
    except TypeError:
        return lambda: None  # it is searched again each time


def _apply() -> None:
    global _masked
    values = frozenset().union(*(found for _, _, found in list(_learned.values())))
    if values != _masked:
        _secrets.hold(_pattern(values) if values else None)
        _masked = values


def _pattern(values: frozenset[str]) -> re.Pattern[str]:
    whole, cut = [], []
    for value in sorted(values, key=len, reverse=True):
        written = re.escape(value)
        if len(value) >= 2 * _PREFIX and _may_be_one(value):
            cut.append(re.escape(value[:_PREFIX]) + r"[\w+=~/-]*")
        # A short one may be a part of a word.
        whole.append(written if len(value) >= 16 else rf"(?<![A-Za-z0-9]){written}(?![A-Za-z0-9])")
    return re.compile("|".join([*whole, *cut]))


class _Search:
    """One look through a strategy, the nearest first."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}
        self._found: dict[str, None] = {}
        self._ahead: deque[tuple[Any, str, bool, int]] = deque()

    def of(self, strategy: Any) -> list[str]:
        """The secrets, in all the ways in which they are written."""
        self._ahead.append((strategy, "", False, 0))
        while self._ahead and len(self._seen) < _NODES and len(self._found) < MOST:
            value, name, inherited, depth = self._ahead.popleft()
            if isinstance(value, _LEAVES):
                self._leaf(value, name, inherited)
            elif not isinstance(value, _PLAIN) and depth <= _DEPTH and id(value) not in self._seen:
                self._seen[id(value)] = value  # referenced, so that its id stays its own
                self._open(value, name, inherited or (bool(name) and _secrets.is_named_secret(name)), depth + 1)
        return list(self._found)[:MOST]

    def _open(self, value: Any, name: str, inherited: bool, depth: int) -> None:
        unveil = getattr(type(value), "get_secret_value", None)
        if unveil is not None:
            self._add(unveil(value))
        elif isinstance(value, Mapping):
            for key, part in itertools.islice(value.items(), _NODES):
                self._ahead.append((part, key if isinstance(key, str) else "", inherited, depth))
        elif isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_asdict"):
            if _secrets.is_pair(name, value):
                user, word = value
                self._add(word)
                self._add(base64.b64encode(f"{user}:{word}".encode()).decode())
                return
            self._ahead.extend((part, name, inherited, depth) for part in itertools.islice(value, _NODES))
        else:
            inherited = inherited and _secrets.fields_of(value) is not None  # no client, only a record
            for field, part in _fields_of(value).items():
                self._ahead.append((part, field, inherited, depth))

    def _leaf(self, value: str | bytes, name: str, inherited: bool) -> None:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if len(text) > _LONGEST:
            return
        if name and _secrets.is_secret_field(name, text):
            # A password may be any word; a key has more than letters.
            if not (text.isalpha() and len(text) < 12) or _secrets.is_password(name):
                self._add(text)
            if "://" in text:
                for part in urllib.parse.urlsplit(text).path.split("/"):  # of a webhook, the last is the secret
                    if _may_be_one(part):
                        self._add(part)
        elif inherited and "://" not in text and _may_be_one(text):
            self._add(text)
        for part in _secrets.parts_of(text):
            self._add(part)
            self._add(urllib.parse.unquote(part))

    def _add(self, value: Any) -> None:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(text, str):
            return
        text = text.strip()
        scheme, _, rest = text.partition(" ")
        several = [line.strip() for line in text.splitlines()] if "\n" in text else []
        for one in (text, *([rest.strip()] if scheme.isalpha() and " " not in rest.strip() else []), *several):
            if len(one) >= SHORTEST and (one is text or _may_be_one(one)):
                for written in (one, urllib.parse.quote(one, safe=""), one.replace("/", "\\/"), repr(one)[1:-1]):
                    self._found[written] = None


def _may_be_one(text: str) -> bool:
    """Whether a text below a field with a secret name is likely to be secret itself."""
    if len(text) < SHORTEST or any(letter.isspace() for letter in text):
        return False
    has_cases = not (text.islower() or text.isupper() or text.istitle())
    return _secrets.is_opaque(text) or (len(text) >= 12 and has_cases) or len(text) >= 20


def _fields_of(value: Any) -> Mapping[str, Any]:
    """Return the attributes of an object, by name; of a function what it is bound to."""
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, **value.keywords}
    if isinstance(value, types.MethodType):
        return {"__self__": value.__self__, "__func__": value.__func__}
    if isinstance(value, types.FunctionType):
        return dict(_bound(value))
    fields: dict[str, Any] = {}
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            fields[name] = getattr(value, name, None)
    fields.update(getattr(value, "__dict__", None) or {})
    as_dict: Any = getattr(value, "_asdict", None) if isinstance(value, tuple) else None
    return fields if as_dict is None else dict(as_dict())


def _bound(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function has from around it: variables of its closure, defaults, and secrets of its module."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # it has no value yet
    yield from (function.__kwdefaults__ or {}).items()
    defaults = function.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=False)
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, _LEAVES) and _secrets.is_named_secret(name):
            yield name, value
