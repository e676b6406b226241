"""Rows as work items: which prompt, which id, which strategy. An invalid row is set aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .._frames import Template
from .._items import LLMWorkItem
from ..content import Image
from ..errors import ProviderError
from ..native import NativeStrategy, llm
from . import requests, texts
from .reading import TEXT, Row, is_request

PROMPT_COLUMNS = ("prompt", "messages", "input", TEXT)
"""Columns that are the prompt if there is no template, in this order."""
ID_COLUMNS = ("id", "item_id", "custom_id")
LARGEST_IMAGE = 64 << 20
"""Bytes."""


class InvalidRowError(Exception):
    """A row cannot be sent."""


@dataclass
class Wanted:
    """How prompts are made from rows.

    Args:
        strategy: Answers rows without their own model.
        template: A template over the columns; None: a column is the prompt.
        image: The column with paths or URLs of images.
        image_root: The folder of the images.
        make: Makes a strategy for a model and its options.
        on_invalid: Called with invalid rows, which then have a problem.
    """

    strategy: NativeStrategy[Any] | None
    template: str | None = None
    image: str | None = None
    image_root: Path = field(default_factory=Path)
    make: Callable[..., NativeStrategy[Any]] = llm
    on_invalid: Callable[[Row], None] = lambda row: None

    def __post_init__(self) -> None:
        self._requests = requests.Strategies(self.make, has_model=self.strategy is not None)
        # Images alone need it, and the working directory may be gone.
        self._folder = self.image_root if self.image is None else self.image_root.resolve()
        self.prompt: Template | None = None
        self.of_requests = False
        """Whether rows are requests of the Batch API."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of which one at least has to be there; of a template, all."""
        return PROMPT_COLUMNS if self.prompt is None else tuple(self.prompt.columns)

    @property
    def needed(self) -> set[str]:
        """All columns that are looked at."""
        image = set() if self.image is None else {self.image}
        return {*self.columns, *ID_COLUMNS, *image, "body", "url", "method"}

    def prepare(self, columns: Iterable[str] | None) -> None:
        """Read the template, and check that the required columns exist.

        Args:
            columns: The columns; None: unknown.

        Raises:
            click.ClickException: If one is not; the message names it and the remedy.
            click.UsageError: If the template is none.
        """
        names = None if columns is None else list(columns)
        if self.template is not None:
            try:
                self.prompt = Template(self.template, names)
            except ValueError as error:
                if names is not None and _is_template(self.template):
                    raise click.ClickException(str(error)) from error
                raise click.BadParameter(str(error), param_hint="'--prompt'") from error
        if names is None:
            return
        shown = ", ".join(map(repr, names)) or "none"
        if self.prompt is None and not set(names) & set(PROMPT_COLUMNS):
            raise click.ClickException(
                f"row 1 has no prompt: its columns are {shown}. Name one 'prompt' or 'messages', or write a template: "
                f"--prompt 'Summarise: {{{next(iter(names), TEXT)}}}'"
            )
        if self.image is not None and self.image not in names:
            raise click.ClickException(f"--image: there is no column {self.image!r}; the columns are {shown}")

    def items(self, rows: Iterable[Row]) -> Iterator[LLMWorkItem[Any, Any, Any]]:
        """Return the items; a row is the context of its item."""
        for row in rows:
            row.item_id = _id_of(row)
            try:
                if row.problem is not None:
                    raise InvalidRowError(f"invalid row: {row.problem}")
                item = self._item(row)
            except (InvalidRowError, requests.BadRequestError) as error:
                row.problem = str(error)
                self.on_invalid(row)
                continue
            yield item

    def _item(self, row: Row) -> LLMWorkItem[Any, Any, Any]:
        if self.template is None and is_request(row):
            strategy, prompt = self._requests.of(row)
        elif self.strategy is not None and not (self.of_requests and _resembles_request(row)):
            strategy, prompt = self.strategy, self._prompt(row)
        else:
            more = "" if self.strategy is not None or _resembles_request(row) else "; to send other rows, set --model"
            raise InvalidRowError(f"invalid row: {requests.lacking(row)}{more}")
        try:
            if not isinstance(prompt, str):
                strategy._expect(prompt)
            elif texts.has_halves(prompt):
                raise InvalidRowError(
                    "invalid row: the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it"
                )
        except (TypeError, ValueError, ProviderError) as error:
            raise InvalidRowError(f"invalid row: {error}") from error
        return LLMWorkItem(row.item_id, strategy, prompt, row)

    def _prompt(self, row: Row) -> Any:
        prompt = self._text(row)
        if self.image is None:
            return prompt
        if not isinstance(prompt, str):
            raise InvalidRowError("invalid row: --image needs a text prompt, not messages")
        source = row.get(self.image)
        if source is None or source == "":
            raise InvalidRowError(f"invalid row: the image column {self.image!r} is empty")
        try:
            return [prompt, self._picture(source)]
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else _reason(error)
            shown = f"{len(source):,} bytes" if isinstance(source, bytes) else repr(str(source)[:80])
            raise InvalidRowError(f"invalid row: image column {self.image!r}, {shown}: {reason}") from error

    def _text(self, row: Row) -> Any:
        if self.prompt is not None:
            for name in self.prompt.columns:
                if name not in row:
                    raise InvalidRowError(f"invalid row: it has no column {name!r}")
                _check_there(name, row[name])
            return self.prompt.fill(row)
        problem = None
        for name in PROMPT_COLUMNS:
            if name not in row:
                continue
            try:
                _check_there(name, row[name])
            except InvalidRowError as error:
                problem = problem or error
            else:
                return _messages(row[name]) if name == "messages" else row[name]
        raise problem or InvalidRowError(
            f"invalid row: it has none of the columns {', '.join(map(repr, PROMPT_COLUMNS))}"
        )

    def _picture(self, source: Any) -> Image:
        """Return an image from the folder, from the web, or from the cell itself."""
        if isinstance(source, bytes):
            return Image(source)
        if not isinstance(source, str):
            raise ValueError("it must be a path or an https URL")
        if source.startswith(("https://", "data:")):
            return Image(source)
        if "://" in source:
            raise ValueError("it must be a path or an https URL")
        try:
            path = (self._folder / source).resolve()
        except RuntimeError as error:  # before Python 3.13, of a link that leads to itself
            raise ValueError("the link points to itself") from error
        if not path.is_relative_to(self._folder):
            raise ValueError(f"it is outside of {self._folder}; set another folder with --image-root")
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        if path.stat().st_size > LARGEST_IMAGE:
            raise ValueError(f"it is larger than {LARGEST_IMAGE >> 20} MB")
        return Image(path)


