"""One file of prompts answered into one file: ``batch-llm run`` from the first row read to the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from .._lanes import BatchSettings
from .._results import BatchTermination, WorkItemResult
from .._shown import line
from .._view import BatchItems
from .._view import write as write_page
from ..artifacts import ResponseCache, store_at
from ..blocking import BlockingResultStream, stream
from ..estimates import Sampling
from ..results import BatchResult
from . import files, parquet, reading, writing
from .asking import Wanted
from .columns import Columns, note_down, noted
from .invalid_rows import InvalidRows
from .pending import PendingItems
from .run_checks import check_files, check_in_place, has_segments, surveyed
from .run_options import config_of, wanted_of
from .tally import Tally, estimate, estimate_by_sample

FAILED, ENDED_EARLY, INTERRUPTED = 3, 4, 130
"""Exit codes."""


def answer_file(file: str, model: str | None, output: str, options: dict[str, Any]) -> int:
    """Answer the rows of a file; return the exit code."""
    if options["sample"] and not options["dry_run"]:
        raise click.UsageError("--sample needs --dry-run")
    if options["tokenizer"] and not options["sample"]:
        raise click.UsageError("--tokenizer needs --dry-run --sample")
    source = _source(file, options)
    if options["in_place"]:
        check_in_place(file, source.kind, output, options)
        output = file
    invalid = InvalidRows()
    wanted = wanted_of(model, source.path, invalid, options)
    if options["dry_run"]:
        items = wanted.items(surveyed(source, wanted, in_place=options["in_place"])[1])
        if options["sample"]:
            sampling = Sampling(options["lane"], config_of(options), options["tokenizer"])
            estimate_by_sample(items, invalid, sampling, as_json=options["as_json"])
        else:
            estimate(items, invalid, as_json=options["as_json"])
        return 0
    out = files.Output(output)
    kind = (
        source.kind
        if options["in_place"]
        else writing.format_of(output, options["output_format"], is_stream=out.is_stream)
    )
    store = None
    if not options["no_store"]:
        store = options["store"] or (None if out.is_stream else f"{output}.store.db")
    if options["lane"] in ("batch", "auto") and store is None:
        raise click.UsageError(f"--lane {options['lane']} needs a store: give -o FILE, or --store FILE")
    check_files(file, output, store, options)
    report = options["report"]
    with files.reserved(f"--report {report}", report):
        with out.opened(mode=files.mode_beside(store), is_input=options["in_place"]) as sink:
            tally, failure = _fill(sink, source, kind, wanted, invalid, store, options)
        if tally.is_outdated:
            # Rows whose items were requeued are written already, as failed: all are written anew, from the store.
            requeued, invalid, source = tally, InvalidRows(), _source(file, options)
            wanted = wanted_of(model, source.path, invalid, options)
            again = options | {"quiet": True, "control": False, "resume": "reuse_all"}
            with out.opened(mode=files.mode_beside(store), is_input=options["in_place"]) as sink:
                tally, failure = _fill(sink, source, kind, wanted, invalid, store, again)
            tally.went_on_from(requeued)
        click.echo(tally.as_json() if options["as_json"] else tally.text(store), err=True)
        if report is not None:
            _report(report, tally, files.mode_beside(store))
    if failure is not None:
        raise click.ClickException(failure)
    if tally.termination.kind == "interrupted":
        return INTERRUPTED
    if tally.termination.kind == "in_batch":
        return 0 if options["no_wait"] else ENDED_EARLY
    if tally.termination.kind != "completed":
        return ENDED_EARLY
    return FAILED if tally.failed or invalid.count else 0


def _fill(
    sink: files.Sink,
    source: reading.Source,
    kind: str,
    wanted: Wanted,
    invalid: InvalidRows,
    store: str | None,
    options: dict[str, Any],
) -> tuple[Tally, str | None]:
    """Send the rows, and write their results. Return the tally, and why the output was not replaced, if so."""
    in_place = options["in_place"]
    survey, rows = surveyed(source, wanted, in_place=in_place)
    chosen: dict[str, Any] = {}
    if store is not None:
        # Other columns do not matter: a new column does not change the request.
        prompts: Literal[True, "failures"] = True if options["store_prompts"] else "failures"
        chosen["store"] = store_at(store, context_in_identity=False, include_prompt=prompts)
        chosen["resume"] = options.get("resume") or ("force" if options["force"] else "reuse_successes")
    if options["cache"]:
        chosen["cache"] = ResponseCache(options["cache"], context_in_identity=False)
    if options["lane"] != "live":
        chosen |= {"lane": options["lane"], "deadline": options["deadline"]}
    if options["lane"] in ("batch", "auto"):
        chosen["wait"] = not options["no_wait"]
        if options["no_probe"]:
            chosen["batches"] = BatchSettings(probe=False)
    else:
        for name in ("no_wait", "no_probe"):
            if options[name]:
                raise click.UsageError(f"--{name.replace('_', '-')} needs --lane batch or --lane auto")
    note = None
    if in_place and kind != "parquet" and store is not None:
        note = Path(f"{source.path if has_segments(store) else store}.columns.json")
    columns = Columns(
        in_place,
        options["output_column"],
        options["column_prefix"],
        is_table=kind != "jsonl",
        is_flat=kind != "jsonl" and options["schema"] is not None,
        before=parquet.noted(source.path) if in_place and kind == "parquet" else noted(note),
    )
    columns.notify = lambda notice: click.echo(line(notice), err=True)
    for notice in columns.choose_names(survey, source.name):
        columns.notify(notice)
    # A table is copied in its order.
    is_copied = source.kind == kind == "parquet" and not columns.of_requests
    is_ordered = is_copied or not options["unordered"]
    source.wanted = wanted.needed if is_copied else None
    writer = writing.maker(kind, columns, source, options["schema"], escape=options["escape_formulas"])(
        sink.file, sink.folder
    )
    tally = Tally(invalid, stores=options["report"] is not None)
    began = time.perf_counter()
    pending = PendingItems.of(wanted.items(rows), survey.rows if source.is_file else None)
    results = stream(
        wanted.strategy or _unused,
        pending,
        config=config_of(options),
        concurrency=options["concurrency"],
        progress=not options["quiet"],
        ordered=is_ordered,
        on_interrupt="return",
        control=options["control"],
        **chosen,
    )

    def put(result: WorkItemResult[Any, Any]) -> None:
        row: Any = result.context
        with sink.naming:
            for other in invalid.before(row.number if is_ordered else None):
                writer.write(other, None)
            writer.write(row, result)
        tally.add(result)

    tally.termination = _answer(results, pending, put, tally, store)
    tally.stats = results.stats
    if sink.is_stream:
        for result in tally.requeued:
            put(result)
    elif (
        any(result.success for result in tally.requeued)
        and tally.termination.kind == "completed"  # else rows would be sent that this run could not send
        and source.is_file
        and store is not None
    ):
        invalid.close()
        tally.seconds, tally.is_outdated = time.perf_counter() - began, True
        return tally, None
    is_final = tally.is_whole = _is_final(tally, in_place)
    if is_final and tally.termination.kind != "completed":
        for result in pending.unreached(tally.termination, read_on=source.is_file):
            put(result)
    elif not is_final and source.is_file:
        tally.expect(survey.rows)
    failure = None
    if is_final or sink.is_stream:
        with sink.naming:
            for other in invalid.before(None):
                writer.write(other, None)
            writer.close()
        failure = sink.commit()
        if note is not None and failure is None:
            note_down(note, columns)
    else:
        tally.unwritten = sink.name
    invalid.close()
    tally.seconds = time.perf_counter() - began
    return tally, failure


async def _unused(prompt: Any) -> Any:
    """Unused: every item has its own strategy."""
    raise AssertionError(prompt)


def _answer(
    results: BlockingResultStream[Any],
    pending: PendingItems,
    put: Callable[[WorkItemResult[Any, Any]], None],
    tally: Tally,
    store: str | None,
) -> BatchTermination:
    """Take results as they come, and return why the run ended."""
    try:
        for result in results:
            if pending.answered(result):
                put(result)
            else:
                tally.requeued.append(result)
        return results.termination
    except KeyboardInterrupt:
        return BatchTermination("interrupted", "the run was interrupted")
    except files.ClosedPipe:
        raise
    except Exception:
        if store is not None and tally.succeeded:
            click.echo(
                f"{tally.succeeded:,} rows were answered; to resume from {store}, run the same command again", err=True
            )
        raise
    finally:
        results.close()


def _is_final(tally: Tally, in_place: bool) -> bool:
    """Whether the output is written: never after an interrupt.

    A run that ended early by itself writes what it has, with an error in rows that were not reached. It never replaces
    the input, and it replaces nothing without a single answer.
    """
    kind = tally.termination.kind
    return kind == "completed" or (kind not in ("interrupted", "in_batch") and not in_place and tally.succeeded > 0)


def _report(path: str, tally: Tally, mode: int) -> None:
    batch = BatchResult(
        tally.results, termination=tally.termination, stats=tally.stats, wall_time_seconds=tally.seconds
    )
    try:
        write_page(BatchItems(batch), path, mode)
    except OSError as error:
        raise files.problem(f"--report {path}", error) from error


def _source(file: str, options: dict[str, Any]) -> reading.Source:
    kind = reading.format_of(file, options["input_format"])
    return reading.Source(file, kind, options["encoding"], options["delimiter"], options["limit"])
