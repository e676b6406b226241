"""Whether a run is controlled: the argument ``control=`` of processors. Used by ``parallel``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._secrets import quoted

if TYPE_CHECKING:
    from .._run import Overseer, RunPlan

VARIABLE = "BATCH_LLM_CONTROL"
"""The environment variable that turns control off for runs without a ``control=`` argument."""
LONGEST_NAME = 100


def control_of(given: Any, *, has_store: bool) -> Callable[[RunPlan], Overseer] | None:
    """Return what makes the control of a run; None: it has none.

    Args:
        given: The argument.
        has_store: Whether the run has a store.

    Raises:
        TypeError: If it is neither True, False, None nor a name.
        ValueError: If the name is empty or too long.
    """
    is_off = os.environ.get(VARIABLE, "").lower() in ("0", "off", "false", "no")
    if given is False or (given is None and (is_off or not has_store)):
        return None
    from .run_control import ControlOptions

    if isinstance(given, ControlOptions):
        return None if is_off else given
    if given is None or given is True:
        return ControlOptions()
    if not isinstance(given, str):
        raise TypeError(f"control must be True, False, None or a name, not {type(given).__name__} ({quoted(given)})")
    return ControlOptions(name=checked_name(given))


def checked_name(name: str) -> str:
    """Return the name of a run.

    Raises:
        ValueError: If it is empty or too long.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"the name of a run must have 1 to {LONGEST_NAME} printable characters (got {quoted(name)})")
    return name
