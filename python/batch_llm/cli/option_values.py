"""What the options of ``batch-llm run`` may be: callbacks of click that read a value, or say what it may be."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import click

from .._control import checked_name
from .asking import text_or_file

_READ = f"{__name__}.read"


def text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return a text, or the text of the file that ``@FILE`` names."""
    if value is None:
        return None
    if value.startswith("@"):
        _remember(context, parameter, value[1:])
    return text_or_file(value)


def _remember(context: click.Context, parameter: click.Parameter, path: str) -> None:
    """Record that a file is read, so that it is not overwritten."""
    context.meta.setdefault(_READ, {})[parameter.opts[-1]] = path


def files_read(context: click.Context) -> dict[str, str]:
    """Return the files that options were read from, by the name of the option."""
    return dict(context.meta.get(_READ, {}))


def schema(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Return the JSON of a file."""
    if value is None:
        return None
    _remember(context, parameter, value)
    try:
        return json.loads(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror or error}") from error
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a JSON file: {error}") from error


def name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the name of a run."""
    try:
        return None if value is None else checked_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def concurrency(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    """Return a number of requests, or ``'auto'``."""
    if value == "auto":
        return value
    if value.isdigit() and int(value) > 0:
        return int(value)
    raise click.BadParameter("it must be a positive integer, or 'auto'")


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A number of seconds, or one with a unit."""
    if value is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    number, unit = (value[:-1], units[value[-1]]) if value[-1:] in units else (value, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise click.BadParameter("it must be a time above 0, such as 90, 90s, 30m or 8h")
    return seconds


def encoding(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return Python's name of an encoding."""
    if value is None:
        return None
    try:
        "".encode(value)
        return codecs.lookup(value).name
    except LookupError as error:
        raise click.BadParameter(f"unknown encoding {value!r}; use utf-8, cp1252 or utf-16, for example") from error


def delimiter(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return a character; ``tab`` is one too."""
    if value in ("\\t", "tab"):
        return "\t"
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("it must be one character, or 'tab'")
    return value
