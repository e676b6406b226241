"""Rows as work items: which prompt, which id, which strategy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .._templates import Template
from ..base import LLMWorkItem
from ..content import Image
from ..native import NativeOptions, NativeStrategy, llm
from .reading import TEXT, Row

PROMPT_COLUMNS = ("prompt", "messages", "input", TEXT)
"""Columns that are the prompt when no template says otherwise, in this order."""
ID_COLUMNS = ("id", "item_id", "custom_id")

_RENAMED = {"max_completion_tokens": "max_tokens"}


def is_batch_request(row: Row) -> bool:
    """Whether a row is a request of OpenAI's Batch API."""
    return "custom_id" in row and isinstance(row.get("body"), dict)


@dataclass
class Wanted:
    """How prompts are made of rows.

    Args:
        strategy: Answers rows that do not say by which model.
        prompt: A template over the columns; None: a column is the prompt.
        image: The column with paths or URLs of pictures.
        make: Makes a strategy for a model and its options.
    """

    strategy: NativeStrategy[Any] | None
    prompt: Template | None
    image: str | None
    make: Callable[..., NativeStrategy[Any]] = llm

    def __post_init__(self) -> None:
        self._strategies: dict[str, NativeStrategy[Any]] = {}

    def items(self, rows: Iterable[Row]) -> Iterator[LLMWorkItem[Any, Any, Any]]:
        """Make the items; a row is the context of its item.

        Raises:
            click.ClickException: When a row lacks a column that is needed; names the row and the column.
        """
        for number, row in enumerate(rows, 1):
            if is_batch_request(row):
                yield self._of_request(number, row)
                continue
            if self.strategy is None:
                raise click.UsageError("--model says who answers: --model openai:gpt-5-mini")
            yield LLMWorkItem(_id_of(row, number), self.strategy, self._prompt(number, row), row)

    def _prompt(self, number: int, row: Row) -> Any:
        if self.prompt is not None:
            prompt: Any = filled(self.prompt, number, row)
        else:
            column = next((name for name in PROMPT_COLUMNS if row.get(name)), None)
            if column is None:
                raise click.ClickException(
                    f"row {number} has no prompt: its columns are {', '.join(map(repr, row))}. Name one "
                    f"'prompt' or 'messages', or write a template: --prompt 'Summarise: {{{next(iter(row), TEXT)}}}'"
                )
            prompt = row[column]
        if self.image is None:
            return prompt
        if not isinstance(prompt, str):
            raise click.ClickException(f"row {number}: --image goes with a text, not with messages")
        source = row.get(self.image)
        if not source:
            raise click.ClickException(f"row {number} has nothing in its column {self.image!r}, the picture")
        try:
            return [prompt, Image(str(source))]
        except (OSError, ValueError) as error:
            raise click.ClickException(f"row {number}, column {self.image!r}: {error}") from error

    def _of_request(self, number: int, row: Row) -> LLMWorkItem[Any, Any, Any]:
        body = dict(row["body"])
        prompt = body.pop("messages", None) or body.pop("input", None)
        if not prompt:
            raise click.ClickException(f"row {number} ({row['custom_id']!r}): its body has no messages and no input")
        model = body.pop("model", None)
        key = json.dumps([model, body], sort_keys=True)
        if key not in self._strategies:
            self._strategies[key] = self._request_strategy(number, model, body)
        return LLMWorkItem(str(row["custom_id"]), self._strategies[key], prompt, row)

    def _request_strategy(self, number: int, model: Any, body: dict[str, Any]) -> NativeStrategy[Any]:
        if self.strategy is None and not isinstance(model, str):
            raise click.ClickException(f"row {number}: its body names no model; say one with --model")
        body.pop("stream", None)
        options: dict[str, Any] = {"raw": True}
        extra = {}
        for name, value in body.items():
            known = _RENAMED.get(name, name)
            if known in NativeOptions.__annotations__ and known not in ("tools", "tool_choice", "stop", "logprobs"):
                options[known] = value
            else:
                extra[name] = value
        if extra:
            options["extra_body"] = extra
        try:
            return self.make(model, **options)
        except (TypeError, ValueError) as error:
            raise click.ClickException(f"row {number}: {error}") from error


def _id_of(row: Row, number: int) -> str:
    for name in ID_COLUMNS:
        if row.get(name) not in (None, ""):
            return str(row[name])
    return f"row-{number}"


def filled(template: Template, number: int, row: Row) -> str:
    """The prompt of a row."""
    try:
        return template.fill(row)
    except KeyError as error:
        raise click.ClickException(f"row {number} has no column {error}; it has {', '.join(map(repr, row))}") from error


def text_or_file(value: str) -> str:
    """A text, or with ``@`` before it the content of a file."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{value[1:]}: {error.strerror}") from error
