"""Tools for programs and language models: each calls a command with ``--json``, in a process of its own.

So a tool can do what the command can, and nothing else. ``mcp`` serves them; ``scripts/agent_docs.py`` lists them. The
docstrings are what a model reads.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, get_type_hints

from .._checks import check_known

if TYPE_CHECKING:
    from typing_extensions import Unpack

LONGEST_CALL = 120.0
"""How long a command may take, seconds; ``wait`` takes its own time."""
MOST_WAIT = 600.0
"""How long ``wait`` waits at most, seconds."""


class ToolError(Exception):
    """A command has failed; the message says why, and what to do."""


def _call(*arguments: str, seconds: float = LONGEST_CALL, fails: bool = True) -> Any:
    """Call a command, and return its data.

    Raises:
        ToolError: If it has failed, unless ``fails`` is False and it has printed data.
    """
    command = [sys.executable, "-m", "batch_llm", arguments[0], "--json", *arguments[1:]]
    try:
        done = subprocess.run(  # noqa: S603 - this program
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"`batch-llm {arguments[0]}` took longer than {seconds:g} s") from error
    except OSError as error:
        raise ToolError(f"batch-llm cannot be started: {error}") from error
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise ToolError(done.stderr.strip()[-2000:] or f"exit code {done.returncode}") from None
    if isinstance(found, dict) and "error" in found:
        raise ToolError(f"{found['error']['code']}: {found['error']['message']}")
    if done.returncode and fails:
        raise ToolError(done.stderr.strip()[-2000:] or f"exit code {done.returncode}")
    return found["data"] if isinstance(found, dict) and "data" in found else found


def _options(**given: Any) -> list[str]:
    """Options of the command line, of those that were given. In one argument each: a value may begin with a dash."""
    made = []
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            made.append(option)
        elif value not in (None, False):
            made.append(f"{option}={value}")
    return made


def _object(*arguments: str) -> dict[str, Any]:
    """Call a command whose data is an object."""
    found: dict[str, Any] = _call(*arguments)
    return found


def _named(run: str | None) -> list[str]:
    return [] if run is None else ["--", run]


def estimate(
    file: str,
    model: str,
    prompt: str | None = None,
    system: str | None = None,
    schema: str | None = None,
    max_tokens: int | None = None,
    limit: int | None = None,
    sample: bool = False,
) -> dict[str, Any]:
    """Estimate the requests, tokens and cost of a file. Generates no answers, and needs no key.

    file: JSON Lines, CSV, TSV or Parquet, with a column "prompt", "messages", "input" or "text", or others for
    `prompt`. model: such as openai:gpt-5-mini. prompt: a template with column names in braces, such as
    "Summarise: {text}". system: the system prompt. schema: path of a JSON Schema for the answers. max_tokens: of
    each answer, at most. limit: only the first rows. sample: count the tokens of a sample, and return an
    interval; where no tokenizer of the model is here, the provider counts those of up to 100 prompts, for free, which
    needs a key.
    """
    more = _options(
        model=model, prompt=prompt, system=system, schema=schema, max_tokens=max_tokens, limit=limit, sample=sample
    )
    return _object("run", *more, "--dry-run", "--", file)


class RunOptions(TypedDict, total=False):
    """What :func:`run` takes by name only."""

    prompt: str | None
    system: str | None
    schema: str | None
    max_tokens: int | None
    concurrency: int | None
    budget: float | None
    deadline: str | None
    limit: int | None
    name: str | None
    simulate: bool


def run(file: str, model: str, output: str, **options: Unpack[RunOptions]) -> dict[str, Any]:
    """Start answering the rows of a file in the background, and return the run, with its id.

    The same call again goes on where an earlier run stopped, and requests only what is missing. Look at it with
    `status`, or wait for it with `wait`; the answers are in `output` when it has ended.

    output: JSON Lines, CSV, TSV or Parquet, by its extension. budget: dollars that the run may cost. deadline: such as
    30m or 8h. concurrency: requests at the same time; by default as many as the provider takes. name: a name for it.
    simulate: answer with a simulated model, for free. The other arguments are those of `estimate`.
    """
    check_known(options, RunOptions.__annotations__, "run")
    return _object("run", *_options(model=model, output=output, **options), "--detach", "--", file)


def _name_options(tool: Callable[..., Any], options: type) -> None:
    """Have the signature of a tool name its options: the schema for models is made of it. By default, none is given."""
    own = [parameter.replace(annotation=str) for parameter in inspect.signature(tool).parameters.values()][:-1]
    kind = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(options).items()
    named = [
        inspect.Parameter(name, kind, default=False if hint is bool else None, annotation=hint) for name, hint in hints
    ]
    vars(tool)["__signature__"] = inspect.Signature([*own, *named], return_annotation=dict[str, Any])


_name_options(run, RunOptions)


def runs(past: bool = False) -> dict[str, Any]:
    """List the runs of this user that are in progress; past: finished ones too."""
    return _object("ps", *_options(all=past))


def status(run: str | None = None) -> dict[str, Any]:
    """Return the status of a run: progress, settings, tokens, cost, what it waits for, and what was changed.

    run: its id, its name, or the path of its store; may be left out where only one is on.
    """
    return _object("status", *_named(run))


def wait(run: str | None = None, seconds: float = 60.0) -> dict[str, Any]:
    """Wait until a run or the time is over, and return its status. seconds: at most 600."""
    seconds = min(max(seconds, 0.1), MOST_WAIT)
    arguments = ("wait", *_options(timeout=seconds), *_named(run))
    try:
        _call(*arguments, seconds=seconds + LONGEST_CALL, fails=False)
    except ToolError as error:
        if not str(error).startswith("not_over:"):
            raise
    return status(run)


def explain(run: str | None = None) -> dict[str, Any]:
    """Explain what limits a run, for what share of the time, and what to change."""
    return _object("explain", *_named(run))


def cost(run: str | None = None) -> dict[str, Any]:
    """Return what a run has cost, and what it will cost by the end, in dollars."""
    return _object("cost", *_named(run))


def failures(run: str | None = None, most: int = 20) -> dict[str, Any]:
    """Return the last failed items of a run, with category and error. most: how many."""
    return _object("tail", "-n", str(most), *_named(run))


def requeue(
    run: str,
    items: list[str] | None = None,
    category: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Send failed items again: at once if the run is in progress, else when the same `run` is started again.

    items: ids; by default all that have failed. category: of those, only the ones of this category, such as rate_limit.
    reason: why, for the record. dry_run: only count them.
    """
    options = _options(category=category, reason=reason, dry_run=dry_run)
    return _object("requeue", *options, "--", run, *(items or []))


