"""Checks that all configurations share."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NoReturn

from ._guesses import nearest


def check_number(name: str, value: object, *, integer: bool = False) -> None:
    """Reject a value that is not a finite number."""
    kind: type = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "an integer" if integer else "a number"
        raise ValueError(f"{name} must be {wanted} (got {value!r}, a {type(value).__name__}).")
    # NaN is the one number that differs from itself; math.isnan would overflow on large integers.
    if value != value:
        raise ValueError(f"{name} must be a number, not NaN (got {value!r}). Check how it was computed.")


def reject(condition: str, value: object, hint: str) -> NoReturn:
    """Raise an error with the condition, the value and a remedy."""
    raise ValueError(f"{condition} (got {value}). {hint}")


def check_concurrency(value: object) -> None:
    """Reject an invalid number of attempts.

    Raises:
        ValueError: Names the value.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"concurrency must be a positive integer (got {value!r})")


def check_known(options: Mapping[str, Any], known: Iterable[str], owner: str) -> None:
    """Refuse an option that is not there.

    Args:
        options: What was given as ``**options``.
        known: The names that ``owner`` takes.
        owner: What takes them, for the message.

    Raises:
        TypeError: Names the option and the nearest known one.
    """
    names = tuple(known)
    for name in options:
        if name not in names:
            raise TypeError(f"{owner} has no option {name!r}{nearest(name, names)}")


_KINDS: dict[str, tuple[Any, str]] = {
    "a number": (numbers.Real, "temperature top_p"),
    "an integer": (numbers.Integral, "max_tokens seed n dimensions"),
    "a string": (str, "system_prompt reasoning_effort tool_choice base_url api_key_env"),
    "a string or a list of strings": (Collection, "stop"),
    "a list": (Iterable, "tools"),
    "a mapping": (Mapping, "extra_body extra_headers"),
    "True, False or an integer (the number of alternatives)": (numbers.Integral, "logprobs"),
}
_OPTIONS = {name: (kind, wanted) for wanted, (kind, names) in _KINDS.items() for name in names.split()}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a model that are of another kind than they must be.

    Raises:
        TypeError: Names the option, what it must be and what it is.
        ValueError: If a number is none.
    """
    for name, value in options.items():
        kind, wanted = _OPTIONS.get(name, (object, ""))
        is_odd_flag = isinstance(value, bool) and name != "logprobs"
        if value is not None and (not isinstance(value, kind) or (kind is not object and is_odd_flag)):
            raise TypeError(f"{name} must be {wanted}, not {value!r:.80} ({type(value).__name__})")
        if isinstance(value, numbers.Real) and value != value:
            raise ValueError(f"{name} must be a number, not NaN")
    if options.get("max_tokens") is not None and options["max_tokens"] < 1:
        raise ValueError(f"max_tokens must be >= 1 (got {options['max_tokens']})")
    for text in options.get("stop") or ():
        if not isinstance(text, str):
            raise TypeError(
                f"stop must be a string or a list of strings, not a list with {text!r:.80} ({type(text).__name__})"
            )