def _resembles_request(row: Row) -> bool:
    return ("body" in row or "custom_id" in row) and not any(name in row for name in PROMPT_COLUMNS)


def _reason(error: Exception) -> str:
    """Return what is wrong with an image, without advice for Python code."""
    return str(error).removeprefix("Image: ").partition("; pass media_type")[0]


def _is_template(text: str) -> bool:
    try:
        Template(text)
    except ValueError:
        return False
    return True


def _check_there(name: str, value: Any) -> None:
    """Raise if a value cannot be part of a prompt."""
    if value is None or (isinstance(value, float) and value != value):
        raise InvalidRowError(f"invalid row: {name!r} is null")
    if value == [] or (isinstance(value, str) and not value.strip()):
        raise InvalidRowError(f"invalid row: {name!r} is empty")


def _messages(value: Any) -> Any:
    """Return the messages in a cell: in tables, the text of a JSON list. Any other text is the prompt itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    remedy = 'write a list like [{"role": "user", "content": "..."}], or name the column \'prompt\' if it is a string'
    try:
        messages = texts.read(value.strip())
    except (ValueError, RecursionError) as error:
        raise InvalidRowError(f"invalid row: 'messages' is not a JSON list of messages ({error}): {remedy}") from error
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or "role" not in message:
            raise InvalidRowError(f"invalid row: item {number} of the list in 'messages' is not a message: {remedy}")
    if not messages:
        raise InvalidRowError("invalid row: 'messages' is empty")
    return messages


def _id_of(row: Row) -> str:
    for name in ID_COLUMNS:
        value = row.get(name)
        if value not in (None, ""):
            text = value if isinstance(value, str) else str(value)
            return texts.whole(text if not isinstance(value, (dict, list)) else json.dumps(value, default=str))
    return row.item_id


def text_or_file(value: str) -> str:
    """Return a text, or the content of a file given as ``@FILE``."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{value[1:]}: {error.strerror}") from error
    except UnicodeError as error:
        raise click.BadParameter(f"{value[1:]} is not UTF-8: {error}") from error
