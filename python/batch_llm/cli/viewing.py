"""``batch-llm view``: the page of a run in the browser, live; or as a file."""

from __future__ import annotations

import contextlib
import threading
import time
import webbrowser
from typing import Any

import click

from .._control import attach
from .._shown import line
from .._stored_rows import StoredItems
from .._view import ViewServer, write
from ..errors import ControlError
from . import files
from .input_prompts import PROMPT_OPTIONS, prompts_of
from .stores import readable, there

STATUS_SECONDS = 1.0
"""How long the status of a run is used."""


class RunStatus:
    """What is known of the run that writes to a store, while there is one; asked at most once a second.

    Args:
        store: The store.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._until = 0.0
        self._found: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, Any]:
        """Return it as JSON values."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._found = self._ask()
                self._until = time.monotonic() + STATUS_SECONDS
            return self._found

    def _ask(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with contextlib.suppress(ControlError, OSError, ValueError):
            run = attach(self._store).sync
            status = run.status()
            found["state"] = status["state"] if status["state"] != "unknown" else None
            progress = status["progress"]
            if progress["total_is_final"] and progress["total"]:
                found["total"] = progress["total"]
            explained = run.explain(over_time=True)
            found["explanation"] = explained["text"]
            over_time = explained.get("bound_over_time")
            if over_time is not None:
                found["bound_over_time"] = {**over_time, "began_at": explained.get("began_at")}
        return found


@click.command()
@click.argument("store", callback=there)
@click.argument("other", required=False, callback=there, metavar="[OTHER]")
@click.option("-o", "--output", metavar="FILE", help="Write the page to FILE instead of serving it.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def view(store: str, other: str | None, output: str | None, no_browser: bool, **options: Any) -> None:
    """Show the run in STORE in the browser, even while it is in progress; with OTHER, a second store, compare both.

    The page is served on this machine only, at an address with a token, until Ctrl-C. It shows all items with prompts,
    answers and attempts, with search, filters and sorting; errors by kind; charts over time.
    """
    if output is not None and other is not None:
        raise click.UsageError("-o writes the page of one run; leave it out to compare two")
    with readable():
        prompts = prompts_of(options)
        items = StoredItems(store, prompts, RunStatus(store))
        if output is not None:
            _write(items, output)
            return
        compared = None if other is None else StoredItems(other, prompts)
        with ViewServer(items, compared) as server:
            click.echo(f"{server.url}\nPress Ctrl-C to stop.")
            if not no_browser:
                _open(server.url_once)
            with contextlib.suppress(KeyboardInterrupt):
                while True:  # one wait without end would not notice a signal that comes just before it
                    time.sleep(STATUS_SECONDS)


for _option in reversed(PROMPT_OPTIONS):
    view = _option(view)


def _write(items: StoredItems, output: str) -> None:
    try:
        write(items, output, files.PRIVATE)
    except OSError as error:
        raise files.problem(output, error) from error
    click.echo(f"Wrote {line(output)}", err=True)


def _open(address: str) -> None:
    """Open a browser; where there is none, the printed address has to do."""
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(address)
