"""Whole batches as JSON and back. Used by ``BatchResult``; ``serialization`` documents the format."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._files import replaced
from ._json_values import ValueDecoder, ValueEncoder, to_json_value
from ._results import BatchTermination, ProcessingStats, WorkItemResult
from .errors import ResultSerializationError
from .serialization import decode_result, encode_result, envelope, field_of, lines_of, opened, parsed

if TYPE_CHECKING:
    from ._report import Batch


def _about(batch: Batch) -> dict[str, Any]:
    return {
        "termination": dataclasses.asdict(batch.termination),
        "wall_time_seconds": batch.wall_time_seconds,
        "stats": None if batch.stats is None else to_json_value(batch.stats, path="$.stats"),
    }


def batch_to_dict(batch: Batch, encoder: ValueEncoder | None = None) -> dict[str, Any]:
    """Encode a batch."""
    results = [encode_result(result, encoder, f"$.results[{index}]") for index, result in enumerate(batch.results)]
    return envelope("batch", **_about(batch), results=results)


def batch_to_json(batch: Batch, encoder: ValueEncoder | None, indent: int | None) -> str:
    """Encode a batch as text."""
    return _text(batch_to_dict(batch, encoder), indent=indent)


def batch_to_jsonl(batch: Batch, path: str | os.PathLike[str], encoder: ValueEncoder | None = None) -> None:
    """Write a batch, a result per line; the file appears when it is whole."""
    with replaced(path) as file:
        file.write(_line(envelope("batch-header", **_about(batch))))
        for index, result in enumerate(batch.results):
            file.write(_line(encode_result(result, encoder, f"$.results[{index}]")))


def _line(data: dict[str, Any]) -> str:
    return _text(data, separators=(",", ":")) + "\n"


def _text(data: Any, **form: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, **form)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON has as \ud83d alone
        return json.dumps(data, allow_nan=False, **form)
    return text


def batch_from_dict(
    data: Any, output_decoder: ValueDecoder | None = None, context_decoder: ValueDecoder | None = None
) -> dict[str, Any]:
    """Decode a batch: return the arguments to make one."""
    data = opened(data, ("batch",))
    results = data.get("results")
    if not isinstance(results, list):
        raise ResultSerializationError(f"$.results must be a list, not {type(results).__name__}")
    return _batch(
        data,
        [
            decode_result(part, output_decoder, context_decoder, f"$.results[{index}]")
            for index, part in enumerate(results)
        ],
    )


def batch_from_json(
    text: str | bytes, output_decoder: ValueDecoder | None = None, context_decoder: ValueDecoder | None = None
) -> dict[str, Any]:
    """Decode a batch from text: return the arguments to make one."""
    return batch_from_dict(parsed(text, "$"), output_decoder, context_decoder)


def batch_from_jsonl(
    path: str | os.PathLike[str],
    output_decoder: ValueDecoder | None = None,
    context_decoder: ValueDecoder | None = None,
) -> dict[str, Any]:
    """Read a whole file; return the arguments to make a batch of it."""
    lines = lines_of(path)
    about = opened(next(lines)[1], ("batch-header",))
    return _batch(
        about, [decode_result(data, output_decoder, context_decoder, f"line {number}") for number, data in lines]
    )


def _batch(about: Mapping[str, Any], results: list[WorkItemResult[Any, Any]]) -> dict[str, Any]:
    termination = field_of(about, "termination", (dict,), "$", {})
    stats = field_of(about, "stats", (dict,), "$")
    return {
        "results": results,
        "termination": _filled(BatchTermination, termination),
        "stats": None if stats is None else _filled(ProcessingStats, stats),
        "wall_time_seconds": field_of(about, "wall_time_seconds", (int, float), "$"),
    }


def _filled(kind: Any, data: Mapping[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in data.items() if name in known})
