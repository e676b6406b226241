"""``batch-llm run``: a file of prompts in, a file of answers out."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from .._control import checked_name
from .._lanes import LANES
from .._report import write as write_report
from .._results import BatchTermination, WorkItemResult
from .._shown import line
from ..artifacts import ResponseCache, store_at
from ..blocking import BlockingResultStream, stream
from ..core.config import ProcessorConfig, RetryConfig
from ..core.guardrails import GuardrailConfig
from ..errors import ArtifactError
from ..native import NativeStrategy, llm
from ..results import BatchResult
from ..testing import SimulatedProvider
from . import files, parquet, reading, writing
from .asking import Wanted, text_or_file
from .columns import Columns, note_down, noted
from .detach import Registration, detach
from .help import ARGUMENTS, OTHER, GroupedCommand
from .invalid_rows import InvalidRows
from .pending import PendingItems
from .tally import Tally, estimate
from .tools import tools_of

FAILED, ENDED_EARLY, INTERRUPTED, CLOSED_PIPE = 3, 4, 130, 141
_READ = f"{__name__}.read"


def _text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if value.startswith("@"):
        _remember(context, parameter, value[1:])
    return text_or_file(value)


def _remember(context: click.Context, parameter: click.Parameter, path: str) -> None:
    """Record that a file is read, so that it is not overwritten."""
    context.meta.setdefault(_READ, {})[parameter.opts[-1]] = path


def _schema(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    _remember(context, parameter, value)
    try:
        return json.loads(Path(value).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror or error}") from error
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a JSON file: {error}") from error


def _concurrency(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    if value == "auto":
        return value
    if value.isdigit() and int(value) > 0:
        return int(value)
    raise click.BadParameter("it must be a positive integer, or 'auto'")


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
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


def _encoding(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        "".encode(value)
        return codecs.lookup(value).name
    except LookupError as error:
        raise click.BadParameter(f"unknown encoding {value!r}; use utf-8, cp1252 or utf-16, for example") from error


def _delimiter(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value in ("\\t", "tab"):
        return "\t"
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter("it must be one character, or 'tab'")
    return value


def _name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else checked_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


GROUPS = {
    "Input": ("input_format", "encoding", "delimiter", "prompt", "system", "image", "image_root", "limit"),
    "Output": ("output", "in_place", "output_format", "unordered", "report", "as_json", "quiet"),
    "Output columns": ("output_column", "column_prefix", "escape_formulas"),
    "Model": ("model", "schema", "temperature", "max_tokens", "base_url", "tools", "rounds"),
    "Lane": ("lane", "no_wait", "deadline"),
    "Limits": ("concurrency", "rpm", "tpm", "budget", "timeout", "retries", "keep_going"),
    "Storing and resuming": ("store", "no_store", "force", "cache"),
    "Control": ("name", "detach"),
    OTHER: ("dry_run", "simulate"),
}


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    epilog="Exit codes: 0 all answered, 1 error, 2 invalid usage, 3 some failed, 4 ended early, 130 interrupted, "
    "141 the reader of the output closed it.",
)
@click.argument("file")
@click.option("-m", "--model", help="Model, such as openai:gpt-5-mini; `batch-llm models` lists them.")
@click.option("-o", "--output", default="-", show_default=True, metavar="FILE", help="Output file; - is stdout.")
@click.option("-i", "--in-place", is_flag=True, help="Add the answers to FILE itself, as new columns.")
@click.option(
    "--format",
    "input_format",
    type=click.Choice(reading.FORMATS),
    help="Input format.  [default: from the file extension]",
)
@click.option("--encoding", callback=_encoding, help="Text encoding of FILE.  [default: utf-8]")
@click.option("--delimiter", callback=_delimiter, help="CSV delimiter, or 'tab'.  [default: a comma]")
@click.option(
    "--output-format",
    type=click.Choice(("jsonl", "csv", "tsv", "parquet")),
    help="Output format.  [default: from the file extension]",
)
@click.option("--output-column", metavar="NAME", help="Name of the answer column.  [default: output]")
@click.option("--column-prefix", metavar="TEXT", help="Prefix for the names of the other new columns.")
@click.option("--escape-formulas", is_flag=True, help="Put an apostrophe before CSV cells that look like formulas.")
@click.option(
    "-p",
    "--prompt",
    callback=_text,
    help="Prompt template with column names in braces, such as 'Summarise: {text}', or @FILE to read it from a file.",
)
@click.option("-s", "--system", callback=_text, help="System prompt, or @FILE to read it from a file.")
@click.option("--schema", callback=_schema, metavar="FILE", help="JSON Schema that answers must match.")
@click.option("--image", metavar="COLUMN", help="Column with images: paths, https: or data: URLs.")
@click.option(
    "--image-root",
    type=click.Path(exists=True, file_okay=False),
    help="Folder that image paths are relative to.  [default: the folder of FILE]",
)
@click.option("--temperature", type=float, metavar="T", help="Sampling temperature.  [default: the provider's]")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Maximum tokens per answer.")
@click.option(
    "--tools",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="Function that the model may call, such as lookup:order_status; repeat the option for more tools. MODULE may "
    "be a .py file.",
)
@click.option(
    "--rounds", type=click.IntRange(1), metavar="N", help="Maximum requests per row with --tools.  [default: 8]"
)
@click.option("--base-url", metavar="URL", help="Base URL of the provider.  [default: the provider's own]")
@click.option(
    "-c",
    "--concurrency",
    default="auto",
    show_default=True,
    metavar="N",
    callback=_concurrency,
    help="Maximum requests in flight; auto finds the provider's limit.",
)
@click.option("--rpm", type=click.FloatRange(0, min_open=True), metavar="N", help="Maximum requests per minute.")
@click.option("--tpm", type=click.IntRange(1), metavar="N", help="Maximum tokens per minute.")
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    metavar="DOLLARS",
    help="End the run before it costs more than this.",
)
@click.option(
    "--lane",
    type=click.Choice(LANES),
    default="live",
    show_default=True,
    help="live sends requests one by one; batch puts them into the provider's batches, which cost half with most and "
    "take minutes to hours; auto does so as far as --deadline allows; flex asks for the provider's slow tier, at half "
    "the price.",
)
@click.option(
    "--no-wait", is_flag=True, help="End once all requests are in batches; run the same command again to collect."
)
@click.option("--deadline", callback=_duration, metavar="TIME", help="End the run after this time: 90, 90s, 30m or 8h.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Cancel an attempt after this time.  [default: 120; longer for streamed answers]",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    metavar="N",
    help="Retry a failed request at most N times.  [default: 2]",
)
@click.option(
    "--keep-going", is_flag=True, help="Continue even if the first requests fail because of the key or the model."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Read only the first N rows.")
@click.option("--unordered", is_flag=True, help="Write answers in completion order, not in input order.")
@click.option(
    "--store",
    metavar="FILE",
    help="Store results in FILE, so that the run can resume. A folder (its name ends in /) or s3://bucket/run "
    "can be shared by several hosts.  [default: OUTPUT.store.db]",
)
@click.option("--no-store", is_flag=True, help="Do not store results; an interrupted run starts over.")
@click.option("--force", is_flag=True, help="Request every row again, even if the store has its answer.")
@click.option("--cache", metavar="FILE", help="Cache answers in FILE, and reuse them in any run.")
@click.option("--dry-run", is_flag=True, help="Estimate tokens and cost; send nothing.")
@click.option("--report", metavar="FILE", help="Write an HTML report to FILE. Needs memory for all results.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, to stderr.")
@click.option("--simulate", is_flag=True, help="Use a simulated provider on this machine: no key, no cost.")
@click.option("-q", "--quiet", is_flag=True, help="Hide progress.")
@click.option(
    "--name",
    callback=_name,
    metavar="NAME",
    help="Name of the run, for `batch-llm status NAME`.  [default: the store's]",
)
@click.option("--detach", is_flag=True, help="Run in the background, also after the terminal is closed; print the id.")
def run(file: str, model: str | None, output: str, **options: Any) -> None:
    """Answer the prompts in FILE, and write the answers to a file.

    FILE is JSON Lines, CSV, TSV, Parquet or plain lines; - is stdin. A row's prompt is its column "prompt",
    "messages", "input" or "text", or the template --prompt filled from its columns. Files for OpenAI's Batch API work
    with any provider, and produce the Batch API's output.

    Results are stored next to the output as they arrive. Run the same command again to request only what is missing.

    \b
    batch-llm run prompts.jsonl -m openai:gpt-5-mini -o results.jsonl
    batch-llm run reviews.csv -m gemini:gemini-2.5-flash -p "Is this friendly? {text}" --schema yes-no.json -o rated.csv
    batch-llm run reviews.parquet -m openai:gpt-5-mini -p "Translate to English: {text}" --in-place
    cat questions.txt | batch-llm run - --format lines -m ollama:llama3.2 > answers.jsonl
    batch-llm run prompts.jsonl -m openai:gpt-5-mini --limit 20 --dry-run
    """  # noqa: D301 - click's mark for lines that stay as they are
    registration = Registration(options["name"])
    if options["detach"] and not registration.is_detached:
        sys.exit(_detach(file, output, options))
    with registration.exits():
        _run_and_exit(file, model, output, options | {"control": registration.options})


def _detach(file: str, output: str, options: dict[str, Any]) -> int:
    if file == files.STDOUT:
        raise click.UsageError("--detach needs a file as input: nobody can write to its stdin any more")
    if output == files.STDOUT and not (options["in_place"] or options["dry_run"]):
        raise click.UsageError("--detach needs -o FILE or --in-place")
    arguments = click.get_current_context().meta[ARGUMENTS]
    try:
        return detach(arguments, options["name"] or Path(file).name, as_json=options["as_json"])
    except OSError as error:
        raise click.ClickException(f"the run cannot be started in the background: {error}") from error


def _run_and_exit(file: str, model: str | None, output: str, options: dict[str, Any]) -> NoReturn:
    try:
        with _provider(options):
            code = _run(file, model, output, options)
    except files.ClosedPipe as error:
        error.silence()
        code = CLOSED_PIPE
    except KeyboardInterrupt:
        click.echo("Interrupted", err=True)
        code = INTERRUPTED
    except (ArtifactError, ValueError, TypeError) as error:
        raise click.ClickException(_in_options(str(error))) from error
    sys.exit(code)


def _in_options(text: str) -> str:
    """Return an error's message with options in place of the arguments of Python functions."""
    text = text.removesuffix(" (or pass api_key=...)")
    text = text.replace("needs base_url: pass base_url='http://...'", "needs --base-url http://...")
    for argument, option in (("response_model ", "--schema "), ("base_url ", "--base-url "), ("store=", "--store ")):
        if text.startswith(argument):
            text = option + text.removeprefix(argument)
    return text


