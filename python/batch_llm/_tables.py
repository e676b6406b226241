"""Batches as tables: records, and with them pandas, Polars and Arrow. Used by ``BatchResult``."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import polars

    from .results import BatchResult

_COUNTS = ("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens")
_FROM_METADATA = ("finish_reason", "model", "request_id")
_TIMES = (
    ("queue_seconds", "queue_seconds"),
    ("quota_wait_seconds", "quota_wait_seconds"),
    ("retry_backoff_seconds", "backoff_seconds"),
    ("execution_seconds", "execution_seconds"),
)


def records(batch: BatchResult[Any, Any]) -> list[dict[str, Any]]:
    """A dict per result, all with the same keys."""
    fields = [_fields(result.output) for result in batch.results]
    # Apart only where every output that is there has fields.
    apart = any(part is not None for part in fields) and all(
        part is not None or result.output is None for part, result in zip(fields, batch.results, strict=True)
    )
    names = list(dict.fromkeys(name for part in fields if part is not None for name in part)) if apart else []
    has_context = any(result.context is not None for result in batch.results)
    has_reused = any(result.reused is not None for result in batch.results)
    told = [name for name in _FROM_METADATA if any(name in (result.metadata or {}) for result in batch.results)]
    rows = []
    for result, parts in zip(batch.results, fields, strict=True):
        row: dict[str, Any] = {
            "item_id": result.item_id,
            "submission_index": result.submission_index,
            "success": bool(result.success),
        }
        if apart:
            row.update((f"output.{name}", (parts or {}).get(name)) for name in names)
        else:
            row["output"] = result.output
        row["error"], row["error_category"], row["attempts"] = result.error, result.error_category, result.attempts
        usage: Any = result.token_usage or {}
        row.update((name, usage.get(name)) for name in _COUNTS)
        row.update((name, (result.metadata or {}).get(name)) for name in told)
        timing = result.timing
        only = timing.attempts[0] if len(timing.attempts) == 1 else timing  # whose sums are its own
        row.update((column, getattr(only, name)) for name, column in _TIMES)
        if has_reused:
            row["reused"] = result.reused
        if has_context:
            row["context"] = result.context
        rows.append(row)
    return rows


def _fields(output: Any) -> dict[str, Any] | None:
    """The fields of an output that has some."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    kind: Any = type(output)
    if hasattr(kind, "model_fields") and hasattr(output, "model_dump"):
        return {name: getattr(output, name) for name in kind.model_fields}
    return None


COLUMNS = ("item_id", "submission_index", "success", "output", "error", "error_category", "attempts", *_COUNTS)


def to_pandas(batch: BatchResult[Any, Any]) -> pandas.DataFrame:
    """A pandas data frame."""
    library = load("pandas")
    rows = records(batch)
    frame: pandas.DataFrame = library.DataFrame(rows) if rows else library.DataFrame(columns=list(COLUMNS))
    # Counts that are not known everywhere stay whole numbers.
    for name in ("submission_index", "attempts", *_COUNTS):
        frame[name] = frame[name].astype("Int64")
    return frame


def to_polars(batch: BatchResult[Any, Any]) -> polars.DataFrame:
    """A Polars data frame."""
    library = load("polars")
    rows = records(batch)
    columns = _columns(rows) if rows else [(name, []) for name in COLUMNS]
    frame: polars.DataFrame = library.DataFrame(
        [library.Series(name, values, strict=False) for name, values in columns]
    )
    return frame


def to_arrow(batch: BatchResult[Any, Any]) -> Any:
    """An Arrow table."""
    arrow = load("pyarrow")
    rows = records(batch)
    if not rows:
        return arrow.table({name: [] for name in COLUMNS})
    arrays = {}
    for name, values in _columns(rows):
        try:
            arrays[name] = arrow.array(values)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError):
            arrays[name] = arrow.array([None if value is None else _as_text(value) for value in values])
    return arrow.table(arrays)


def _columns(rows: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    return [(name, [simple(row[name]) for row in rows]) for name in rows[0]]


def simple(value: Any) -> Any:
    """Nested objects as nested values, which columns can hold."""
    fields = _fields(value)
    if fields is not None:
        return {name: simple(part) for name, part in fields.items()}
    if isinstance(value, (list, tuple)):
        return [simple(part) for part in value]
    return value


def _as_text(value: Any) -> str:
    """Values of a column whose values are of many kinds."""
    if isinstance(value, str):
        return value

    from .serialization import to_json_value

    return json.dumps(to_json_value(value, encoder=str), ensure_ascii=False)


def load(name: str) -> Any:
    """Import a library, or say how it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is required for this. Install it: pip install {name}") from error
