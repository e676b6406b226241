"""Batches as tables: records, and with them pandas, Polars and Arrow. Used by ``BatchResult``."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from .._frames import BOOLEAN, INTEGER, NUMBER, TEXT, Column, arrow_array, column_of, load, objects, polars_series
from .._values import fields_of, is_vector, simple

if TYPE_CHECKING:
    import pandas
    import polars

    from .batch import Batch

_COUNTS = ("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens")
_FROM_METADATA = ("finish_reason", "model", "request_id")
_TIMES = (
    ("queue_seconds", "queue_seconds"),
    ("quota_wait_seconds", "quota_wait_seconds"),
    ("retry_backoff_seconds", "backoff_seconds"),
    ("execution_seconds", "execution_seconds"),
)


def records(batch: Batch) -> list[dict[str, Any]]:
    """A dict per result, all with the same keys, in input order."""
    results = sorted(batch.results, key=_place)
    outputs = _spread("output", [result.output for result in results])
    contexts = _spread("context", [result.context for result in results])
    has_context = any(result.context is not None for result in results)
    has_prompt = any(result.prompt is not None for result in results)
    has_unsent = any(result.not_sent for result in results)
    has_rounds = any(result.rounds is not None for result in results)
    has_reused = any(result.reused is not None for result in results)
    present = [name for name in _FROM_METADATA if any(name in (result.metadata or {}) for result in results)]
    rows = []
    for place, result in enumerate(results):
        row: dict[str, Any] = {
            "item_id": result.item_id,
            "submission_index": result.submission_index,
            "success": bool(result.success),
        }
        if has_prompt:
            row["prompt"] = result.prompt
        row.update((name, values[place]) for name, values in outputs.items())
        row["error"], row["error_category"], row["attempts"] = result.error, result.error_category, result.attempts
        if has_rounds:
            row["rounds"] = result.rounds
        usage: Any = result.token_usage or {}
        row.update((name, usage.get(name)) for name in _COUNTS)
        row.update((name, (result.metadata or {}).get(name)) for name in present)
        timing = result.timing
        only = timing.attempts[0] if len(timing.attempts) == 1 else timing  # whose sums are its own
        row.update((column, getattr(only, name)) for name, column in _TIMES)
        if has_unsent:
            row["not_sent"] = result.not_sent
        if has_reused:
            row["reused"] = result.reused
        if has_context:
            row.update((name, values[place]) for name, values in contexts.items())
        rows.append(row)
    return rows


def _place(result: Any) -> float:
    return float("inf") if result.submission_index is None else result.submission_index


def _spread(name: str, values: list[Any]) -> dict[str, list[Any]]:
    """Columns of values: one for each field, if all that are there have fields."""
    fields = [fields_of(value) for value in values]
    apart = any(fields) and all(part is not None or value is None for part, value in zip(fields, values, strict=True))
    if not apart:
        return {name: [value.tolist() if is_vector(value) else value for value in values]}
    names = dict.fromkeys(part for one in fields if one is not None for part in one)
    made = {}
    for part in names:
        cells: list[Any] = [None if one is None else one.get(part) for one in fields]
        made[f"{name}.{part}"] = [cell.tolist() if is_vector(cell) else cell for cell in cells]
    return made


COLUMNS = ("item_id", "submission_index", "success", "output", "error", "error_category", "attempts", *_COUNTS)
_TYPES = {
    **dict.fromkeys(("item_id", "error", "error_category", "reused"), TEXT),
    **dict.fromkeys(("submission_index", "attempts", "rounds", *_COUNTS), INTEGER),
    **dict.fromkeys((column for _, column in _TIMES), NUMBER),
    "success": BOOLEAN,
}
"""The kinds of our columns; those of others are inferred."""


def to_pandas(batch: Batch) -> pandas.DataFrame:
    """A pandas data frame."""
    library = load("pandas")
    rows = records(batch)
    names = list(rows[0]) if rows else COLUMNS
    columns = {name: _pandas_column(name, [row[name] for row in rows]) for name in names}
    frame: pandas.DataFrame = library.DataFrame(columns)
    return frame


def _pandas_column(name: str, values: list[Any]) -> Any:
    """A column; values that the library would make something else of stay the objects that they are."""
    library = load("pandas")
    kinds = {type(value) for value in values if value is not None}
    try:
        if _TYPES.get(name) is INTEGER or (kinds == {int} and None in values):
            return library.array(values, dtype="Int64")
        if kinds == {str}:
            _ = [value.isascii() or value.encode() for value in values if value is not None]
        if len(kinds) < 2 and kinds <= {str, int, float, bool, datetime.datetime}:
            return library.Series(values)
    except (TypeError, ValueError, OverflowError):  # half of a surrogate pair, counts that are none
        pass
    return library.Series(objects(values), dtype=object)


def to_polars(batch: Batch) -> polars.DataFrame:
    """A Polars data frame."""
    library = load("polars")
    frame: polars.DataFrame = library.DataFrame([polars_series(*column) for column in _columns(records(batch))])
    return frame


def to_arrow(batch: Batch) -> Any:
    """An Arrow table."""
    arrow = load("pyarrow")
    return arrow.table({name: arrow_array(kind, values) for name, kind, values in _columns(records(batch))})


def _columns(rows: list[dict[str, Any]]) -> list[Column]:
    names = list(rows[0]) if rows else COLUMNS
    return [column_of(name, [_simple(row[name]) for row in rows], _TYPES.get(name)) for name in names]


def _simple(value: Any) -> Any:
    try:
        return simple(value)
    except Exception:  # it cannot even be looked into
        return value
