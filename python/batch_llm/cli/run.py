"""``batch-llm run``: a file of prompts in, a file of answers out."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .._shown import line
from .._summary import Costs
from .._templates import Template
from ..artifacts import ResponseCache, store_at
from ..base import BatchResult, BatchTermination, LLMWorkItem, WorkItemResult
from ..blocking import BlockingResultStream, stream
from ..core.config import ProcessorConfig, RetryConfig
from ..core.guardrails import GuardrailConfig
from ..errors import ERROR_MESSAGE_LIMIT, ArtifactError
from ..native import NativeStrategy, llm
from ..prices import price_of
from ..testing import SimulatedProvider
from . import files, reading, writing
from .asking import Wanted, text_or_file
from .counting import Asked, count_rows
from .help import OTHER, GroupedCommand

FAILED, ENDED_EARLY, INTERRUPTED, CLOSED_PIPE = 3, 4, 130, 141


def _template(context: click.Context, parameter: click.Parameter, value: str | None) -> Template | None:
    try:
        return None if value is None else Template(text_or_file(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _text(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else text_or_file(value)


def _schema(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(Path(value).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value}: {error}") from error


def _concurrency(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    if value == "auto":
        return value
    if value.isdigit() and int(value) > 0:
        return int(value)
    raise click.BadParameter("it must be a number, or 'auto'")


GROUPS = {
    "Input": ("input_format", "prompt", "system", "image", "limit"),
    "Output": ("output", "in_place", "output_format", "unordered", "report", "as_json", "quiet"),
    "Model": ("model", "schema", "temperature", "max_tokens", "base_url"),
    "Limits": ("concurrency", "rpm", "tpm", "budget", "deadline", "timeout", "retries", "keep_going"),
    "Store and resuming": ("store", "no_store", "force", "cache"),
    OTHER: ("dry_run", "simulate"),
}


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    epilog="Exit codes: 0 all answered, 1 an error, 2 usage, 3 some failed, 4 ended early, 130 interrupted.",
)
@click.argument("file")
@click.option("-m", "--model", help="The model, as provider:model; openai:gpt-5-mini. See: batch-llm models")
@click.option("-o", "--output", default="-", show_default=True, metavar="FILE", help="Write answers here; - is stdout.")
@click.option("-i", "--in-place", is_flag=True, help="Add the answers to FILE itself, as new columns.")
@click.option(
    "--format", "input_format", type=click.Choice(reading.FORMATS), help="Format of FILE.  [default: by its name]"
)
@click.option(
    "--output-format",
    type=click.Choice(("jsonl", "csv", "tsv", "parquet")),
    help="Format of the output.  [default: by its name]",
)
@click.option(
    "-p", "--prompt", callback=_template, help="Template of the prompt, over columns: 'Summarise: {text}', or @FILE."
)
@click.option("-s", "--system", callback=_text, help="System prompt, or @FILE.")
@click.option("--schema", callback=_schema, metavar="FILE", help="JSON Schema that answers must fit.")
@click.option("--image", metavar="COLUMN", help="Column with paths or URLs of pictures.")
@click.option("--temperature", type=float, metavar="T", help="Randomness of answers.  [default: the provider's]")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Most tokens of an answer.")
@click.option("--base-url", metavar="URL", help="Address of the provider, if it is another than usual.")
@click.option(
    "-c",
    "--concurrency",
    default="auto",
    show_default=True,
    metavar="N",
    callback=_concurrency,
    help="Requests at the same time; auto: as many as the provider takes.",
)
@click.option("--rpm", type=float, metavar="N", help="Most requests per minute.")
@click.option("--tpm", type=int, metavar="N", help="Most tokens per minute.")
@click.option("--budget", type=float, metavar="DOLLARS", help="End the run before it costs more.")
@click.option("--deadline", type=float, metavar="SECONDS", help="End the run after this time.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up an attempt after this time.")
@click.option("--retries", type=click.IntRange(0), metavar="N", help="Send a failed request again, this often at most.")
@click.option("--keep-going", is_flag=True, help="Go on even if the first answers reject the key or the model.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Read only the first N rows.")
@click.option("--unordered", is_flag=True, help="Write answers as they come, not in the order of the rows.")
@click.option("--store", metavar="FILE", help="Keep results here, for the next time.  [default: OUTPUT.store.db]")
@click.option("--no-store", is_flag=True, help="Keep nothing: an interrupted run begins anew.")
@click.option("--force", is_flag=True, help="Ask everything again, whatever is in the store.")
@click.option("--cache", metavar="FILE", help="Take answers from this cache, which runs may share.")
@click.option("--dry-run", is_flag=True, help="Send nothing: estimate tokens and cost.")
@click.option("--report", metavar="FILE", help="Write an HTML page about the run; keeps all results in memory.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, on stderr.")
@click.option("--simulate", is_flag=True, help="Ask a simulated provider on this machine: no key, no cost.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def run(file: str, model: str | None, output: str, **options: Any) -> None:
    """Answer the prompts of FILE: JSON lines, CSV, Parquet, or plain lines; - is stdin.

    A row's prompt is its column "prompt" or "messages", or what --prompt makes of its columns. Files made for OpenAI's
    Batch API work too, with any provider, and give the Batch API's output.

    Results are kept beside the output as they come: the same command, run again, asks only what is missing.

    \b
    batch-llm run prompts.jsonl -m openai:gpt-5-mini -o results.jsonl
    batch-llm run reviews.csv -m gemini:gemini-2.5-flash -p "Is this friendly? {text}" --schema yes-no.json -o rated.csv
    batch-llm run reviews.parquet -m openai:gpt-5-mini -p "Translate to English: {text}" --in-place
    cat questions.txt | batch-llm run - --format lines -m ollama:llama3.2 > answers.jsonl
    batch-llm run prompts.jsonl -m openai:gpt-5-mini --limit 20 --dry-run
    """  # noqa: D301 - click's mark for lines that stay as they are
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
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def _run(file: str, model: str | None, output: str, options: dict[str, Any]) -> int:
    source = reading.format_of(file, options["input_format"])
    rows = reading.rows(file, source)
    in_place = options["in_place"]
    if in_place:
        _check_in_place(file, source, output, options)
        output = file
    if options["limit"]:
        rows = itertools.islice(rows, options["limit"])
    wanted = _wanted(model, options)
    if options["dry_run"]:
        _estimate(wanted.items(rows))
        return 0
    out = files.Output(output)
    kind = source if in_place else writing.format_of(output, options["output_format"], is_stream=out.is_stream)
    store = None
    if not options["no_store"]:
        store = options["store"] or (None if out.is_stream else f"{output}.store.db")
    _check_files(file, output, store, options)
    keep: dict[str, Any] = {}
    if store is not None:
        # What else is in a row does not matter: a new column is no new question.
        keep["store"] = store_at(store, context_in_identity=False)
        keep["resume"] = "force" if options["force"] else "reuse_successes"
    if options["cache"]:
        keep["cache"] = ResponseCache(options["cache"], context_in_identity=False)
    schema = reading.schema_of(file) if source == kind == "parquet" else None
    tally = Tally(options["report"] is not None)
    began = time.perf_counter()
    with out.opened(mode=files.mode_beside(store), is_input=in_place) as sink:
        # The first row is read, and so its mistakes found, before a store is opened.
        count = count_rows(file, source, options["limit"])
        asked = Asked.of(wanted.items(rows), count)
        results = stream(
            wanted.strategy or _unused,
            asked,
            config=_config(options),
            concurrency=options["concurrency"],
            progress=not options["quiet"],
            ordered=not options["unordered"],
            on_interrupt="return",
            **keep,
        )
        writer = writing.writer(sink, kind, writing.added if in_place else writing.record, schema)
        ended = _answer(results, asked, sink, writer, tally, store)
        is_final = tally.is_whole = _is_final(ended, tally, in_place)
        if is_final and ended.kind != "completed":
            for result in asked.unreached(ended, read_on=os.path.isfile(file)):
                _write(result, sink, writer)
                tally.add(result)
        elif not is_final:
            tally.expect(count)
        failure = _finish(sink, writer) if is_final or out.is_stream else None
    tally.seconds = time.perf_counter() - began
    tally.termination = ended
    unwritten = None if is_final or out.is_stream else output
    click.echo(tally.as_json() if options["as_json"] else tally.text(store, unwritten), err=True)
    if options["report"] is not None:
        _report(options["report"], tally, results.stats)
    if failure is not None:
        raise click.ClickException(failure)
    if ended.kind == "interrupted":
        return INTERRUPTED
    if ended.kind != "completed":
        return ENDED_EARLY
    return FAILED if tally.failed else 0


def _answer(
    results: BlockingResultStream[Any], asked: Asked, sink: files.Sink, writer: writing.Writer, tally: Tally, store: Any
) -> BatchTermination:
    """Write results as they come, and say why there are no more."""
    try:
        for result in results:
            asked.answered(result)
            _write(result, sink, writer)
            tally.add(result)
        return results.termination
    except KeyboardInterrupt:
        return BatchTermination("interrupted", "it was interrupted")
    except files.ClosedPipe:
        raise
    except Exception:
        if store is not None and tally.succeeded:
            click.echo(f"{tally.succeeded:,} answered before that; the same command goes on from {store}", err=True)
        raise
    finally:
        results.close()


def _is_final(ended: BatchTermination, tally: Tally, in_place: bool) -> bool:
    """Whether the output may have its name: never after an interrupt.

    A run that ended early by itself gives what it has, and rows that were not reached say so. The input is not replaced
    by that, nor is anything by a file without a single answer.
    """
    if ended.kind == "completed":
        return True
    return ended.kind != "interrupted" and not in_place and tally.succeeded > 0


def _write(result: WorkItemResult[Any, Any], sink: files.Sink, writer: writing.Writer) -> None:
    try:
        writer.write(result)
    except OSError as error:
        raise sink.failed(error) from error


def _finish(sink: files.Sink, writer: writing.Writer) -> str | None:
    try:
        writer.close()
    except OSError as error:
        raise sink.failed(error) from error
    return sink.commit()


def _report(path: str, tally: Tally, stats: Any) -> None:
    batch = BatchResult(tally.results, termination=tally.termination, stats=stats, wall_time_seconds=tally.seconds)
    try:
        batch.report(path)
    except OSError as error:
        raise files.problem(f"--report {path}", error) from error


def _check_files(file: str, output: str, store: str | None, options: dict[str, Any]) -> None:
    """Find out before anything is sent what cannot be written, or would be written over."""
    if options["report"] == files.STDOUT:
        raise click.UsageError("--report needs a file: --report run.html")
    read = None if file == files.STDOUT or options["in_place"] else file
    others = {"--store": store, "--cache": options["cache"], "--report": options["report"]}
    files.check_apart({files.INPUT: read, files.OUTPUT: output, **others})
    if output != files.STDOUT:
        files.check(output, output)
    for name, path in others.items():
        if path is not None:
            files.check(f"{name} {path}", path, is_kept=name != "--report")


@contextlib.contextmanager
def _provider(options: dict[str, Any]) -> Iterator[None]:
    """Put a provider on this machine in the place of the real ones, if that is wanted."""
    if not options["simulate"]:
        yield
        return
    if options["base_url"]:
        raise click.UsageError("--simulate and --base-url exclude each other")
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
    ):
        if given:
            raise click.UsageError(f"--in-place and {name} exclude each other")


async def _unused(prompt: Any) -> Any:
    """Every item brings its own strategy."""
    raise AssertionError(prompt)


def _wanted(model: str | None, options: dict[str, Any]) -> Wanted:
    given = {
        "system_prompt": options["system"],
        "temperature": options["temperature"],
        "max_tokens": options["max_tokens"],
        "base_url": options["base_url"],
        "response_model": options["schema"],
    }
    common = {name: value for name, value in given.items() if value is not None}

    def make(own: Any, **body: Any) -> NativeStrategy[Any]:
        name = model or (own if ":" in own else f"openai:{own}")
        return llm(name, **{**common, **body})

    return Wanted(None if model is None else llm(model, **common), options["prompt"], options["image"], make)


def _config(options: dict[str, Any]) -> ProcessorConfig:
    config = ProcessorConfig()
    if options["timeout"] is not None:
        config.timeout_per_item = options["timeout"]
    if options["retries"] is not None:
        config.retry = RetryConfig(max_attempts=options["retries"] + 1)
    config.max_requests_per_minute = options["rpm"]
    if options["tpm"] is not None:
        config.max_tokens_per_minute = options["tpm"]
    config.guardrails = GuardrailConfig(
        max_total_cost=options["budget"], batch_timeout=options["deadline"], fail_early=not options["keep_going"]
    )
    return config


def _estimate(items: Iterator[LLMWorkItem[Any, Any, Any]]) -> None:
    """Say what a run would send: by the length of prompts, and by the longest answers where those are bounded."""
    count, tokens, answers, cost, unbounded, unpriced = 0, 0.0, 0.0, 0.0, 0, 0
    for item in items:
        strategy: Any = item.strategy
        expected, longest = strategy._expect(item.prompt)[0], strategy._longest_answer()
        count, tokens, answers = count + 1, tokens + expected, answers + (longest or 0.0)
        unbounded += longest is None
        price = price_of(strategy.model)
        if price is None:
            unpriced += 1
        else:
            cost += price.of({"input_tokens": round(expected), "output_tokens": round(longest or 0)})
    click.echo(f"{count:,} requests, about {tokens:,.0f} tokens of prompts; nothing was sent")
    if unbounded < count:
        click.echo(f"at most {answers:,.0f} tokens of answers")
    bound = "prompts alone; --max-tokens bounds the answers" if unbounded else "at most, with the longest answers"
    if unpriced < count:
        click.echo(f"about ${cost:,.4f} by list prices ({bound})")
    if unpriced:
        click.echo(f"what {unpriced:,} of them cost is not known")


class Tally:
    """What came of a run, counted as it goes."""

    def __init__(self, keeps: bool) -> None:
        self.total = self.succeeded = self.not_sent = self.reused = 0
        self.tokens: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.costs = Costs()
        self.seconds = 0.0
        self.termination: Any = None
        self.is_whole = False
        """Whether every row is in the output."""
        self.results: list[WorkItemResult[Any, Any]] = []
        self._keeps = keeps

    @property
    def failed(self) -> int:
        """How many failed; what was never sent has not."""
        return self.total - self.succeeded - self.not_sent

    def add(self, result: WorkItemResult[Any, Any]) -> None:
        """Count a result."""
        self.total += 1
        self.succeeded += bool(result.success)
        self.not_sent += result.not_sent
        if not (result.success or result.not_sent):
            category = result.error_category or "unknown"
            self.errors[category] += 1
            self.examples.setdefault(category, " ".join(str(result.error).split())[:ERROR_MESSAGE_LIMIT])
        if self._keeps:
            self.results.append(result)
        if result.reused is not None:
            self.reused += 1
            return
        usage: Any = result.token_usage or {}
        for name in ("input_tokens", "output_tokens"):
            self.tokens[name] += usage.get(name) or 0
        self.costs.add(result)

    def expect(self, total: int | None) -> None:
        """Count rows that have no result as not sent, if it is known how many there are."""
        if total is not None and total > self.total:
            self.not_sent += total - self.total
            self.total = total

    def text(self, store: str | None, unwritten: str | None) -> str:
        """Say it in words.

        Args:
            store: Where results are kept.
            unwritten: The output, if the run has not come so far that there is one.
        """
        again = f" ({self.reused:,} from before)" if self.reused else ""
        lines = [f"{self.succeeded:,} of {self.total:,} answered{again} in {self.seconds:,.1f} s"]
        if any(self.tokens.values()):
            cost = "" if self.costs.unpriced and not self.costs.known else f", ${self.costs.known:,.4f} by list prices"
            lines[0] += f"; {self.tokens['input_tokens']:,} + {self.tokens['output_tokens']:,} tokens{cost}"
        for name, count in self.errors.most_common(8):
            lines.append(f"{count:,} failed: {name}, for instance: {self.examples[name]}")
        if self.termination.kind != "completed":
            lines.append(f"ended early: {self.termination.reason}")
        if self.not_sent:
            lines.append(f"{self.not_sent:,} were not sent{'; their rows say so' if self.is_whole else ''}")
        if unwritten is not None:
            lines.append(f"{unwritten} {'was left as it was' if os.path.lexists(unwritten) else 'was not written'}")
        if store is not None and (self.failed or self.termination.kind != "completed"):
            lines.append(f"The same command goes on from {store}; see: batch-llm inspect {store} --failed")
        return "\n".join(map(line, lines))

    def as_json(self) -> str:
        """Say it as JSON."""
        return json.dumps(
            {
                "total": self.total,
                "succeeded": self.succeeded,
                "failed": self.failed,
                "not_sent": self.not_sent,
                "reused": self.reused,
                "errors": dict(self.errors),
                "input_tokens": self.tokens["input_tokens"],
                "output_tokens": self.tokens["output_tokens"],
                "cost": round(self.costs.known, 6),
                "requests_without_price": self.costs.unpriced,
                "seconds": round(self.seconds, 3),
                "termination": self.termination.kind,
            }
        )
