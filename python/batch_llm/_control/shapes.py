"""What commands return, as types: the one source of type hints, of the JSON schema, and of its documentation.

The envelope of the command line is ``{"version": 1, "command": ..., "run": ..., "data": ...}`` with one of these as its
data, or ``{"version": 1, "command": ..., "run": ..., "error": {"code": ..., "message": ...}}``. Fields are only added
within a version.
"""

from __future__ import annotations

from typing import Any

# pydantic, which makes the schema of these, needs it before Python 3.12.
from typing_extensions import NotRequired, TypedDict


class RunInfo(TypedDict):
    """A run in the registry. Times are seconds since 1970."""

    id: str
    name: str
    state: str
    pid: int
    host: str
    user: str
    program: str
    started_at: float
    ended_at: float | None
    exit_code: int | None
    store: str | None
    log: str | None


class Batches(TypedDict):
    """Requests in batches, by where they are; ``collected``: whose replies this run has collected."""

    queued: int
    running: int
    writing: int
    collected: int


class Progress(TypedDict):
    """How far a run is, in items."""

    total: int
    total_is_final: bool
    processed: int
    succeeded: int
    failed: int
    not_sent: int
    reused: int
    requeued: int
    queued: int
    in_flight: int
    in_batches: int
    batches: Batches
    retrying: int


class Tokens(TypedDict):
    """Tokens so far."""

    input: int
    output: int
    cached_input: int


class Settings(TypedDict):
    """The settings in force: attempts in flight, requests and tokens per minute, cost, seconds left; None: no limit."""

    concurrency: int
    rpm: float | None
    tpm: int | None
    budget: float | None
    deadline: float | None


class Waits(TypedDict):
    """What everything waits for: seconds of a cooldown, of an outage; a used-up limit."""

    cooldown: float
    outage: float | None
    standstill: str | None


class Ending(TypedDict):
    """Why a run ended early."""

    kind: str
    reason: str | None


class By(TypedDict):
    """Who has made a change."""

    user: str
    host: str
    pid: int | None


class Change(TypedDict):
    """A change that was made from outside."""

    type: str
    at: float
    by: NotRequired[By]
    reason: NotRequired[str]
    values: NotRequired[dict[str, Any]]
    item: NotRequired[str]
    items: NotRequired[list[str]]
    category: NotRequired[str]
    count: NotRequired[int]


class Interval(TypedDict):
    """An estimate, and the bounds that hold in nine of ten runs."""

    low: float
    expected: float
    high: float


class Forecast(TypedDict):
    """Seconds to the end, and the cost of the whole run, if limits stay as they are; ``level``: how often they hold."""

    level: float
    seconds_left: Interval | None
    cost: Interval | None


class Verdict(TypedDict):
    """What limited a run most: a name, and one sentence with one thing to do."""

    limit: str
    text: str


class BoundOverTime(TypedDict):
    """What limited a run over time.

    ``seconds``: by reason, one number for each interval; ``interval``: the length of an interval, ``end``: that of the
    run so far, both in seconds.
    """

    interval: float
    end: float
    seconds: dict[str, list[float]]


class Explanation(TypedDict):
    """What limited a run: in words, in seconds by reason, and the limits in force; over time, if that was asked for.

    ``began_at``: when the run began, seconds since 1970.
    """

    text: str
    verdict: NotRequired[Verdict]
    bound_by: dict[str, float]
    bound_over_time: NotRequired[BoundOverTime]
    began_at: NotRequired[float | None]
    limits: list[dict[str, Any]]
    concurrency: float
    prompt_cache: dict[str, int]
    sent_live: dict[str, int]


class Cost(TypedDict):
    """What a run has cost, in the currency of the prices, and what it will; None: not known."""

    spent: float | None
    projected: float | None
    forecast: Interval | None
    budget: float | None
    tokens: Tokens
    attempts_of_unknown_usage: int


class Status(TypedDict):
    """The status of a run. ``state``: running, paused, ending, finishing, ended, died, starting or unknown."""

    run: RunInfo
    state: str
    elapsed: float | None
    progress: Progress
    rate: float | None
    seconds_left: float | None
    forecast: Forecast | None
    errors: dict[str, int]
    tokens: Tokens
    cost: float | None
    settings: Settings | None
    adaptive: NotRequired[bool]
    waits: Waits | None
    termination: Ending | None
    changes: list[Change]
    error: NotRequired[str]


class Failure(TypedDict):
    """A failed item. ``number`` counts the failures of a run; ``at`` is not known of those in a store."""

    number: int
    at: float | None
    id: str
    category: str | None
    error: str | None
    attempts: int


class Tail(TypedDict):
    """The last failures, and the number of the last one."""

    failures: list[Failure]
    last: int


class Paused(TypedDict):
    """Whether the run is paused, before and after."""

    dry_run: bool
    paused: dict[str, bool]


class Set(TypedDict):
    """The settings that were changed: each with ``before`` and ``after``."""

    dry_run: bool
    values: dict[str, dict[str, Any]]


class Ended(TypedDict):
    """What a run that is cancelled or drained leaves: attempts in flight, items that are not sent. Or the item."""

    dry_run: bool
    in_flight: NotRequired[int]
    not_sent: NotRequired[int]
    item: NotRequired[str]


class Requeued(TypedDict):
    """How many items are sent again, and when: ``"now"``, or ``"next_run"`` with the same store."""

    dry_run: bool
    items: int
    when: str


class Runs(TypedDict):
    """Runs, the newest first."""

    runs: list[RunInfo]


class Waited(TypedDict):
    """A run that is over."""

    run: RunInfo
    status: Status | None


SHAPES: dict[str, Any] = {
    "ps": Runs,
    "status": Status,
    "watch": Status,
    "tail": Tail,
    "explain": Explanation,
    "cost": Cost,
    "pause": Paused,
    "resume": Paused,
    "set": Set,
    "requeue": Requeued,
    "cancel": Ended,
    "drain": Ended,
    "wait": Waited,
}
"""By command."""


def schema(command: str) -> dict[str, Any]:
    """Return the JSON schema of a command's envelope."""
    from pydantic import TypeAdapter

    data = TypeAdapter(SHAPES[command]).json_schema()
    definitions = data.pop("$defs", {})
    problem = {
        "type": "object",
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        "required": ["code", "message"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"batch-llm {command} --json",
        "type": "object",
        "properties": {
            "version": {"const": 1},
            "command": {"const": command},
            "run": {"type": ["string", "null"]},
            "data": data,
            "error": problem,
        },
        "required": ["version", "command", "run"],
        "oneOf": [{"required": ["data"]}, {"required": ["error"]}],
        "additionalProperties": False,
        "$defs": definitions,
    }
