"""A time limit for a block, on every supported Python."""

from __future__ import annotations

import sys

from .strategies.errors import TIMEOUT_ERRORS

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["TIMEOUT_ERRORS", "timeout"]
