"""Prompts for a store that has none, from the input file of its run: ``--prompts FILE``. Used by ``stores``."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import weakref
from collections.abc import Callable
from typing import Any

import click

from .._values import simple
from ..native import llm
from . import option_values, reading
from .asking import Wanted

PROMPT_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--prompts",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="The input of the run, for prompts that are not in the store. By default, a store has only the "
        "prompts of failed items.",
    ),
    click.option(
        "-p",
        "--prompt",
        callback=option_values.text,
        help="The template of the run, for --prompts; or @FILE.",
    ),
)


def prompts_of(options: dict[str, Any]) -> Callable[[str], Any] | None:
    """Read the prompts of a file. Return what has them by the ids of their rows; None: there is no file.

    They are kept in a private, temporary database, not in memory.

    Raises:
        click.ClickException: If the file cannot be read, or has no prompts.
    """
    file, template = options.get("prompts"), options.get("prompt")
    if file is None:
        if template is not None:
            raise click.UsageError("--prompt needs --prompts FILE: the template is filled from its rows")
        return None
    database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    database.execute("CREATE TABLE prompts (id TEXT PRIMARY KEY, prompt TEXT) WITHOUT ROWID")
    lock = threading.Lock()

    def find(item_id: str) -> Any:
        with lock:
            row = database.execute("SELECT prompt FROM prompts WHERE id = ?", [item_id]).fetchone()
        return None if row is None else json.loads(row[0])

    weakref.finalize(find, database.close)
    database.execute("BEGIN")
    source = reading.Source(file, reading.format_of(file, None), None, None, None)
    # Nothing is sent: the strategy only says that rows need no model of their own.
    wanted = Wanted(llm("openai:gpt-5-mini", api_key="none"), template)
    survey = source.survey()
    wanted.of_requests = survey.is_of_requests and template is None
    wanted.prepare(None if wanted.of_requests or not survey.rows else survey.columns)
    for item in wanted.items(source.rows()):
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            text = json.dumps(simple(item.prompt), default=repr)
            database.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", [item.item_id, text])
    database.execute("COMMIT")
    return find
