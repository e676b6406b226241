"""``ps``, ``status``, ``pause``, ``set`` and so on: commands that watch and change runs of other processes.

Exit codes: 0 done; 1 the run refused, or does not answer; 2 invalid command line; 5 there is no such run, or there are
several; 6 the run is over, and the command needs one that is running; 7 ``wait --timeout``: not over yet; 8 ``wait``:
the process of the run has died. Otherwise, ``wait`` returns the exit code of the run.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from .._control import NAMES, AttachedRun, attach, entries, schema
from .._shown import escaped_json, line
from ..errors import ControlError
from . import option_values, showing

NO_RUN, NOT_RUNNING, NOT_OVER, DIED = 5, 6, 7, 8
_CODES = {"bad_argument": 2, "unknown_run": NO_RUN, "several_runs": NO_RUN, "not_running": NOT_RUNNING}
_RUN = (
    "RUN is the id of a run or the beginning of it, its name, or the path of its store. It may be omitted if "
    "exactly one run is in progress."
)
_EPILOG = (
    f"{_RUN}\n\nExit codes: 0 done, 1 the run rejected the command or does not answer, 2 invalid usage, 5 no such run"
)
_EPILOGS = {
    "ps": "Exit codes: 0 done, 2 invalid usage.",
    "wait": f"{_RUN}\n\nExit codes: that of the run (see batch-llm run --help), 2 invalid usage, 5 no such run, 7 not "
    "over in time, 8 its process has died.",
    **dict.fromkeys(("status", "watch", "tail", "explain", "cost"), f"{_EPILOG}."),
}
"""By command; those that change a run have another one."""


class Envelope:
    """Prints what a command returns, as JSON or as text.

    Args:
        command: Its name.
        run: The run that was named.
        as_json: Whether JSON is wanted.
    """

    def __init__(self, command: str, run: str | None, *, as_json: bool) -> None:
        self._command, self.run, self._as_json = command, run, as_json

    def show(self, data: Any, text: Callable[[], str]) -> None:
        """Print what came of it; ``text``: the same for people."""
        if self._as_json:
            self._print({"data": data})
        else:
            for one in text().split("\n"):
                click.echo(line(one))

    def fail(self, error: ControlError) -> int:
        """Print an error, and return the exit code."""
        if self._as_json:
            self._print({"error": {"code": error.code, "message": str(error)}})
        else:
            click.echo(f"Error: {line(str(error))}", err=True)
        return _CODES.get(error.code, 1)

    def _print(self, content: dict[str, Any]) -> None:
        made = {"version": 1, "command": self._command, "run": self.run, **content}
        click.echo(escaped_json(json.dumps(made, default=str, ensure_ascii=False)))
        sys.stdout.flush()


def _show_schema(name: str, context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo(json.dumps(schema(name), indent=2))
        context.exit()


def _command(name: str, *, changes: bool = False, run: bool = True) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function of a run, an envelope and options. It may return an exit code."""

    def make(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def call(as_json: bool, run: str | None = None, **options: Any) -> None:
            envelope = Envelope(name, run, as_json=as_json)
            try:
                if takes_run:
                    handle = attach(run)
                    envelope.run = handle.id or run
                    code = function(handle, envelope, **options)
                else:
                    code = function(envelope, **options)
            except ControlError as error:
                code = envelope.fail(error)
            sys.exit(code or 0)

        made: Any = call
        if changes:
            made = click.option("--dry-run", is_flag=True, help="Print what would change, without changing it.")(made)
            made = click.option("--reason", metavar="TEXT", help="Reason, stored with the change.")(made)
        made = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(made)
        made = click.option(
            "--schema",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=functools.partial(_show_schema, name),
            help="Print the JSON schema of --json.",
        )(made)
        if takes_run:
            made = click.argument("run", required=False)(made)
        return click.command(name, epilog=_EPILOGS.get(name, f"{_EPILOG}, 6 the run is over."))(made)

    takes_run = run
    return make


@_command("ps", run=False)
@click.option("-a", "--all", "is_all", is_flag=True, help="List past runs too.")
def ps(envelope: Envelope, is_all: bool) -> None:
    """List runs in progress: id, name, state, age, process, store."""
    runs = [entry.shown() for entry in entries() if is_all or entry.is_live]
    envelope.show({"runs": runs}, lambda: showing.runs(runs, is_all=is_all))


@_command("status")
def status(run: AttachedRun, envelope: Envelope) -> None:
    """Show progress, settings, cost and changes of RUN.

    A run that is over is shown as its store has it.
    """
    found = run.sync.status()
    envelope.show(found, lambda: showing.status(found))


@_command("watch")
@click.option(
    "--interval", type=click.FloatRange(0.05), default=1.0, show_default=True, help="Seconds between updates."
)
def watch(run: AttachedRun, envelope: Envelope, interval: float) -> None:
    """Show the progress of RUN until it is over. With --json, one object per line."""
    for found in _looks(run, interval):
        envelope.show(found, functools.partial(showing.progress, found))


def _looks(run: AttachedRun, interval: float) -> Iterator[Any]:
    while True:
        found = run.sync.status()
        yield found
        if found["state"] in ("ended", "died", "unknown"):
            return
        time.sleep(interval)


@_command("tail")
@click.option(
    "-n", "most", type=click.IntRange(0, 1000), default=20, show_default=True, help="Maximum number of failures."
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new failures until the run is over.")
def tail(run: AttachedRun, envelope: Envelope, most: int, follow: bool) -> None:
    """Show the last failures of RUN: item, category, error."""
    found = run.sync.tail(most)
    envelope.show(found, lambda: showing.failures(found, is_first=not follow))
    while follow and run.sync.refresh().is_live:
        time.sleep(0.5)
        more = run.sync.tail(1000, after=found["last"])
        if run.sync.refresh().is_live and more["failures"]:
            found = more
            envelope.show(found, functools.partial(showing.failures, found, is_first=False))


@_command("explain")
@click.option("--over-time", is_flag=True, help="Show it for each part of the run, too.")
def explain(run: AttachedRun, envelope: Envelope, over_time: bool) -> None:
    """Explain what limits RUN, for what share of the time, and what to change."""
    found = run.sync.explain(over_time=over_time)
    envelope.show(found, lambda: "\n".join([found["text"], *showing.limits_over_time(found)]))


@_command("cost")
def cost(run: AttachedRun, envelope: Envelope) -> None:
    """Show what RUN has cost, and what it will cost by the end."""
    found = run.sync.cost()
    envelope.show(found, lambda: showing.cost(found))


@_command("pause", changes=True)
def pause(run: AttachedRun, envelope: Envelope, **options: Any) -> None:
    """Pause RUN: nothing more starts until `resume`; requests in flight continue."""
    found = run.sync.pause(**options)
    envelope.show(found, lambda: showing.paused(found))


@_command("resume", changes=True)
def resume(run: AttachedRun, envelope: Envelope, **options: Any) -> None:
    """Resume RUN after `pause`."""
    found = run.sync.resume(**options)
    envelope.show(found, lambda: showing.paused(found))


@_command("set", changes=True, run=False)
@click.argument("arguments", nargs=-1, metavar="[RUN] SETTING=VALUE...")
def set_(envelope: Envelope, arguments: tuple[str, ...], **options: Any) -> None:
    """Change settings of RUN.

    \b
    concurrency=N        requests in flight; with --concurrency auto, the maximum
    rpm=N, tpm=N         requests, tokens per minute
    budget=DOLLARS       maximum cost of the whole run
    deadline=TIME        time left, from now: 90s, 30m, 8h

    budget=none removes the limit, and so on.
    """  # noqa: D301 - click's mark for lines that stay as they are
    names = [argument for argument in arguments if argument.partition("=")[0] not in NAMES or "=" not in argument]
    if len(names) > 1:
        raise click.UsageError(f"{names[1]!r} is not a setting; settings are {', '.join(f'{name}=' for name in NAMES)}")
    run = attach(names[0] if names else None)
    envelope.run = run.id or None
    values: dict[str, Any] = dict(argument.split("=", 1) for argument in arguments if argument not in names)
    found = run.sync.set(**values, **options)
    envelope.show(found, lambda: showing.values(found))


@_command("requeue", changes=True, run=False)
@click.argument("arguments", nargs=-1, metavar="[RUN] [ID]...")
@click.option("--failed", is_flag=True, help="All items that have failed; the default without an ID.")
@click.option("--category", metavar="NAME", help="Items that have failed with this category, such as rate_limit.")
def requeue(envelope: Envelope, arguments: tuple[str, ...], failed: bool, category: str | None, **options: Any) -> None:
    """Send failed items of RUN again.

    A run in progress sends them after its other items. If RUN is over, they are sent when the same command or program
    runs again with its store; an ID may then also name an item that has succeeded.
    """
    items = list(arguments[1:])
    if items and (failed or category is not None):
        raise click.UsageError("ids cannot be combined with --failed or --category")
    run = attach(arguments[0] if arguments else None)
    envelope.run = run.id or (arguments[0] if arguments else None)
    found = run.sync.requeue(items or None, category=category, **options)
    envelope.show(found, lambda: showing.requeued(found))


@_command("cancel", changes=True)
@click.argument("item", required=False, metavar="[ID]")
def cancel(run: AttachedRun, envelope: Envelope, item: str | None, **options: Any) -> None:
    """Cancel RUN with its requests in flight; or cancel one item.

    Finished results stay in the store, and the same command resumes from them.
    """
    found = run.sync.cancel(item, **options)
    envelope.show(found, lambda: showing.ended(found, "cancelled"))


@_command("drain", changes=True)
def drain(run: AttachedRun, envelope: Envelope, **options: Any) -> None:
    """End RUN once all requests in flight have ended; nothing more starts.

    Finished results stay in the store, and the same command resumes from them.
    """
    found = run.sync.drain(**options)
    envelope.show(found, lambda: showing.ended(found, "drained"))


@_command("wait")
@click.option(
    "--timeout",
    callback=option_values.duration,
    metavar="TIME",
    help="Maximum wait, such as 90s or 8h.",
)
def wait(run: AttachedRun, envelope: Envelope, timeout: float | None) -> int:
    """Wait until RUN is over, and exit with its exit code; 8 if its process has died."""
    try:
        info = run.sync.wait(timeout)
    except TimeoutError as error:
        envelope.fail(ControlError("not_over", str(error)))
        return NOT_OVER
    try:
        found: Any = run.sync.status()
    except ControlError:  # its store may be gone by now
        found = None
    text = f"{info['id']}: {info['state']}" if found is None else showing.progress(found)
    envelope.show({"run": info, "status": found}, lambda: text)
    if info["state"] == "died":
        return DIED
    return info["exit_code"] or 0


COMMANDS: tuple[click.Command, ...] = (
    ps, status, watch, tail, explain, cost, pause, resume, set_, requeue, cancel, drain, wait,
)  # fmt: skip
