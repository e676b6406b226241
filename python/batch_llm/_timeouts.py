"""A time limit for a block, on every supported Python."""

from __future__ import annotations

import asyncio
import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["TIMEOUT_ERRORS", "timeout"]

TIMEOUT_ERRORS = (TimeoutError, asyncio.TimeoutError)
"""Both classes that a time-out may have: they are one only since Python 3.11."""
