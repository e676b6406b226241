"""The commands: ``run``, ``simulate``, ``models``, ``serve-limits``; see also ``viewing``, ``stores``, ``control``.

Exit codes: 0 all prompts are answered; 1 an error in the input, an option or a file; 2 invalid command line; 3 some
prompts failed; 4 the run ended early (budget, deadline, an error that affects all items); 130 interrupted (Ctrl-C,
SIGTERM).
"""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import sys
import threading
import time
from typing import Any

import click

from .. import _core  # noqa: F401 - first, so that a broken installation fails at once
from .._run import interrupts as _interrupts
from .._shown import escaped
from ..artifacts import package_version


class _Group(click.Group):
    """Escapes control characters in errors, which may come from files and servers; reports a full disk."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
                raise
            from .files import silence_stdout

            silence_stdout()  # or its buffer would fail once more when the interpreter exits
            click.echo(f"Error: the output cannot be written: {error.strerror}; free some space", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(escaped(error.format_message()), error.ctx) from error
        except click.ClickException as error:
            raise click.ClickException(escaped(error.format_message())) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_version(), "-V", "--version", prog_name="batch-llm")
def main() -> None:
    """Send many prompts to a model, as fast as the provider allows, with nothing lost.

    \b
    batch-llm run prompts.jsonl --model openai:gpt-5-mini -o results.jsonl
    batch-llm run reviews.csv -m anthropic:claude-haiku-4-5 --prompt "Is this friendly? {text}" -o rated.csv
    batch-llm inspect results.jsonl.store.db
    """  # noqa: D301 - click's mark for lines that stay as they are
    _take_terminations(click.get_current_context())


def _take_terminations(context: click.Context) -> None:
    """Handle SIGTERM as Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _interrupts.interrupt)
        context.call_on_close(lambda: signal.signal(signal.SIGTERM, before))


def _register() -> None:
    from .batches import batches, collect
    from .control import COMMANDS
    from .mcp import mcp
    from .run import run
    from .stores import COMMANDS as STORE_COMMANDS
    from .viewing import view

    main.add_command(run)
    main.add_command(view)
    main.add_command(batches)
    main.add_command(collect)
    main.add_command(mcp)
    for command in (*STORE_COMMANDS, *COMMANDS):
        main.add_command(command)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> None:
    """Start a simulated provider on this machine, for testing."""
    from ..testing.simulate import main as serve

    sys.exit(serve(list(arguments), click.get_current_context().command_path))


@main.command()
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(words: tuple[str, ...], as_json: bool) -> None:
    """List providers, and models with known prices.

    With WORDS, list only models whose names contain all of them. Other models work too, but their cost is unknown.
    """
    from .._llm import table
    from ..prices import AS_OF, PRICES

    found: dict[str, Any] = {name: price for name, price in PRICES.items() if all(word in name for word in words)}
    if as_json:
        click.echo(json.dumps({name: {"input": price.input, "output": price.output} for name, price in found.items()}))
        return
    click.echo(f"Providers: {', '.join(table())}\n")
    click.echo(f"Dollars per million tokens, list prices of {AS_OF}:")
    for name, price in found.items():
        click.echo(f"{name:<28}{price.input:>9.3f} in {price.output:>9.3f} out")


@main.command("serve-limits")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all interfaces."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on.  [default: a free port]")
@click.option("--token", envvar="BATCH_LLM_LIMITS_TOKEN", help="Token that clients must send.  [default: a random one]")
def serve_limits(host: str, port: int, token: str | None) -> None:
    """Serve shared limits to processes on several hosts.

    Runs until Ctrl-C. Prints the URL for shared_limits=. It contains the token: anyone who has it can use the server.
    Set the token in the environment variable BATCH_LLM_LIMITS_TOKEN rather than with --token, which other users of this
    host can see.
    """
    from .._boards import LimitServer

    try:
        server = LimitServer(host, port, token=token)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    with server, contextlib.suppress(KeyboardInterrupt):
        click.echo(server.url)
        while True:  # a wait without end would not see a Ctrl-C that came just before it
            time.sleep(0.2)


_register()
