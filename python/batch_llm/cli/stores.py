"""``inspect``, ``export``, ``diff`` and ``compact``: commands that read a store, even during a run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import click

from .._shown import escaped_json, line
from .._stored_rows import StoredItems
from .._view import Comparison, Pricing, details
from ..errors import ArtifactError
from . import exporting, files, showing_items
from .input_prompts import PROMPT_OPTIONS, prompts_of

PAGE = 2000
"""Rows of an export that are in memory at a time."""


def there(context: click.Context, parameter: click.Parameter, store: str | None) -> str | None:
    """Check that a store exists, if it is not a URL."""
    if store is None or "://" in store:
        return store
    return str(click.Path(exists=True).convert(store, parameter, context))


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turn errors of stores into errors of the command line."""
    try:
        yield
    except (ArtifactError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error


def _with_prompts(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(PROMPT_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("store", callback=there)
@click.argument("item", required=False, metavar="[ID]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--failed", is_flag=True, help="Print failed items with their prompts, as JSON Lines.")
@_with_prompts
def inspect(store: str, item: str | None, as_json: bool, failed: bool, **options: Any) -> None:
    """Summarize the results in STORE, even during a run; with an ID, show that item: prompt, answer, attempts.

    STORE is a file, a folder of segments, or the URL of such a folder: s3://bucket/prefix.
    """
    if item is not None and failed:
        raise click.UsageError("give an ID or --failed, not both")
    with readable():
        if item is not None:
            _inspect_item(store, item, as_json=as_json, options=options)
        elif failed:
            _print_failures(store, options)
        else:
            view = StoredItems(store).inspection
            if as_json:
                names = (name for name in view.__dataclass_fields__ if not name.startswith("_"))
                click.echo(json.dumps({name: getattr(view, name) for name in names}, default=str))
            else:
                click.echo(view.summary())


def _print_failures(store: str, options: dict[str, Any]) -> None:
    prompts = prompts_of(options)
    for result in StoredItems(store).inspection.failures():
        record = {"id": result.item_id, "error_category": result.error_category, "error": result.error}
        prompt = result.prompt if result.prompt is not None or prompts is None else prompts(result.item_id)
        if prompt is not None:
            record["prompt"] = prompt
        click.echo(escaped_json(json.dumps(record, ensure_ascii=False, default=str)))


def _inspect_item(store: str, item_id: str, *, as_json: bool, options: dict[str, Any]) -> None:
    found = StoredItems(store, prompts_of(options)).find(item_id)
    if not found:
        raise click.ClickException(
            f"{store} has no item {item_id!r}; `batch-llm export {store} items.csv` lists all items"
        )
    pricing = Pricing(None)
    for item in found:
        shown = details(item, pricing)
        if as_json:
            click.echo(escaped_json(json.dumps(shown, ensure_ascii=False)))
        else:
            click.echo(showing_items.item(shown))


@click.command()
@click.argument("store", callback=there)
@click.argument("target", metavar="FILE")
@click.option("--failed", is_flag=True, help="Only failed items.")
@click.option(
    "--no-escape-formulas",
    is_flag=True,
    help="Leave CSV cells that look like formulas as they are; by default they get an apostrophe.",
)
@_with_prompts
def export(store: str, target: str, failed: bool, no_escape_formulas: bool, **options: Any) -> None:
    """Write the last result of every item in STORE to FILE: .parquet, .csv or .jsonl; - is JSON Lines on stdout.

    A row has id, prompt (as far as the store has it, or --prompts), output, error, attempts, tokens, cost and times.
    Parquet needs pyarrow: pip install 'batch-llm[parquet]'.
    """
    output = files.Output(target)
    kind = _format_of(target)
    with readable():
        items = StoredItems(store, prompts_of(options))
        pricing = Pricing(None)
        count = 0
        with output.opened() as sink:
            rows: exporting.Rows
            if kind == "parquet":
                rows = exporting.Parquet(sink.file)
            elif kind == "csv":
                rows = exporting.Csv(sink.file, escape=not no_escape_formulas)
            else:
                rows = exporting.JsonLines(sink.file)

            def cost_of(item: Any) -> float | None:
                return item.cost if item.cost is not None else pricing.of(item.result)

            for page in exporting.pages(items.pages(None), cost_of, PAGE):
                chosen = [row for row in page if row["state"] == "failed"] if failed else page
                count += len(chosen)
                rows.write(chosen)
            rows.close()
            problem = sink.commit()
    if problem is not None:
        raise click.ClickException(problem)
    click.echo(f"{line(output.name)}: {count:,} rows", err=True)


def _format_of(target: str) -> str:
    for suffix in ("parquet", "csv", "jsonl"):
        if target.lower().endswith(f".{suffix}"):
            return suffix
    if target == files.STDOUT:
        return "jsonl"
    raise click.UsageError(f"{target}: unknown file type; use a name that ends in .parquet, .csv or .jsonl")


@click.command()
@click.argument("first", callback=there)
@click.argument("second", callback=there)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(first: str, second: str, as_json: bool) -> None:
    """Compare two stores: where their answers agree, by field; cost, latency and errors.

    Items are matched by their ids. Answers that are JSON objects are compared field by field.
    """
    with readable():
        comparison = Comparison(StoredItems(first), StoredItems(second))
    figures = comparison.figures
    comparison.close()
    if as_json:
        made = {"version": 1, "command": "diff", "run": None, "data": figures}
        click.echo(escaped_json(json.dumps(made, ensure_ascii=False)))
    else:
        click.echo(showing_items.comparison(figures))


@click.command()
@click.argument("segments", callback=there)
@click.argument("target", type=click.Path(exists=False, dir_okay=False))
@click.option("--delete", is_flag=True, help="Remove the segments afterwards. No run may be writing to them.")
def compact(segments: str, target: str, delete: bool) -> None:
    """Copy a store of segments into one SQLite file.

    SEGMENTS is the folder, or its URL: s3://bucket/prefix. TARGET is a new .db file; it is a store too.
    """
    from ..inspection import inspect as look

    with readable():
        try:
            records, removed = look(segments).compact(target, remove=delete)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    removal = f", {removed:,} segments removed" if delete else ""
    click.echo(f"{target}: {records:,} records{removal}")


COMMANDS: tuple[click.Command, ...] = (inspect, export, diff, compact)
