"""What bounded a run over time, as it was read from a store or a file. Used by ``inspection`` and ``_view``.

``ProcessingStats.bound_over_time`` says what it has. Files may come from anywhere, so it is read with bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MOST = 1_000
"""Intervals that are read; the engine makes 240."""
MOST_REASONS = 50
"""Reasons that are read; there are about 20."""
LONGEST = 100 * 366 * 86_400.0
"""Longest time that is believed, seconds."""
LONGEST_NAME = 40


def over_time_of(found: Any) -> dict[str, Any] | None:
    """Return it, if it is what the engine makes, with no other fields than ``began_at``; None: it is not, or is empty.

    Args:
        found: JSON values.
    """
    if not isinstance(found, Mapping):
        return None
    interval, end, seconds = found.get("interval"), found.get("end"), found.get("seconds")
    if not (_is_time(interval) and interval and _is_time(end) and isinstance(seconds, Mapping)):
        return None
    lengths = {len(times) if isinstance(times, list) else -1 for times in seconds.values()}
    if len(seconds) > MOST_REASONS or len(lengths) != 1 or not 0 < max(lengths) <= MOST:
        return None
    for name, times in seconds.items():
        if not (isinstance(name, str) and len(name) <= LONGEST_NAME and all(map(_is_time, times))):
            return None
    made = {"interval": interval, "end": end, "seconds": {name: list(times) for name, times in seconds.items()}}
    began_at = found.get("began_at")
    return made | ({"began_at": began_at} if _is_time(began_at) else {})


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= LONGEST
