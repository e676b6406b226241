"""A board in Redis, for several jobs on one key: ``shared_limits="redis://host:port"``.

The table is a value of JSON per scope, with Redis' own time. One script on the server does what
``src/sharing/table.rs`` does, so that a renewal is one round trip, and only the share comes back.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib import import_module, resources
from typing import Any

from .._secrets import mask
from .demand import Demand, Share

_PREFIX = "batch-llm:limits:"
_PATIENCE = 2.0
"""How long connecting and a reply may take, seconds."""


class RedisBoard:
    """Shared limits in Redis.

    Args:
        url: As redis-py takes it: ``redis://``, ``rediss://`` or ``unix://``.

    Raises:
        ImportError: If redis-py is not installed.
        ValueError: If the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        try:
            redis: Any = import_module("redis")
        except ImportError as error:
            raise ImportError('shared_limits="redis://..." needs redis-py: pip install "batch-llm[redis]"') from error
        try:
            client = redis.Redis.from_url(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
        except (ValueError, TypeError) as error:
            raise ValueError(f"shared_limits is not a URL of Redis: {mask(str(error))}") from None
        self._script: Any = client.register_script(_source())

    def renew(self, scope: str, holder: str, demand: Demand) -> Share:
        """Renew a lease, or take it."""
        return self._renew_at(scope, holder, demand)

    def leave(self, scope: str, holder: str) -> None:
        """Give a share back."""
        self._call("leave", scope, holder, {})

    # `now`, milliseconds, is for tests.

    def _renew_at(self, scope: str, holder: str, demand: Demand, now: int | None = None) -> Share:
        known = {name: value for name, value in asdict(demand).items() if value is not None}
        return Share(**json.loads(self._call("renew", scope, holder, known, now)))

    def _call(self, what: str, scope: str, holder: str, demand: dict[str, Any], now: int | None = None) -> Any:
        arguments = [what, holder, json.dumps(demand), "" if now is None else now]
        return self._script(keys=[_PREFIX + scope], args=arguments)


@cache
def _source() -> str:
    return resources.files("batch_llm._boards").joinpath("redis.lua").read_text(encoding="utf-8")
