"""The command ``batch-llm run``: its options. What it does is in ``answering``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from .._lanes import LANES
from ..errors import ArtifactError
from . import files, option_values, reading
from .answering import INTERRUPTED, answer_file
from .detach import Registration, detach
from .help import ARGUMENTS, OTHER, GroupedCommand
from .run_options import provider_of

CLOSED_PIPE = 141
"""Exit code: the reader of the output closed it."""

GROUPS = {
    "Input": ("input_format", "encoding", "delimiter", "prompt", "system", "image", "image_root", "limit"),
    "Output": ("output", "in_place", "output_format", "unordered", "report", "as_json", "quiet"),
    "Output columns": ("output_column", "column_prefix", "escape_formulas"),
    "Model": (
        "model",
        "schema",
        "temperature",
        "max_tokens",
        "base_url",
        "fallback",
        "cache_prompt",
        "tools",
        "rounds",
    ),
    "Lane": ("lane", "no_wait", "no_probe", "deadline"),
    "Limits": ("concurrency", "rpm", "tpm", "budget", "timeout", "retries", "keep_going"),
    "Storing and resuming": ("store", "store_prompts", "no_store", "force", "cache"),
    "Control": ("name", "detach"),
    OTHER: ("dry_run", "sample", "tokenizer", "simulate"),
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
@click.option("--encoding", callback=option_values.encoding, help="Text encoding of FILE.  [default: utf-8]")
@click.option("--delimiter", callback=option_values.delimiter, help="CSV delimiter, or 'tab'.  [default: a comma]")
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
    callback=option_values.text,
    help="Prompt template with column names in braces, such as 'Summarise: {text}', or @FILE to read it from a file.",
)
@click.option("-s", "--system", callback=option_values.text, help="System prompt, or @FILE to read it from a file.")
@click.option("--schema", callback=option_values.schema, metavar="FILE", help="JSON Schema that answers must match.")
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
@click.option(
    "--cache-prompt",
    type=click.Choice(["auto", "1h", "off"]),
    default="auto",
    show_default=True,
    help="The provider's prompt cache: auto marks the prefix that prompts share, if that pays off; 1h also keeps it "
    "for an hour (Anthropic); off adds nothing to requests.",
)
@click.option(
    "--base-url",
    multiple=True,
    metavar="URL",
    help="Base URL of the provider; repeat the option for several servers, which then share the load.  [default: the "
    "provider's own]",
)
@click.option(
    "--fallback",
    multiple=True,
    metavar="MODEL",
    help="Model to try if the first one refuses, is down, or cannot take the prompt; repeat the option for more.",
)
@click.option(
    "-c",
    "--concurrency",
    default="auto",
    show_default=True,
    metavar="N",
    callback=option_values.concurrency,
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
    help="live sends requests one by one; batch uses the provider's batch API, at half the price with most, and takes "
    "minutes to hours; auto does so as far as --deadline allows; flex uses the flex tier of OpenAI or Gemini, slow and "
    "at half the price.",
)
@click.option(
    "--no-wait", is_flag=True, help="End once all requests are in batches; run the same command again to collect."
)
@click.option(
    "--no-probe",
    is_flag=True,
    help="With --lane batch or auto: create batches at once, without sending the first request live to see whether "
    "such requests are answered.",
)
@click.option(
    "--deadline",
    callback=option_values.duration,
    metavar="TIME",
    help="End the run after this time: 90 (seconds), 90s, 30m or 8h. With --lane auto or flex: by when all rows should "
    "be answered.",
)
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
@click.option(
    "--store-prompts", is_flag=True, help="Store all prompts, not only those of failed rows, for `batch-llm view`."
)
@click.option("--no-store", is_flag=True, help="Do not store results; an interrupted run starts over.")
@click.option("--force", is_flag=True, help="Request every row again, even if the store has its answer.")
@click.option("--cache", metavar="FILE", help="Cache answers in FILE, and reuse them in any run.")
@click.option("--dry-run", is_flag=True, help="Estimate tokens and cost; send nothing.")
@click.option(
    "--sample",
    is_flag=True,
    help="With --dry-run: count the tokens of a sample of the rows, and print an interval. For some models, the "
    "provider counts those of up to 100 prompts, which costs nothing.",
)
@click.option(
    "--tokenizer",
    metavar="FILE",
    help="With --sample: count with this tokenizer.json, or with hf:OWNER/NAME from Hugging Face. Needs tokenizers.",
)
@click.option("--report", metavar="FILE", help="Write an HTML report to FILE. Needs memory for all results.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: the summary, to stderr; with --dry-run or --detach, to stdout."
)
@click.option("--simulate", is_flag=True, help="Use a simulated provider on this machine: no key, no cost.")
@click.option("-q", "--quiet", is_flag=True, help="Hide progress.")
@click.option(
    "--name",
    callback=option_values.name,
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
        _run(file, model, output, options | {"control": registration.options})


def _detach(file: str, output: str, options: dict[str, Any]) -> int:
    if file == files.STDOUT:
        raise click.UsageError("--detach needs a file as input: a run in the background has no stdin")
    if output == files.STDOUT and not (options["in_place"] or options["dry_run"]):
        raise click.UsageError("--detach needs -o FILE or --in-place")
    arguments = click.get_current_context().meta[ARGUMENTS]
    try:
        return detach(arguments, options["name"] or Path(file).name, as_json=options["as_json"])
    except OSError as error:
        raise click.ClickException(f"the run cannot be started in the background: {error}") from error


def _run(file: str, model: str | None, output: str, options: dict[str, Any]) -> NoReturn:
    try:
        with provider_of(options):
            code = answer_file(file, model, output, options)
    except files.ClosedPipe:
        files.silence_stdout()
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