def change(
    run: str,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: int | None = None,
    budget: float | None = None,
    deadline: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Change settings of a run in progress.

    concurrency: requests at the same time. rpm, tpm: requests and tokens per minute. budget: dollars for the whole run.
    deadline: when it ends, from now on, such as 30m. reason: why, for the record.
    """
    given = {"concurrency": concurrency, "rpm": rpm, "tpm": tpm, "budget": budget, "deadline": deadline}
    values = [f"{name}={value}" for name, value in given.items() if value is not None]
    return _object("set", *_options(reason=reason), "--", run, *values)


def pause(run: str, reason: str | None = None) -> dict[str, Any]:
    """Pause a run: nothing more starts until `resume`; requests in flight continue."""
    return _object("pause", *_options(reason=reason), *_named(run))


def resume(run: str, reason: str | None = None) -> dict[str, Any]:
    """Resume a run after `pause`."""
    return _object("resume", *_options(reason=reason), *_named(run))


def stop(run: str, at_once: bool = False, item: str | None = None, reason: str | None = None) -> dict[str, Any]:
    """End a run once its requests in flight have ended; at_once: cancel those too. item: cancel only this item.

    What is finished is kept; the same `run` goes on from there.
    """
    cancels = at_once or item is not None
    ids = [] if item is None else [item]
    return _object("cancel" if cancels else "drain", *_options(reason=reason), "--", run, *ids)


def collect(store: str, wait: bool = False) -> dict[str, Any]:
    """Fetch the answers of a store's half-price batches, which take hours, into the store.

    store: its path, such as results.jsonl.store.db. wait: until all batches have ended; else those that have.
    """
    return {"batches": _call("collect", *_options(no_wait=not wait), "--", store, seconds=MOST_WAIT)}


TOOLS: tuple[Callable[..., dict[str, Any]], ...] = (
    estimate, run, runs, status, wait, explain, cost, failures, requeue, change, pause, resume, stop, collect,
)  # fmt: skip
READS = frozenset({"estimate", "runs", "status", "wait", "explain", "cost", "failures"})
"""Those that change nothing."""
