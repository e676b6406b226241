"""Results as rows of files: JSON lines, CSV, Parquet; beside what was asked."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click

from ..frames import error_column
from ..results import WorkItemResult
from ..serialization import to_json_value
from .asking import is_batch_request
from .files import Sink
from .reading import SUFFIXES, Row

OUTPUT = "output"
"""The column of answers; of answers that are objects each field has one, ``output.name``, where there are columns."""
ERROR = error_column(OUTPUT)
"""The column of errors where answers become columns of the input."""
GROUP = 1024
"""Rows of a group of a Parquet file."""


RowOf = Callable[[WorkItemResult[Any, Any]], Row]
"""Makes a row of a result."""


class Writer(Protocol):
    """Takes results."""

    def write(self, result: WorkItemResult[Any, Any]) -> None:
        """Add one."""

    def close(self) -> None:
        """Put down what is left."""


def format_of(path: str, given: str | None, *, is_stream: bool) -> str:
    """What is to be written: as was said, else by the name; to stdout, devices and pipes JSON lines."""
    kind = given or SUFFIXES.get(Path(path).suffix.lower())
    if is_stream:
        if kind == "parquet":
            raise click.UsageError("Parquet is written to files only; give -o FILE")
        return given or "jsonl"
    if given is not None:
        return given
    if kind is None or kind == "lines":
        raise click.UsageError(f"{path}: end its name with .jsonl, .csv or .parquet, or say it with --output-format")
    return kind


def writer(sink: Sink, kind: str, row_of: RowOf, schema: Any = None) -> Writer:
    """Make what writes rows.

    Args:
        sink: The output, open.
        kind: What is written.
        row_of: Makes a row of a result.
        schema: For Parquet the types of the columns that the input has, an Arrow schema.
    """
    if kind == "parquet":
        assert sink.path is not None
        return _Parquet(sink.path, row_of, schema)
    return _JsonLines(sink.text, row_of) if kind == "jsonl" else _Csv(sink.text, row_of, "\t" if kind == "tsv" else ",")


def added(result: WorkItemResult[Any, Any]) -> Row:
    """A row as it was, with the answer and the error as its last columns."""
    row: Row = {
        name: value
        for name, value in (result.context or {}).items()
        if name not in (OUTPUT, ERROR) and not name.startswith(f"{OUTPUT}.")
    }
    return {**row, OUTPUT: to_json_value(result.output, redact=False), ERROR: result.error}


def record(result: WorkItemResult[Any, Any]) -> Row:
    """A row of the result: the columns that were asked with, and what came of them."""
    asked: Row = result.context or {}
    if is_batch_request(asked):
        return _batch_reply(result)
    row = {name: value for name, value in asked.items() if name not in ("id", OUTPUT, "error")}
    usage: Any = result.token_usage or {}
    row = {"id": result.item_id, **row, OUTPUT: to_json_value(result.output, redact=False)}
    row["error"], row["error_category"] = result.error, result.error_category
    row["input_tokens"], row["output_tokens"] = usage.get("input_tokens"), usage.get("output_tokens")
    row["model"] = (result.metadata or {}).get("model")
    row["finish_reason"] = (result.metadata or {}).get("finish_reason")
    return row


def _batch_reply(result: WorkItemResult[Any, Any]) -> Row:
    """A line of the output file of OpenAI's Batch API."""
    metadata = result.metadata or {}
    reply: Row = {"id": f"batch_req_{result.item_id}", "custom_id": result.item_id, "response": None, "error": None}
    if not result.success:
        reply["error"] = {"code": result.error_category or "unknown", "message": result.error}
        status = getattr(result.exception, "status_code", None)
        if status is not None:
            said = {"error": {"message": result.error, "code": result.error_category}}
            reply["response"] = {"status_code": status, "request_id": metadata.get("request_id"), "body": said}
        return reply
    body: Any = metadata.get("raw")
    if not isinstance(body, dict) or not ("choices" in body or "output" in body):
        body = _completion(result, metadata)
    reply["response"] = {"status_code": 200, "request_id": metadata.get("request_id"), "body": body}
    return reply


