"""A time limit for a block, on every supported Python."""

from __future__ import annotations

import sys
from typing import Any

from .strategies.errors import TIMEOUT_ERRORS

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["TIMEOUT_ERRORS", "expired", "timeout"]


def expired(deadline: Any) -> bool:
    """Whether a time limit is what ended its block; a method in asyncio, a property in its back-port."""
    reached = deadline.expired
    return bool(reached() if callable(reached) else reached)
