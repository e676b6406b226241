"""Checks that all configurations share."""

from __future__ import annotations

import numbers
from typing import NoReturn


def check_number(name: str, value: object, *, integer: bool = False) -> None:
    """Refuse what is not a finite number, in the user's terms."""
    kind: type = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        wanted = "an integer" if integer else "a number"
        raise ValueError(f"{name} must be {wanted} (got {value!r}, a {type(value).__name__}).")
    # NaN is the one number that differs from itself; math.isnan would overflow on large integers.
    if value != value:
        raise ValueError(f"{name} must be a number, not NaN (got {value!r}). Check how it was computed.")


def refuse(condition: str, value: object, hint: str) -> NoReturn:
    """Say what must hold, what was given, and what to do."""
    raise ValueError(f"{condition} (got {value}). {hint}")


def check_concurrency(value: object) -> None:
    """Refuse what is no number of attempts.

    Raises:
        ValueError: Names the value.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"concurrency must be a positive integer (got {value!r})")