def _completion(result: WorkItemResult[Any, Any], metadata: dict[str, Any]) -> Row:
    """An answer of another provider, or from the store, as a chat completion."""
    usage: Any = result.token_usage or {}
    outputs = result.output if isinstance(result.output, list) else [result.output]
    texts = [one if isinstance(one, str) or one is None else json.dumps(to_json_value(one)) for one in outputs]
    reason = metadata.get("finish_reason") or "stop"
    return {
        "id": metadata.get("request_id") or f"chatcmpl-{result.item_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": metadata.get("model"),
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason[index] if isinstance(reason, list) else reason,
            }
            for index, text in enumerate(texts)
        ],
        "usage": {
            "prompt_tokens": usage.get("input_tokens", 0),
            "completion_tokens": usage.get("output_tokens", 0),
            "total_tokens": usage.get("total_tokens", 0),
        },
    }


def _flat(row: Row) -> Row:
    """A row with a column for each field of an answer that is an object."""
    if not isinstance(row.get(OUTPUT), dict):
        return row
    flat: Row = {}
    for name, value in row.items():
        if name == OUTPUT:
            flat.update((f"{OUTPUT}.{field}", part) for field, part in value.items())
        else:
            flat[name] = value
    return flat


class _JsonLines:
    def __init__(self, file: Any, row_of: RowOf) -> None:
        self._file, self._row_of = file, row_of

    def write(self, result: WorkItemResult[Any, Any]) -> None:
        """Write a line."""
        self._file.write(json.dumps(self._row_of(result), ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        """Nothing is left."""


class _Csv:
    def __init__(self, file: Any, row_of: RowOf, delimiter: str) -> None:
        self._file, self._row_of, self._delimiter = file, row_of, delimiter
        self._writer: Any = None
        self._early: list[Row] = []

    def write(self, result: WorkItemResult[Any, Any]) -> None:
        """Write a line; its columns are those of the first answer."""
        row = _flat(self._row_of(result))
        if self._writer is None:
            # A failed one does not know what columns answers have.
            self._early.append(row)
            if not result.success and len(self._early) < GROUP:
                return
            self._begin()
        else:
            self._write(row)

    def _begin(self) -> None:
        names = list(dict.fromkeys(name for row in reversed(self._early) for name in row))
        if any(name.startswith(f"{OUTPUT}.") for name in names):
            names = [name for name in names if name != OUTPUT]
        self._writer = csv.DictWriter(
            self._file, names, delimiter=self._delimiter, extrasaction="ignore", restval="", lineterminator="\n"
        )
        self._writer.writeheader()
        early, self._early = self._early, []
        for row in early:
            self._write(row)

    def _write(self, row: Row) -> None:
        self._writer.writerow(
            {
                name: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
                for name, value in row.items()
            }
        )

    def close(self) -> None:
        """Write what has waited for an answer."""
        if self._writer is None and self._early:
            self._begin()


class _Parquet:
    def __init__(self, path: str, row_of: RowOf, known: Any) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise click.ClickException("Parquet needs pyarrow. Install it: pip install pyarrow") from error
        self._arrow: Any = pyarrow
        self._path, self._row_of = path, row_of
        self._known = {} if known is None else {field.name: field for field in known}
        self._rows: list[Row] = []
        self._writer: Any = None

    def write(self, result: WorkItemResult[Any, Any]) -> None:
        """Add a row; a group is written when it is full."""
        self._rows.append(_flat(self._row_of(result)))
        if len(self._rows) >= GROUP:
            self._write()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        rows = [{name: row.get(name) for name in names} for row in self._rows]
        if self._writer is None:
            table = self._arrow.Table.from_pylist(rows)
            self._schema = self._arrow.schema([self._field(field) for field in table.schema])
            self._writer = self._arrow.parquet.ParquetWriter(self._path, self._schema)
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))
        self._rows.clear()

    def _field(self, found: Any) -> Any:
        """What a column is: what it is in the input, else what it is in the first group; what is nowhere is text."""
        if found.name in self._known:
            return self._known[found.name]
        return self._arrow.field(found.name, self._arrow.string()) if self._arrow.types.is_null(found.type) else found

    def close(self) -> None:
        """Write the last group."""
        if self._rows or self._writer is None:
            self._write()
        if self._writer is not None:
            self._writer.close()
