"""What ``set`` and ``requeue`` are given: checked, and applied to a run. Used by ``run_control`` and the command line.

Bad values come from outside: each error names the setting, the value and a remedy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._progress import cost_of
from ..errors import ControlError

if TYPE_CHECKING:
    from .run_control import RunControl

NAMES = ("concurrency", "rpm", "tpm", "budget", "deadline")
"""The settings that can be changed."""
OFF = "none"
"""Removes a limit."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MOST_ITEMS = 10_000
"""Items that can be named in one request."""


def number(name: str, value: Any, *, integer: bool = False) -> float | int | None:
    """Return the value of a setting; None: no limit.

    Raises:
        ControlError: If it is not a number above 0, or "none".
    """
    if value is None or value == OFF:
        return None
    wrong = ControlError(
        "bad_argument",
        f"{name} must be a positive {'integer' if integer else 'number'}{_or_none(name)} (got {value!r:.40})",
    )
    if isinstance(value, bool):
        raise wrong
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise wrong from None
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise wrong
    if integer:
        if value != int(value):
            raise wrong
        return int(value)
    return value


def _or_none(name: str) -> str:
    return "" if name == "concurrency" else ", or 'none'"


def duration(value: Any) -> float | None:
    """Return a time in seconds: a number, or a text with a unit such as "90s" or "8h"; None: no limit.

    Raises:
        ControlError: If it is neither.
    """
    if isinstance(value, str) and value[-1:] in _UNITS:
        seconds = number("deadline", value[:-1])
        if seconds is not None:
            return float(seconds) * _UNITS[value[-1]]
        raise ControlError(
            "bad_argument", f"deadline must be a time such as 90s, 30m or 8h, or 'none' (got {value!r:.40})"
        )
    seconds = number("deadline", value)
    return None if seconds is None else float(seconds)


def parsed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as values.

    Raises:
        ControlError: If there is none, one is unknown, or a value is invalid.
    """
    for name in given:
        if name not in NAMES:
            raise ControlError("bad_argument", f"there is no setting {name!r:.40}; known settings: {', '.join(NAMES)}")
    if not given:
        raise ControlError("bad_argument", f"nothing to set; give one of {', '.join(NAMES)}, such as concurrency=8")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name == "deadline":
            values[name] = duration(value)
        else:
            values[name] = number(name, value, integer=name in ("concurrency", "tpm"))
    if "concurrency" in values and values["concurrency"] is None:
        raise ControlError("bad_argument", "concurrency must be a positive integer (got 'none')")
    return values


def checked(control: RunControl, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as values that this run can take.

    Raises:
        ControlError: If it cannot.
    """
    values = parsed(given)
    config, run = control.plan.config, control.run
    if config.dry_run:
        raise ControlError("refused", "a dry run has no settings to change")
    if run.waits_in_batches and values.keys() & {"concurrency", "deadline"}:
        raise ControlError(
            "refused", "concurrency and deadline are fixed while requests wait in batches; drain the run, and start it "
            "again with the new ones"
        )  # fmt: skip
    if (
        values.get("budget") is not None
        and config.guardrails.cost_function is None
        and not run.pipeline.prices_are_known
    ):
        raise ControlError(
            "refused",
            "budget: the price of a model of this run is unknown; give GuardrailConfig(prices=...) when it starts",
        )
    if "concurrency" in values and values["concurrency"] > 1_000_000:
        raise ControlError("bad_argument", f"concurrency must be at most 1,000,000 (got {values['concurrency']})")
    return values


def current(control: RunControl) -> dict[str, Any]:
    """Return the settings in force; ``deadline``: seconds left."""
    config = control.plan.config
    _, workers, budget, left, _ = control.run.steering.state()
    return {
        "concurrency": workers,
        "rpm": config.max_requests_per_minute,
        "tpm": config.max_tokens_per_minute,
        "budget": budget,
        "deadline": None if left is None else round(left, 3),
    }


def apply(control: RunControl, values: Mapping[str, Any]) -> None:
    """Change settings of a run."""
    config, run = control.plan.config, control.run
    steering = run.steering
    if "concurrency" in values:
        run.set_concurrency(values["concurrency"])
    if "rpm" in values:
        config.max_requests_per_minute = values["rpm"]
    if "tpm" in values:
        config.max_tokens_per_minute = values["tpm"]
    if values.keys() & {"rpm", "tpm"}:
        steering.set_limits(config._limits())
    if "budget" in values:
        if config.guardrails.max_total_cost is None and config.guardrails.cost_function is None:
            # Without a cap nothing was counted.
            stats = run.stats()
            missing = (cost_of(stats, run.pipeline.price()) or 0.0) - stats.budget_cost_used
            if missing > 0:
                steering.spend(missing)
        config.guardrails.max_total_cost = values["budget"]
        steering.set_cost_cap(values["budget"])
    if "deadline" in values:
        left = values["deadline"]
        # From the start of the run, as it is reported.
        config.guardrails.batch_timeout = None if left is None else round(run.elapsed() + left, 1)
        steering.set_time_left(left)


def requeue_arguments(given: Mapping[str, Any]) -> tuple[str | None, frozenset[str] | None]:
    """Return the category and the ids that are meant; None: all.

    Raises:
        ControlError: If they are invalid.
    """
    category, items = given.get("category"), given.get("items")
    if category is not None and not (isinstance(category, str) and category):
        raise ControlError("bad_argument", f"category must be a string, such as 'timeout' (got {category!r:.40})")
    if items is None:
        return category, None
    if not isinstance(items, (list, tuple)) or not items or not all(isinstance(item, str) for item in items):
        raise ControlError("bad_argument", "items must be a list of ids (strings)")
    if len(items) > MOST_ITEMS:
        raise ControlError("bad_argument", f"items has {len(items):,} ids; at most {MOST_ITEMS:,} can be named at once")
    return category, frozenset(items)