def _run(file: str, model: str | None, output: str, options: dict[str, Any]) -> int:
    source = _source(file, options)
    if options["in_place"]:
        _check_in_place(file, source.kind, output, options)
        output = file
    invalid = InvalidRows()
    wanted = _wanted(model, source, invalid, options)
    if options["dry_run"]:
        estimate(wanted.items(_surveyed(source, wanted, in_place=options["in_place"])[1]), invalid)
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
    _check_files(file, output, store, options)
    report = options["report"]
    with files.kept_apart(f"--report {report}", report):
        with out.opened(mode=files.mode_beside(store), is_input=options["in_place"]) as sink:
            tally, failure = _fill(sink, source, kind, wanted, invalid, store, options)
        if tally.is_outdated:
            # Rows whose items were requeued are written already, as failed: all are written anew, from the store.
            requeued, invalid, source = tally, InvalidRows(), _source(file, options)
            wanted = _wanted(model, source, invalid, options)
            again = options | {"quiet": True, "control": False, "rewrites": True, "force": False}
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
    survey, rows = _surveyed(source, wanted, in_place=in_place)
    keep: dict[str, Any] = {}
    if store is not None:
        # Other columns do not matter: a new column does not change the request.
        keep["store"] = store_at(store, context_in_identity=False)
        keep["resume"] = "force" if options["force"] else "reuse_successes"
        if options.get("rewrites"):
            keep["resume"] = "reuse_all"
    if options["cache"]:
        keep["cache"] = ResponseCache(options["cache"], context_in_identity=False)
    if options["lane"] != "live":
        keep |= {"lane": options["lane"], "deadline": options["deadline"]}
    if options["lane"] in ("batch", "auto"):
        keep["wait"] = not options["no_wait"]
    elif options["no_wait"]:
        raise click.UsageError("--no-wait is for --lane batch and --lane auto")
    note = None
    if in_place and kind != "parquet" and store is not None:
        note = Path(f"{source.path if _has_segments(store) else store}.columns.json")
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
    tally = Tally(invalid, keeps=options["report"] is not None)
    began = time.perf_counter()
    pending = PendingItems.of(wanted.items(rows), survey.rows if source.is_file else None)
    results = stream(
        wanted.strategy or _unused,
        pending,
        config=_config(options),
        concurrency=options["concurrency"],
        progress=not options["quiet"],
        ordered=is_ordered,
        on_interrupt="return",
        control=options["control"],
        **keep,
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
        write_report(batch, path, mode)
    except OSError as error:
        raise files.problem(f"--report {path}", error) from error


def _check_files(file: str, output: str, store: str | None, options: dict[str, Any]) -> None:
    """Check before anything is sent that files can be written, and none is overwritten by mistake."""
    if options["report"] == files.STDOUT:
        raise click.UsageError("--report needs a file, such as --report run.html")
    read = None if file == files.STDOUT or options["in_place"] else file
    store = None if store is None or _has_segments(store) else store
    others = {"--store": store, "--cache": options["cache"], "--report": options["report"]}
    for name, path in {files.INPUT: read, **click.get_current_context().meta.get(_READ, {})}.items():
        files.check_apart({name: path, files.OUTPUT: output, **others})
    if output != files.STDOUT:
        files.check(output, output)
    for name, path in others.items():
        if path is not None:
            files.check(f"{name} {path}", path, is_kept=name != "--report")


def _has_segments(store: str) -> bool:
    """Whether a store is a folder or a URL, which checks itself when it is opened."""
    return "://" in store or store.endswith(("/", os.sep)) or os.path.isdir(store)


def _source(file: str, options: dict[str, Any]) -> reading.Source:
    kind = reading.format_of(file, options["input_format"])
    return reading.Source(file, kind, options["encoding"], options["delimiter"], options["limit"])


def _surveyed(
    source: reading.Source, wanted: Wanted, *, in_place: bool
) -> tuple[reading.Survey, Iterator[reading.Row]]:
    """Survey a file, before anything is sent. Return the survey and the rows."""
    survey, rows = (source.survey(), source.rows()) if source.is_file else source.started()
    if wanted.template is not None:
        survey.is_of_requests = False
    _check(survey, source, wanted, in_place=in_place)
    return survey, rows


def _check(survey: reading.Survey, source: reading.Source, wanted: Wanted, *, in_place: bool) -> None:
    """Check a file as a whole, before anything is sent."""
    if not survey.rows:
        wanted.prepare(None)
        click.echo(f"{line(source.name)} has no rows", err=True)
        return
    if wanted.strategy is None and not survey.is_of_requests:
        raise click.UsageError("--model is missing; give one, such as --model openai:gpt-5-mini")
    wanted.of_requests = survey.is_of_requests
    wanted.prepare(None if survey.is_of_requests else survey.columns)
    if in_place and survey.too_long is not None:
        raise click.ClickException(f"{survey.too_long}: --in-place cannot add columns to it")
    if in_place and not _holds_everything(source.encoding):
        raise click.UsageError(
            f"--in-place keeps the encoding of {source.name}, but {source.encoding} cannot represent every answer; "
            "give -o FILE"
        )


def _holds_everything(encoding: str) -> bool:
    try:
        "\U0001f600\u6f22\u00e9".encode(encoding)
    except UnicodeError:
        return False
    return True


@contextlib.contextmanager
def _provider(options: dict[str, Any]) -> Iterator[None]:
    """Replace the real providers by a simulated one, if requested."""
    if not options["simulate"]:
        yield
        return
    if options["base_url"]:
        raise click.UsageError("--simulate and --base-url cannot be combined")
    with SimulatedProvider(latency=0.05, latency_spread=0.1) as provider:
        simulated = provider.environment
        before = {name: os.environ.get(name) for name in simulated}
        os.environ.update(simulated)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _check_in_place(file: str, kind: str, output: str, options: dict[str, Any]) -> None:
    if file == "-" or kind == "lines" or (os.path.exists(file) and not os.path.isfile(file)):
        raise click.UsageError("--in-place needs a file with columns; give -o FILE")
    if not os.path.exists(file):
        raise click.FileError(file, "there is no such file")
    for name, given in (
        ("--output", output != "-"),
        ("--output-format", options["output_format"]),
        ("--limit", options["limit"]),
        ("--unordered", options["unordered"]),
        ("--column-prefix", options["column_prefix"]),
    ):
        if given:
            raise click.UsageError(f"--in-place and {name} cannot be combined")


async def _unused(prompt: Any) -> Any:
    """Unused: every item has its own strategy."""
    raise AssertionError(prompt)


def _wanted(model: str | None, source: reading.Source, invalid: InvalidRows, options: dict[str, Any]) -> Wanted:
    given = {
        "system_prompt": options["system"],
        "temperature": options["temperature"],
        "max_tokens": options["max_tokens"],
        "base_url": options["base_url"],
        "response_model": options["schema"],
        **tools_of(options["tools"], options["rounds"]),
        # Asked for with each request, so a dry run, which sends none, needs no key.
        "api_key": _no_key if options["dry_run"] else None,
    }
    common = {name: value for name, value in given.items() if value is not None}

    def make(own: Any, **body: Any) -> NativeStrategy[Any]:
        name = model or (own if ":" in own else f"openai:{own}")
        return llm(name, **{**common, **body})

    folder = Path() if source.path == "-" else Path(source.path).parent
    return Wanted(
        None if model is None else llm(model, **common),
        options["prompt"],
        options["image"],
        Path(options["image_root"] or folder),
        make,
        invalid.add,
    )


def _no_key() -> str:
    return ""


class _Guardrails(GuardrailConfig):
    _fail_early_off = "--keep-going"


def _config(options: dict[str, Any]) -> ProcessorConfig:
    config = ProcessorConfig()
    if options["timeout"] is not None:
        config.timeout_per_item = options["timeout"]
    if options["retries"] is not None:
        config.retry = RetryConfig(max_attempts=options["retries"] + 1)
    config.max_requests_per_minute = options["rpm"]
    if options["tpm"] is not None:
        config.max_tokens_per_minute = options["tpm"]
    config.guardrails = _Guardrails(
        max_total_cost=options["budget"],
        batch_timeout=options["deadline"] if options["lane"] == "live" else None,
        fail_early=not options["keep_going"],
    )
    return config
