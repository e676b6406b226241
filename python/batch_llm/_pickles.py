"""Pickling and copying of results, items and errors. Used by ``results``, ``base`` and the modules of errors.

Process pools, joblib and Streamlit's cache keep results as pickles. What cannot be pickled in an error (the reply of an
SDK, a lock) is left out; its class and text stay. A context or a prompt that cannot be pickled is None there, with a
warning.
"""

from __future__ import annotations

import builtins
import copy
import pickle
import sys
import warnings
from typing import Any, cast

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
DEEP = 8
"""How deep containers are looked into before pickling is simply tried."""
LONGEST_CHAIN = 5
"""Most causes behind an error that go along with it; each is tried by itself."""


def survives(value: Any) -> bool:
    """Whether a value can be pickled and made again."""
    return _is_plain(value, DEEP) or hasattr(value, "_is_portable") or _try(value) is not _LOST


_LOST = object()


def _try(value: Any) -> Any:
    try:
        return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - what we have just written
    except Exception:
        return _LOST


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is certain to survive, without trying."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if depth == 0:
        return False
    if kind is dict:
        return all(_is_plain(key, depth - 1) and _is_plain(part, depth - 1) for key, part in value.items())
    if kind in (list, tuple):
        return all(_is_plain(part, depth - 1) for part in value)
    return False


def portable(value: Any, what: str) -> Any:
    """A value for a pickle; None, with a warning, in place of one that cannot be pickled.

    Args:
        value: The value.
        what: What it is, for the warning; the same for all items, so that it comes once.
    """
    if _is_plain(value, DEEP):
        return value
    try:
        pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        warnings.warn(f"{what} cannot be pickled ({problem:.80}); the pickle contains None instead", stacklevel=2)
        return None
    return value


def portable_parts(values: dict[str, Any], what: str) -> dict[str, Any]:
    """A dict for a pickle, with None for what of it cannot be pickled."""
    if _is_plain(values, DEEP):
        return values
    return {name: portable(value, what) for name, value in values.items()}


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of a value; the value itself where it cannot be copied (a connection, a lock)."""
    if isinstance(value, BaseException):
        return value
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        return value


# Errors


def reduced(error: BaseException) -> tuple[Any, ...]:
    """What ``__reduce__`` of an error returns: its class, arguments and attributes, its cause among them."""
    return _remade, (_findable(type(error)), _arguments(error)), _attributes(error)


def portable_error(error: BaseException | None) -> Any:
    """An error for a pickle: as it is, or without what cannot be pickled."""
    if error is None or _is_same(error, _try(error)):
        return error
    lighter = _Lighter(error)
    return lighter if _is_same(error, _try(lighter)) else _with_text(error)


class _Lighter:
    """Is pickled in place of an error, and becomes one of the same class and text."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        group = getattr(builtins, "ExceptionGroup", None)  # Python 3.11
        if group is not None and isinstance(self._error, group):
            parts: Any = self._error
            return group, (parts.message, [portable_error(part) for part in parts.exceptions])
        return reduced(self._error)


def _is_same(error: BaseException, other: Any) -> bool:
    if type(other) is not _findable(type(error)):
        return False
    try:
        return str(other) == str(error)
    except Exception:
        return False


def _remade(kind: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    # Without __init__: many take other arguments than the text that they pass on.
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    return error


def _findable(kind: type[BaseException]) -> type[BaseException]:
    """The class of an error, or the nearest of those it inherits from that another process finds by its name."""
    for one in kind.__mro__:
        found: Any = sys.modules.get(one.__module__)
        for part in one.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is one and issubclass(one, BaseException):
            return cast("type[BaseException]", one)
    return Exception


def _arguments(error: BaseException) -> tuple[Any, ...]:
    return tuple(part if survives(part) else _Shown(part) for part in error.args)


def _attributes(error: BaseException) -> dict[str, Any]:
    state = {name: value for name, value in vars(error).items() if survives(value)}
    if _has_cause(error):
        state["__cause__"] = portable_error(error.__cause__)
    return state


def _has_cause(error: BaseException) -> bool:
    """Whether the causes behind an error are few, and none comes twice."""
    seen, other = {id(error)}, error.__cause__
    if other is None:
        return False
    while other is not None:
        if id(other) in seen or len(seen) > LONGEST_CHAIN:
            return False
        seen.add(id(other))
        other = other.__cause__
    return True


class _Shown:
    """Stands for a value that cannot be pickled, and looks as it did."""

    def __init__(self, value: Any) -> None:
        try:
            self._text = repr(value)
        except Exception:
            self._text = f"a {type(value).__name__}"

    def __repr__(self) -> str:
        return self._text


def _with_text(error: BaseException) -> BaseException:
    """An error of Python's own with the text of one that cannot be made again."""
    try:
        text = str(error)
    except Exception:
        text = type(error).__name__
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins" and issubclass(kind, Exception):
            made = _try(_PlainError(kind, text))
            if made is not _LOST and str(made) == text:
                return cast("BaseException", made)
    return Exception(text)


class _PlainError:
    """Is pickled in place of an error, and becomes one with this text."""

    def __init__(self, kind: type[BaseException], text: str) -> None:
        self._kind, self._text = kind, text

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._kind, (self._text,))
