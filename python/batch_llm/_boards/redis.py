"""A board in Redis, for several jobs on one key: ``shared_limits="redis://host:port"``.

The table is a value of JSON per scope, and each job is one, with Redis' own time. Scripts on the server do what
``src/sharing/table.rs`` and ``src/sharing/jobs.rs`` do, so that a renewal or a report is one round trip, and only the
share or the verdict comes back.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module, resources
from typing import Any

from .._secrets import mask
from .demand import Demand, JobReport, JobVerdict, Share

_PREFIX, _JOB_PREFIX = "batch-llm:limits:", "batch-llm:job:"
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
            raise ValueError(f"shared_limits is not a valid Redis URL: {mask(str(error))}") from None
        self._script: Any = client.register_script(_source("redis.lua"))
        self._job_script: Any = client.register_script(_source("redis_job.lua"))

    def renew(self, scope: str, holder: str, demand: Demand) -> Share:
        """Renew a lease, or take it."""
        return self._renew_at(scope, holder, demand)

    def report(self, job: str, holder: str, report: JobReport) -> JobVerdict:
        """Take the report of one who works on a job."""
        return self._report_at(job, holder, report)

    def leave(self, scope: str, holder: str) -> None:
        """Give a share back, or what is left of the allowance for a job."""
        self._call("leave", scope, holder, {})
        self._call_job("leave", scope, holder, {})

    # `now`, milliseconds, is for tests.

    def _renew_at(self, scope: str, holder: str, demand: Demand, now: int | None = None) -> Share:
        return Share(**json.loads(self._call("renew", scope, holder, _known(demand), now)))

    def _report_at(self, job: str, holder: str, report: JobReport, now: int | None = None) -> JobVerdict:
        return JobVerdict(**json.loads(self._call_job("report", job, holder, _known(report), now)))

    def _call(self, what: str, scope: str, holder: str, demand: dict[str, Any], now: int | None = None) -> Any:
        arguments = [what, holder, json.dumps(demand), "" if now is None else now]
        return self._script(keys=[_PREFIX + scope], args=arguments)

    def _call_job(self, what: str, job: str, holder: str, report: dict[str, Any], now: int | None = None) -> Any:
        arguments = [what, holder, json.dumps(report), "" if now is None else now]
        return self._job_script(keys=[_JOB_PREFIX + job], args=arguments)


def _known(given: Demand | JobReport) -> dict[str, Any]:
    return {name: value for name, value in vars(given).items() if value is not None}


@cache
def _source(name: str) -> str:
    return resources.files("batch_llm._boards").joinpath(name).read_text(encoding="utf-8")
